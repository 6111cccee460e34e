//! What a seat tells its shell.

use understudy_wire::{BootTime, Epoch, Grant, Holder, NodeId, Revoke, Slot};

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send to the holder, on both paths.
    Grant(Grant),
    /// Send to the holder, on both paths.
    Revoke(Revoke),
    /// Make the ceiling of a slot durable, then call [`Seat::handle_ceiling`] (rule R6b).
    RaiseCeiling {
        /// The slot.
        slot: Slot,
        /// At least this.
        to: Epoch,
    },
    /// A vacant slot was given to a new holder.
    Elected {
        /// The slot.
        slot: Slot,
        /// To whom.
        holder: Holder,
        /// Who had it before, as far as this seat knows.
        previous: Option<NodeId>,
    },
    /// A vacant slot has no candidate. Said once per vacancy.
    Vacant {
        /// The slot.
        slot: Slot,
        /// Highest epoch known.
        highest: Epoch,
        /// Why nobody can have it, node by node.
        reason: String,
    },
}

/// What a seat may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Silent after its start, or the ceiling is not known yet (rule R6).
    Silent,
    /// Another live process has the same seat.
    Conflict,
    /// Ran late and judges nothing vacant yet (rule R13).
    Late,
    /// Grants.
    Granting,
}

/// One slot as this seat sees it.
#[derive(Debug, Clone)]
pub struct SlotView {
    /// Live grant: to whom, until when.
    pub granted: Option<(Holder, BootTime)>,
    /// Highest epoch known.
    pub highest: Epoch,
}
