//! The node's end: one task and one outbox per detector.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use understudy_wire::{
    MAX_MESSAGE,
    v1::{self, node_message, seat_message},
};

use super::{INBOUND_QUEUE, endpoint, outbox::Outbox};
use crate::{Counters, Tls, backoff::Backoff, causes::causes, grpc::direct_client, queue, quiet::Quiet};

/// For one attempt, name lookup included: a detector that needs longer is no use for a lease of 300 ms.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// The detector answers as soon as it has read the hello.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection is pinged when it has been silent for this long, and given up when no answer comes within `PING_TIMEOUT`. A
/// standby hears nothing on the one that brings grants, so this is most of what its executor sends and is woken for. A
/// publisher's brings nothing but carries a heartbeat every interval, so the kernel tells of a network that is gone
/// ([`UNACKNOWLEDGED`]), and pings find what the kernel's acknowledgements hide: a detector that hangs.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// What was sent and not acknowledged for so long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_millis(450);
/// Pause before the first new attempt; doubles up to `LONGEST_PAUSE`, and every pause is drawn between half and whole.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived this long was a good one: the next attempt comes quickly again.
const SETTLED: Duration = Duration::from_secs(1);

struct Link {
    outbox: Arc<Outbox>,
    task: JoinHandle<()>,
}

struct Shared {
    links: Mutex<BTreeMap<String, Link>>,
    hello: v1::Hello,
    tls: Option<Tls>,
    inbound: queue::Sender<v1::SeatMessage>,
    counters: Arc<Counters>,
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a link to every new address and ends those to addresses that went.
    fn follow(&self, addresses: &BTreeSet<String>) {
        let mut links = self.links();
        links.retain(|address, link| {
            let stays = addresses.contains(address);
            if !stays {
                link.task.abort();
            }
            stays
        });
        for address in addresses {
            if links.contains_key(address) {
                continue;
            }
            let outbox = Arc::new(Outbox::new(Arc::clone(&self.counters)));
            let attempt = Attempt {
                address: address.clone(),
                hello: self.hello.clone(),
                tls: self.tls.clone(),
                outbox: Arc::clone(&outbox),
                inbound: self.inbound.clone(),
                counters: Arc::clone(&self.counters),
            };
            let task = tokio::spawn(attempt.run());
            links.insert(address.clone(), Link { outbox, task });
        }
    }
}

/// Streams to all detectors. Dropping it ends them.
pub struct DirectClient {
    shared: Arc<Shared>,
    follower: AbortHandle,
}

impl Drop for DirectClient {
    fn drop(&mut self) {
        self.follower.abort();
        for link in self.shared.links().values() {
            link.task.abort();
        }
    }
}

impl DirectClient {
    /// Keeps one stream open to each of `addresses` (`host:port`), also to those that are added later. What the
    /// detectors say comes out of the receiver; when nobody reads it, the oldest goes. With `tls` only real detectors
    /// are talked to, without it whoever answers.
    pub fn start(
        hello: v1::Hello,
        tls: Option<Tls>,
        mut addresses: watch::Receiver<BTreeSet<String>>,
        counters: Arc<Counters>,
    ) -> (Self, queue::Receiver<v1::SeatMessage>) {
        let (inbound, receiver) =
            queue::bounded("direct inbound", INBOUND_QUEUE, counters.inbound_full.clone());
        let shared = Arc::new(Shared { links: Mutex::default(), hello, tls, inbound, counters });
        shared.follow(&addresses.borrow_and_update());
        let following = Arc::clone(&shared);
        let follower = tokio::spawn(async move {
            while addresses.changed().await.is_ok() {
                following.follow(&addresses.borrow_and_update());
            }
        });
        (Self { shared, follower: follower.abort_handle() }, receiver)
    }

    /// Queues a heartbeat for every detector; one that still waits is replaced.
    pub fn send_heartbeat(&self, heartbeat: &v1::Heartbeat) {
        for link in self.shared.links().values() {
            link.outbox.heartbeat(heartbeat.clone());
        }
    }

    /// Queues a release for every detector.
    pub fn send_release(&self, release: &v1::Release) {
        for link in self.shared.links().values() {
            link.outbox.release(release.clone());
        }
    }

    /// Sends what waits, closes every stream and waits, `limit` at most, until each detector has read to the end.
    /// `false` when one had not. For the last message before a process ends.
    pub async fn close(self, limit: Duration) -> bool {
        self.follower.abort();
        let links = std::mem::take(&mut *self.shared.links());
        for link in links.values() {
            link.outbox.close();
        }
        let until = Instant::now() + limit;
        let mut all = true;
        for mut link in links.into_values() {
            if tokio::time::timeout_at(until, &mut link.task).await.is_err() {
                link.task.abort();
                all = false;
            }
        }
        all
    }
}

/// What waits, once the detector has answered: one that accepts and never answers must not swallow anything.
fn after(
    admission: oneshot::Receiver<()>,
    outbox: Arc<Outbox>,
) -> impl Stream<Item = v1::NodeMessage> + Send {
    let admitted = async move {
        match admission.await {
            Ok(()) => outbox.stream().left_stream(),
            Err(_gone) => stream::empty().right_stream(),
        }
    };
    stream::once(admitted).flatten()
}

/// TCP as it should be for few small messages that are soon too old.
fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    // The scheme may be https: TLS is put around what this connects.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector
}

/// What one link's task owns.
struct Attempt {
    address: String,
    hello: v1::Hello,
    tls: Option<Tls>,
    outbox: Arc<Outbox>,
    inbound: queue::Sender<v1::SeatMessage>,
    counters: Arc<Counters>,
}

impl Attempt {
    /// Connects again and again, until the outbox is closed and empty.
    async fn run(self) {
        let quiet = Quiet::default();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let started = Instant::now();
            let result = self.once().await;
            if self.outbox.is_closed() || self.inbound.is_closed() {
                return;
            }
            self.outbox.connection_lost();
            if let Err(status) = result
                && let Some(before) = quiet.pass()
            {
                let reason = status.message();
                tracing::info!(detector = self.address, code = ?status.code(), reason, before, "direct path down");
            }
            if started.elapsed() >= SETTLED {
                backoff.reset();
            }
            sleep(backoff.pause()).await;
        }
    }

    /// One connection, from the first byte to its end.
    async fn once(&self) -> Result<(), Status> {
        let endpoint = endpoint(&self.address, self.tls.as_ref())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector()))
            .await
            .map_err(|_elapsed| {
                Status::deadline_exceeded(format!("no connection within {CONNECT_TIMEOUT:?}"))
            })?
            .map_err(|error| Status::unavailable(causes(&error)))?;
        let mut client = direct_client::DirectClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);

        // The connection's own task may outlive this one and must not take messages meant for the next connection.
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        let hello = v1::NodeMessage { message: Some(node_message::Message::Hello(self.hello.clone())) };
        let (admitted, admission) = oneshot::channel();
        let body = stream::once(async { hello })
            .chain(after(admission, Arc::clone(&self.outbox)))
            .take_until(ended.cancelled_owned());
        let answer = timeout(ANSWER_TIMEOUT, client.exchange(body)).await.map_err(|_elapsed| {
            Status::deadline_exceeded(format!("no answer within {ANSWER_TIMEOUT:?}"))
        })??;
        let _ = admitted.send(());
        self.counters.direct_connects.add(1);
        let result = self.receive(answer.into_inner()).await;
        self.counters.direct_disconnects.add(1);
        result
    }

    async fn receive(&self, mut messages: tonic::Streaming<v1::SeatMessage>) -> Result<(), Status> {
        while let Some(message) = messages.message().await? {
            self.counters.direct_received.add(1);
            if let Some(seat_message::Message::Presence(presence)) = &message.message {
                tracing::trace!(detector = self.address, seat = presence.seat, "presence");
            }
            if !self.inbound.push(message) {
                break;
            }
        }
        Ok(())
    }
}
