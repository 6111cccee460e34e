//! Moves DNS records with UPDATE (RFC 2136) and TSIG (RFC 8945), guarded by the epoch of the slot.
//!
//! A [`Desired`] says what one slot contributes to the address records of one name: the slot's VIPs, or its
//! holder's own address. Several slots may contribute to one name.
//!
//! Beside each managed name lies a TXT RRset, `_understudy.<name>`, with one record per slot ([`Contribution`]
//! documents its text). Every update carries as prerequisite that this RRset still is exactly what was read, and
//! writes the new one in the same message: compare and swap in the zone itself, so an update of an older tenure
//! is refused by the name server however late it arrives (invariant 2: DNS never goes back to an older epoch).
//!
//! - Only what the slot itself contributed earlier is replaced, and never an address that another slot
//!   contributes too. Records that somebody adds by hand later stay.
//! - The first update of a name (no TXT of ours yet) takes the name over: its whole A and AAAA RRsets are replaced.
//! - An empty contribution withdraws the slot's addresses; its TXT stays, since it remembers the epoch.
//!
//! [`apply`] does this once against one server; [`Updater`] does it in the background against every server of a
//! zone, for as long as the slot is held.

mod contribution;
mod decision;
mod desired;
mod error;
mod exchange;
#[doc(hidden)]
pub mod fuzzing;
mod lookup;
mod update;
mod updater;
mod whereabouts;
mod zone;

pub use contribution::Contribution;
pub use desired::{Desired, MAX_ADDRESSES, MAX_NAME};
pub use error::{DnsError, KeyProblem, Step};
pub use lookup::{Family, contributions, resolve};
pub use update::{Answer, apply};
pub use updater::{Outcome, Timing, Updater};
pub use zone::{Algorithm, TsigKey, Zone};
