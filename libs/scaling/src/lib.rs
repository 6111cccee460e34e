//! The autoscaling policy of design section 7: redundancy first, then load. Pure: no clock, no I/O, no randomness.
//!
//! One [`Policy`] decides for all groups of a cluster. The leader (rule R12) feeds it what is known of the groups
//! ([`View`]) and carries out what comes back ([`Plan`]):
//!
//! ```text
//! loop {
//!     wait until plan.next, or until something in the view has changed
//!     let plan = policy.observe(&view, now);
//!     for decision in plan.decisions {
//!         if decision.news { publish it }
//!         for action in decision.actions() { hand it to the driver; later policy.handle_failed(..) }
//!     }
//!     store policy.memory(now), for the next leader
//! }
//! ```
//!
//! What a turn does for each group, in this order, each step with its reason ([`Finding`]):
//!
//! 1. **steering**: paused means nothing at all; a pinned size takes the place of what the load wants.
//! 2. **repair**: a broken member is restarted in place, then replaced; backoff per member, a budget per hour.
//! 3. **load**: the largest answer of all targets, schedules and the forecast, within windows, cooldowns and steps.
//! 4. **redundancy**: N + M members are there or on their way, spread over failure domains.
//! 5. **scale-out**: ready standbys are promoted at once; the order of step 4 fills up behind them.
//! 6. **scale-in**: the highest slot is drained, then closed; its holder becomes a standby.
//! 7. **surplus**: standbys beyond M go, and what is left of members that were replaced, as far as the driver can remove
//!    them as things are.
//!
//! N is a number of slots. The policy never names who serves: it opens and closes slots, and the lease rules elect.
//! So a slot has at most one holder whatever the autoscaler does, and whichever two of them might act at once.
//!
//! **Keys.** Every [`Action`] has a [`Key`] made from what it fills or replaces (slot and epoch, member and
//! incarnation), never from time or chance. A new leader with the same view gives the same actions with the same keys,
//! and a driver that knows a key, or sees its state reached, does nothing. A key is forgotten once the view shows its
//! state.
//!
//! **What a new leader does not know** is on the safe side: without history nothing is scaled in for a whole window,
//! and draining starts its deadline anew. Backoff and budget come from the [`Memory`] of the leader before it; without
//! that the budget starts full once per leader. Who was ordered and not heard comes from there, too: a member that was
//! left half made is ordered once more, under the same name and key.

mod census;
mod forecast;
mod group;
mod load;
mod memory;
mod orders;
mod pending;
mod plan;
mod policy;
mod repair;
mod rules;
mod schedule;
mod size;
mod view;
mod wire;

pub use memory::{GroupMemory, Memory, RememberedOrder, RememberedRepair};
pub use plan::{Action, ActionKind, Decision, Finding, Inputs, Key, Outcome, Plan, Reading, Rule};
pub use policy::{Failed, Policy};
pub use rules::{Forecast, GroupRules, Load, Repair, RuleProblem, Rules, Shared, Target};
pub use schedule::{InvalidSchedule, Schedule};
pub use view::{GroupView, Life, Member, Sample, SlotView, Steering, View, WallClock};
