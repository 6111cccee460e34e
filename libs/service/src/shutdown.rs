//! SIGTERM and SIGINT to a token that every task waits for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process at once with `code`: whoever sends
/// it does not want to wait for a hand-over.
///
/// # Errors
/// When the kernel refuses a signal handler. Needs a Tokio runtime.
pub fn on_signals(code: i32) -> io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        let name = next(&mut term, &mut int).await;
        tracing::info!(signal = name, "shutting down");
        shutdown.cancel();
        let name = next(&mut term, &mut int).await;
        tracing::warn!(signal = name, "second signal: ending at once");
        std::process::exit(code);
    });
    Ok(token)
}

async fn next(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
