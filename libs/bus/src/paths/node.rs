//! The node's side: publisher and executor.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use understudy_wire::{
    DecodeError, Grant, GroupId, Heartbeat, MAX_MESSAGE, NodeId, Release, Revoke, Subject,
    v1::{self, seat_message::Message},
};

use super::own_presence;
use crate::{
    Counters, Nats, Tls,
    direct::{DirectClient, INBOUND_QUEUE},
    jetstream::Task,
    nats::{self, Echo, SubscribeError, Subscription},
    queue,
    quiet::Quiet,
};

/// Addresses learned from detectors, at most; the ones not heard of for longest go.
const LEARNED: usize = 64;
/// A detector that has been replaced on its seat and silent for this long is not called any more.
const REPLACED: Duration = Duration::from_secs(60);

/// What the direct path puts around a heartbeat, bytes: a tag and a length.
const WRAPPING: usize = 4;

/// Who this process is and whom it talks to.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Group of the node.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// Detectors' direct addresses (`host:port`) from the config; more are learned.
    pub detectors: BTreeSet<String>,
    /// Whether grants are wanted: the executor says yes, the publisher no.
    pub grants: bool,
    /// How long nothing may come from a NATS server while the node's heartbeats leave and come back; it is left then.
    /// `None`: pings alone find a server that hangs.
    pub echo: Option<Duration>,
    /// Our certificate for the direct path, which must be of this node; `None`: plain and unproved.
    pub tls: Option<Tls>,
}

/// What a detector says to a node, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum FromSeat {
    /// A vote.
    Grant(Grant),
    /// Shut the gate and release.
    Revoke(Revoke),
    /// A detector about itself.
    Presence(v1::Presence),
}

impl TryFrom<v1::SeatMessage> for FromSeat {
    type Error = DecodeError;

    fn try_from(raw: v1::SeatMessage) -> Result<Self, DecodeError> {
        Ok(match raw.message {
            Some(Message::Grant(raw)) => Self::Grant(raw.try_into()?),
            Some(Message::Revoke(raw)) => Self::Revoke(raw.try_into()?),
            Some(Message::Presence(presence)) => Self::Presence(presence),
            None => return Err(DecodeError::Field { field: "message", why: "is missing" }),
        })
    }
}

/// Sends over both paths, never waits.
pub struct NodeSender {
    nats: Nats,
    direct: DirectClient,
    options: NodeOptions,
    echo: Option<Arc<Echo>>,
    /// A heartbeat that is too large is soon followed by another.
    large: Quiet,
    _tasks: Vec<Task>,
}

/// Opens both paths of a node.
pub struct NodePaths;

impl NodePaths {
    /// Opens both paths; what detectors say comes out of the receiver (oldest dropped when nobody reads).
    pub async fn open(
        nats: &Nats,
        options: NodeOptions,
    ) -> Result<(NodeSender, queue::Receiver<FromSeat>), SubscribeError> {
        let counters = Arc::clone(nats.counters());
        let (sender, receiver) = queue::bounded("from seats", INBOUND_QUEUE, counters.inbound_full.clone());
        let hello = v1::Hello {
            cluster: nats.cluster().to_string(),
            group: options.group.to_string(),
            node: options.node.to_string(),
            grants: options.grants,
        };
        let (addresses, following) = watch::channel(options.detectors.clone());
        let (direct, mut streams) =
            DirectClient::start(hello, options.tls.clone(), following, Arc::clone(&counters));
        let intake = Arc::new(Intake {
            nats: nats.clone(),
            options: options.clone(),
            sender,
            addresses,
            learned: std::sync::Mutex::default(),
            quiet: Quiet::default(),
        });

        let mut tasks = Vec::new();
        if options.grants {
            let pattern = format!("grant.{}.{}", options.group, options.node);
            let grants: Subscription<v1::SeatMessage> = nats.subscribe(&pattern).await?;
            tasks.push(spawn(Arc::clone(&intake).grants(grants)));
        }
        let presence: Subscription<v1::Presence> = nats.subscribe("detector.*").await?;
        tasks.push(spawn(Arc::clone(&intake).presence(presence)));
        tasks.push(spawn(async move {
            while let Some(message) = streams.recv().await {
                intake.take(message);
            }
        }));
        let echo = options.echo.map(|limit| Arc::new(Echo::start(nats, limit)));
        if let Some(echo) = &echo {
            // What it says does not matter.
            let own: Subscription<()> =
                nats.subscribe(&format!("heartbeat.{}.{}", options.group, options.node)).await?;
            tasks.push(spawn(listen(own, Arc::clone(echo))));
        }
        let large = Quiet::default();
        Ok((NodeSender { nats: nats.clone(), direct, options, echo, large, _tasks: tasks }, receiver))
    }
}

async fn listen(mut own: Subscription<()>, echo: Arc<Echo>) {
    while own.next().await.is_some() {
        echo.came();
    }
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(future).abort_handle())
}

impl NodeSender {
    /// Sends a heartbeat to the detectors.
    pub fn send_heartbeat(&self, heartbeat: &Heartbeat) {
        let raw = self.raw(heartbeat);
        self.direct.send_heartbeat(&raw);
        let subject = Subject::Heartbeat(self.options.group.clone(), self.options.node.clone());
        // Before it does, or what comes back may come first.
        self.heartbeat_left();
        self.nats.publish_bytes(&subject, Bytes::from(raw.encode_to_vec()));
    }

    /// Sends a heartbeat to the other members of the group, which need not take in each: over NATS only, since no lease
    /// hangs on it.
    pub fn tell_members(&self, heartbeat: &Heartbeat) {
        let subject = Subject::Member(self.options.group.clone(), self.options.node.clone());
        self.nats.publish_bytes(&subject, Bytes::from(self.raw(heartbeat).encode_to_vec()));
    }

    /// As it travels. One that is larger than anybody takes goes without what no lease rule looks at, for a lease must not
    /// end because a node has too much to say of itself.
    fn raw(&self, heartbeat: &Heartbeat) -> v1::Heartbeat {
        let mut raw = v1::Heartbeat::from(heartbeat);
        let bytes = raw.encoded_len() + WRAPPING;
        if bytes > MAX_MESSAGE {
            self.nats.counters().too_large.add(1);
            let reason = format!("details left out: a heartbeat of {bytes} bytes, {MAX_MESSAGE} are taken");
            if let Some(before) = self.large.pass() {
                tracing::warn!(reason, before, "heartbeat is too large");
            }
            raw.details = v1::Details { reason, ..Default::default() }.encode_to_vec();
        }
        raw
    }

    /// For an executor, whose publisher sends the heartbeats: one has left.
    pub fn heartbeat_left(&self) {
        if let Some(echo) = &self.echo {
            echo.sent();
        }
    }

    /// Sends a release; only after the gate was proved shut (rule R8).
    pub fn send_release(&self, release: &Release) {
        let raw = v1::Release::from(release);
        self.direct.send_release(&raw);
        let subject = Subject::Release(self.options.group.clone(), self.options.node.clone());
        self.nats.publish_bytes(&subject, Bytes::from(raw.encode_to_vec()));
    }

    /// Waits, `limit` at most, until what was sent has left on at least one path; whether it has. For the end of a
    /// process.
    pub async fn close(self, limit: Duration) -> bool {
        let (direct, nats) = tokio::join!(self.direct.close(limit), self.nats.flush(limit));
        direct || nats
    }
}

/// A detector process whose address is known.
struct Learned {
    address: String,
    heard: Instant,
}

/// Checks what comes over either path and passes it on.
struct Intake {
    nats: Nats,
    options: NodeOptions,
    sender: queue::Sender<FromSeat>,
    addresses: watch::Sender<BTreeSet<String>>,
    learned: std::sync::Mutex<BTreeMap<(u32, u64), Learned>>,
    quiet: Quiet,
}

impl Intake {
    async fn grants(self: Arc<Self>, mut subscription: Subscription<v1::SeatMessage>) {
        while let Some(received) = subscription.next().await {
            if let Ok(message) = received.message {
                self.take(message);
            }
        }
    }

    async fn presence(self: Arc<Self>, mut subscription: Subscription<v1::Presence>) {
        while let Some(received) = subscription.next().await {
            if let Some(presence) = own_presence(&self.nats, received) {
                self.take(v1::SeatMessage { message: Some(Message::Presence(presence)) });
            }
        }
    }

    fn counters(&self) -> &Counters {
        self.nats.counters()
    }

    fn take(&self, message: v1::SeatMessage) {
        match FromSeat::try_from(message) {
            Ok(message) if self.is_for_us(&message) => {
                if let FromSeat::Presence(presence) = &message {
                    self.learn(presence);
                }
                self.sender.push(message);
            }
            Ok(message) => {
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(?message, before, "message for another node or cluster refused");
                }
            }
            Err(error) => {
                nats::count(self.counters(), &error);
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(error = &error as &dyn Error, before, "message of a detector refused");
                }
            }
        }
    }

    /// Whether the message is for this cluster and this node; if not, it is counted.
    fn is_for_us(&self, message: &FromSeat) -> bool {
        let (cluster, member) = match message {
            FromSeat::Grant(grant) => (grant.cluster.as_str(), Some((&grant.group, &grant.holder.node))),
            FromSeat::Revoke(revoke) => (revoke.cluster.as_str(), Some((&revoke.group, &revoke.holder.node))),
            FromSeat::Presence(presence) => (presence.cluster.as_str(), None),
        };
        if cluster != self.nats.cluster().as_str() {
            self.counters().other_cluster.add(1);
            return false;
        }
        let own = member.is_none_or(|member| member == (&self.options.group, &self.options.node));
        if !own {
            self.counters().wrong_name.add(1);
        }
        own
    }

    /// Opens a direct stream to a detector that says where it is. Several processes on one seat are all called
    /// (they are in conflict and say so), but one that was replaced and is silent is forgotten.
    fn learn(&self, presence: &v1::Presence) {
        if presence.address.is_empty() || presence.address.len() > 256 {
            return;
        }
        let now = Instant::now();
        let mut learned = self.learned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (presence.seat, presence.incarnation);
        learned.insert(key, Learned { address: presence.address.clone(), heard: now });
        learned.retain(|(seat, incarnation), known| {
            (*seat, *incarnation) == key || *seat != key.0 || now.duration_since(known.heard) < REPLACED
        });
        if learned.len() > LEARNED
            && let Some(oldest) = learned.iter().min_by_key(|(_, known)| known.heard).map(|(key, _)| *key)
        {
            learned.remove(&oldest);
        }
        let mut wanted = self.options.detectors.clone();
        wanted.extend(learned.values().map(|known| known.address.clone()));
        drop(learned);
        self.addresses.send_if_modified(|addresses| {
            let changed = *addresses != wanted;
            if changed {
                *addresses = wanted;
            }
            changed
        });
    }
}
