//! Runs hooks: a command with a timeout, told by its environment what it is run for.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{io::AsyncReadExt as _, process::Command};
use understudy_service::config::Hook;
use understudy_wire::{Epoch, GroupId, NodeId, Slot};

/// What is kept of a hook's output to explain a failure, bytes: the last lines of any sensible script.
const OUTPUT_MAX: usize = 4 * 1024;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("starting {command}")]
    Start {
        /// The program.
        command: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{command} ended with {status}: {output}")]
    Failed {
        /// The program.
        command: String,
        /// Exit status or signal.
        status: String,
        /// Last lines of its output.
        output: String,
    },
    /// It was killed at its timeout.
    #[error("{command} was killed after {timeout:?}")]
    TimedOut {
        /// The program.
        command: String,
        /// Its timeout.
        timeout: Duration,
    },
}

/// What a hook is told: `UNDERSTUDY_GROUP`, `_NODE`, `_SLOT`, `_EPOCH` (a fencing token), `_VIPS` (comma-separated),
/// `_STEP`.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// Group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Slot.
    pub slot: Slot,
    /// Epoch of the tenure that begins or ends.
    pub epoch: Epoch,
    /// VIPs of the slot.
    pub vips: String,
    /// Which hook.
    pub step: &'static str,
}

/// Kills the whole group of a hook when it is dropped before it has ended: on a timeout, and when the tenure that it
/// runs for is over.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

fn keep_last(output: &mut Vec<u8>, chunk: &[u8]) {
    output.extend_from_slice(chunk);
    let excess = output.len().saturating_sub(OUTPUT_MAX);
    output.drain(..excess);
}

/// Runs `hook` to its end.
pub async fn run(hook: &Hook, occasion: &Occasion) -> Result<(), HookError> {
    let program = hook.command.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command
        .args(hook.command.iter().skip(1))
        .env("UNDERSTUDY_GROUP", occasion.group.as_str())
        .env("UNDERSTUDY_NODE", occasion.node.as_str())
        .env("UNDERSTUDY_SLOT", occasion.slot.to_string())
        .env("UNDERSTUDY_EPOCH", occasion.epoch.to_string())
        .env("UNDERSTUDY_VIPS", &occasion.vips)
        .env("UNDERSTUDY_STEP", occasion.step)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|source| HookError::Start { command: program.clone(), source })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.map(Pid::from_raw));
    let mut errors = child.stderr.take();
    let mut output = Vec::new();
    let ended = tokio::time::timeout(hook.timeout, async {
        let mut chunk = [0; 512];
        // The hook is over when its process ends, even if a daemon that it started still holds the pipe.
        while let Some(pipe) = &mut errors {
            tokio::select! {
                biased;
                read = pipe.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => errors = None,
                    Ok(length) => keep_last(&mut output, &chunk[..length]),
                },
                status = child.wait() => return status,
            }
        }
        child.wait().await
    })
    .await;
    match ended {
        Ok(Ok(status)) => {
            group.0 = None;
            if status.success() {
                return Ok(());
            }
            let output = String::from_utf8_lossy(&output).trim().to_owned();
            Err(HookError::Failed { command: program, status: status.to_string(), output })
        }
        Ok(Err(source)) => Err(HookError::Start { command: program, source }),
        Err(_) => Err(HookError::TimedOut { command: program, timeout: hook.timeout }),
    }
}
