//! The configuration: one TOML file for all services, defaults < file < environment.
//!
//! [`Config::load`] reads it and refuses what cannot work, all mistakes at once, each with its place and what would be
//! right. The file is taken over into a tree whose values know their line; the environment is laid over it, and the
//! schema reads the result, so that every message can name where a value came from.

mod access;
mod check;
mod de;
mod environment;
mod group;
mod load;
mod problem;
mod scaling;
mod schema;
mod template;
mod tree;
mod types;

pub(crate) use access::warn_if_open;
pub use access::{Member, SecretError};
pub use check::{MAX_GUARDS, MAX_RECORD_ADDRESSES, MAX_SLOT_NAME, RoundTripTooLong, check_round_trip};
pub use environment::environment;
pub use group::{
    Check, CheckKind, Flap, Group, Hook, Hooks, ProcessRef, RecordAddress, SignalConfig, SignalSource,
    SlotConfig,
};
pub use load::validate;
pub use problem::{ConfigErrors, Origin, Problem, Report};
pub use scaling::{
    Autoscaler, ForecastConfig, RepairConfig, Scaling, ScheduleConfig, SharedConfig, TargetConfig,
};
pub use schema::{
    Access, Config, Detector, Dns, Gate, Http, Lease, Nats, Node, Realtime, Telemetry, Tls, TsigAlgorithm,
    TsigKey,
};
pub use template::{Container, Driver, PLACEHOLDERS, Template, Workload};
pub use types::{DnsName, Endpoint, Port, Protocol, Secret};
