//! Instances and slots: what is really there.

use std::collections::{BTreeMap, BTreeSet};

use understudy_scaling::{Life, Member};
use understudy_wire::{NodeId, Slot};

/// How an instance is. Times are seconds of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Booting {
        ready_at: u64,
    },
    Up,
    Ill {
        until: u64,
    },
    /// Alive, but nobody hears it.
    Cut {
        until: u64,
    },
    Dead(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) state: State,
    pub(crate) incarnation: u64,
    pub(crate) rack: usize,
    pub(crate) key: Option<String>,
    /// When it was created.
    pub(crate) born: u64,
    /// When it last came back from being cut off, ill or dead.
    pub(crate) back_at: Option<u64>,
}

impl Instance {
    /// There and not given up: it could count as a member.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.state, State::Booting { .. } | State::Up)
    }

    pub(crate) fn member(&self) -> Member {
        let up = self.state == State::Up;
        let life = match &self.state {
            State::Booting { .. } => Life::Starting,
            State::Up | State::Ill { .. } => Life::Alive,
            State::Cut { .. } => Life::Failed("silent for 300 ms".into()),
            State::Dead(cause) => Life::Failed((*cause).into()),
        };
        Member {
            life,
            managed: true,
            removable: true,
            healthy: up,
            ready: up,
            incarnation: self.incarnation,
            labels: BTreeMap::from([("rack".into(), format!("r{}", self.rack))]),
            key: self.key.clone(),
            ..Member::default()
        }
    }
}

/// One slot.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotState {
    pub(crate) holder: Option<NodeId>,
    pub(crate) epoch: u64,
    pub(crate) vacant_for: u64,
    pub(crate) connections: f64,
}

/// The seats in one second: who is gone gives way, a vacant slot goes to the first ready standby after `takeover`.
pub(crate) fn elect(
    slots: &mut BTreeMap<Slot, SlotState>,
    instances: &BTreeMap<NodeId, Instance>,
    leaving: &BTreeSet<NodeId>,
    (open, serving, takeover): (u16, u16, u64),
) {
    for slot in (0..open).map(Slot) {
        slots.entry(slot).or_default();
    }
    let held: Vec<_> = slots.values().filter_map(|slot| slot.holder.clone()).collect();
    let mut ready: Vec<_> = instances
        .iter()
        .filter(|(node, instance)| instance.state == State::Up && !held.contains(node))
        .collect();
    // Who is about to be removed is in maintenance.
    ready.retain(|(node, _)| !leaving.contains(*node));
    ready.reverse();
    for (slot, state) in slots {
        let fit = state.holder.as_ref().and_then(|holder| instances.get(holder)).is_some_and(|instance| {
            // R10: an unhealthy holder stays while nobody better is there.
            instance.state == State::Up || (matches!(instance.state, State::Ill { .. }) && ready.is_empty())
        });
        if slot.0 >= open || !fit {
            state.holder = None;
        }
        state.vacant_for = if state.holder.is_none() && slot.0 < open { state.vacant_for + 1 } else { 0 };
        if state.vacant_for >= takeover
            && let Some((node, _)) = ready.pop()
        {
            state.holder = Some(node.clone());
            state.epoch += 1;
            (state.vacant_for, state.connections) = (0, 100.0);
        }
        if slot.0 >= serving {
            state.connections *= 0.9;
        }
    }
}
