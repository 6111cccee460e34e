//! The real program against a real NATS server; detectors and executors are answers that the test writes.
#![allow(clippy::unwrap_used, reason = "all of this is a test, also what is not marked as one")]

mod bad_input;
mod credentials;
mod history;
mod maintenance;
mod scaling;
mod status;
mod support;
mod switchover;
