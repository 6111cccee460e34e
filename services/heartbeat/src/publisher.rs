//! The publisher's state, and what becomes of it in a heartbeat.

use std::{collections::BTreeMap, os::unix::net::UnixStream, sync::Arc, time::Duration};

use prost::Message as _;
use understudy_bus::{
    node_link::{LinkEvent, NodeLinkServer},
    paths::NodeSender,
};
use understudy_service::{
    clock,
    telemetry::{self, PastSpan},
};
use understudy_wire::{
    BootId, BootTime, Claim, ClusterId, GroupId, Health, Heartbeat, Holder, Incarnation, NodeId, Release,
    SlotRelease, StandbyKind, event::trace_id, v1,
};

use crate::{
    checks::HealthReport, executor::Executor, load::Load, metrics::Metrics, signals::Signals,
    witness::Witness,
};

/// The other members hear of this node when something changed, such as that one of them came, and this often. They hold
/// nothing against one that they missed: a silent node is told by the detectors.
const TELL_MEMBERS: Duration = Duration::from_secs(1);
/// This often for as long after a change: who comes back may be heard before it hears, and could take over before a second
/// has gone; its record must name the holder before.
const TELL_OFTEN: Duration = Duration::from_millis(250);
const LIVELY: Duration = Duration::from_secs(10);

/// A heartbeat is late from here on: several times what a thread that is let run needs, and far below the 5 ms for which a
/// release makes claims void (rule R8).
const LATE: Duration = Duration::from_millis(1);

/// Who this publisher speaks for; fixed for the life of the process.
pub struct Settings {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the node.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// What it needs before it can serve.
    pub kind: StandbyKind,
    /// Higher is preferred.
    pub priority: i32,
    /// Failure domains.
    pub labels: BTreeMap<String, String>,
    /// Interval, I.
    pub interval: Duration,
    /// Lease, T.
    pub lease: Duration,
}

/// Everything the loop works on.
pub struct Publisher {
    settings: Settings,
    sender: NodeSender,
    link: NodeLinkServer,
    metrics: Arc<Metrics>,
    executor: Executor,
    witness: Option<Witness>,
    health: HealthReport,
    load: Load,
    signals: Signals,
    seq: u64,
    due: BootTime,
    changed: bool,
    /// Heartbeats are due at whole intervals from here, as the checks are: one wake-up serves both.
    begin: BootTime,
    /// Until then something is under way that a millisecond would slow down.
    busy_until: BootTime,
    /// Until then the other members are told more often.
    lively_until: BootTime,
    announced: BTreeMap<u32, u64>,
    /// What the other members were told last, without what each heartbeat has of its own, and when.
    told: Option<(Heartbeat, BootTime)>,
}

impl Publisher {
    /// A publisher without an executor, its first heartbeat due at once.
    pub fn new(
        settings: Settings,
        sender: NodeSender,
        link: NodeLinkServer,
        metrics: Arc<Metrics>,
        begin: BootTime,
    ) -> Self {
        let now = clock::now();
        let executor = Executor::new(settings.interval);
        Self {
            settings,
            sender,
            link,
            metrics,
            executor,
            witness: None,
            health: HealthReport { healthy: false, checks: Vec::new() },
            load: Load::default(),
            signals: Signals::new(),
            // Microseconds since boot: above whatever an earlier publisher of this boot has sent.
            seq: now.0 / 1_000,
            due: now,
            changed: false,
            begin,
            busy_until: now,
            lively_until: now,
            announced: BTreeMap::new(),
            told: None,
        }
    }

    /// The executor came, spoke, or went. Whether others must know at once.
    pub fn from_executor(&mut self, event: LinkEvent) -> bool {
        let now = clock::now();
        match event {
            LinkEvent::Attached => false,
            LinkEvent::State(state) => {
                let news = self.executor.heard(*state);
                if news {
                    self.news(now);
                }
                news
            }
            LinkEvent::Lost => {
                self.news(now);
                self.watch_for_the_dead(now);
                true
            }
        }
    }

    fn watch_for_the_dead(&mut self, now: BootTime) {
        let Some(lost) = self.executor.lost() else { return };
        let Some(holder) = self.holder(&lost) else { return };
        self.witness = Witness::of(holder, &lost, now, self.settings.lease);
        if let Some(witness) = &self.witness {
            tracing::error!(slots = ?witness.slots, "the executor died holding slots");
        }
    }

    /// Something that others must know at once; more is likely to follow soon.
    fn news(&mut self, now: BootTime) {
        self.changed = true;
        self.busy_until = now.after(self.settings.interval);
        self.lively_until = now.after(LIVELY);
    }

    /// Where the executor will speak next.
    pub fn executor_socket(&self) -> Option<Arc<UnixStream>> {
        self.link.socket()
    }

    /// Whether nothing is under way that a millisecond would slow down.
    pub fn is_steady(&self) -> bool {
        self.witness.is_none() && clock::now() >= self.busy_until
    }

    fn holder(&self, state: &v1::ExecutorState) -> Option<Holder> {
        let incarnation = Incarnation::new(state.incarnation)?;
        Some(Holder { node: self.settings.node.clone(), boot: self.settings.boot, incarnation })
    }

    /// The checks found something new.
    pub fn set_health(&mut self, health: HealthReport) {
        self.metrics.healthy.set(i64::from(health.healthy));
        self.health = health;
        self.news(clock::now());
    }

    /// A new sample of the load; it travels with the next heartbeat.
    pub fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// New values of the group's own load signals; they travel with the next heartbeat.
    pub fn set_signals(&mut self, signals: Signals) {
        self.signals = signals;
    }

    /// Whether this process was not let run when the heartbeat was due: the executor may have spoken since.
    pub fn is_late(&self) -> bool {
        clock::now().since(self.due) >= LATE
    }

    /// One turn: the witness first, since a dead executor's slot waits for it, then the heartbeat if it is due or
    /// something changed, then what the executor may know of it. Whether a heartbeat was sent, which will be answered.
    pub fn turn(&mut self) -> bool {
        let now = clock::now();
        self.release_for_the_dead(now);
        let sends = self.changed || now >= self.due;
        if sends {
            if now >= self.due {
                self.metrics.lateness.observe(now.since(self.due));
                self.due = self.next_due(now);
            }
            let sent_at = self.send();
            self.changed = false;
            self.tell_executor(sent_at);
        }
        sends
    }

    /// The next whole interval, so that the rhythm does not drift; but never a burst to catch up.
    fn next_due(&self, now: BootTime) -> BootTime {
        let interval = self.settings.interval;
        let step = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let earliest = now.after(interval / 4).0.saturating_sub(self.begin.0);
        BootTime(self.begin.0.saturating_add((earliest / step).saturating_add(1).saturating_mul(step)))
    }

    /// When the next turn is due.
    pub fn next_deadline(&self) -> BootTime {
        let now = clock::now();
        let witness = self.witness.as_ref().and_then(|witness| witness.deadline(now));
        witness.map_or(self.due, |due| due.min(self.due))
    }

    fn release_for_the_dead(&mut self, now: BootTime) {
        let Some(witness) = &mut self.witness else { return };
        if witness.deadline(now).is_none() {
            tracing::warn!("the gate could not be proved shut: the lease has run out by itself");
            self.witness = None;
        } else if witness.poll(now) {
            let witness = self.witness.take().expect("it was polled");
            let at = clock::now();
            for slot in witness.slots {
                tracing::info!(%slot, "the gate is proved shut: releasing for the dead executor");
                self.metrics.witness_releases.inc();
                self.sender.send_release(&Release {
                    cluster: self.settings.cluster.clone(),
                    group: self.settings.group.clone(),
                    slot,
                    holder: witness.holder.clone(),
                    at,
                    successor: None,
                });
            }
        }
    }

    fn send(&mut self) -> BootTime {
        self.seq += 1;
        let heartbeat = self.heartbeat(clock::now());
        self.sender.send_heartbeat(&heartbeat);
        if self.is_news(&heartbeat) {
            self.sender.tell_members(&heartbeat);
        }
        self.metrics.heartbeats.inc();
        self.trace_claims(&heartbeat);
        heartbeat.sent_at
    }

    /// Whether the other members must hear of this heartbeat; they do.
    fn is_news(&mut self, heartbeat: &Heartbeat) -> bool {
        let now = heartbeat.sent_at;
        // Details change with the load, too; what others must know of them comes with what `changed` stands for.
        let gist = Heartbeat { seq: 0, sent_at: BootTime(0), details: Vec::new(), ..heartbeat.clone() };
        let pause = if now < self.lively_until { TELL_OFTEN } else { TELL_MEMBERS };
        let news = self.changed
            || self.told.as_ref().is_none_or(|(told, at)| *told != gist || now.since(*at) >= pause);
        if news {
            self.told = Some((gist, now));
        }
        news
    }

    /// The heartbeat as it would be sent at `now` (rule R1).
    fn heartbeat(&self, now: BootTime) -> Heartbeat {
        let settings = &self.settings;
        let executor = self.executor.live(now);
        let health = self.health(executor);
        Heartbeat {
            cluster: settings.cluster.clone(),
            group: settings.group.clone(),
            node: settings.node.clone(),
            boot: settings.boot,
            incarnation: executor.and_then(|state| Incarnation::new(state.incarnation)),
            seq: self.seq,
            sent_at: now,
            health,
            standby: settings.kind,
            ready: executor.is_some_and(|state| state.ready),
            priority: settings.priority,
            claims: executor.map(|state| claims(&state.claims)).unwrap_or_default(),
            known: executor.map(|state| claims(&state.known)).unwrap_or_default(),
            releases: executor.map(|state| releases(&state.releases)).unwrap_or_default(),
            details: self.details(executor, health).encode_to_vec(),
        }
    }

    fn health(&self, executor: Option<&v1::ExecutorState>) -> Health {
        let idle = executor.is_none_or(|state| state.phase == "standby");
        if executor.is_some_and(|state| state.starting) {
            Health::Starting
        } else if self.settings.kind == StandbyKind::Cold && idle {
            // Nothing runs yet that could be checked.
            Health::Healthy
        } else if !self.health.settled() {
            Health::Starting
        } else if self.health.healthy {
            Health::Healthy
        } else {
            Health::Unhealthy
        }
    }

    fn details(&self, executor: Option<&v1::ExecutorState>, health: Health) -> v1::Details {
        let failing = self
            .health
            .failing()
            .map(|check| format!("{}: {}", check.name, check.reason.as_deref().unwrap_or("is down")));
        let mut reasons: Vec<String> =
            if health == Health::Unhealthy { failing.collect() } else { Vec::new() };
        match executor {
            Some(state) if !state.reason.is_empty() => reasons.push(state.reason.clone()),
            Some(_) => {}
            None if self.executor.last().is_some() => reasons.push("the executor does not answer".into()),
            None => reasons.push("no executor".into()),
        }
        let pressure = self.load.pressure;
        // The wire has percent, as /proc/pressure has.
        let percent = |ratio: Option<f64>| ratio.map(|ratio| ratio * 100.0);
        v1::Details {
            address: executor.map(|state| state.address.clone()).unwrap_or_default(),
            link_address: executor.map(|state| state.link_address.clone()).unwrap_or_default(),
            reason: reasons.join("; "),
            checks: self.check_results(),
            load: Some(v1::Load {
                cpu: self.load.cpu.unwrap_or_default(),
                memory: self.load.memory.unwrap_or_default(),
                pressure_cpu: percent(pressure.cpu),
                pressure_memory: percent(pressure.memory),
                pressure_io: percent(pressure.io),
            }),
            sightings: executor.map(|state| state.sightings.clone()).unwrap_or_default(),
            labels: self.settings.labels.clone().into_iter().collect(),
            interval_nanos: u64::try_from(self.settings.interval.as_nanos()).unwrap_or(u64::MAX),
            phase: executor.map(|state| state.phase.clone()).unwrap_or_default(),
            signals: self.signals.clone().into_iter().collect(),
        }
    }

    fn check_results(&self) -> Vec<v1::CheckResult> {
        let result = |check: &crate::checks::CheckReport| v1::CheckResult {
            name: check.name.clone(),
            up: check.up(),
            reason: check.reason.clone().unwrap_or_default(),
            latency_nanos: check
                .latency
                .map_or(0, |latency| u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)),
        };
        self.health.checks.iter().map(result).collect()
    }

    fn tell_executor(&mut self, sent_at: BootTime) {
        self.executor.ask(sent_at);
        let health = if !self.health.settled() {
            v1::Health::Starting
        } else if self.health.healthy {
            v1::Health::Healthy
        } else {
            v1::Health::Unhealthy
        };
        self.link.send(v1::PublisherState { health: health.into(), checks: self.check_results() });
    }

    /// Adds this node's part to the trace of a tenure: the first heartbeat that claims it.
    fn trace_claims(&mut self, heartbeat: &Heartbeat) {
        for claim in &heartbeat.claims {
            if self.announced.insert(claim.slot.0.into(), claim.epoch.0) != Some(claim.epoch.0) {
                let trace = trace_id(&self.settings.cluster, &self.settings.group, claim.slot, claim.epoch);
                let span = PastSpan::new("claim", heartbeat.sent_at, clock::now())
                    .with("node", self.settings.node.to_string());
                telemetry::record(&telemetry::tenure_context(trace), span);
            }
        }
    }

    /// Lets the last messages leave.
    pub async fn close(self, limit: Duration) {
        self.sender.close(limit).await;
    }
}

fn claims(raw: &[v1::SlotEpoch]) -> Vec<Claim> {
    raw.iter().filter_map(|raw| Claim::try_from(*raw).ok()).collect()
}

fn releases(raw: &[v1::SlotRelease]) -> Vec<SlotRelease> {
    raw.iter().filter_map(|raw| SlotRelease::try_from(raw.clone()).ok()).collect()
}
