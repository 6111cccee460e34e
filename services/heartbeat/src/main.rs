//! heartbeat.

fn main() {}
