//! The seat's side: the detector.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{net::TcpListener, sync::watch};
use tonic::service::Routes;
use understudy_wire::{
    DecodeError, Grant, GroupId, Heartbeat, NodeId, Release, Revoke, Subject,
    v1::{self, seat_message::Message},
};

use super::dedup::Dedup;
use crate::{
    Nats,
    direct::{DirectServer, FromNode, INBOUND_QUEUE},
    jetstream::Task,
    nats::{self, SubscribeError, Subscription},
    queue,
    quiet::Quiet,
};

/// What a detector serves.
pub struct SeatOptions {
    /// Where nodes open their direct streams.
    pub listener: TcpListener,
    /// What the detector tells of itself; each change is published and told to every stream (see
    /// [`DirectServer::serve`]).
    pub presence: watch::Receiver<v1::Presence>,
    /// Further gRPC services of the same port, such as health.
    pub extra: Option<Routes>,
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
        let SeatOptions { listener, presence, extra } = options;
        let (direct, mut streams) =
            DirectServer::serve(listener, nats.cluster().clone(), presence.clone(), extra, counters);
        let intake =
            Arc::new(Intake { nats: nats.clone(), sender, dedup: Mutex::default(), quiet: Quiet::default() });

        let heartbeats: Subscription<v1::Heartbeat> = nats.subscribe("heartbeat.*.*").await?;
        let releases: Subscription<v1::Release> = nats.subscribe("release.*.*").await?;
        let tasks = [
            tokio::spawn(Arc::clone(&intake).subscription(heartbeats, |raw| {
                Heartbeat::try_from(raw).map(|heartbeat| FromNode::Heartbeat(Box::new(heartbeat)))
            })),
            tokio::spawn(
                Arc::clone(&intake)
                    .subscription(releases, |raw| Release::try_from(raw).map(FromNode::Release)),
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

async fn publish_presence(nats: Nats, mut presence: watch::Receiver<v1::Presence>) {
    loop {
        let now = presence.borrow_and_update().clone();
        let seat = u8::try_from(now.seat).unwrap_or(0);
        nats.publish(&Subject::Detector(seat), &now);
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
        check: impl Fn(M) -> Result<FromNode, DecodeError> + Send,
    ) {
        while let Some(received) = subscription.next().await {
            let (Subject::Heartbeat(group, node) | Subject::Release(group, node)) = received.subject else {
                continue;
            };
            // Counted where it was decoded.
            let Ok(raw) = received.message else { continue };
            match check(raw) {
                Ok(message) => self.admit((group, node), message),
                Err(error) => {
                    nats::count(self.nats.counters(), &error);
                    if let Some(before) = self.quiet.pass() {
                        tracing::warn!(%group, %node, %error, before, "message of a node refused");
                    }
                }
            }
        }
    }

    /// A node may speak on its own subject only.
    fn admit(&self, member: (GroupId, NodeId), message: FromNode) {
        if message.is_from(self.nats.cluster(), &member, self.nats.counters()) {
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
