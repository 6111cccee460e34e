//! Epoch ceilings in JetStream (rule R6b). Each slot has one task that reads and raises; the loop only hears of it.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use understudy_bus::Store;
use understudy_lease::BLOCK;
use understudy_wire::{Epoch, GroupId, Slot};

/// Pause between tries while JetStream is away: an election there takes seconds (design section 2).
const RETRY: Duration = Duration::from_millis(250);
/// News that the loop has not taken yet: two per slot at the start, few later; a full queue holds the task up, not
/// the loop.
const NEWS: usize = 256;

/// The ceiling of a slot is durably at least `ceiling`.
#[derive(Debug, Clone)]
pub struct Raised {
    /// Group.
    pub group: GroupId,
    /// Slot.
    pub slot: Slot,
    /// Bound on its epochs.
    pub ceiling: Epoch,
}

/// Keeps the ceilings of all slots.
pub struct Ceilings {
    wanted: BTreeMap<(GroupId, Slot), watch::Sender<Epoch>>,
}

impl Ceilings {
    /// Starts one task per slot; what becomes durable comes out of the receiver.
    ///
    /// The first news of a slot is the ceiling as it was found, which is all a restarted seat knows of past epochs;
    /// the second is one block higher, so that the first takeover need not wait.
    pub fn start(
        store: &Arc<Store>,
        slots: impl Iterator<Item = (GroupId, Slot)>,
    ) -> (Self, mpsc::Receiver<Raised>) {
        let (news, receiver) = mpsc::channel(NEWS);
        let wanted = slots.map(|(group, slot)| {
            let (sender, wanted) = watch::channel(Epoch(0));
            tokio::spawn(keep(Arc::clone(store), group.clone(), slot, wanted, news.clone()));
            ((group, slot), sender)
        });
        (Self { wanted: wanted.collect() }, receiver)
    }

    /// Wants the ceiling at `to` at least.
    pub fn raise(&self, group: &GroupId, slot: Slot, to: Epoch) {
        if let Some(wanted) = self.wanted.get(&(group.clone(), slot)) {
            wanted.send_if_modified(|wanted| {
                let higher = to > *wanted;
                *wanted = to.max(*wanted);
                higher
            });
        }
    }
}

async fn keep(
    store: Arc<Store>,
    group: GroupId,
    slot: Slot,
    mut wanted: watch::Receiver<Epoch>,
    news: mpsc::Sender<Raised>,
) {
    let tell = |ceiling| news.send(Raised { group: group.clone(), slot, ceiling });
    let found = loop {
        match store.ceiling(&group, slot).await {
            Ok(found) => break found,
            Err(error) => {
                tracing::debug!(%group, %slot, error = &error as &dyn Error, "the ceiling cannot be read yet");
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    if tell(found).await.is_err() {
        return;
    }
    let mut target = Epoch(found.0 + BLOCK);
    loop {
        match store.raise_ceiling(&group, slot, target).await {
            Ok(ceiling) => {
                if tell(ceiling).await.is_err() {
                    return;
                }
                while *wanted.borrow_and_update() <= ceiling {
                    if wanted.changed().await.is_err() {
                        return;
                    }
                }
                target = *wanted.borrow_and_update();
            }
            Err(error) => {
                tracing::warn!(%group, %slot, to = %target, error = &error as &dyn Error, "the ceiling cannot be raised; tries go on");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
