//! Events: published at once to whoever listens, stored in JetStream as soon as it can, never waited for.

mod publish;
mod read;

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    stream::{Config, DiscardPolicy},
};
use understudy_wire::{CloudEvent, ClusterId};

use crate::{Nats, jetstream, queue, trace};

pub use crate::jetstream::JetStreamError;
pub use read::{Events, From, LiveEvents, StoredEvent};

/// Events that wait to be published; the oldest goes and is counted.
const QUEUE: usize = 4_096;
/// Two publications of one event within this are stored once (`Nats-Msg-Id`).
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// What the stream keeps: whichever limit is reached first, oldest out.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
const MAX_BYTES: i64 = 256 * 1024 * 1024;
const MAX_EVENTS: i64 = 200_000;

/// The event history of one deployment.
pub struct EventLog {
    nats: Nats,
    context: Context,
    stream: String,
    source: String,
    queue: queue::Sender<publish::Pending>,
    _keeper: Option<jetstream::Task>,
    _publisher: jetstream::Task,
}

/// Name of the stream of one deployment.
pub(crate) fn stream_name(cluster: &ClusterId) -> String {
    format!("EVENTS_{cluster}")
}

fn config(nats: &Nats) -> Config {
    let subjects = vec![nats.subjects().subscription("event.>")];
    Config {
        description: Some("Understudy events (CloudEvents 1.0, binary content mode)".to_owned()),
        duplicate_window: DUPLICATE_WINDOW,
        discard: DiscardPolicy::Old,
        max_age: MAX_AGE,
        max_bytes: MAX_BYTES,
        max_messages: MAX_EVENTS,
        ..jetstream::stream(stream_name(nats.cluster()), subjects, jetstream::replicas(nats))
    }
}

impl EventLog {
    /// Starts to publish, and keeps the stream there. `source` is the service, such as `executor/web-a`, for
    /// [`EventLog::source`].
    pub fn start(nats: &Nats, source: impl Into<String>) -> Self {
        Self { _keeper: Some(jetstream::keep(nats, config(nats))), ..Self::open(nats, source) }
    }

    /// Starts to publish; that the stream is there is somebody else's business.
    pub fn open(nats: &Nats, source: impl Into<String>) -> Self {
        let context = jetstream::context(nats);
        let (queue, publisher) = publish::start(nats, context.clone());
        Self {
            nats: nats.clone(),
            context,
            stream: stream_name(nats.cluster()),
            source: source.into(),
            queue,
            _keeper: None,
            _publisher: publisher,
        }
    }

    /// The service that publishes, to be put into [`CloudEvent::new`].
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Queues `event` and returns at once. It goes out to subscribers as soon as a server is reachable, and is sent
    /// again until JetStream has acknowledged it, in memory for up to 4,096 events. The current span travels along.
    pub fn publish(&self, event: &CloudEvent) {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in event.headers() {
            headers.insert(name, value);
        }
        trace::inject(&mut headers);
        let subject = understudy_wire::Subject::Event(event.group.clone(), event.token.to_owned());
        self.queue.push(publish::Pending {
            subject: self.nats.subjects().of(&subject),
            headers,
            payload: event.body.clone().into(),
        });
    }
}
