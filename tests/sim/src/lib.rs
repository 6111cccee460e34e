//! Deterministic simulation of the lease and detection crates under random faults.
//!
//! The production machines ([`understudy_lease`], [`understudy_detection`]) run in simulated processes on simulated
//! hosts, each with a clock of its own rate, over two unlike paths. One seed gives one run: the [`Options`] are drawn
//! from it, then the faults, and the trace is the same every time. A run checks the invariants of the design:
//!
//! 1. at most one gate of a slot is open at any instant of real time,
//! 2. fencing tokens of a slot strictly increase, and a register guarded by them never goes back,
//! 3. once everything is healed, every slot is filled within a stated bound and stays where it is,
//! 4. a single fault takes down at most one slot, for no longer than T and a bound,
//! 5. a single fault elsewhere moves nothing.
//!
//! [`Options::storm`] draws many faults and then heals them (1, 2, 3); [`Options::single`] injects exactly one into an
//! otherwise quiet system (1, 2, 4, 5). [`Mutant`]s weaken one rule from outside; each must be caught.

mod check;
mod clock;
mod detector;
mod event;
mod executor;
mod faults;
mod heal;
mod network;
mod node;
mod options;
mod publisher;
mod run;
pub mod scaling;
mod seeds;
mod single;
mod trace;
mod world;

pub use check::Gap;
pub use options::{Fault, Mutant, Network, Options, Suspicion};
pub use run::Found;
pub use seeds::{Outcome, Simulation, Summary, Violation, replay, run, run_many, save};
