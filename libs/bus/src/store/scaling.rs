//! Sizes of groups that are scaled, as the leading autoscaler has stored them, and what it leaves to the next one.

use std::{collections::BTreeMap, error::Error};

use async_nats::jetstream::{
    Context,
    kv::{self, Operation},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use understudy_wire::{Epoch, GroupId, v1};

use super::{Change, REFRESH, RETRY, Store};
use crate::{
    jetstream::{API_TIMEOUT, JetStreamError, within},
    quiet::Quiet,
};

/// Sizes that are read afresh in one go, in turn, should a notice have been lost: a thousand groups are through within
/// a few minutes, for a handful of questions a second.
const REFRESHED: usize = 16;

/// Sizes by group. A group that is not there is of the size that its configuration says.
pub type Sizes = BTreeMap<GroupId, v1::ScalingState>;

/// Key of a group's size.
pub(crate) fn sizes(group: &str) -> String {
    format!("scaling.{group}.state")
}

/// Key of what one leader leaves to the next.
pub(crate) fn memory(group: &str) -> String {
    format!("scaling.{group}.memory")
}

/// The size in a value of the bucket, protobuf JSON.
///
/// # Errors
/// Anything else, and sizes that cannot be; the one that was known stays.
pub fn read_size(bytes: &[u8]) -> Result<v1::ScalingState, JetStreamError> {
    let step = "reading the size of a group";
    let state: v1::ScalingState =
        serde_json::from_slice(bytes).map_err(|error| JetStreamError::new(step, error))?;
    if state.serving == 0 || state.serving > state.open || u16::try_from(state.open).is_err() {
        let why = format!("{} of {} slots in service cannot be", state.serving, state.open);
        return Err(JetStreamError::new(step, why));
    }
    Ok(state)
}

/// A leader's memory as it is stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct Memory {
    epoch: u64,
    memory: serde_json::Value,
}

impl Store {
    /// Lets `change` alter the size of a group, `initial` where none is stored, on behalf of the leader of `epoch`. The
    /// size that is durable now; `None`, with nothing written, where a later leader has written already.
    ///
    /// # Errors
    /// When JetStream does not answer: then it may be stored or not. The same change again settles it.
    pub async fn change_size(
        &self,
        group: &GroupId,
        epoch: Epoch,
        initial: &v1::ScalingState,
        change: impl Fn(&mut v1::ScalingState),
    ) -> Result<Option<v1::ScalingState>, JetStreamError> {
        self.change(&sizes(group.as_str()), |found| {
            let before = found.map_or(Ok(initial.clone()), read_size)?;
            if before.epoch > epoch.0 {
                return Ok(Change::Keep(None));
            }
            let mut after = before.clone();
            change(&mut after);
            if after == before && found.is_some() {
                return Ok(Change::Keep(Some(after)));
            }
            after.epoch = epoch.0;
            let value = serde_json::to_vec(&after)
                .map_err(|error| JetStreamError::new("writing the size of a group", error))?;
            read_size(&value)?;
            Ok(Change::Write(value.into(), Some(after)))
        })
        .await
    }

    /// Stores what the leader of `epoch` leaves to the next, JSON; whether it was not too late.
    ///
    /// # Errors
    /// When JetStream does not answer, or it is larger than a value may be.
    pub async fn keep_memory(
        &self,
        group: &GroupId,
        epoch: Epoch,
        left: &serde_json::Value,
    ) -> Result<bool, JetStreamError> {
        let step = "writing the memory of a group";
        self.change(&memory(group.as_str()), |found| {
            let before = found.and_then(|found| serde_json::from_slice::<Memory>(found).ok());
            if before.is_some_and(|before| before.epoch > epoch.0) {
                return Ok(Change::Keep(false));
            }
            let value = serde_json::to_vec(&Memory { epoch: epoch.0, memory: left.clone() })
                .map_err(|error| JetStreamError::new(step, error))?;
            Ok(Change::Write(value.into(), true))
        })
        .await
    }

    /// What the leader before left; `None`: nothing, or nothing that can be read. The value, or null where there is none,
    /// is written back under a condition as for [`Store::ceiling`], so that it is the newest, and marked with `epoch`: an
    /// earlier leader writes nothing after this.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn take_memory(
        &self,
        group: &GroupId,
        epoch: Epoch,
    ) -> Result<Option<serde_json::Value>, JetStreamError> {
        let step = "writing the memory of a group";
        self.change(&memory(group.as_str()), |found| {
            let before = found.and_then(|found| serde_json::from_slice::<Memory>(found).ok());
            let before = before.unwrap_or(Memory { epoch: 0, memory: serde_json::Value::Null });
            let marked = Memory { epoch: epoch.0.max(before.epoch), memory: before.memory.clone() };
            let value = serde_json::to_vec(&marked).map_err(|error| JetStreamError::new(step, error))?;
            Ok(Change::Write(value.into(), Some(before.memory).filter(|memory| !memory.is_null())))
        })
        .await
    }

    /// Follows the sizes of `groups`: always all that are stored, `None` until each was read once, and while there is one
    /// that never could be. The last ones known stay while JetStream is away, and where a value cannot be read. The task
    /// ends with the last receiver.
    pub fn watch_sizes(&self, groups: Vec<GroupId>) -> watch::Receiver<Option<Sizes>> {
        if groups.is_empty() {
            return watch::channel(Some(Sizes::new())).1;
        }
        let (sender, receiver) = watch::channel(None);
        let (context, bucket) = (self.context.clone(), self.bucket.clone());
        tokio::spawn(async move {
            let unreadable = Quiet::default();
            let following = async {
                loop {
                    if let Err(error) = follow(&context, &bucket, &groups, &sender, &unreadable).await {
                        tracing::debug!(bucket, error = &error as &dyn Error, "sizes: reading again");
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

/// Publishes the sizes at every change until something fails.
async fn follow(
    context: &Context,
    bucket: &str,
    groups: &[GroupId],
    sender: &watch::Sender<Option<Sizes>>,
    unreadable: &Quiet,
) -> Result<(), JetStreamError> {
    let pattern = match groups {
        [one] => sizes(one.as_str()),
        _ => sizes("*"),
    };
    let step = || format!("watching {pattern} in {bucket}");
    let store = within(API_TIMEOUT, step, context.get_key_value(bucket)).await?;
    let mut notices = within(API_TIMEOUT, step, store.watch(&pattern)).await?;
    // Read after the watch began, so that no change falls between the two.
    let told = sender.borrow().clone();
    let first = told.is_none();
    let mut known = told.unwrap_or_default();
    for group in groups {
        let sound = read(&store, group, &mut known, unreadable).await?;
        if first && !sound {
            // What is not known must not be taken for what is configured.
            return Err(JetStreamError::new(step(), format!("the size of {group} cannot be read")));
        }
    }
    tell(sender, &known);
    let mut turn = groups.iter().cycle();
    loop {
        match timeout(REFRESH, notices.next()).await {
            Ok(Some(Ok(entry))) => {
                if let Some(group) = groups.iter().find(|group| sizes(group.as_str()) == entry.key) {
                    read(&store, group, &mut known, unreadable).await?;
                }
            }
            Err(_elapsed) => {
                for group in turn.by_ref().take(REFRESHED.min(groups.len())) {
                    read(&store, group, &mut known, unreadable).await?;
                }
            }
            Ok(Some(Err(error))) => return Err(JetStreamError::new(step(), error)),
            Ok(None) => return Err(JetStreamError::new(step(), "the watch ended")),
        }
        tell(sender, &known);
    }
}

/// Reads one size into `known`; whether it could be read. If not, the one that was known stays.
async fn read(
    store: &kv::Store,
    group: &GroupId,
    known: &mut Sizes,
    unreadable: &Quiet,
) -> Result<bool, JetStreamError> {
    let key = sizes(group.as_str());
    let step = || format!("reading {key}");
    let entry = within(API_TIMEOUT, step, store.entry(&key)).await?;
    match entry.filter(|entry| entry.operation == Operation::Put) {
        None => drop(known.remove(group)),
        Some(entry) => match read_size(&entry.value) {
            // One value that cannot be read must not take the others away.
            Err(error) => {
                if let Some(before) = unreadable.pass() {
                    tracing::error!(%group, error = &error as &dyn Error, before, "the last size known stays");
                }
                return Ok(false);
            }
            Ok(state) => drop(known.insert(group.clone(), state)),
        },
    }
    Ok(true)
}

fn tell(sender: &watch::Sender<Option<Sizes>>, known: &Sizes) {
    sender.send_if_modified(|told| {
        let changed = told.as_ref() != Some(known);
        if changed {
            *told = Some(known.clone());
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        let state = read_size(br#"{"open":3,"serving":2,"epoch":"7"}"#).unwrap();
        assert_eq!((state.open, state.serving, state.epoch), (3, 2, 7));
        for bad in [
            &br#"{"open":2,"serving":3}"#[..],
            br#"{"open":2}"#,
            br#"{"open":70000,"serving":1}"#,
            br#"{"open":-1,"serving":1}"#,
            b"[]",
            b"",
        ] {
            assert!(read_size(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
