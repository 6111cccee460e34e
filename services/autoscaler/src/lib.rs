//! Autoscaler: the shell around the policy of `understudy_scaling`.
//!
//! [`leader`] stands for election by the lease rules (R12) and says whether this process may act; [`book`] keeps what
//! nodes and seats say; [`driver`] starts and stops members; [`carrying`] carries actions out, each bounded, none in the
//! loop; [`steering`] takes what operators ask; [`autoscaler`] has the state and the order of everything, and a `desk`
//! for each group; [`run`] puts it all together.

pub mod autoscaler;
pub mod book;
pub mod carrying;
mod desk;
pub mod driver;
pub mod leader;
pub mod metrics;
pub mod run;
pub mod sizes;
pub mod steering;
