//! Addresses, gate, announcements and neighbours: netlink, nftables, raw sockets.
//!
//! Everything that touches the kernel network of a node:
//!
//! - [`gate`]: lets the traffic of a virtual IP address (VIP) through only while a lease lives,
//! - [`proof`]: shows without privileges that a gate is shut,
//! - [`address`]: puts addresses on interfaces and takes them off again,
//! - [`announce`]: tells the segment where an address now lives,
//! - [`neighbours`]: watches who the segment sees behind an address,
//! - [`clock`]: the clock that all of it reads.
//!
//! A part works in the network namespace of the thread that made it.

pub mod address;
pub mod announce;
pub mod clock;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod neighbours;
pub mod proof;

pub use clock::boottime_ns;
