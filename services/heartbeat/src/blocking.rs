//! Calls that block in the kernel, one at a time.

use tokio::task::{JoinError, JoinHandle};

/// Runs blocking work on the runtime's blocking threads, never a second piece while the first is stuck.
///
/// A timeout drops the future that waits, not the thread that works. Without this, a name server or a file
/// system that hangs would cost one more thread with every check.
#[derive(Debug)]
pub(crate) struct Blocking<T> {
    running: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Blocking<T> {
    pub(crate) fn new() -> Self {
        Self { running: None }
    }

    /// Waits for an earlier call that was given up on, drops its result, then runs `work`. Cancel safe.
    pub(crate) async fn run(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        if let Some(earlier) = &mut self.running {
            drop(earlier.await);
        }
        let running = self.running.insert(tokio::task::spawn_blocking(work));
        let result = running.await;
        self.running = None;
        result
    }
}
