//! Heartbeat publisher: what it samples of the workload and the host.
//!
//! Everything here runs beside the heartbeat and never in its way: results are left in `watch` channels, from
//! which the publisher reads the latest without waiting.

mod blocking;
pub mod checks;
pub mod load;
