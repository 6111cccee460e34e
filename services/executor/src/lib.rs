//! Failover executor: holds a node's lease and carries takeovers and demotions out.
//!
//! [`executor`] has the state and the order of everything; [`taking`], [`leaving`], [`inputs`], [`commands`] and [`reporting`] are
//! its parts. [`plan`], [`announcing`] and [`ungated`] are pure. [`network`] is the kernel, [`run`] puts it all together.

pub mod announcing;
pub mod commands;
pub mod executor;
pub mod history;
pub mod hooks;
pub mod inputs;
pub mod leaving;
pub mod metrics;
pub mod network;
pub mod peers;
pub mod plan;
pub mod reporting;
pub mod run;
pub mod taking;
pub mod tenure;
pub mod ungated;
