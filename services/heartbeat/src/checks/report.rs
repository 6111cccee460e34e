//! What the checks have found.

use std::time::Duration;

/// The state of all checks of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Every check is up; true without checks. False while one is pending: see [`HealthReport::settled`].
    pub healthy: bool,
    /// One entry a check, in the order of the config.
    pub checks: Vec<CheckReport>,
}

impl HealthReport {
    /// Every check has given a result.
    pub fn settled(&self) -> bool {
        self.checks.iter().all(|check| check.state != CheckState::Pending)
    }

    /// Checks that are down.
    pub fn failing(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks.iter().filter(|check| check.state == CheckState::Down)
    }
}

/// The state of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Its name in the config.
    pub name: String,
    /// What is believed after rise and fall counts.
    pub state: CheckState,
    /// Why the latest run failed, in one line; `None` if it succeeded.
    pub reason: Option<String>,
    /// How long the latest run took; `None` before the first.
    pub latency: Option<Duration>,
    /// When the state began: nanoseconds of this host's `CLOCK_BOOTTIME`.
    pub since_ns: u64,
}

impl CheckReport {
    /// Whether the check is up.
    pub fn up(&self) -> bool {
        self.state == CheckState::Up
    }
}

/// What is believed of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    /// No result yet.
    Pending,
    /// It succeeds.
    Up,
    /// It fails.
    Down,
}
