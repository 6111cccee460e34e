//! The witness: when the executor dies, prove that its gate is shut, then release for it (rule R8, design section 5).
//!
//! No proof, no release: then the lease runs out by itself.

use std::{net::IpAddr, time::Duration};

use understudy_vip::proof::{Proof, prove_shut};
use understudy_wire::{BootTime, Holder, Slot, v1};

/// Pause between two proofs: the kernel needs about three milliseconds to clear up after a killed process.
const RETRY: Duration = Duration::from_millis(1);

/// An executor that died with slots in its hands.
#[derive(Debug)]
pub struct Witness {
    /// The dead process.
    pub holder: Holder,
    /// What it claimed.
    pub slots: Vec<Slot>,
    guarded: Vec<IpAddr>,
    due: BootTime,
    give_up: BootTime,
}

impl Witness {
    /// Takes over from the last state of the executor `holder`. `None` when it held nothing, when it left on purpose,
    /// or when it guarded something that cannot be proved shut from here. Proofs are tried for one `lease`.
    pub fn of(holder: Holder, state: &v1::ExecutorState, now: BootTime, lease: Duration) -> Option<Self> {
        let slots: Vec<_> =
            state.claims.iter().filter_map(|claim| u16::try_from(claim.slot).ok()).map(Slot).collect();
        if slots.is_empty() || state.leaving {
            return None;
        }
        let address = |guard: &v1::Guard| {
            let whole = guard.protocol.is_empty();
            guard.address.parse().ok().filter(|_| whole)
        };
        let guarded: Option<Vec<IpAddr>> = state.guards.iter().map(address).collect();
        Some(Self { holder, slots, guarded: guarded?, due: now, give_up: now.after(lease) })
    }

    /// Tries the proof if it is due; `true`: everything is off the air on this node.
    pub fn poll(&mut self, now: BootTime) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now.after(RETRY);
        self.guarded.iter().all(|vip| matches!(prove_shut(*vip), Proof::Refused | Proof::Absent))
    }

    /// When to poll again; `None`: the lease has run out, there is nothing left to release.
    pub fn deadline(&self, now: BootTime) -> Option<BootTime> {
        (now < self.give_up).then_some(self.due)
    }
}
