//! Checks of the workload: is it there, does it answer, does it say that it is well.

pub(crate) mod address;
mod config;
mod exec;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
pub(crate) mod http;
mod probe;
mod process;
mod report;
mod runner;
mod tcp;

pub use config::{CheckConfig, CheckConfigError, CheckKind, ProcessSelector};
pub use report::{CheckReport, CheckState, HealthReport};
pub use runner::CheckRunner;
