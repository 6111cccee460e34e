//! Heartbeat publisher: what a node says of itself every interval, which is also its bid for a lease (rule R1).
//!
//! [`checks`] and [`load`] sample beside the heartbeat and never in its way: results are left in `watch` channels,
//! from which [`publisher`] reads the latest without waiting. [`executor`] tells whether that one still answers, [`witness`] speaks for an executor that died.
//! [`round_trip`] refuses a lease that the network is too slow for; [`run`] puts it all together.

mod blocking;
pub mod checks;
pub mod executor;
pub mod load;
pub mod metrics;
pub mod publisher;
pub mod round_trip;
pub mod run;
pub mod signals;
pub mod witness;
