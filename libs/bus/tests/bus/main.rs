//! The bus against real NATS servers, real sockets and processes that are really stopped and killed.
#![allow(clippy::unwrap_used, reason = "all of this is a test, also what is not marked as one")]

mod events;
mod health;
mod nats;
mod node_link;
mod paths;
mod peers;
mod store;
mod support;
mod tls;
