//! What is fuzzed: one target for each decoder of bytes from outside, and what must hold whatever the bytes are. Not the
//! answers of drivers, which nothing but `serde_json` and the clients of Docker and Kubernetes decode.
//!
//! A target is a plain function of bytes that panics when something does not hold. libFuzzer calls it (`fuzz/`), and
//! the replay test calls it for every file of the corpus, without any engine.

mod bytes;
mod checks;
mod config;
mod control;
mod dns;
mod event;
mod host;
mod lease_messages;
mod machines;
mod netlink;
mod subject;
mod text;

use std::path::PathBuf;

/// A decoder and what must hold.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folders in `fuzz/corpus`.
    pub name: &'static str,
    /// Feeds it bytes; panics when something does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident: $($name:ident),+;)+) => {
        /// Every target, in the order of the modules that they are about.
        pub const TARGETS: &[Target] =
            &[$($(Target { name: stringify!($name), run: $module::$name }),+),+];
    };
}

targets! {
    lease_messages: heartbeat, release, seat_message, node_message;
    machines: lease;
    control: node_link, verdict, command;
    subject: subject;
    event: event;
    config: config;
    dns: dns_read, dns_update, dns_mark, dns_pointer;
    netlink: gate_answer, neighbours, address;
    checks: http_check, grpc_check, exec_check;
    host: load, metric, store;
}

/// Runs the target `name` on `data`.
///
/// # Panics
/// When there is no such target, or when something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name:?}")).run)(data);
}

/// Whether the target `dns_update` takes `datagram` for a signed answer.
pub fn is_signed_answer(datagram: &[u8]) -> bool {
    dns::updated(datagram).is_some_and(|answer| answer.signature().is_some())
}

/// The folder with the corpus of every target.
pub fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}
