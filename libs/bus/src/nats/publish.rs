//! Publishing without waiting: a bounded queue and a task that alone waits for the client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use understudy_wire::{MAX_MESSAGE, Subject};

use super::{Nats, NatsState};
use crate::{Counters, queue, quiet::Quiet, trace};

/// Messages that wait for a server: a second of grants to 1,000 nodes at 10 heartbeats a second would not be worth
/// more when late.
const QUEUE: usize = 4_096;
/// A message that waited longer says nothing true any more: leases are shorter, and what matters is sent again.
const STALE: Duration = Duration::from_secs(1);
/// Largest reply, bytes: a whole status; the servers' default `max_payload`.
pub(super) const MAX_REPLY: usize = 1024 * 1024;

pub(super) enum Outgoing {
    Message { subject: String, headers: Option<HeaderMap>, payload: Bytes, queued: Instant },
    Flush(oneshot::Sender<()>),
}

/// Starts the task that hands messages to the client; it ends with the last `Nats`.
pub(super) fn start(
    client: Client,
    state: watch::Receiver<NatsState>,
    counters: &Arc<Counters>,
) -> queue::Sender<Outgoing> {
    let (sender, receiver) = queue::bounded("nats outgoing", QUEUE, counters.nats_full.clone());
    tokio::spawn(run(client, state, receiver, Arc::clone(counters)));
    sender
}

async fn run(
    client: Client,
    mut state: watch::Receiver<NatsState>,
    mut queue: queue::Receiver<Outgoing>,
    counters: Arc<Counters>,
) {
    let quiet = Quiet::default();
    while let Some(outgoing) = queue.recv().await {
        if state.wait_for(|state| *state == NatsState::Connected).await.is_err() {
            return;
        }
        let result = match outgoing {
            Outgoing::Message { queued, .. } if queued.elapsed() > STALE => {
                counters.nats_stale.add(1);
                continue;
            }
            Outgoing::Message { subject, headers: Some(headers), payload, .. } => {
                client.publish_with_headers(subject, headers, payload).await
            }
            Outgoing::Message { subject, headers: None, payload, .. } => {
                client.publish(subject, payload).await
            }
            Outgoing::Flush(done) => {
                let client = client.clone();
                // Not awaited here: a hung server must not stop this loop, and whoever asked has a deadline.
                tokio::spawn(async move {
                    if let Ok(Ok(())) = timeout(STALE, client.flush()).await {
                        let _ = done.send(());
                    }
                });
                continue;
            }
        };
        match result {
            Ok(()) => counters.nats_sent.add(1),
            Err(error) => {
                counters.nats_errors.add(1);
                if let Some(before) = quiet.pass() {
                    tracing::warn!(%error, before, "publishing to NATS failed");
                }
            }
        }
    }
}

impl Nats {
    /// Queues `message` and returns at once. While no server is reachable messages wait up to a second, then they
    /// are dropped and counted. The current span travels along, but not with heartbeats, grants and presence.
    pub fn publish<M: Message>(&self, subject: &Subject, message: &M) {
        self.publish_bytes(subject, Bytes::from(message.encode_to_vec()));
    }

    /// The same for a message that is encoded already.
    pub fn publish_bytes(&self, subject: &Subject, payload: Bytes) {
        if payload.len() > MAX_MESSAGE {
            self.counters.too_large.add(1);
            tracing::error!(?subject, bytes = payload.len(), "not published: larger than any receiver takes");
            return;
        }
        self.push(self.subjects.of(subject), trace::headers_for(subject), payload);
    }

    /// Answers a request; `reply` as received. A reply may have up to 1 MiB.
    pub fn respond<M: Message>(&self, reply: &str, message: &M) {
        let payload = Bytes::from(message.encode_to_vec());
        if payload.len() > MAX_REPLY {
            self.counters.too_large.add(1);
            tracing::error!(reply, bytes = payload.len(), "not answered: larger than 1 MiB");
            return;
        }
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        self.push(reply.to_owned(), (!headers.is_empty()).then_some(headers), payload);
    }

    fn push(&self, subject: String, headers: Option<HeaderMap>, payload: Bytes) {
        self.outgoing.push(Outgoing::Message { subject, headers, payload, queued: Instant::now() });
    }

    /// Waits until what was published so far has been written to the server; `false` when it was not within
    /// `limit`. For the last message before a process ends.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, written) = oneshot::channel();
        self.outgoing.push(Outgoing::Flush(done));
        matches!(timeout(limit, written).await, Ok(Ok(())))
    }
}
