//! The file that a run leaves behind: one JSON object a line, in no order. All times are CLOCK_BOOTTIME nanoseconds.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schedule::Fault;
use crate::{Moment, Sample};

/// Who asks, where it is not a node's watcher.
pub(super) const CLIENT: &str = "client";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// The run begins; the two clocks at one instant, to place the times that events carry.
    Begin { at: u64, wall_ns: u64, seed: u64, faults: usize },
    /// A fault was begun.
    Struck { at: u64, fault: Fault },
    /// A fault was healed.
    Mended { at: u64, number: usize },
    /// Every fault of a round was healed.
    Healed { at: u64, round: usize },
    /// The next round begins, or the run ends: nothing was done in between.
    Resumed { at: u64, round: usize },
    /// A process was found to have ended although no fault ended it.
    Ended { at: u64, process: String },
    /// What a process has written about a panic in it.
    Panicked { process: String, text: String },
    /// A question for the slot's address and its answer. `by` is the client, or the node that its watcher asked;
    /// questions of one `probe` with the same `tick` were asked in the same millisecond.
    Answer { slot: u32, probe: usize, tick: usize, by: String, node: String, sent: u64, received: u64 },
    /// An event as a plain subscriber of one server got it.
    Event { at: u64, via: String, subject: String, headers: BTreeMap<String, String>, body: Value },
    /// The TXT records beside the managed name, as the name server gave them; none: it did not answer.
    Dns { at: u64, records: Option<Vec<String>> },
    /// The run has ended, and nothing is missing above.
    End { at: u64 },
}

impl Line {
    /// The beginning of a run, now.
    pub(super) fn begin(seed: u64, faults: usize) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Self::Begin { at: Moment::now().nanos(), wall_ns, seed, faults }
    }
}

/// Writes lines, from any thread.
#[derive(Debug)]
pub(super) struct Writer(Mutex<BufWriter<File>>);

impl Writer {
    /// Makes the file anew.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(Mutex::new(BufWriter::new(file))))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn add<L: Serialize>(&self, line: &L) -> Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_writer(&mut *file, line).context("writing a line")?;
        file.write_all(b"\n").context("writing a line")
    }

    /// Adds what one asker of a probe was answered.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub(super) fn add_answers(&self, slot: u32, probe: usize, by: &str, samples: &[Sample]) -> Result<()> {
        let answered = samples.iter().filter_map(|sample| Some((sample, sample.answer.as_ref()?)));
        for (sample, answer) in answered {
            let (tick, sent, received) = (sample.tick, sample.sent.nanos(), answer.received.nanos());
            let (by, node) = (by.to_owned(), answer.node.to_string());
            self.add(&Line::Answer { slot, probe, tick, by, node, sent, received })?;
        }
        Ok(())
    }

    /// Everything that was added is in the file when this returns.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn flush(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush().context("writing the history")
    }
}

/// Hands each line of a file to `take`.
///
/// # Errors
/// When the file cannot be read, or a line is none of [`Line`]; names it.
pub(super) fn read(path: &Path, mut take: impl FnMut(Line)) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let parsed = serde_json::from_str(&line);
        take(parsed.with_context(|| format!("{}, line {number}: {line}", path.display()))?);
    }
    Ok(())
}
