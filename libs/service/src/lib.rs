//! The frame of every service: configuration, telemetry, health, clock, scheduling and shutdown.
//!
//! A service's `main` is its arguments and a call of [`run`]; what it gets is a [`Frame`].

pub mod access;
pub mod calm;
pub mod clock;
pub mod config;
mod exposition;
pub mod healthz;
pub mod http;
mod interface;
pub mod metrics;
pub mod nats;
mod owner;
mod places;
pub mod realtime;
mod run;
pub mod seat;
pub mod shutdown;
mod systemd;
pub mod telemetry;

pub use config::Config;
pub use http::{Health, Metrics};
pub use owner::Role;
pub use run::{CommonArgs, Frame, Hopeless, Threads, exit, run};
