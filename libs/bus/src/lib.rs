//! The two unlike paths between nodes and detectors, NATS and direct gRPC streams, and what runs on NATS alone:
//! events, operator settings, commands.
//!
//! Nothing here makes its caller wait for a network: what is sent goes into a bounded queue, and each path, each
//! server and each peer has a task of its own, so that a hung one never holds up another.

mod accept;
mod backoff;
mod causes;
pub mod counters;
pub mod direct;
pub mod events;
pub mod identity;
mod jetstream;
pub mod nats;
pub mod node_link;
pub mod paths;
pub mod permissions;
pub mod queue;
pub mod quiet;
pub mod store;
pub mod tls;
pub mod trace;

pub use counters::Counters;
pub use events::EventLog;
pub use identity::Identity;
pub use nats::{Nats, NatsOptions, NatsState};
pub use permissions::Permissions;
pub use store::Store;
pub use tls::Tls;

/// Generated gRPC clients and servers; their messages are those of `understudy_wire::v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod grpc {
    tonic::include_proto!("understudy.v1");
}
