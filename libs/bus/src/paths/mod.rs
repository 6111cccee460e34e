//! Both paths as one: what is sent goes over NATS and over the direct streams, what is received comes out once.

mod dedup;
mod node;
mod seat;

pub use node::{FromSeat, NodeOptions, NodePaths, NodeSender};
pub use seat::{SeatOptions, SeatPaths, SeatSender};

use understudy_wire::{Heartbeat, Subject, v1};

pub use crate::direct::FromNode;
use crate::{
    Nats, direct,
    nats::{self, Received},
};

/// A heartbeat that came over NATS, for the detectors or for the other members, held against its subject: a node speaks in
/// its own name only. `None` for anything else, which is counted.
pub fn own_heartbeat(nats: &Nats, received: Received<v1::Heartbeat>) -> Option<Heartbeat> {
    let (Subject::Heartbeat(group, node) | Subject::Member(group, node)) = received.subject else {
        return None;
    };
    // Counted where it was decoded.
    let heartbeat = Heartbeat::try_from(received.message.ok()?);
    let heartbeat = heartbeat.inspect_err(|error| nats::count(nats.counters(), error)).ok()?;
    let named = (&heartbeat.cluster, &heartbeat.group, &heartbeat.node);
    direct::is_from(named, nats.cluster(), &(group, node), nats.counters()).then_some(heartbeat)
}

/// Where a detector says that it is, held against its subject: a seat's credential speaks for that seat only. `None` for
/// anything else, which is counted.
pub fn own_presence(nats: &Nats, received: Received<v1::Presence>) -> Option<v1::Presence> {
    let Subject::Detector(seat) = received.subject else { return None };
    // Counted where it was decoded.
    let presence = received.message.ok()?;
    let own = presence.seat == u32::from(seat);
    if !own {
        nats.counters().wrong_name.add(1);
    }
    own.then_some(presence)
}
