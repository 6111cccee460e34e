//! Every kind of check against real servers and processes on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod exec;
mod grpc;
mod http;
mod process;
mod runner;
mod tcp;

use std::time::Duration;

use tokio::sync::watch;
use understudy_heartbeat::checks::{
    CheckConfig, CheckKind, CheckReport, CheckRunner, CheckState, HealthReport,
};
use understudy_service::clock;

/// How long a test waits for a state before it fails.
const DEADLINE: Duration = Duration::from_secs(10);

/// Looks every 2 ms until there is something; for what nobody announces, such as a file.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        loop {
            ticks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A check every 10 ms that believes every result.
fn check(name: &str, kind: CheckKind) -> CheckConfig {
    CheckConfig {
        name: name.to_owned(),
        kind,
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(2),
        rise: 1,
        fall: 1,
    }
}

/// A check that is expected to run into its timeout, which still leaves a healthy one time on a busy machine.
fn hasty(kind: CheckKind) -> CheckConfig {
    CheckConfig { timeout: Duration::from_millis(300), ..check("hasty", kind) }
}

/// One running check.
struct Single {
    _runner: CheckRunner,
    report: watch::Receiver<HealthReport>,
}

impl Single {
    fn start(config: CheckConfig) -> Self {
        let runner = CheckRunner::start(vec![config], clock::now()).unwrap();
        Self { report: runner.subscribe(), _runner: runner }
    }

    async fn wait_for(&mut self, state: CheckState) -> CheckReport {
        let reached = self.report.wait_for(|report| report.checks[0].state == state);
        tokio::time::timeout(DEADLINE, reached).await.expect("state not reached").unwrap().checks[0].clone()
    }

    async fn up(&mut self) -> CheckReport {
        self.wait_for(CheckState::Up).await
    }

    /// Waits until it is down; the reason.
    async fn down(&mut self) -> String {
        self.wait_for(CheckState::Down).await.reason.expect("down without a reason")
    }
}

/// The state a check of this kind comes to, told in one word or its reason.
async fn verdict(config: CheckConfig) -> String {
    let mut single = Single::start(config);
    let settled = single.report.wait_for(HealthReport::settled);
    let report = tokio::time::timeout(DEADLINE, settled).await.expect("no result").unwrap().clone();
    let check = report.checks.into_iter().next().unwrap();
    assert_eq!(check.up(), report.healthy);
    if check.up() { "up".to_owned() } else { check.reason.unwrap() }
}
