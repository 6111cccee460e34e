//! Publishes events and sends again what JetStream did not acknowledge.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{HeaderMap, jetstream::Context};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::QUEUE;
use crate::{
    Counters, Nats, NatsState,
    backoff::Backoff,
    jetstream::{API_TIMEOUT, Task},
    queue,
    quiet::Quiet,
};

/// Events without an acknowledgement yet; the client allows 5,000.
const IN_FLIGHT: usize = 256;
/// Pause before what failed is sent again; doubles while nothing is acknowledged.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Pending {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

pub(super) fn start(nats: &Nats, context: Context) -> (queue::Sender<Pending>, Task) {
    let counters = Arc::clone(nats.counters());
    let (sender, receiver) = queue::bounded("events", QUEUE, counters.events_full.clone());
    let publisher = Publisher {
        context,
        state: nats.state(),
        counters,
        failed: VecDeque::new(),
        failing: false,
        backoff: Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE),
        again: Instant::now(),
        quiet: Quiet::default(),
    };
    (sender, Task(tokio::spawn(publisher.run(receiver)).abort_handle()))
}

struct Publisher {
    context: Context,
    state: watch::Receiver<NatsState>,
    counters: Arc<Counters>,
    /// Sent but not acknowledged, to be sent again in this order.
    failed: VecDeque<Pending>,
    /// Nothing was acknowledged since the last failure.
    failing: bool,
    backoff: Backoff,
    /// When the first of `failed` may go out again.
    again: Instant,
    quiet: Quiet,
}

/// One publication; the event comes back when it was not acknowledged.
async fn publish(context: Context, event: Pending) -> Result<(), (Pending, String)> {
    let attempt = async {
        let sent =
            context.publish_with_headers(event.subject.clone(), event.headers.clone(), event.payload.clone());
        sent.await?.await
    };
    match timeout(API_TIMEOUT, attempt).await {
        Ok(Ok(_ack)) => Ok(()),
        Ok(Err(error)) => Err((event, error.to_string())),
        Err(_elapsed) => Err((event, format!("no acknowledgement within {API_TIMEOUT:?}"))),
    }
}

impl Publisher {
    /// New events go out at once, whatever happened to older ones: who listens on plain NATS hears them while
    /// JetStream elects a leader. What failed follows one by one until one is acknowledged, then all.
    async fn run(mut self, mut queue: queue::Receiver<Pending>) {
        let mut in_flight = FuturesUnordered::new();
        let mut open = true;
        while open || !in_flight.is_empty() || !self.failed.is_empty() {
            if self.state.wait_for(|state| *state == NatsState::Connected).await.is_err() {
                return;
            }
            // While nothing is acknowledged one event at a time asks whether JetStream is back.
            let room = in_flight.len() < IN_FLIGHT;
            let retry = room && !self.failed.is_empty() && (!self.failing || in_flight.is_empty());
            tokio::select! {
                biased;
                Some(result) = in_flight.next() => self.settle(result),
                event = queue.recv(), if open && room => match event {
                    Some(event) => in_flight.push(publish(self.context.clone(), event)),
                    None => open = false,
                },
                () = sleep_until(self.again), if retry => {
                    if let Some(event) = self.failed.pop_front() {
                        self.counters.events_retried.add(1);
                        in_flight.push(publish(self.context.clone(), event));
                    }
                }
            }
        }
    }

    fn settle(&mut self, result: Result<(), (Pending, String)>) {
        match result {
            Ok(()) => {
                self.counters.events_stored.add(1);
                self.failing = false;
                self.backoff.reset();
                self.again = Instant::now();
            }
            Err((event, reason)) => {
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(subject = event.subject, reason, before, "event not stored yet");
                }
                self.failed.push_back(event);
                if self.failed.len() > QUEUE {
                    self.failed.pop_front();
                    self.counters.events_full.add(1);
                }
                self.failing = true;
                self.again = Instant::now() + self.backoff.pause();
            }
        }
    }
}
