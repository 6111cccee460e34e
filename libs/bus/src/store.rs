//! What outlives every process: the epoch ceilings (rule R6b), who is in maintenance, and the sizes of groups. JetStream
//! KV; nothing on the way of a lease waits for it.

mod scaling;

use std::{collections::BTreeSet, error::Error, time::Duration};

use async_nats::jetstream::{
    Context, ErrorCode,
    kv::{self, CreateErrorKind, Operation, UpdateErrorKind},
    stream::{Config, DiscardPolicy},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use understudy_wire::{ClusterId, Epoch, GroupId, NodeId, Slot};

use crate::{
    Nats,
    backoff::jitter,
    jetstream::{self, API_TIMEOUT, JetStreamError, Task, within},
};

/// For one operation with all its attempts; an election of the stream's leader takes longer, then the caller asks
/// again.
const OPERATION: Duration = Duration::from_secs(4);
/// Pause after somebody else was faster.
const CONTENDED: Duration = Duration::from_millis(20);
/// The maintenance set is read afresh this often, should a notice have been lost.
const REFRESH: Duration = Duration::from_secs(5);
/// Pause before a failed reading of the maintenance set is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// The one key that holds every node in maintenance: a set is read and replaced as a whole.
pub(crate) const MAINTENANCE: &str = "maintenance";
/// Bytes of the whole bucket, and of one value.
const MAX_BYTES: i64 = 64 * 1024 * 1024;
const MAX_VALUE: i32 = 512 * 1024;

pub use scaling::{Sizes, read_size};
pub(crate) use scaling::{memory, sizes};

/// Nodes in maintenance.
pub type Maintenance = BTreeSet<(GroupId, NodeId)>;

/// The KV bucket of one deployment.
pub struct Store {
    context: Context,
    bucket: String,
    _keeper: Option<Task>,
}

/// Name of the bucket of one deployment.
pub(crate) fn bucket(cluster: &ClusterId) -> String {
    format!("understudy_{cluster}")
}

/// Name of the stream behind the bucket.
pub(crate) fn stream_name(cluster: &ClusterId) -> String {
    format!("KV_{}", bucket(cluster))
}

fn config(nats: &Nats) -> Config {
    let bucket = bucket(nats.cluster());
    Config {
        description: Some("Understudy: epoch ceilings, maintenance, sizes".to_owned()),
        max_messages_per_subject: 1,
        max_bytes: MAX_BYTES,
        max_message_size: MAX_VALUE,
        allow_rollup: true,
        deny_delete: true,
        // Off: a read must come from the leader, since a copy that lags behind would show an old ceiling.
        allow_direct: false,
        discard: DiscardPolicy::New,
        ..jetstream::stream(
            stream_name(nats.cluster()),
            vec![format!("$KV.{bucket}.>")],
            jetstream::replicas(nats),
        )
    }
}

/// What a compare-and-set loop does with the value it found.
enum Change<T> {
    /// Nothing to write.
    Keep(T),
    /// Write this if nobody was faster.
    Write(Bytes, T),
}

impl Store {
    /// Starts to keep the bucket there; returns at once, also while no server is reachable.
    pub fn start(nats: &Nats) -> Self {
        Self { _keeper: Some(jetstream::keep(nats, config(nats))), ..Self::open(nats) }
    }

    /// The bucket; that it is there is somebody else's business.
    pub fn open(nats: &Nats) -> Self {
        Self { context: jetstream::context(nats), bucket: bucket(nats.cluster()), _keeper: None }
    }

    async fn opened(&self) -> Result<kv::Store, JetStreamError> {
        let step = || format!("opening bucket {}", self.bucket);
        within(API_TIMEOUT, step, self.context.get_key_value(&self.bucket)).await
    }

    /// Reads `key`, lets `change` decide, writes under the condition that nobody wrote in between; again until then.
    async fn change<T>(
        &self,
        key: &str,
        change: impl Fn(Option<&[u8]>) -> Result<Change<T>, JetStreamError>,
    ) -> Result<T, JetStreamError> {
        let step = || format!("changing {key} in {}", self.bucket);
        let attempt = async {
            let store = self.opened().await?;
            loop {
                let entry = within(API_TIMEOUT, step, store.entry(key)).await?;
                let found = entry.as_ref().filter(|entry| entry.operation == Operation::Put);
                let (value, result) = match change(found.map(|entry| &*entry.value))? {
                    Change::Keep(result) => return Ok(result),
                    Change::Write(value, result) => (value, result),
                };
                let lost = match &entry {
                    Some(entry) => match store.update(key, value, entry.revision).await {
                        Ok(_revision) => return Ok(result),
                        Err(error)
                            if error.kind() == UpdateErrorKind::WrongLastRevision || contended(&error) =>
                        {
                            error.to_string()
                        }
                        Err(error) => return Err(JetStreamError::new(step(), error)),
                    },
                    None => match store.create(key, value).await {
                        Ok(_revision) => return Ok(result),
                        Err(error) if error.kind() == CreateErrorKind::AlreadyExists || contended(&error) => {
                            error.to_string()
                        }
                        Err(error) => return Err(JetStreamError::new(step(), error)),
                    },
                };
                tracing::trace!(key, lost, "somebody else was faster");
                sleep(jitter(CONTENDED)).await;
            }
        };
        timeout(OPERATION, attempt).await.unwrap_or_else(|_elapsed| {
            Err(JetStreamError::new(step(), format!("not done within {OPERATION:?}")))
        })
    }

    /// Raises the ceiling of a slot to `epoch` at least, never lowers it. The ceiling that is durable now.
    pub async fn raise_ceiling(
        &self,
        group: &GroupId,
        slot: Slot,
        epoch: Epoch,
    ) -> Result<Epoch, JetStreamError> {
        self.change(&ceiling_key(group, slot), |found| {
            let now = read_ceiling(found)?;
            if found.is_some() && now >= epoch {
                return Ok(Change::Keep(now));
            }
            let raised = now.max(epoch);
            Ok(Change::Write(raised.0.to_string().into(), raised))
        })
        .await
    }

    /// The ceiling of a slot; 0 only when none was ever written. An error means that it is not known. The value is
    /// written back under a condition, so what is returned is the newest: a deposed leader's answer does not pass.
    pub async fn ceiling(&self, group: &GroupId, slot: Slot) -> Result<Epoch, JetStreamError> {
        self.change(&ceiling_key(group, slot), |found| {
            let now = read_ceiling(found)?;
            Ok(Change::Write(now.0.to_string().into(), now))
        })
        .await
    }

    /// Puts a node into maintenance or takes it out; whether that changed anything. Durable when it returns.
    pub async fn set_maintenance(
        &self,
        group: &GroupId,
        node: &NodeId,
        on: bool,
    ) -> Result<bool, JetStreamError> {
        self.change(MAINTENANCE, |found| {
            let mut set = found.map_or(Ok(Maintenance::new()), read_maintenance)?;
            let member = (group.clone(), node.clone());
            let changed = if on { set.insert(member) } else { set.remove(&member) };
            if !changed {
                return Ok(Change::Keep(false));
            }
            let value = serde_json::to_vec(&set)
                .map_err(|error| JetStreamError::new("writing the maintenance set", error))?;
            Ok(Change::Write(value.into(), true))
        })
        .await
    }

    /// The nodes in maintenance as the stream's leader has them: with everything that was durable when this was asked.
    pub async fn maintenance(&self) -> Result<Maintenance, JetStreamError> {
        stored_maintenance(&self.opened().await?).await
    }

    /// Follows the nodes in maintenance: always the whole set, `None` until it was read once. The last set known
    /// stays while JetStream is away. The task ends with the last receiver.
    pub fn watch_maintenance(&self) -> watch::Receiver<Option<Maintenance>> {
        let (sender, receiver) = watch::channel(None);
        let (context, bucket) = (self.context.clone(), self.bucket.clone());
        tokio::spawn(async move {
            let following = async {
                loop {
                    if let Err(error) = follow_maintenance(&context, &bucket, &sender).await {
                        tracing::debug!(bucket, error = &error as &dyn Error, "maintenance: reading again");
                        sleep(RETRY).await;
                    }
                }
            };
            tokio::select! {
                () = following => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }
}

/// Whether a write lost against another one. While the other is still being copied to the replicas, the servers say so
/// with a code (10164) that the client knows no kind for.
fn contended(error: &(dyn Error + 'static)) -> bool {
    const LOST: [ErrorCode; 2] =
        [ErrorCode::STREAM_WRONG_LAST_SEQUENCE, ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT];
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause
            .downcast_ref::<async_nats::jetstream::Error>()
            .is_some_and(|cause| LOST.contains(&cause.error_code()))
        {
            return true;
        }
        error = cause.source();
    }
    false
}

fn ceiling_key(group: &GroupId, slot: Slot) -> String {
    format!("ceiling.{group}.{slot}")
}

/// The ceiling in a value of the bucket, decimal digits; `None`, when none was ever written, is 0.
///
/// # Errors
/// Anything else: then the ceiling is not known, and the seat stays silent (rule R6).
pub fn read_ceiling(value: Option<&[u8]>) -> Result<Epoch, JetStreamError> {
    let Some(bytes) = value else { return Ok(Epoch(0)) };
    let text = std::str::from_utf8(bytes).map_err(|error| JetStreamError::new("reading a ceiling", error))?;
    let step = || format!("reading a ceiling of {:?}", text.chars().take(32).collect::<String>());
    let raw = text.parse().map_err(|error| JetStreamError::new(step(), error))?;
    Epoch::new(raw).ok_or_else(|| JetStreamError::new(step(), "must be below 2^62"))
}

/// The nodes in the value of the maintenance key: JSON, a list of pairs of group and node.
///
/// # Errors
/// Anything else; the set that was known stays.
pub fn read_maintenance(bytes: &[u8]) -> Result<Maintenance, JetStreamError> {
    serde_json::from_slice(bytes).map_err(|error| JetStreamError::new("reading the maintenance set", error))
}

async fn stored_maintenance(store: &kv::Store) -> Result<Maintenance, JetStreamError> {
    let step = || format!("reading {MAINTENANCE} in {}", store.name);
    let entry = within(API_TIMEOUT, step, store.entry(MAINTENANCE)).await?;
    let put = entry.filter(|entry| entry.operation == Operation::Put);
    put.map_or(Ok(Maintenance::new()), |entry| read_maintenance(&entry.value))
}

/// Publishes the set at every change until something fails.
async fn follow_maintenance(
    context: &Context,
    bucket: &str,
    sender: &watch::Sender<Option<Maintenance>>,
) -> Result<(), JetStreamError> {
    let step = || format!("watching {MAINTENANCE} in {bucket}");
    let store = within(API_TIMEOUT, step, context.get_key_value(bucket)).await?;
    let mut notices = within(API_TIMEOUT, step, store.watch(MAINTENANCE)).await?;
    loop {
        // Read after the watch began, so that no change falls between the two.
        let set = stored_maintenance(&store).await?;
        sender.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&set);
            if changed {
                *known = Some(set);
            }
            changed
        });
        match timeout(REFRESH, notices.next()).await {
            Ok(Some(Ok(_))) | Err(_) => {}
            Ok(Some(Err(error))) => return Err(JetStreamError::new(step(), error)),
            Ok(None) => return Err(JetStreamError::new(step(), "the watch ended")),
        }
    }
}
