//! Runs every check in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use understudy_detection::RiseFall;
use understudy_service::clock::{self, Alarm};
use understudy_wire::BootTime;

use super::config::{CheckConfig, CheckConfigError, check_common};
use super::failure::Failure;
use super::probe::Probe;
use super::report::{CheckReport, CheckState, HealthReport};

/// A timeout that fires later than this was held up by our own process or host, not by the workload alone.
const OWN_LATENESS: Duration = Duration::from_millis(50);

/// Runs checks until it is dropped.
///
/// A check never overlaps itself and never delays another. The first result of a check decides at once; after
/// that its rise and fall counts do.
#[derive(Debug)]
pub struct CheckRunner {
    report: watch::Receiver<HealthReport>,
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl CheckRunner {
    /// Starts the checks, each with its first run at `begin`. Must be called in a tokio runtime.
    pub fn start(configs: Vec<CheckConfig>, begin: BootTime) -> Result<Self, CheckConfigError> {
        check_common(&configs)?;
        let probes = configs.iter().map(Probe::new).collect::<Result<Vec<_>, _>>()?;
        let (sender, report) = watch::channel(HealthReport {
            healthy: configs.is_empty(),
            checks: configs.iter().map(pending).collect(),
        });
        let sender = Arc::new(sender);
        let mut tasks = JoinSet::new();
        for (index, (config, probe)) in configs.into_iter().zip(probes).enumerate() {
            let place = Place { report: Arc::clone(&sender), index };
            let alarm =
                Alarm::new().map_err(|cause| CheckConfigError::Timer { name: config.name.clone(), cause })?;
            tasks.spawn(follow(config, probe, place, begin, alarm));
        }
        Ok(Self { report, _tasks: tasks })
    }

    /// The report, now and at each change. Only a check that comes up or goes down counts as a change; reasons and
    /// latencies are refreshed in place, so that a check every 10 ms does not wake anybody for nothing.
    pub fn subscribe(&self) -> watch::Receiver<HealthReport> {
        self.report.clone()
    }
}

fn pending(config: &CheckConfig) -> CheckReport {
    CheckReport {
        name: config.name.clone(),
        state: CheckState::Pending,
        reason: None,
        latency: None,
        since_ns: clock::now().0,
    }
}

/// Runs are due at whole intervals from `begin`: those of one interval fall together, and one wake-up serves them all.
async fn follow(config: CheckConfig, mut probe: Probe, place: Place, begin: BootTime, mut alarm: Alarm) {
    let mut due = begin;
    let mut believed = None;
    let mut excused = false;
    loop {
        alarm.reached(due).await;
        due = after(begin, config.interval, clock::now());
        let begun = Instant::now();
        let result = timeout(config.timeout, probe.run()).await;
        let latency = begun.elapsed();
        let result = result.unwrap_or_else(|_| {
            probe.abandon();
            Err(Failure::Timeout(config.timeout))
        });

        // R13 in small: a process that was stopped finds every timeout expired when it goes on. Excused once, so
        // that a host that is always late still gets a verdict.
        let late = matches!(result, Err(Failure::Timeout(_))) && latency > config.timeout + OWN_LATENESS;
        if late && !excused {
            excused = true;
            continue;
        }
        excused = false;

        let counts = believed.get_or_insert_with(|| RiseFall::new(config.rise, config.fall, result.is_ok()));
        counts.observe(result.is_ok());
        place.publish(counts.is_up(), result.err().map(|failure| failure.reason()), latency);
    }
}

/// The first whole interval from `begin` after `now`: runs that were missed are not made up for.
fn after(begin: BootTime, interval: Duration, now: BootTime) -> BootTime {
    let step = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let done = now.0.saturating_sub(begin.0) / step;
    BootTime(begin.0.saturating_add(done.saturating_add(1).saturating_mul(step)))
}

/// One check's entry in the report.
struct Place {
    report: Arc<watch::Sender<HealthReport>>,
    index: usize,
}

impl Place {
    fn publish(&self, up: bool, reason: Option<String>, latency: Duration) {
        let state = if up { CheckState::Up } else { CheckState::Down };
        self.report.send_if_modified(|report| {
            let check = &mut report.checks[self.index];
            check.reason = reason;
            check.latency = Some(latency);
            if check.state == state {
                return false;
            }
            check.state = state;
            check.since_ns = clock::now().0;
            report.healthy = report.checks.iter().all(CheckReport::up);
            tell(&report.checks[self.index]);
            true
        });
    }
}

impl Drop for Place {
    /// A check that panics must not stay up for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.publish(false, Some("the check itself panicked".to_owned()), Duration::ZERO);
        }
    }
}

fn tell(check: &CheckReport) {
    let name = check.name.as_str();
    match &check.reason {
        Some(reason) => tracing::warn!(check = name, reason, "check is down"),
        None => tracing::info!(check = name, "check is up"),
    }
}
