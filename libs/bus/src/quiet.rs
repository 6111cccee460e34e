//! Keeps a log line that a flood could repeat down to one every ten seconds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines of one site: a person reading along is told, a flood of bad messages cannot fill a disk.
const PAUSE: Duration = Duration::from_secs(10);

/// One site that logs.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Quiet {
    /// `Some` when a line may be written now: how many were held back since the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < PAUSE) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_a_flood_passes() {
        let quiet = Quiet::default();
        assert_eq!(quiet.pass(), Some(0));
        assert_eq!(quiet.pass(), None);
    }
}
