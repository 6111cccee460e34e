//! The detector's end: takes the streams of nodes, and sends each node's grants to those that asked for them.

use std::{
    collections::HashMap,
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use understudy_wire::{
    ClusterId, GroupId, MAX_MESSAGE, NodeId,
    v1::{self, node_message, seat_message},
};

use super::{FromNode, HELLO_TIMEOUT, INBOUND_QUEUE, Member, STREAM_QUEUE, speaker::Speaker};
use crate::{
    Counters, Tls,
    accept::paced,
    grpc::direct_server::{Direct, DirectServer as Service},
    nats, queue,
    quiet::Quiet,
};

/// A node whose connection is silent is asked for a sign of life by the kernel, whose answer wakes nobody, and forgotten
/// when none comes. One that only hangs may keep its stream.
const SILENT: Duration = Duration::from_secs(1);
const FORGOTTEN: Duration = Duration::from_secs(3);
/// Streams on one connection: publisher and executor use one each, on connections of their own.
const STREAMS_PER_CONNECTION: u32 = 8;

/// One open stream.
struct Peer {
    id: u64,
    grants: bool,
    queue: queue::Sender<v1::SeatMessage>,
}

struct Shared {
    cluster: ClusterId,
    /// Whether callers have shown a certificate, which then says for whom they may speak.
    known: bool,
    presence: watch::Receiver<v1::Presence>,
    peers: Mutex<HashMap<Member, Vec<Peer>>>,
    next: AtomicU64,
    inbound: queue::Sender<FromNode>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    /// One each: a flood of one kind must not hide the first of another.
    strangers: Quiet,
    impostors: Quiet,
    bidders: Quiet,
    liars: Quiet,
    quiet: Quiet,
}

/// Serves the direct path until it is dropped.
pub struct DirectServer {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl DirectServer {
    /// Serves on `listener`. `presence` is told to every stream at its start and at every change that matters to a
    /// node (all but the lateness). Messages of nodes come out of the receiver, checked; when nobody reads it, the
    /// oldest goes. The port answers the gRPC health protocol too. With `tls` a caller must show a certificate and
    /// speaks for the node that it names, without it for whom it likes.
    pub fn serve(
        listener: TcpListener,
        cluster: ClusterId,
        presence: watch::Receiver<v1::Presence>,
        tls: Option<Tls>,
        counters: Arc<Counters>,
    ) -> (Self, queue::Receiver<FromNode>) {
        let (inbound, receiver) =
            queue::bounded("direct inbound", INBOUND_QUEUE, counters.inbound_full.clone());
        if let Err(error) = watch_over(&listener) {
            tracing::warn!(error = &error as &dyn Error, "direct path: nodes that vanish are noticed late");
        }
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            cluster,
            known: tls.is_some(),
            presence,
            peers: Mutex::default(),
            next: AtomicU64::new(0),
            inbound,
            counters,
            stop: stop.clone(),
            strangers: Quiet::default(),
            impostors: Quiet::default(),
            bidders: Quiet::default(),
            liars: Quiet::default(),
            quiet: Quiet::default(),
        });
        let service = Service::new(Exchange(Arc::clone(&shared)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        tokio::spawn(run(Arc::clone(&shared), listener, service, tls));
        tokio::spawn(announce(Arc::clone(&shared)));
        (Self { shared, _stop: stop.drop_guard() }, receiver)
    }

    /// Queues `message` for every stream of this node that asked for grants; the number of such streams. A stream
    /// whose reader is stuck loses its oldest message, which is counted, and delays nobody.
    pub fn send(&self, group: &GroupId, node: &NodeId, message: &v1::SeatMessage) -> usize {
        let peers = self.shared.peers();
        let Some(streams) = peers.get(&(group.clone(), node.clone())) else { return 0 };
        let asked = streams.iter().filter(|peer| peer.grants);
        asked.map(|peer| peer.queue.push(message.clone())).filter(|pushed| *pushed).count()
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.shared.peers().values().map(Vec::len).sum()
    }
}

/// Connections inherit it.
fn watch_over(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT).with_interval(SILENT))?;
    // Also for what was sent and never acknowledged, which is not asked for signs of life.
    socket.set_tcp_user_timeout(Some(FORGOTTEN))
}

/// Serves callers until the server is dropped.
async fn run(shared: Arc<Shared>, listener: TcpListener, service: Service<Exchange>, tls: Option<Tls>) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<Service<Exchange>>().await;
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .add_service(health)
        .add_service(service);
    let ended = shared.stop.clone().cancelled_owned();
    let result = match tls {
        None => {
            let plain = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(paced(plain), ended).await
        }
        Some(tls) => {
            let accepted = tls.accept_known(listener, move |peer, error| shared.stranger(peer, error));
            let incoming = stream::unfold(accepted, |mut accepted| async {
                let (connection, _peer) = accepted.next().await?;
                Some((io::Result::Ok(connection), accepted))
            });
            router.serve_with_incoming_shutdown(incoming, ended).await
        }
    };
    if let Err(error) = result {
        tracing::error!(error = &error as &dyn Error, "direct path: server ended");
    }
}

fn presence_message(presence: v1::Presence) -> v1::SeatMessage {
    v1::SeatMessage { message: Some(seat_message::Message::Presence(presence)) }
}

/// Whether two presences differ in more than lateness.
pub(crate) fn differs(one: &v1::Presence, other: &v1::Presence) -> bool {
    v1::Presence { late_nanos: one.late_nanos, ..other.clone() } != *one
}

/// Tells every stream when the presence changes in more than its lateness.
async fn announce(shared: Arc<Shared>) {
    let mut presence = shared.presence.clone();
    let mut told = presence.borrow_and_update().clone();
    while let Some(Ok(())) = shared.stop.run_until_cancelled(presence.changed()).await {
        let now = presence.borrow_and_update().clone();
        if differs(&told, &now) {
            told = now;
            for peer in shared.peers().values().flatten() {
                peer.queue.push(presence_message(told.clone()));
            }
        }
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, HashMap<Member, Vec<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller without a certificate of ours.
    fn stranger(&self, peer: SocketAddr, error: &io::Error) {
        self.counters.not_allowed.add(1);
        if let Some(before) = self.strangers.pass() {
            tracing::warn!(%peer, %error, before, "direct path: caller refused");
        }
    }

    /// Who the stream says it is, if it may stay, and whether it gets the node's grants.
    fn admit(
        &self,
        message: Option<v1::NodeMessage>,
        speaker: Option<&Speaker>,
    ) -> Result<(Member, bool), Status> {
        let Some(node_message::Message::Hello(hello)) = message.and_then(|message| message.message) else {
            self.counters.malformed.add(1);
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        if hello.cluster != self.cluster.as_str() {
            self.counters.other_cluster.add(1);
            let text = format!("this is cluster {}, not {:.64}", self.cluster, hello.cluster);
            return Err(Status::failed_precondition(text));
        }
        let names = GroupId::new(&hello.group).and_then(|group| Ok((group, NodeId::new(&hello.node)?)));
        let member = names.map_err(|error| {
            self.counters.malformed.add(1);
            Status::invalid_argument(error.to_string())
        })?;
        if let Some(speaker) = speaker
            && !speaker.may_join(&self.cluster, &member, hello.grants)
        {
            self.counters.not_allowed.add(1);
            if let Some(before) = self.impostors.pass() {
                tracing::warn!(%speaker, ?member, before, "direct path: stream in another's name refused");
            }
            return Err(Status::permission_denied("the certificate is of another node or role"));
        }
        Ok((member, hello.grants))
    }

    fn forget(&self, member: &Member, id: u64) {
        let mut peers = self.peers();
        if let Some(streams) = peers.get_mut(member) {
            streams.retain(|peer| peer.id != id);
            if streams.is_empty() {
                peers.remove(member);
            }
        }
    }

    /// A stream ends with a message that cannot be decoded, since nobody knows where the next one begins.
    fn count(&self, status: &Status) {
        match status.code() {
            Code::OutOfRange => self.counters.too_large.add(1),
            Code::Internal if status.message().starts_with("failed to decode") => {
                self.counters.malformed.add(1);
            }
            _ => {}
        }
    }

    /// Checks one message of `member` and passes it on; a bad one is counted and the stream lives on.
    fn take(&self, member: &Member, speaker: Option<&Speaker>, message: v1::NodeMessage) {
        self.counters.direct_received.add(1);
        if let Some(speaker) = speaker
            && !speaker.may_say(&self.cluster, member, &message)
        {
            self.counters.not_allowed.add(1);
            if let Some(before) = self.bidders.pass() {
                tracing::warn!(%speaker, before, "direct path: heartbeat of a process that is no publisher refused");
            }
            return;
        }
        match FromNode::try_from(message) {
            Ok(message) if !message.is_from(&self.cluster, member, &self.counters) => {
                if let Some(before) = self.liars.pass() {
                    tracing::warn!(?member, before, "direct path: message in another's name refused");
                }
            }
            Ok(message) => {
                self.inbound.push(message);
            }
            Err(error) => {
                nats::count(&self.counters, &error);
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(
                        ?member,
                        error = &error as &dyn Error,
                        before,
                        "direct path: message refused"
                    );
                }
            }
        }
    }
}

impl FromNode {
    /// Whether the message is of this cluster and speaks for `member` only; if not, it is counted.
    pub(crate) fn is_from(&self, cluster: &ClusterId, member: &Member, counters: &Counters) -> bool {
        let named = match self {
            Self::Heartbeat(heartbeat) => (&heartbeat.cluster, &heartbeat.group, &heartbeat.node),
            Self::Release(release) => (&release.cluster, &release.group, &release.holder.node),
        };
        is_from(named, cluster, member, counters)
    }
}

/// As [`FromNode::is_from`], by what the message calls its cluster, group and node.
pub(crate) fn is_from(
    (named, group, node): (&ClusterId, &GroupId, &NodeId),
    cluster: &ClusterId,
    member: &Member,
    counters: &Counters,
) -> bool {
    if named != cluster {
        counters.other_cluster.add(1);
        return false;
    }
    let own = (group, node) == (&member.0, &member.1);
    if !own {
        counters.wrong_name.add(1);
    }
    own
}

struct Exchange(Arc<Shared>);

#[tonic::async_trait]
impl Direct for Exchange {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<v1::SeatMessage, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let shared = Arc::clone(&self.0);
        let shown = request.peer_certs();
        let speaker = shared.known.then(|| Speaker::of(shown.as_ref().map_or(&[], |chain| chain)));
        let mut messages = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, messages.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded(format!("no hello within {HELLO_TIMEOUT:?}")))??;
        let (member, grants) = shared.admit(first, speaker.as_ref())?;

        let (sender, receiver) =
            queue::bounded("direct stream", STREAM_QUEUE, shared.counters.direct_full.clone());
        sender.push(presence_message(shared.presence.borrow().clone()));
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        shared.peers().entry(member.clone()).or_default().push(Peer { id, grants, queue: sender });
        shared.counters.direct_connects.add(1);

        let sent = shared.counters.direct_sent.clone();
        tokio::spawn(async move {
            loop {
                match shared.stop.run_until_cancelled(messages.message()).await {
                    Some(Ok(Some(message))) => shared.take(&member, speaker.as_ref(), message),
                    Some(Err(status)) => {
                        shared.count(&status);
                        break;
                    }
                    Some(Ok(None)) | None => break,
                }
            }
            shared.forget(&member, id);
            shared.counters.direct_disconnects.add(1);
        });
        Ok(Response::new(Box::pin(receiver.into_stream().map(move |message| {
            sent.add(1);
            Ok(message)
        }))))
    }
}
