//! The frame of every service: configuration, telemetry, health, clock, scheduling and shutdown.
//!
//! A service's `main` is its arguments and a call of [`run`]; what it gets is a [`Frame`].

pub mod clock;
pub mod config;
pub mod http;
pub mod nats;
pub mod realtime;
mod run;
pub mod seat;
pub mod shutdown;
pub mod telemetry;

pub use config::Config;
pub use http::{Health, Metrics};
pub use run::{CommonArgs, Frame, Hopeless, exit, run};
