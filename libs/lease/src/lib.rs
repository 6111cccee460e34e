//! The quorum lease of design section 4, rules R1 to R13: diskless, without synchronised clocks.
//!
//! Two machines that never meet but over messages: [`Seat`] is one detector's vote for the slots of one group,
//! [`Holder`] is one executor's side. Both are pure: the time and every input are arguments, what is to be done comes
//! out of `poll_output`, and `next_deadline` says when to call again at the latest. No clock, no I/O, no randomness.
//!
//! Where this goes beyond the rules as first written (the simulation proves it, mutants included):
//! - R2: a grant is renewed only by a heartbeat that *claims* the slot; until then the very same grant is repeated.
//!   Otherwise a node that the seats hear, but that cannot hear them, would keep a slot dark for ever.
//! - R3: a restarted seat knows only the ceiling, which no claim reaches. So among the candidates whoever claims the
//!   slot comes first, then a successor that was named, then those who have not just given it up or were tried in vain,
//!   then whoever held it last, then the rest of R3b.
//! - R3: a node that flaps comes after every steadier one, whatever its priority and kind.
//! - R3: seats may differ in what they know of the past; it orders candidates only until they were tried in vain, or a
//!   vote that splits would split for ever.
//! - R6: an epoch above the ceiling is granted but not confirmed, so no lease waits for JetStream.
//! - R7: an epoch is promised with the election and held when a quorum gives it to nobody else. Otherwise a holder that
//!   no seat ever hears of would share its epoch with the next.
//! - R8: a lease that ran out is released like any other, so that the seats need not wait for their own T. The release of a
//!   slot that is given up counts from a little later, since a heartbeat may yet claim it whose sender has not heard.
//! - R14: a group's size is a number of open slots. A seat neither grants nor renews a closed one, so its lease runs out.
//!   It asks nobody to leave: a seat that has heard of a change late must not take a slot away by itself.
//! - R13: a seat is late after I/2 (with T = 3 I a lease renewed just in time outlives no more), and while it is late it
//!   holds a release against nobody.

mod election;
mod holder;
mod output;
mod rules;
mod seat;
mod state;

pub use holder::{Holder, Output as HolderOutput, Refused, Why};
pub use output::{Output as SeatOutput, SlotView, Standing};
pub use rules::{BLOCK, Identity, Rules};
pub use seat::Seat;
