//! Puts an executor together and feeds it until it has left.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use understudy_bus::{
    EventLog, Nats, Store,
    nats::{Received, Subscription},
    node_link::{NodeLinkClient, PublisherEvent},
    paths::{FromSeat, NodeOptions, NodePaths, own_heartbeat},
    queue,
    store::{Maintenance, Sizes},
};
use understudy_detection::{Flap, FlapConfig};
use understudy_dns::{Outcome, TsigKey, Updater, Zone};
use understudy_lease::{Holder, Identity, Rules};
use understudy_service::{
    Frame, Hopeless, access, calm,
    clock::{self, Alarm},
    config::{Config, Dns, RecordAddress},
};
use understudy_vip::neighbours::Sighting;
use understudy_wire::{Holder as HolderId, Incarnation, v1};

use crate::{
    executor::{Executor, HookDone, Parts, Settings},
    history::History,
    metrics::Metrics,
    network::Network,
    plan, ungated,
};

/// Hooks that may have ended without the loop having looked: one per slot is enough.
const HOOKS: usize = 16;
/// How long a hand-over may take when this process is asked to end, demote hook included.
const LEAVE: Duration = Duration::from_secs(20);
/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_millis(500);

/// How long a switchover waits for who is in maintenance: the CLI asks again after 667 ms.
const MAINTENANCE_READ: Duration = Duration::from_millis(300);

/// A switchover that was asked for.
struct Asked {
    request: Received<v1::SwitchoverRequest>,
    /// Nodes in maintenance at that time; none when it could not be read, then the notices have to do.
    out: Maintenance,
}

/// What the loop listens to.
struct Inputs {
    seats: queue::Receiver<FromSeat>,
    publisher: mpsc::Receiver<PublisherEvent>,
    hooks: mpsc::Receiver<HookDone>,
    dns: Option<mpsc::Receiver<Outcome>>,
    sightings: mpsc::Receiver<Sighting>,
    members: Subscription<v1::Heartbeat>,
    verdicts: Subscription<v1::Verdict>,
    switchovers: mpsc::Receiver<Asked>,
    maintenance: watch::Receiver<Option<Maintenance>>,
    sizes: watch::Receiver<Option<Sizes>>,
}

/// Runs the executor of one node until it was asked to end and has handed over.
pub async fn run(frame: Frame, dry_run: bool) -> anyhow::Result<()> {
    let config = &frame.config;
    let settings = settings(config)?;
    let history = History::read(&config.node.state_dir);
    if dry_run {
        print!(
            "{}",
            plan::describe_all(&settings.group, settings.kind, settings.address, &history.durations())
        );
        return Ok(());
    }
    let (network, sightings, leftovers) = network(&frame, &settings).await?;
    if !network.gated() {
        frame.health.limited("no nftables: only the lifetime of addresses ends a lost lease");
    }
    let metrics = frame.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let name = format!("executor/{}", settings.node);
    let (nats, echo) = understudy_service::nats::connect_member(config, &name).await?;
    understudy_service::nats::export(&frame.metrics, nats.counters());
    let detectors = config.detector.direct.iter().map(ToString::to_string).collect();
    let (group, node) = (settings.group_id.clone(), settings.node.clone());
    let tls = access::direct_client(config)?;
    let options = NodeOptions { group: group.clone(), node, detectors, grants: true, echo, tls };
    let (sender, seats) = NodePaths::open(&nats, options).await?;
    let (link, state) = watch::channel(v1::ExecutorState::default());
    let (_link_client, publisher) = NodeLinkClient::start(&config.node.socket, state);
    let (hook_reports, hooks) = mpsc::channel(HOOKS);
    let (dns, outcomes) = updater(config.dns.as_ref())?.unzip();
    let scaled = settings.group.scaling.is_some();
    let inputs = Inputs {
        seats,
        publisher,
        hooks,
        dns: outcomes,
        sightings,
        members: nats.subscribe(&format!("member.{group}.*")).await?,
        verdicts: nats.subscribe(&format!("verdict.{group}.*")).await?,
        switchovers: switchovers(&nats, nats.subscribe(&format!("command.{group}.switchover")).await?),
        maintenance: Store::open(&nats).watch_maintenance(),
        sizes: Store::open(&nats).watch_sizes(scaled.then(|| group.clone()).into_iter().collect()),
    };
    let parts = Parts {
        holder: holder(config, &settings)?,
        events: EventLog::open(&nats, format!("executor/{}", settings.node)),
        settings,
        network,
        link,
        sender,
        dns,
        metrics,
        history,
        hooks: hook_reports,
    };
    let mut executor = Executor::new(parts);
    executor.clean_up(&leftovers);
    let alarm = Alarm::new().context("making the loop's timer")?;
    serve(&frame, &nats, &mut executor, inputs, alarm).await;
    executor.close(FLUSH).await;
    Ok(())
}

/// The loop: one input or deadline, then one turn. Grants and the witness come first, since a lease hangs on them.
async fn serve(frame: &Frame, nats: &Nats, executor: &mut Executor, mut inputs: Inputs, mut alarm: Alarm) {
    let mut leave_by = None;
    while !executor.has_left() && leave_by.is_none_or(|by| clock::now() < by) {
        let deadline = executor.next_deadline();
        let mut hasty = true;
        tokio::select! {
            biased;
            Some(message) = inputs.seats.recv() => {
                hasty = !executor.from_seat(message);
            }
            Some(event) = inputs.publisher.recv() => hasty = !executor.from_publisher(event),
            Some(done) = inputs.hooks.recv() => executor.hook_ended(&done),
            () = alarm.reached(deadline) => {}
            () = frame.shutdown.cancelled(), if leave_by.is_none() => {
                leave_by = Some(clock::now().after(LEAVE));
                executor.leave();
            }
            Some(asked) = inputs.switchovers.recv() => answer(nats, executor, &asked),
            Some(received) = inputs.members.next() => {
                if let Some(heartbeat) = own_heartbeat(nats, received) {
                    executor.heard(heartbeat);
                }
            }
            Some(received) = inputs.verdicts.next() => {
                if let Ok(verdict) = received.message {
                    executor.judged(&verdict);
                }
            }
            Some(sighting) = inputs.sightings.recv() => executor.sighted(sighting.vip, sighting.lladdr),
            Some(outcome) = next(&mut inputs.dns) => executor.dns_answered(&outcome),
            Ok(()) = inputs.maintenance.changed() => {
                let set = inputs.maintenance.borrow_and_update().clone();
                executor.set_maintenance(set.unwrap_or_default());
            }
            Ok(()) = inputs.sizes.changed() => {
                let sizes = inputs.sizes.borrow_and_update();
                executor.set_size(sizes.as_ref().and_then(|sizes| sizes.values().next()));
            }
        }
        // The publisher tells of its heartbeat and three seats answer it over two paths, all at once: one turn for all.
        if !hasty && executor.is_steady() {
            calm::gather(frame.config.lease.interval).await;
        }
        while let Some(message) = inputs.seats.try_recv() {
            executor.from_seat(message);
        }
        while let Ok(event) = inputs.publisher.try_recv() {
            executor.from_publisher(event);
        }
        executor.turn().await;
        frame.health.tick();
        let (ready, reason) = executor.readiness();
        frame.health.ready(ready, reason);
    }
}

async fn next(outcomes: &mut Option<mpsc::Receiver<Outcome>>) -> Option<Outcome> {
    match outcomes {
        Some(outcomes) => outcomes.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads who is in maintenance before a request reaches the loop, one request after the other; the loop never waits.
fn switchovers(nats: &Nats, mut requests: Subscription<v1::SwitchoverRequest>) -> mpsc::Receiver<Asked> {
    let (sender, receiver) = mpsc::channel(1);
    let store = Store::open(nats);
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let out = match timeout(MAINTENANCE_READ, store.maintenance()).await {
                Ok(Ok(out)) => out,
                // The notices have to do: without JetStream nobody can put a node into maintenance either.
                failed => {
                    let error = failed.map(|read| read.err());
                    tracing::debug!(?error, "switchover: who is in maintenance could not be read");
                    Maintenance::new()
                }
            };
            if sender.send(Asked { request, out }).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn answer(nats: &Nats, executor: &mut Executor, asked: &Asked) {
    let (Ok(request), Some(reply)) = (&asked.request.message, &asked.request.reply) else { return };
    if let Some(answer) = executor.switchover(request, &asked.out) {
        nats.respond(reply, &answer);
    }
}

fn settings(config: &Config) -> anyhow::Result<Settings> {
    let member = config.member()?;
    let flap = &member.group.flap;
    let flap = FlapConfig::new(flap.half_life, flap.suppress, flap.reuse)
        .with_context(|| format!("group.{}.flap", member.group_id))?;
    // Boot time in nanoseconds: rises with every start of this boot, and is never 0 (rule R2).
    let incarnation = Incarnation::new(clock::now().0).context("the boot clock stands at 0")?;
    Ok(Settings {
        cluster: config.cluster.clone(),
        group_id: member.group_id.clone(),
        group: member.group.clone(),
        node: member.name.clone(),
        kind: config.node.standby,
        address: config.node.address,
        incarnation,
        priority: config.node.priority,
        interval: config.lease.interval,
        steady: Flap::new(flap)?,
    })
}

fn holder(config: &Config, settings: &Settings) -> anyhow::Result<Holder> {
    let identity = Identity {
        cluster: settings.cluster.clone(),
        group: settings.group_id.clone(),
        slots: u16::try_from(settings.group.slots.len()).context("more slots than a group can have")?,
    };
    let lease = &config.lease;
    let rules = Rules::new(config.detector.seats, lease.duration, lease.interval, lease.max, lease.drift);
    let boot = clock::boot_id().context("reading the boot id")?;
    let me = HolderId { node: settings.node.clone(), boot, incarnation: settings.incarnation };
    Ok(Holder::new(identity, rules, me))
}

async fn network(
    frame: &Frame,
    settings: &Settings,
) -> anyhow::Result<(Network, mpsc::Receiver<Sighting>, Vec<IpAddr>)> {
    let config = &frame.config;
    let interface = config.node.interface.as_deref().context(
        "node.interface is not set, and not exactly one interface has an address in the network of the VIPs",
    )?;
    let slots = &settings.group.slots;
    let needs_address = slots.iter().any(|slot| slot.record_address() == RecordAddress::Node);
    if needs_address && settings.address.is_none() {
        anyhow::bail!(
            "node.address is not set, but a slot without VIP or a record that follows the node needs it"
        );
    }
    let vips: Vec<IpAddr> = slots.iter().flat_map(|slot| &slot.vips).map(|vip| vip.addr()).collect();
    let guards: BTreeSet<_> =
        slots.iter().flat_map(|slot| plan::guards(&settings.group, slot, settings.address)).collect();
    let guards: Vec<_> = guards.into_iter().collect();
    let (network, sightings, leftovers) =
        Network::install(&settings.group_id, interface, &vips, &guards, config.gate.mark).await?;
    let lease = &config.lease;
    if !network.gated()
        && let Some(why) = ungated::refusal(&guards, lease.duration, lease.interval, lease.drift)
    {
        // What an earlier run left behind is gone by now: refusing leaves nothing that nobody looks after.
        return Err(Hopeless(why).into());
    }
    Ok((network, sightings, leftovers))
}

fn updater(dns: Option<&Dns>) -> anyhow::Result<Option<(Updater, mpsc::Receiver<Outcome>)>> {
    let Some(dns) = dns else { return Ok(None) };
    let servers = dns.servers.iter().map(ToString::to_string).collect();
    let key = dns.key.as_ref().map(tsig_key).transpose()?;
    let zone =
        Zone { servers, origin: dns.zone.as_str().to_owned(), key, ttl: ttl(dns.ttl), timeout: dns.timeout };
    let timing = understudy_dns::Timing { recheck: dns.recheck, ..Default::default() };
    Ok(Some(Updater::start(zone, timing)))
}

/// Seconds, as the protocol has them; a fraction would become an answer that is never cached, so it is rounded up.
fn ttl(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

fn tsig_key(key: &understudy_service::config::TsigKey) -> anyhow::Result<TsigKey> {
    use understudy_service::config::TsigAlgorithm;
    let algorithm = match key.algorithm {
        TsigAlgorithm::HmacSha256 => understudy_dns::Algorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => understudy_dns::Algorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => understudy_dns::Algorithm::HmacSha512,
    };
    Ok(TsigKey::from_bytes(key.name.as_str(), algorithm, key.bytes()?)?)
}
