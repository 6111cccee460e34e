//! Whether the demo was interrupted: then what fails fails because everything is being taken away, and is not told.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes the signals that [`crate::Cleanup`] acts on.
///
/// # Errors
/// When the handlers cannot be set.
pub(super) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("making the runtime that notes signals")?;
    let mut signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<std::io::Result<Vec<_>>>()?
    };
    let wait = move || {
        runtime.block_on(async {
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
        });
        INTERRUPTED.store(true, Ordering::SeqCst);
    };
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(wait).context("starting a thread")?;
    Ok(())
}

/// Returns unless the demo was interrupted; then it waits for the end of the process, which the cleaning up brings.
pub(super) fn hold() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
