//! What services say to each other: protobuf types, checked messages, subjects and the event envelope.
//!
//! [`v1`] holds the generated types as they travel. The lease rules never see those: [`Heartbeat`], [`Grant`],
//! [`Revoke`] and [`Release`] are the same messages after every field was checked, with newtypes for everything that
//! could be mixed up. A message that fails the check is a [`DecodeError`], never a panic.

mod decode;
pub mod event;
mod ids;
mod message;
mod subject;

pub use decode::{DecodeError, MAX_MESSAGE, decode};
pub use event::{CloudEvent, EventBody};
pub use ids::{BootId, BootTime, ClusterId, Epoch, GroupId, Incarnation, InvalidName, NodeId, Seat, Slot};
pub use message::{Claim, Grant, Health, Heartbeat, Holder, Release, Revoke, SlotRelease, StandbyKind};
pub use subject::{Subject, Subjects};

/// Generated protobuf types, package `understudy.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/understudy.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/understudy.v1.serde.rs"));
}
