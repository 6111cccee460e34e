//! Why a run of a check failed.

use std::error::Error;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::process::ExitStatus;
use std::time::Duration;

/// Longest reason, characters. Each travels in every heartbeat, twice while its check is down, and a heartbeat that is
/// larger than seats take would end the lease.
pub(super) const MAX_REASON: usize = 256;

/// One failed run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{step} {target}")]
    Step {
        step: &'static str,
        target: String,
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("status {status}, expected {} to {}", .expected.start(), .expected.end())]
    Status { status: u16, expected: RangeInclusive<u16> },
    #[error("service {service:?} is {status}")]
    NotServing { service: String, status: &'static str },
    #[error("{status}{}{output}", if .output.is_empty() { "" } else { ": " })]
    Exit { status: ExitStatus, output: String },
    #[error("wrote more than {0} bytes")]
    TooMuchOutput(usize),
    #[error("{0} holds no process id")]
    NoPid(String),
    #[error("process {0} does not run")]
    NotRunning(i32),
    #[error("no process {0:?} runs")]
    NoSuchProcess(String),
}

impl Failure {
    /// A step that failed on `target` with its cause.
    pub(super) fn step(
        step: &'static str,
        target: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Step { step, target: target.into(), cause: cause.into() }
    }

    /// The failure and its causes in one line of at most [`MAX_REASON`] characters.
    pub(super) fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut said = reason.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Several libraries print their source as well as returning it.
            if !said.contains(&text) {
                let _ = write!(reason, ": {text}");
            }
            said = text;
            cause = error.source();
        }
        let plain = reason.chars().map(|char| if char.is_control() { ' ' } else { char });
        plain.take(MAX_REASON).collect()
    }
}
