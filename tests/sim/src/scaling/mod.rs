//! Simulation of the autoscaling policy: the production machine against load traces and failures.
//!
//! Simulated are the driver (slow, forgetful, failing), the members (they start, crash, come back), the seats (a vacant
//! slot goes to the first ready standby), the load and the leader (who changes). One second is one step; the policy has
//! a turn each interval. A run checks:
//!
//! 1. N stays within its bounds, a slot is not vacant while a standby is ready, and what goes is never a holder, never
//!    the last ready standby, and never during a failover,
//! 2. no scale-in within the window after a scale-out, nor the other way round,
//! 3. nothing is scaled in while a holder's metric is missing,
//! 4. repairs stay within their budget, all actions within a bound,
//! 5. a place is filled once, whoever leads, where the driver keeps keys,
//! 6. N + M members are ready again within the start-up time and two intervals, and a calm group is left alone.
//!
//! [`Options::storm`] draws many faults and then heals them, [`Options::ordinals`] over a StatefulSet; [`Options::single`] injects exactly one. [`Mutant`]s
//! weaken one rule from outside; each must be caught.

pub mod bench;
mod check;
mod demand;
mod driver;
mod members;
mod options;
mod rivals;
mod run;
mod world;

pub use demand::{Demand, Shape};
pub use options::{Fault, Mutant, Options};
