//! Puts a detector together and feeds it until it is asked to end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, watch},
};
use understudy_bus::{
    EventLog, Nats, Store,
    nats::Subscription,
    paths::{FromNode, SeatOptions, SeatPaths},
    queue,
    store::{Maintenance, Sizes},
};
use understudy_detection::{AccrualConfig, FailureDetectorConfig, FlapConfig, Threshold};
use understudy_lease::{Identity, Rules, Seat};
use understudy_service::{
    Frame, access,
    clock::{self, Alarm},
    config::{self, Config},
    seat::own_seat,
};
use understudy_wire::{GroupId, Seat as SeatNumber, Slot, v1};

use crate::{
    ceilings::{Ceilings, Raised},
    commands,
    detector::{Detector, Parts},
    group::Group,
    metrics::Metrics,
};

/// Messages of nodes taken in before leases are looked at: so many that a queue is drained in few rounds, so few that
/// the round stays far below a lease.
const BATCH: usize = 1_024;
/// Nodes that a group may have.
const MAX_NODES: usize = 16_384;
/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_millis(200);

/// What the loop listens to.
struct Inputs {
    nodes: queue::Receiver<FromNode>,
    raised: Option<mpsc::Receiver<Raised>>,
    presence: Subscription<v1::Presence>,
    status: Subscription<v1::StatusRequest>,
    /// An observer is asked nothing that it cannot store.
    maintenance_asked: Option<Subscription<v1::MaintenanceRequest>>,
    maintenance: watch::Receiver<Option<Maintenance>>,
    sizes: watch::Receiver<Option<Sizes>>,
}

/// Runs a detector until it is asked to end.
pub async fn run(frame: Frame) -> anyhow::Result<()> {
    let config = Arc::clone(&frame.config);
    let own = match &frame.seat {
        Some(own) => own.clone(),
        None => own_seat(&config.detector).await,
    };
    let seat = own.seat;
    let number = seat.map_or(0, SeatNumber::raw);
    match seat {
        Some(seat) => tracing::info!(%seat, source = own.source, "votes"),
        None => tracing::info!(source = own.source, "observes: no seat"),
    }
    let source =
        if number == 0 { format!("observer/{}", frame.instance) } else { format!("detector/{number}") };
    let nats = understudy_service::nats::connect(&config, &source).await?;
    understudy_service::nats::export(&frame.metrics, nats.counters());
    // An observer may not make streams, nor write what is stored: it looks.
    let store = Arc::new(if seat.is_some() { Store::start(&nats) } else { Store::open(&nats) });
    let events =
        Arc::new(if seat.is_some() { EventLog::start(&nats, source) } else { EventLog::open(&nats, source) });
    let incarnation = clock::now().0;
    let tls = access::direct_server(&config)?;
    let listener = TcpListener::bind(config.detector.listen)
        .await
        .with_context(|| format!("detector.listen: binding {}", config.detector.listen))?;
    let (presence, presence_now) = watch::channel(v1::Presence {
        cluster: config.cluster.to_string(),
        seat: number.into(),
        incarnation,
        address: advertised(&config).await.unwrap_or_default(),
        late_nanos: 0,
        state: if seat.is_some() { "silent".into() } else { "observing".into() },
    });
    let options = SeatOptions { listener, presence: presence_now, tls };
    let (sender, nodes) = SeatPaths::open(&nats, options).await?;
    let (ceilings, raised) = seat.map(|_| Ceilings::start(&store, slots(&config))).unzip();
    let inputs = Inputs {
        nodes,
        raised,
        presence: nats.subscribe(&format!("seat.{number}")).await?,
        status: nats.subscribe("command.*.status").await?,
        maintenance_asked: match seat {
            Some(_) => Some(nats.subscribe_shared("command.*.maintenance", "detectors").await?),
            None => None,
        },
        maintenance: store.watch_maintenance(),
        sizes: store.watch_sizes(config.scaled_groups()),
    };
    let parts = Parts {
        cluster: config.cluster.clone(),
        seat: number,
        incarnation,
        interval: config.lease.interval,
        groups: groups(&config, seat, incarnation)?,
        sender,
        nats: nats.clone(),
        events: Arc::clone(&events),
        ceilings,
        presence,
        metrics: frame.metrics.register(|registry| Arc::new(Metrics::new(registry))),
    };
    let detector = Detector::new(parts);
    let alarm = Alarm::new().context("making the loop's timer")?;
    serve(&frame, detector, inputs, alarm, &nats, &store, &events).await;
    nats.flush(FLUSH).await;
    Ok(())
}

/// The loop: rivals for the seat, then whatever nodes sent, then everything else, then the turn (rule R13).
async fn serve(
    frame: &Frame,
    mut detector: Detector,
    mut inputs: Inputs,
    mut alarm: Alarm,
    nats: &Nats,
    store: &Arc<Store>,
    events: &Arc<EventLog>,
) {
    loop {
        let deadline = detector.next_deadline();
        tokio::select! {
            biased;
            // A process that wakes from a pause must learn that its seat was taken before it renews anything.
            Some(received) = inputs.presence.next() => {
                if let Ok(presence) = received.message {
                    detector.presence(&presence);
                }
            }
            Some(message) = inputs.nodes.recv() => {
                detector.from_node(message);
                for _ in 1..BATCH {
                    let Some(message) = inputs.nodes.try_recv() else { break };
                    detector.from_node(message);
                }
            }
            () = alarm.reached(deadline) => {}
            () = frame.shutdown.cancelled() => return,
            Some(raised) = async { inputs.raised.as_mut()?.recv().await } => detector.raised(&raised),
            Some(received) = inputs.status.next() => {
                if let (Ok(_), Some(reply)) = (&received.message, &received.reply) {
                    nats.respond(reply, &detector.status());
                }
            }
            Some(received) = async { inputs.maintenance_asked.as_mut()?.next().await } => {
                commands::set_maintenance(nats, store, events, received);
            }
            Ok(()) = inputs.maintenance.changed() => {
                let set = inputs.maintenance.borrow_and_update().clone();
                detector.set_maintenance(set.unwrap_or_default());
            }
            Ok(()) = inputs.sizes.changed() => {
                let sizes = inputs.sizes.borrow_and_update().clone();
                if let Some(sizes) = sizes {
                    detector.set_sizes(&sizes);
                }
            }
        }
        detector.turn(deadline);
        frame.health.tick();
        let state = detector.state();
        frame.health.ready(state != "silent" && state != "conflict", state);
    }
}

fn slots(config: &Config) -> impl Iterator<Item = (GroupId, Slot)> {
    config.groups.iter().flat_map(|(id, group)| {
        (0..group.slots.len()).map(|slot| (id.clone(), Slot(u16::try_from(slot).unwrap_or(u16::MAX))))
    })
}

/// The groups of a configuration, for a process that starts now.
#[doc(hidden)]
pub fn groups(config: &Config, seat: Option<SeatNumber>, incarnation: u64) -> anyhow::Result<Vec<Group>> {
    let lease = &config.lease;
    let rules = Rules::new(config.detector.seats, lease.duration, lease.interval, lease.max, lease.drift);
    let floor = config.detector.deviation_floor(lease.interval);
    let judge = FailureDetectorConfig {
        accrual: AccrualConfig::new(lease.interval, config.detector.window, floor, lease.duration)?,
        suspect: Threshold::new(config.detector.suspect_phi)?,
        failed_after: lease.duration,
        max_nodes: MAX_NODES,
    };
    let group = |(id, group): (&GroupId, &config::Group)| {
        let identity = Identity {
            cluster: config.cluster.clone(),
            group: id.clone(),
            slots: u16::try_from(group.slots.len()).context("more slots than a group can have")?,
        };
        let flap = FlapConfig::new(group.flap.half_life, group.flap.suppress, group.flap.reuse)
            .with_context(|| format!("group.{id}.flap"))?;
        let mut vote = seat.map(|seat| Seat::new(identity, rules.clone(), seat, incarnation, clock::now()));
        if let (Some(seat), true) = (&mut vote, group.scaling.is_some()) {
            // Until it was read, like the ceilings.
            seat.handle_size(clock::now(), None);
        }
        Ok(Group::new(id.clone(), group.clone(), vote, judge, flap))
    };
    config.groups.iter().map(group).collect()
}

/// Where nodes reach this detector: as configured, else the address that this host uses towards NATS.
async fn advertised(config: &Config) -> Option<String> {
    let detector = &config.detector;
    if let Some(endpoint) = &detector.advertise {
        return Some(endpoint.to_string());
    }
    if !detector.listen.ip().is_unspecified() {
        return Some(detector.listen.to_string());
    }
    let server = config.nats.servers.first()?;
    let server = server.rsplit("//").next()?.rsplit('@').next()?;
    let server = if server.contains(':') { server.to_owned() } else { format!("{server}:4222") };
    let socket = UdpSocket::bind(SocketAddr::new(detector.listen.ip(), 0)).await.ok()?;
    // Connecting a datagram socket sends nothing; it only makes the kernel choose the way.
    socket.connect(server).await.ok()?;
    let own = socket.local_addr().ok()?.ip();
    Some(SocketAddr::new(own, detector.listen.port()).to_string())
}
