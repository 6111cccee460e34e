//! Reading events back: the history, and what comes.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use async_nats::{
    HeaderMap, Subscriber,
    jetstream::{
        Context,
        consumer::{DeliverPolicy, pull},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout_at},
};
use understudy_wire::{EventBody, GroupId};

use super::EventLog;
use crate::jetstream::{API_TIMEOUT, JetStreamError, Task, within};

/// For the whole history that is asked for.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Events that wait for the reader of [`Events`]; a full queue makes the reading wait, nothing is lost.
const FOLLOW_QUEUE: usize = 256;
/// Ids remembered to tell a second publication; those come within seconds of the first.
const REMEMBERED: usize = 4_096;
/// Pause before a broken reader starts again.
const PAUSE: Duration = Duration::from_millis(250);

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the newest `n` events.
    Last(usize),
    /// With the first event stored at this time or later (the servers' clock).
    Since(SystemTime),
    /// With the event stored after this one, [`StoredEvent::sequence`]; 0: with the first.
    After(u64),
}

/// One event as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Place in the stream, from 1; 0 when heard live.
    pub sequence: u64,
    /// Subject, `understudy.<cluster>.event.<group>.<kind>`.
    pub subject: String,
    /// CloudEvents attributes without their `ce-` (`id`, `source`, `type`, `subject`, `time`), and `traceparent`.
    pub attributes: BTreeMap<String, String>,
    /// Protobuf JSON of the event's type.
    pub body: Bytes,
}

impl StoredEvent {
    /// An event out of the parts of a message; header names count in any case (CloudEvents NATS binding, 3.1.3).
    pub fn new(sequence: u64, subject: &str, headers: Option<&HeaderMap>, body: Bytes) -> Self {
        let mut attributes = BTreeMap::new();
        for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
            let name: &str = name.as_ref();
            let lower = name.to_ascii_lowercase();
            let name =
                lower.strip_prefix("ce-").map(str::to_owned).or((lower == "traceparent").then_some(lower));
            if let (Some(name), Some(value)) = (name, values.first()) {
                attributes.insert(name, value.as_str().to_owned());
            }
        }
        Self { sequence, subject: subject.to_owned(), attributes, body }
    }

    /// Attribute by name, empty when it is missing.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Last token of the subject: the kind, as in [`EventBody::KIND`].
    pub fn kind(&self) -> &str {
        self.subject.rsplit('.').next().unwrap_or_default()
    }

    /// The body as the type that it says it is.
    pub fn body<B: EventBody>(&self) -> Result<B, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// Tells the second sighting of an id, over the newest [`REMEMBERED`] ones.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn first(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return true;
        }
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// Stored events, then new ones as they are stored, without end.
pub struct Events {
    receiver: mpsc::Receiver<StoredEvent>,
    _task: Task,
}

impl Events {
    /// Waits for the next event. Cancel safe. Survives elections and lost servers; never `None` in practice.
    pub async fn next(&mut self) -> Option<StoredEvent> {
        self.receiver.recv().await
    }
}

/// Events as they are published, stored or not, each once.
pub struct LiveEvents {
    subscriber: Subscriber,
    seen: Seen,
}

impl LiveEvents {
    /// Waits for the next event; `None` once the client has ended. Cancel safe. What is published while no server
    /// is reachable comes later.
    pub async fn next(&mut self) -> Option<StoredEvent> {
        loop {
            let raw = self.subscriber.next().await?;
            let event = StoredEvent::new(0, &raw.subject, raw.headers.as_ref(), raw.payload);
            if self.seen.first(event.attribute("id")) {
                return Some(event);
            }
        }
    }
}

impl EventLog {
    fn pattern(&self, group: Option<&GroupId>) -> String {
        let group = group.map_or("*", GroupId::as_str);
        self.nats.subjects().subscription(&format!("event.{group}.*"))
    }

    /// Subscribes to events as they are published, of one group or of all.
    pub async fn live(&self, group: Option<&GroupId>) -> Result<LiveEvents, JetStreamError> {
        let pattern = self.pattern(group);
        let step = || format!("subscribing to {pattern}");
        let subscriber = within(API_TIMEOUT, step, self.nats.client().subscribe(pattern.clone())).await?;
        Ok(LiveEvents { subscriber, seen: Seen::default() })
    }

    /// Reads the stored events of one group or of all, oldest first, each once.
    pub async fn read(
        &self,
        from: From,
        group: Option<&GroupId>,
    ) -> Result<Vec<StoredEvent>, JetStreamError> {
        let reader = Reader::new(self, group);
        let start = reader.start(from).await?;
        let until = tokio::time::Instant::now() + READ_LIMIT;
        let mut events = VecDeque::new();
        let mut seen = Seen::default();
        let (pending, mut messages) = reader.open(start).await?;
        if pending == 0 {
            return Ok(Vec::new());
        }
        loop {
            let failed = |cause| JetStreamError::new(format!("reading {}", reader.stream), cause);
            let message = timeout_at(until, messages.next())
                .await
                .map_err(|_elapsed| failed(format!("not finished within {READ_LIMIT:?}").into()))?
                .ok_or_else(|| failed("the reader ended".into()))?
                .map_err(|error| failed(error.into()))?;
            let info = message.info().map_err(failed)?;
            let (sequence, left) = (info.stream_sequence, info.pending);
            let event = StoredEvent::new(
                sequence,
                &message.subject,
                message.headers.as_ref(),
                message.payload.clone(),
            );
            if seen.first(event.attribute("id")) {
                events.push_back(event);
            }
            if let From::Last(most) = from
                && events.len() > most
            {
                events.pop_front();
            }
            if left == 0 {
                return Ok(events.into());
            }
        }
    }

    /// Reads from `from` on and goes on with new events as they are stored, each once.
    pub fn follow(&self, from: From, group: Option<&GroupId>) -> Events {
        let (sender, receiver) = mpsc::channel(FOLLOW_QUEUE);
        let reader = Reader::new(self, group);
        let task = tokio::spawn(async move {
            let (mut from, mut seen) = (from, Seen::default());
            while !sender.is_closed() {
                if let Err(error) = reader.follow(&mut from, &mut seen, &sender).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "following events: starting again"
                    );
                }
                sleep(PAUSE).await;
            }
        });
        Events { receiver, _task: Task(task.abort_handle()) }
    }
}

/// What reading needs, apart from the log so that a task can own it.
struct Reader {
    context: Context,
    stream: String,
    filter: String,
    one_group: bool,
}

impl Reader {
    fn new(log: &EventLog, group: Option<&GroupId>) -> Self {
        Self {
            context: log.context.clone(),
            stream: log.stream.clone(),
            filter: log.pattern(group),
            one_group: group.is_some(),
        }
    }

    async fn start(&self, from: From) -> Result<DeliverPolicy, JetStreamError> {
        Ok(match from {
            From::After(sequence) => DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
            From::Since(time) => DeliverPolicy::ByStartTime { start_time: time.into() },
            // Other groups' events lie between; the caller cuts.
            From::Last(_) if self.one_group => DeliverPolicy::All,
            From::Last(most) => {
                let step = || format!("looking at {}", self.stream);
                let stream = within(API_TIMEOUT, step, self.context.get_stream(&self.stream)).await?;
                let last = stream.cached_info().state.last_sequence;
                let most = u64::try_from(most).unwrap_or(u64::MAX);
                DeliverPolicy::ByStartSequence { start_sequence: last.saturating_sub(most) + 1 }
            }
        })
    }

    /// How many events wait, and the events.
    async fn open(&self, deliver_policy: DeliverPolicy) -> Result<(u64, pull::Ordered), JetStreamError> {
        let step = || format!("reading {}", self.stream);
        let stream = within(API_TIMEOUT, step, self.context.get_stream(&self.stream)).await?;
        let options =
            pull::OrderedConfig { deliver_policy, filter_subject: self.filter.clone(), ..Default::default() };
        let consumer = within(API_TIMEOUT, step, stream.create_consumer(options)).await?;
        let pending = consumer.cached_info().num_pending;
        Ok((pending, within(API_TIMEOUT, step, consumer.messages()).await?))
    }

    async fn follow(
        &self,
        from: &mut From,
        seen: &mut Seen,
        sender: &mpsc::Sender<StoredEvent>,
    ) -> Result<(), JetStreamError> {
        let (_pending, mut messages) = self.open(self.start(*from).await?).await?;
        let failed = |cause| JetStreamError::new(format!("following {}", self.stream), cause);
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| failed(error.into()))?;
            let sequence = message.info().map_err(failed)?.stream_sequence;
            let event = StoredEvent::new(
                sequence,
                &message.subject,
                message.headers.as_ref(),
                message.payload.clone(),
            );
            if seen.first(event.attribute("id")) && sender.send(event).await.is_err() {
                return Ok(());
            }
            *from = From::After(sequence);
        }
        Ok(())
    }
}
