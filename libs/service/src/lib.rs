//! The frame of every service: configuration, telemetry, health, clock, scheduling and shutdown.

pub mod config;

pub use config::Config;
