//! Memory and open files of processes over a run, and whether they stay what they were.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::history::Writer;
use crate::{Deployment, Moment};

/// Between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// What a process gathers in its first minute is its working set: caches, connections, buffers that have grown.
const WARM: Duration = Duration::from_secs(60);
/// The medians of two spans of this length are compared: the first one after [`WARM`] and the last one.
const SPAN: Duration = Duration::from_secs(60);
/// Open files that may come and go: a connection to each of seven peers that is being made anew.
const FILES: u64 = 8;
/// Memory that may be more at the end: what an allocator keeps in another arena after a burst.
const MEMORY_KB: u64 = 2_048;

/// One look at one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    /// CLOCK_BOOTTIME nanoseconds.
    pub(super) at: u64,
    /// The process.
    pub(super) name: String,
    /// Its id: another one is another process.
    pub(super) pid: u32,
    /// Resident memory (VmRSS), KiB.
    pub(super) rss_kb: u64,
    /// The most that it ever was (VmHWM), KiB.
    pub(super) peak_kb: u64,
    /// Open file descriptors.
    pub(super) files: u64,
    /// Threads.
    pub(super) threads: u64,
}

/// Looks at all processes of a deployment.
#[derive(Debug)]
pub(super) struct Resources {
    file: PathBuf,
    writer: Writer,
    looks: Vec<Look>,
}

impl Resources {
    /// Writes its looks into this file, made anew.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn create(file: &Path) -> Result<Self> {
        Ok(Self { file: file.to_owned(), writer: Writer::create(file)?, looks: Vec::new() })
    }

    /// Looks at every process that runs.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn look(&mut self, deployment: &Deployment) -> Result<()> {
        let at = Moment::now().nanos();
        for process in deployment.processes() {
            // One that was just ended has no page to read.
            let Some(look) = look(at, process.name(), process.pid()) else { continue };
            self.writer.add(&look)?;
            self.looks.push(look);
        }
        Ok(())
    }

    /// What came of each process that lived from the first minute to the end.
    ///
    /// # Errors
    /// When the disk refuses the file, or the run was long enough and no process lived through it.
    pub(super) fn finish(self) -> Result<Vec<Growth>> {
        self.writer.flush().with_context(|| format!("writing {}", self.file.display()))?;
        let growth = growth(&self.looks);
        let comparable = span_of(&self.looks) >= WARM + 2 * SPAN;
        ensure!(!comparable || !growth.is_empty(), "no process lived through the run: nothing to compare");
        Ok(growth)
    }
}

fn look(at: u64, name: &str, pid: u32) -> Option<Look> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Look {
        at,
        name: name.to_owned(),
        pid,
        // A process that has ended and was not waited for has no memory.
        rss_kb: field("VmRSS")?,
        peak_kb: field("VmHWM")?,
        files: u64::try_from(files).unwrap_or(u64::MAX),
        threads: field("Threads")?,
    })
}

/// Medians of one process, of the first span after it was warm and of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The process.
    pub name: String,
    /// Resident memory, KiB.
    pub rss_kb: (u64, u64),
    /// Open file descriptors.
    pub files: (u64, u64),
    /// Threads.
    pub threads: (u64, u64),
}

impl Growth {
    /// Whether it grew by more than comes and goes: a tenth of its memory and [`MEMORY_KB`], or [`FILES`].
    pub fn leaks(&self) -> bool {
        let ((rss, rss_after), (files, files_after)) = (self.rss_kb, self.files);
        rss_after > rss + rss / 10 + MEMORY_KB || files_after > files + FILES
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rss_kb: (rss, rss_after), files: (files, files_after), threads } = self;
        let (threads, threads_after) = threads;
        write!(
            f,
            "{name}: memory {rss} to {rss_after} KiB, open files {files} to {files_after}, threads {threads} to \
             {threads_after}"
        )
    }
}

fn span_of(looks: &[Look]) -> Duration {
    let ends = looks.first().zip(looks.last());
    ends.map_or(Duration::ZERO, |(first, last)| Duration::from_nanos(last.at - first.at))
}

fn growth(looks: &[Look]) -> Vec<Growth> {
    let (Some(begin), Some(end)) = (looks.first(), looks.last()) else { return Vec::new() };
    if span_of(looks) < WARM + 2 * SPAN {
        return Vec::new();
    }
    let span = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let warm = begin.at + span(WARM);
    let (early, late) = (warm + span(SPAN), end.at - span(SPAN));
    let mut lives: BTreeMap<(&str, u32), Vec<&Look>> = BTreeMap::new();
    for look in looks {
        lives.entry((&look.name, look.pid)).or_default().push(look);
    }
    let whole = |life: &&Vec<&Look>| {
        life.first().is_some_and(|look| look.at <= warm) && life.last().is_some_and(|look| look.at == end.at)
    };
    let of = |life: &Vec<&Look>| {
        let median = |field: fn(&Look) -> u64, from: u64, to: u64| {
            let within = life.iter().filter(|look| (from..=to).contains(&look.at));
            let mut values: Vec<u64> = within.map(|look| field(look)).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let both = |field| (median(field, warm, early), median(field, late, end.at));
        Growth {
            name: life[0].name.clone(),
            rss_kb: both(|look| look.rss_kb),
            files: both(|look| look.files),
            threads: both(|look| look.threads),
        }
    };
    lives.values().filter(whole).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of one process every two seconds for five minutes.
    fn life(rss_kb: impl Fn(u64) -> u64, files: impl Fn(u64) -> u64, pid: impl Fn(u64) -> u32) -> Vec<Look> {
        let looks = (0..=300).step_by(2).map(|second| Look {
            at: 1_000_000_000 * (1_000 + second),
            name: "detector-3".to_owned(),
            pid: pid(second),
            rss_kb: rss_kb(second),
            peak_kb: 90_000,
            files: files(second),
            threads: 3,
        });
        looks.collect()
    }

    #[test]
    fn what_grows_in_the_first_minute_only_does_not_leak() {
        let found = growth(&life(|second| 10_000 + 400 * second.min(60), |_| 30, |_| 7));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rss_kb, found[0].files), ((34_000, 34_000), (30, 30)));
        assert!(!found[0].leaks());
    }

    #[test]
    fn memory_and_files_that_grow_leak() {
        // 50 KiB a second are 9 MiB from one median to the other.
        assert!(growth(&life(|second| 20_000 + 50 * second, |_| 30, |_| 7))[0].leaks());
        assert!(growth(&life(|_| 20_000, |second| 30 + second / 10, |_| 7))[0].leaks());
        assert!(!growth(&life(|_| 20_000, |second| 30 + second % 3, |_| 7))[0].leaks());
    }

    #[test]
    fn a_process_that_was_started_anew_is_not_compared() {
        assert_eq!(growth(&life(|_| 1, |_| 1, |second| if second < 200 { 7 } else { 8 })), []);
    }

    #[test]
    fn a_run_too_short_to_compare_is_not_judged() {
        let looks = life(|_| 1, |_| 1, |_| 7);
        assert_eq!(growth(&looks[..80]), []);
        assert_eq!(growth(&[]), []);
    }
}
