//! What to check, how often, and how many results it takes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// One check of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckConfig {
    /// Its name in reports; unique among the checks of a node.
    pub name: String,
    /// What is checked.
    pub kind: CheckKind,
    /// From the beginning of one run to the next; a run that takes longer delays the next one.
    pub interval: Duration,
    /// Bound on a whole run, name lookup and connect included.
    pub timeout: Duration,
    /// Successes in a row that bring it up.
    pub rise: u32,
    /// Failures in a row that bring it down.
    pub fall: u32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp {
        /// `host:port`, `[::1]:port`.
        address: String,
    },
    /// `GET` over HTTP/1.1 answers with an expected status; each tenth over a new connection. Redirects are not followed.
    Http {
        /// An `http://` URL.
        url: String,
        /// Status codes that count as up; usually [`CheckKind::DEFAULT_STATUS`].
        expect_status: RangeInclusive<u16>,
        /// The `Host` header, if not the URL's own host.
        host: Option<String>,
    },
    /// `grpc.health.v1.Health/Check` on a new plaintext connection answers `SERVING`.
    Grpc {
        /// `host:port`.
        address: String,
        /// The service asked for; empty for the server as a whole.
        service: String,
    },
    /// A command exits with 0. It runs in a process group of its own, and what is left of the group when it ends or
    /// times out is killed.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
    /// A process is running (and not a zombie).
    Process {
        /// Which process.
        selector: ProcessSelector,
    },
}

impl CheckKind {
    /// Status codes that count as up if nothing else is said.
    pub const DEFAULT_STATUS: RangeInclusive<u16> = 200..=399;
}

/// How the process is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessSelector {
    /// Its id stands in this file.
    PidFile(PathBuf),
    /// Its command name (`/proc/<pid>/comm`, at most 15 bytes) or the file name of its first argument is this.
    Name(String),
    /// Its command line, joined with spaces, contains this.
    CommandLine(String),
}

/// Why a check cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum CheckConfigError {
    /// Two checks have one name.
    #[error("check {0:?}: the name is used twice")]
    DuplicateName(String),
    /// The process has no file descriptor left for its timer.
    #[error("check {name:?}: making its timer")]
    Timer {
        /// The check.
        name: String,
        /// The kernel's word.
        #[source]
        cause: std::io::Error,
    },
    /// Interval or timeout is zero.
    #[error("check {name:?}: {setting} must be above zero")]
    Zero {
        /// The check.
        name: String,
        /// `interval` or `timeout`.
        setting: &'static str,
    },
    /// An address without a host or a port.
    #[error("check {name:?}: {address:?} is not host:port")]
    Address {
        /// The check.
        name: String,
        /// The address as given.
        address: String,
    },
    /// A URL that is not `http://host[:port][/path]`.
    #[error("check {name:?}: {url:?} is not an http:// URL")]
    Url {
        /// The check.
        name: String,
        /// The URL as given.
        url: String,
    },
    /// A `Host` header with forbidden characters.
    #[error("check {name:?}: {host:?} cannot be a Host header")]
    Host {
        /// The check.
        name: String,
        /// The header as given.
        host: String,
    },
    /// No status would ever be accepted.
    #[error("check {name:?}: the range of expected statuses is empty")]
    EmptyStatusRange {
        /// The check.
        name: String,
    },
    /// A command without a program, or a process without a name.
    #[error("check {name:?}: {setting} must not be empty")]
    Empty {
        /// The check.
        name: String,
        /// The empty setting.
        setting: &'static str,
    },
}

/// Refuses names used twice and times of zero; the rest is refused by the probes as they are made.
pub(super) fn check_common(configs: &[CheckConfig]) -> Result<(), CheckConfigError> {
    let mut names = BTreeSet::new();
    for config in configs {
        if !names.insert(&config.name) {
            return Err(CheckConfigError::DuplicateName(config.name.clone()));
        }
        for (setting, span) in [("interval", config.interval), ("timeout", config.timeout)] {
            if span.is_zero() {
                return Err(CheckConfigError::Zero { name: config.name.clone(), setting });
            }
        }
    }
    Ok(())
}
