//! `node.sock`: executor and heartbeat publisher of one node watch each other. When either process ends, in whatever
//! way, the kernel closes the socket, and the other one knows within milliseconds.
//!
//! There is no ping on this stream: a peer that is merely stopped is told by its missing tick, and a pause of the
//! machine must not look like the end of a process.

mod client;
mod peer;
mod server;
mod stream;

pub use client::{NodeLinkClient, PublisherEvent};
pub use server::{LinkError, LinkEvent, NodeLinkServer};

/// States of the peer that wait for the service's loop; more are not taken from the socket until it reads.
const EVENTS: usize = 64;
