//! What the tests of the deployment share: the stack of `docker-compose.yml` on the real engine, and a client that
//! asks for its VIP from a container's network all the while.

mod engine;
mod probe;
mod stack;
pub mod yard;

pub use engine::{Compose, Container, FEW, Namespace, compose_command, docker};
pub use probe::{INTERVAL, Probe, Tally};
pub use stack::{NODES, PROJECT, Stack, T, VIP, bystander};
