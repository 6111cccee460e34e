//! Checks of the workload: is it there, does it answer, does it say that it is well.

mod address;
mod config;
mod exec;
mod failure;
mod grpc;
mod http;
mod probe;
mod process;
mod report;
mod runner;
mod tcp;

pub use config::{CheckConfig, CheckConfigError, CheckKind, ProcessSelector};
pub use report::{CheckReport, CheckState, HealthReport};
pub use runner::CheckRunner;
