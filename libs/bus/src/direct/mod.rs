//! The direct path: one gRPC stream between a node's process and each detector, without NATS.

mod client;
mod outbox;
mod server;
mod speaker;

use std::time::Duration;

use tonic::{Status, transport::Endpoint};
use understudy_wire::{
    DecodeError, GroupId, Heartbeat, NodeId, Release,
    v1::{self, node_message::Message},
};

use crate::Tls;

pub use client::DirectClient;
pub use server::DirectServer;
pub(crate) use server::{differs, is_from};

/// What a node says over either path, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum FromNode {
    /// Its heartbeat and bid.
    Heartbeat(Box<Heartbeat>),
    /// It gave a slot up.
    Release(Release),
}

impl TryFrom<v1::NodeMessage> for FromNode {
    type Error = DecodeError;

    /// A hello is none of these: it opens a stream and says nothing of the node.
    fn try_from(raw: v1::NodeMessage) -> Result<Self, DecodeError> {
        match raw.message {
            Some(Message::Heartbeat(raw)) => Ok(Self::Heartbeat(Box::new(raw.try_into()?))),
            Some(Message::Release(raw)) => Ok(Self::Release(raw.try_into()?)),
            Some(Message::Hello(_)) | None => {
                Err(DecodeError::Field { field: "message", why: "must be a heartbeat or a release" })
            }
        }
    }
}

/// How to call a detector: with TLS where there is a certificate, which then takes nobody's answer but a detector's.
///
/// # Errors
/// When `address` is not `host:port`.
pub fn endpoint(address: &str, tls: Option<&Tls>) -> Result<Endpoint, Status> {
    let endpoint = match tls {
        None => Endpoint::from_shared(format!("http://{address}")),
        Some(tls) => Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls.client())),
    };
    endpoint.map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A node within the deployment.
pub(crate) type Member = (GroupId, NodeId);

/// Messages to one stream that wait for a slow reader: more than the grants of a lease.
const STREAM_QUEUE: usize = 64;
/// Messages of all streams that wait for the service's loop: a second of heartbeats of 800 nodes on both paths.
pub(crate) const INBOUND_QUEUE: usize = 16_384;
/// A stream that does not say who it is within this is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
