//! The crate on the real kernel, in network namespaces that each test makes for itself.
//! Needs root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN), `ip` and `nft`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests; clippy sees only the marked functions")]

mod address;
mod announce;
mod death;
mod gate;
mod gate_paths;
mod gate_tables;
mod proof;
mod segment;
mod service;
mod traffic;
