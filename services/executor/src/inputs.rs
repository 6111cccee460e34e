//! What comes in from seats and witness.

use std::{net::IpAddr, time::Duration};

use understudy_bus::{node_link::PublisherEvent, paths::FromSeat, store::Maintenance};
use understudy_service::clock;
use understudy_wire::{Slot, v1};

use crate::executor::{Executor, HookDone, Witness};

impl Executor {
    /// A vote, a revocation, or a detector about itself. Whether it can wait for the rest of its burst: a vote that renews
    /// what is held already.
    pub fn from_seat(&mut self, message: FromSeat) -> bool {
        let now = clock::now();
        let renews = matches!(&message, FromSeat::Grant(grant) if grant.claimed.is_some());
        let refused = match message {
            FromSeat::Grant(grant) => {
                let counted = self.holder.handle_grant(now, &grant);
                if counted.is_ok() {
                    self.note_grant(grant.slot, grant.seat);
                }
                if grant.claimed.is_some() {
                    self.metrics.renewal.observe(now.since(grant.echo));
                }
                counted
            }
            FromSeat::Revoke(revoke) => self.holder.handle_revoke(now, &revoke),
            // Its address is learned by the paths themselves.
            FromSeat::Presence(_) => Ok(()),
        };
        if let Err(refused) = refused {
            self.metrics.refused.inc();
            tracing::debug!(?refused, "message of a seat not counted");
        }
        renews
    }

    /// The witness: there, gone, or with news of the workload. Whether it can wait for the answers to its heartbeat.
    pub fn from_publisher(&mut self, event: PublisherEvent) -> bool {
        let beats = matches!(event, PublisherEvent::State(_));
        match event {
            PublisherEvent::Attached => {
                tracing::info!("attached to the heartbeat publisher");
                self.witness = Witness { attached: true, ..Witness::default() };
            }
            PublisherEvent::State(state) => {
                self.witness.health = state.health();
                self.tick_asked = true;
                self.sender.heartbeat_left();
            }
            PublisherEvent::Lost => {
                tracing::error!("the heartbeat publisher is gone");
                self.witness_lost();
            }
            PublisherEvent::Refused(reason) => {
                tracing::error!(reason, "the heartbeat publisher refuses this executor");
            }
        }
        beats
    }

    /// Nodes in maintenance; a switchover to one of them is refused.
    pub fn set_maintenance(&mut self, set: Maintenance) {
        let mine = |(group, node)| (group == self.settings.group_id).then_some(node);
        self.peers.set_maintenance(set.into_iter().filter_map(mine).collect());
    }

    /// The size of the group: DNS shows the slots that serve, those that drain take no new clients (rule R14).
    pub fn set_size(&mut self, stored: Option<&v1::ScalingState>) {
        let before = std::mem::replace(&mut self.size, stored.map(|state| (state.serving, state.open)));
        if before == self.size {
            return;
        }
        for (slot, mut tenure) in std::mem::take(&mut self.tenures) {
            tenure.closed = is_closed(slot, tenure.closed, before, self.size);
            for (name, address) in tenure.names.clone() {
                self.update_dns(&mut tenure, &name, address);
            }
            self.tenures.insert(slot, tenure);
        }
    }

    /// A slot that is open and does not serve. One beyond what is known to be open was opened just now.
    pub(crate) fn draining(&self, slot: Slot) -> bool {
        self.size.is_some_and(|(serving, open)| (serving..open).contains(&u32::from(slot.0)))
    }

    /// An earlier run served here and did not end well: what it promoted is demoted.
    pub fn clean_up(&mut self, leftovers: &[IpAddr]) {
        if leftovers.is_empty() {
            return;
        }
        tracing::warn!(?leftovers, "removed addresses that an earlier run left behind");
        let Some(hook) = self.settings.group.hooks.demote.clone() else { return };
        let slots = self.settings.group.slots.iter().enumerate();
        let served = |vips: &[ipnet::IpNet]| vips.iter().any(|vip| leftovers.contains(&vip.addr()));
        let left: Vec<_> = slots.filter(|(_, slot)| served(&slot.vips)).map(|(index, _)| index).collect();
        for index in left {
            let slot = Slot(u16::try_from(index).unwrap_or(u16::MAX));
            // The epoch of that tenure is not known any more.
            self.run_hook(slot, understudy_wire::Epoch(0), "demote", hook.clone());
        }
    }

    /// For `/readyz`.
    pub fn readiness(&self) -> (bool, String) {
        match self.obstacle(clock::now()) {
            None => (true, "ready".into()),
            Some(reason) => (false, reason),
        }
    }

    /// Lets the last messages leave.
    pub async fn close(self, limit: Duration) {
        self.sender.close(limit).await;
    }

    /// What a hook's end means when nothing waits for it: the clean-up after an earlier run.
    pub(crate) fn leftover_hook_ended(done: &HookDone) {
        let (outcome, detail) = crate::taking::outcome(&done.result);
        if outcome == v1::StepOutcome::Done {
            tracing::info!(slot = %done.slot, "demoted what an earlier run left behind");
        } else {
            tracing::error!(slot = %done.slot, detail, "demoting what an earlier run left behind");
        }
    }
}

/// Whether a slot was closed under its holder: it was known to be open, and is no more, or `already` was closed. One that
/// was never known to be open was opened just now. What is withdrawn stays withdrawn: nobody follows to put it right.
fn is_closed(slot: Slot, already: bool, before: Option<(u32, u32)>, now: Option<(u32, u32)>) -> bool {
    let slot = u32::from(slot.0);
    let shut = now.is_some_and(|(_, open)| slot >= open);
    shut && (already || before.is_some_and(|(_, open)| slot < open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_open_is_closed_and_one_that_nobody_knew_was_opened_just_now() {
        // (serving, open) before and now.
        let closed = |already, before, now| is_closed(Slot(1), already, before, now);
        assert!(closed(false, Some((1, 2)), Some((1, 1))), "drained, then closed");
        assert!(closed(false, Some((2, 2)), Some((1, 1))), "the notice of the drain was missed");
        assert!(closed(true, Some((1, 1)), Some((0, 0))), "closed, and another slot after it");
        assert!(!closed(false, Some((2, 2)), Some((1, 2))), "it drains: open as yet");
        assert!(!closed(true, Some((1, 1)), Some((2, 2))), "opened again");
        assert!(!closed(false, Some((1, 1)), Some((0, 1))), "opened just now, as far as is known");
        assert!(!closed(false, None, Some((1, 1))), "nothing was known");
        assert!(!closed(false, Some((2, 2)), None), "nothing is stored any more: as configured");
    }
}
