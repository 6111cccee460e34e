//! Detector: one seat of the quorum and an accrual failure detector, for every group of a deployment.
//!
//! [`detector`] has the state and the order of everything; [`group`] joins the two pure machines of one group;
//! [`deadlines`] knows which group is due, [`pace`] how fast judgements are told; [`ceilings`] and [`commands`] are what
//! may wait for JetStream and therefore never happens in the loop; [`run`] puts it all together.

pub mod ceilings;
pub mod commands;
pub mod deadlines;
pub mod detector;
pub mod group;
pub mod metrics;
pub mod pace;
pub mod run;
