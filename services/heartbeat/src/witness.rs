//! The witness: when the executor dies, prove that its gate is shut, then release for it (rule R8, design section 5).
//!
//! No proof, no release: then the lease runs out by itself.

use std::time::Duration;

use understudy_vip::{
    gate::{Guard, Protocol},
    proof::prove_shut,
};
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
    guarded: Vec<Guard>,
    due: BootTime,
    give_up: BootTime,
}

impl Witness {
    /// Takes over from the last state of the executor `holder`. `None` when it held nothing, when it left on purpose,
    /// or when it guarded something that is not known here. Proofs are tried for one `lease`.
    pub fn of(holder: Holder, state: &v1::ExecutorState, now: BootTime, lease: Duration) -> Option<Self> {
        let slots: Vec<_> =
            state.claims.iter().filter_map(|claim| u16::try_from(claim.slot).ok()).map(Slot).collect();
        if slots.is_empty() || state.leaving {
            return None;
        }
        let guarded: Option<Vec<Guard>> = state.guards.iter().map(guard).collect();
        Some(Self { holder, slots, guarded: guarded?, due: now, give_up: now.after(lease) })
    }

    /// Tries the proof if it is due; `true`: everything is off the air on this node.
    pub fn poll(&mut self, now: BootTime) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now.after(RETRY);
        self.guarded.iter().all(|guard| prove_shut(*guard).is_shut())
    }

    /// When to poll again; `None`: the lease has run out, there is nothing left to release.
    pub fn deadline(&self, now: BootTime) -> Option<BootTime> {
        (now < self.give_up).then_some(self.due)
    }
}

/// A guard as the executor told it; `None`: not one that is known here.
fn guard(raw: &v1::Guard) -> Option<Guard> {
    let address = raw.address.parse().ok()?;
    let protocol = match raw.protocol.as_str() {
        "" => return Some(Guard::Address(address)),
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Guard::Service { address, protocol, port: raw.port.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(address: &str, protocol: &str, port: u32) -> v1::Guard {
        v1::Guard { address: address.into(), protocol: protocol.into(), port }
    }

    #[test]
    fn what_cannot_be_read_cannot_be_proved() {
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(guard(&raw("10.0.0.1", "", 0)), Some(Guard::Address(address)));
        let service = Guard::Service { address, protocol: Protocol::Udp, port: 53 };
        assert_eq!(guard(&raw("10.0.0.1", "udp", 53)), Some(service));
        for unknown in [raw("web-a", "", 0), raw("10.0.0.1", "sctp", 1), raw("10.0.0.1", "tcp", 65_536)] {
            assert_eq!(guard(&unknown), None, "{unknown:?}");
        }
    }
}
