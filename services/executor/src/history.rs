//! What steps took before, for predictions: a small file in the state directory. Losing it costs a prediction, nothing
//! else, so nothing waits for it and a full disk is only reported.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::plan::Durations;

/// Runs remembered per step: enough for a median that one odd run does not move.
const REMEMBERED: usize = 21;

/// Durations of earlier steps, nanoseconds per step name.
#[derive(Debug, Default)]
pub struct History {
    path: PathBuf,
    steps: BTreeMap<String, VecDeque<u64>>,
}

impl History {
    /// Reads the file; a missing or broken one is an empty history.
    pub fn read(state_dir: &Path) -> Self {
        let path = state_dir.join("steps.json");
        let read = std::fs::read(&path).ok();
        let steps = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, steps }
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

    /// Writes the file anew, by a rename, so that a reader never sees half of one.
    pub fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = self.path.with_extension("json.new");
        std::fs::write(&new, serde_json::to_vec(&self.steps)?)?;
        std::fs::rename(new, &self.path)
    }
}
