//! The library against real name servers (Knot DNS and BIND 9), started by each test for itself.
//!
//! Needs Debian's `knot`, `knot-dnsutils` (`kdig`, `knsupdate`), `bind9` and `faketime`.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may fail the test; clippy.toml knows test functions alone"
)]

mod hostile;
mod lab;
mod refusals;
mod updater;
mod updates;
