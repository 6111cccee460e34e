//! Both paths as one: what is sent goes over NATS and over the direct streams, what is received comes out once.

mod dedup;
mod node;
mod seat;

pub use node::{FromSeat, NodeOptions, NodePaths, NodeSender};
pub use seat::{SeatOptions, SeatPaths, SeatSender};

pub use crate::direct::FromNode;
