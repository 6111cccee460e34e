//! The direct path: one gRPC stream between a node's process and each detector, without NATS.

mod client;
mod outbox;
mod server;

use std::time::Duration;

use understudy_wire::{GroupId, Heartbeat, NodeId, Release};

pub use client::DirectClient;
pub use server::DirectServer;

/// What a node says over either path, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum FromNode {
    /// Its heartbeat and bid.
    Heartbeat(Box<Heartbeat>),
    /// It gave a slot up.
    Release(Release),
}

/// A node within the deployment.
pub(crate) type Member = (GroupId, NodeId);

/// Messages to one stream that wait for a slow reader: more than the grants of a lease.
const STREAM_QUEUE: usize = 64;
/// Messages of all streams that wait for the service's loop: a second of heartbeats of 800 nodes on both paths.
pub(crate) const INBOUND_QUEUE: usize = 16_384;
/// A stream that does not say who it is within this is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
