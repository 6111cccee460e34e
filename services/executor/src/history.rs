//! What steps took before, for predictions: a small file in the state directory. Losing it costs a prediction, nothing
//! else, so nothing waits for it: a disk that is full is only reported, one that hangs holds up a thread of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;

use crate::plan::Durations;

/// Runs remembered per step: enough for a median that one odd run does not move.
const REMEMBERED: usize = 21;

/// Durations of earlier steps, nanoseconds per step name.
#[derive(Debug, Default)]
pub struct History {
    path: PathBuf,
    steps: BTreeMap<String, VecDeque<u64>>,
    writing: Option<JoinHandle<()>>,
}

impl History {
    /// Reads the file; a missing or broken one is an empty history.
    pub fn read(state_dir: &Path) -> Self {
        let path = state_dir.join("steps.json");
        let read = std::fs::read(&path).ok();
        let steps = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, steps, writing: None }
    }

    /// Remembers what a step took.
    pub fn add(&mut self, step: &str, took: Duration) {
        let runs = self.steps.entry(step.to_owned()).or_default();
        runs.truncate(REMEMBERED - 1);
        runs.push_front(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Median per step.
    pub fn durations(&self) -> Durations {
        let median = |runs: &VecDeque<u64>| {
            let mut runs: Vec<_> = runs.iter().copied().collect();
            runs.sort_unstable();
            runs.get(runs.len() / 2).copied().map(Duration::from_nanos)
        };
        self.steps.iter().filter_map(|(step, runs)| Some((step.clone(), median(runs)?))).collect()
    }

    /// Writes the file beside the loop, one write at a time: what comes while one hangs is left to the next.
    pub fn write(&mut self) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            tracing::warn!("durations of steps are not kept: the disk still hangs over the last ones");
            return;
        }
        let (path, text) = (self.path.clone(), serde_json::to_vec(&self.steps));
        let work = move || {
            if let Err(error) = text.map_err(anyhow::Error::from).and_then(|text| replace(&path, &text)) {
                tracing::warn!(cause = format!("{error:#}"), "durations of steps are not kept");
            }
        };
        // Not a task of the runtime, whose end would wait for it.
        match Builder::new().name("history".to_owned()).spawn(work) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::warn!(%error, "durations of steps are not kept"),
        }
    }
}

/// Writes a file anew, by a rename, so that a reader never sees half of one.
fn replace(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let new = path.with_extension("json.new");
    std::fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("renaming {}", new.display()))
}
