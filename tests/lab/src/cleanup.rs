use std::process;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::net::remove_all;

/// Exit status of a shell command ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Cleans up on SIGINT, SIGTERM and SIGHUP: kills what runs in this process's networks, removes their namespaces
/// and folders, and exits with status 130.
///
/// Handlers, not a blocked signal mask: children would inherit a mask, and then nobody could terminate them.
#[derive(Debug)]
pub struct Cleanup(());

impl Cleanup {
    /// Watches for the signals from now on, for the rest of the process's life.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn install() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("making the runtime that waits for signals")?;
        let mut signals = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new()
            .name("cleanup".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = signals.0.recv() => {}
                        _ = signals.1.recv() => {}
                        _ = signals.2.recv() => {}
                    }
                });
                let count = remove_all();
                eprintln!("interrupted: {count} network(s) removed");
                process::exit(INTERRUPTED);
            })
            .context("starting the thread that waits for signals")?;
        Ok(Self(()))
    }
}
