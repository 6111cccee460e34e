//! Puts a publisher together and feeds it until it is asked to end.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::mpsc;
use understudy_bus::{
    Tls,
    node_link::{LinkEvent, NodeLinkServer},
    paths::{NodeOptions, NodePaths},
};
use understudy_service::{
    Frame, Hopeless, access, calm,
    clock::{self, Alarm},
    config::{self, Config, Member, ProcessRef, check_round_trip},
};

use crate::{
    checks::{CheckConfig, CheckKind, CheckRunner, ProcessSelector},
    load::LoadSampler,
    metrics::Metrics,
    publisher::{Publisher, Settings},
    round_trip,
    signals::SignalSampler,
};

/// Measurements before a lease is refused: one slow moment is not a slow network.
const ROUNDS: usize = 5;
/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_millis(200);

/// Runs the publisher of one node until it is asked to end.
pub async fn run(frame: Frame) -> anyhow::Result<()> {
    let config = Arc::clone(&frame.config);
    let member = config.member()?;
    let settings = settings(&config, &member)?;
    let begin = clock::now();
    let checks = CheckRunner::start(member.group.checks.iter().map(check).collect(), begin)?;
    let load = LoadSampler::start();
    let signals = SignalSampler::start(&member.group.signals);
    let tls = access::direct_client(&config)?;
    refuse_slow_network(&config, tls.as_ref()).await?;
    let metrics = frame.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let name = format!("heartbeat/{}", settings.node);
    let (nats, echo) = understudy_service::nats::connect_member(&config, &name).await?;
    understudy_service::nats::export(&frame.metrics, nats.counters());
    let detectors = config.detector.direct.iter().map(ToString::to_string).collect();
    let (group, node) = (settings.group.clone(), settings.node.clone());
    let options = NodeOptions { group, node, detectors, grants: false, echo, tls };
    let (sender, mut seats) = NodePaths::open(&nats, options).await?;
    let (link, events) = NodeLinkServer::serve(&config.node.socket)?;
    let mut publisher = Publisher::new(settings, sender, link, metrics, begin);
    let alarm = Alarm::new().context("making the loop's timer")?;
    serve(&frame, &mut publisher, alarm, events, &checks, (&load, &signals), &mut seats).await;
    publisher.close(FLUSH).await;
    Ok(())
}

/// The loop: one input or deadline, then one turn. The executor comes first, since its slot hangs on it.
async fn serve(
    frame: &Frame,
    publisher: &mut Publisher,
    mut alarm: Alarm,
    mut executor: mpsc::Receiver<LinkEvent>,
    checks: &CheckRunner,
    (load, signals): (&LoadSampler, &SignalSampler),
    seats: &mut understudy_bus::queue::Receiver<understudy_bus::paths::FromSeat>,
) {
    let (mut health, mut load) = (checks.subscribe(), load.subscribe());
    let mut signals = signals.subscribe();
    publisher.set_health(health.borrow_and_update().clone());
    let mut sent = false;
    loop {
        let deadline = publisher.next_deadline();
        // An answer is what it waits for, and news of the executor's are what must not wait for it.
        let calm = sent && publisher.is_steady();
        calm::allow(calm, frame.config.lease.interval, publisher.executor_socket()).await;
        if sent && !calm {
            // It leaves first: a newer one takes its place while it waits, and what it alone says, a release, would be lost.
            calm::others().await;
        }
        let mut told = false;
        tokio::select! {
            biased;
            Some(event) = executor.recv() => told = publisher.from_executor(event),
            Ok(()) = health.changed() => publisher.set_health(health.borrow_and_update().clone()),
            () = alarm.reached(deadline) => {}
            () = frame.shutdown.cancelled() => return,
            Ok(()) = load.changed() => publisher.set_load(*load.borrow_and_update()),
            Ok(()) = signals.changed() => publisher.set_signals(signals.borrow_and_update().clone()),
            // Where detectors are is learned by the paths themselves.
            Some(_) = seats.recv() => {}
        }
        if !told && publisher.is_late() {
            // What the executor has said by now: a claim that it has given up would outlive its release (rule R8). News are
            // told one by one, the release before the end of who released.
            calm::others().await;
            while let Ok(event) = executor.try_recv() {
                if publisher.from_executor(event) {
                    break;
                }
            }
        }
        sent = publisher.turn();
        frame.health.tick();
        frame.health.ready(true, "publishing");
    }
}

/// Refuses a lease that the network is too slow for. Detectors that cannot be reached say nothing about it.
async fn refuse_slow_network(config: &Config, tls: Option<&Tls>) -> anyhow::Result<()> {
    let detectors: Vec<String> = config.detector.direct.iter().map(ToString::to_string).collect();
    let mut refused = None;
    for _ in 0..ROUNDS {
        let Some(longest) = round_trip::measure(&detectors, tls).await else {
            tracing::warn!("no detector answers on the direct path: the round trip is not measured");
            return Ok(());
        };
        match check_round_trip(config.lease.duration, longest) {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(Hopeless(error.to_string()).into()),
        None => Ok(()),
    }
}

fn settings(config: &Config, member: &Member<'_>) -> anyhow::Result<Settings> {
    Ok(Settings {
        cluster: config.cluster.clone(),
        group: member.group_id.clone(),
        node: member.name.clone(),
        boot: clock::boot_id().context("reading the boot id")?,
        kind: config.node.standby,
        priority: config.node.priority,
        labels: config.node.labels.clone(),
        interval: config.lease.interval,
        lease: config.lease.duration,
    })
}

/// A check as it is configured, in the words of the runner.
#[doc(hidden)]
pub fn check(check: &config::Check) -> CheckConfig {
    let kind = match &check.kind {
        config::CheckKind::Tcp { address } => CheckKind::Tcp { address: address.to_string() },
        config::CheckKind::Http { url } => {
            CheckKind::Http { url: url.clone(), expect_status: CheckKind::DEFAULT_STATUS, host: None }
        }
        config::CheckKind::Grpc { address, service } => {
            CheckKind::Grpc { address: address.to_string(), service: service.clone() }
        }
        config::CheckKind::Exec { command } => CheckKind::Exec { command: command.clone() },
        config::CheckKind::Process { process: ProcessRef::PidFile(file) } => {
            CheckKind::Process { selector: ProcessSelector::PidFile(file.clone()) }
        }
        config::CheckKind::Process { process: ProcessRef::Name(name) } => {
            CheckKind::Process { selector: ProcessSelector::Name(name.clone()) }
        }
    };
    CheckConfig {
        name: check.name.clone(),
        kind,
        interval: check.interval,
        timeout: check.timeout,
        rise: check.rise,
        fall: check.fall,
    }
}
