//! The seat's side: the detector.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, sync::watch};
use understudy_wire::{
    ClusterId, DecodeError, Grant, GroupId, Heartbeat, NodeId, Release, Revoke, Subject,
    v1::{self, seat_message::Message},
};

use super::dedup::Dedup;
use crate::{
    Nats, Tls,
    direct::{self, DirectServer, FromNode, INBOUND_QUEUE, Member},
    jetstream::Task,
    nats::{self, SubscribeError, Subscription},
    queue,
    quiet::Quiet,
};

/// How often a detector tells everybody where it is when nothing has changed: each telling wakes every process of every
/// node, and a node that starts without addresses hears of all detectors within it.
const TELL_ALL: Duration = Duration::from_secs(1);

/// What a detector serves.
pub struct SeatOptions {
    /// Where nodes open their direct streams.
    pub listener: TcpListener,
    /// What the detector tells of itself; each update is published to rivals for its seat, and what matters to nodes to
    /// everybody and on every stream (see [`DirectServer::serve`]).
    pub presence: watch::Receiver<v1::Presence>,
    /// Our certificate for the direct path; nodes must show theirs. `None`: plain, and anybody may come.
    pub tls: Option<Tls>,
}

/// Sends over both paths, never waits.
pub struct SeatSender {
    nats: Nats,
    direct: DirectServer,
    _tasks: Vec<Task>,
}

/// Opens both paths of a detector.
pub struct SeatPaths;

impl SeatPaths {
    /// Opens both paths; what nodes say comes out of the receiver, checked, each heartbeat once (oldest dropped when
    /// nobody reads).
    pub async fn open(
        nats: &Nats,
        options: SeatOptions,
    ) -> Result<(SeatSender, queue::Receiver<FromNode>), SubscribeError> {
        let counters = Arc::clone(nats.counters());
        let (sender, receiver) = queue::bounded("from nodes", INBOUND_QUEUE, counters.inbound_full.clone());
        let SeatOptions { listener, presence, tls } = options;
        let (direct, mut streams) =
            DirectServer::serve(listener, nats.cluster().clone(), presence.clone(), tls, counters);
        let intake =
            Arc::new(Intake { nats: nats.clone(), sender, dedup: Mutex::default(), quiet: Quiet::default() });

        let heartbeats: Subscription<v1::Heartbeat> = nats.subscribe("heartbeat.*.*").await?;
        let releases: Subscription<v1::Release> = nats.subscribe("release.*.*").await?;
        let tasks = [
            tokio::spawn(Arc::clone(&intake).subscription(heartbeats, |cluster, (group, node), raw| {
                let heartbeat = Heartbeat::sharing(raw, cluster, group, node)?;
                Ok(FromNode::Heartbeat(Box::new(heartbeat)))
            })),
            tokio::spawn(
                Arc::clone(&intake)
                    .subscription(releases, |_, _, raw| Release::try_from(raw).map(FromNode::Release)),
            ),
            tokio::spawn(async move {
                while let Some(message) = streams.recv().await {
                    intake.pass(message);
                }
            }),
            tokio::spawn(publish_presence(nats.clone(), presence)),
        ];
        let tasks = tasks.map(|task| Task(task.abort_handle())).into();
        Ok((SeatSender { nats: nats.clone(), direct, _tasks: tasks }, receiver))
    }
}

/// Rivals for the seat hear every update, since neither may grant beside the other for longer than that. Everybody else
/// is told at once of what matters to them, and of the rest once in [`TELL_ALL`].
async fn publish_presence(nats: Nats, mut presence: watch::Receiver<v1::Presence>) {
    let mut told: Option<(Instant, v1::Presence)> = None;
    loop {
        let now = presence.borrow_and_update().clone();
        let seat = u8::try_from(now.seat).unwrap_or(0);
        if seat > 0 {
            nats.publish(&Subject::Seat(seat), &now);
        }
        let known =
            told.as_ref().is_some_and(|(at, told)| at.elapsed() < TELL_ALL && !direct::differs(told, &now));
        if !known {
            nats.publish(&Subject::Detector(seat), &now);
            told = Some((Instant::now(), now));
        }
        if presence.changed().await.is_err() {
            return;
        }
    }
}

impl SeatSender {
    /// Sends a vote to its holder.
    pub fn grant(&self, grant: &Grant) {
        self.send(&grant.group, &grant.holder.node, Message::Grant(grant.into()));
    }

    /// Asks a holder to shut its gate.
    pub fn revoke(&self, revoke: &Revoke) {
        self.send(&revoke.group, &revoke.holder.node, Message::Revoke(revoke.into()));
    }

    fn send(&self, group: &GroupId, node: &NodeId, message: Message) {
        let message = v1::SeatMessage { message: Some(message) };
        self.direct.send(group, node, &message);
        self.nats.publish(&Subject::Grant(group.clone(), node.clone()), &message);
    }

    /// How many direct streams are open.
    pub fn streams(&self) -> usize {
        self.direct.streams()
    }
}

/// Checks what comes over NATS, drops what came twice, passes on the rest.
struct Intake {
    nats: Nats,
    sender: queue::Sender<FromNode>,
    dedup: Mutex<Dedup>,
    quiet: Quiet,
}

impl Intake {
    async fn subscription<M: prost::Message + Default>(
        self: Arc<Self>,
        mut subscription: Subscription<M>,
        check: impl Fn(&ClusterId, &Member, M) -> Result<FromNode, DecodeError> + Send,
    ) {
        while let Some(received) = subscription.next().await {
            let (Subject::Heartbeat(group, node) | Subject::Release(group, node)) = received.subject else {
                continue;
            };
            // Counted where it was decoded.
            let Ok(raw) = received.message else { continue };
            let member = (group, node);
            match check(self.nats.cluster(), &member, raw) {
                Ok(message) => self.admit(&member, message),
                Err(error) => {
                    nats::count(self.nats.counters(), &error);
                    if let Some(before) = self.quiet.pass() {
                        let (group, node) = member;
                        tracing::warn!(%group, %node, error = &error as &dyn Error, before, "message of a node refused");
                    }
                }
            }
        }
    }

    /// A node may speak on its own subject only.
    fn admit(&self, member: &Member, message: FromNode) {
        if message.is_from(self.nats.cluster(), member, self.nats.counters()) {
            self.pass(message);
        } else if let Some(before) = self.quiet.pass() {
            let (group, node) = member;
            tracing::warn!(%group, %node, before, "message in another's name or of another cluster refused");
        }
    }

    fn pass(&self, message: FromNode) {
        if let FromNode::Heartbeat(heartbeat) = &message
            && !self.dedup.lock().unwrap_or_else(PoisonError::into_inner).first(heartbeat)
        {
            self.nats.counters().duplicates.add(1);
            return;
        }
        self.sender.push(message);
    }
}
