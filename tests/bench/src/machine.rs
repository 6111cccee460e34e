//! The machine that the figures are of.

use std::fs;

use nix::time::{ClockId, clock_getres};

/// Processor, cores, kernel and tick, in one line.
pub(crate) fn description() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, Linux {}, HZ={}", processor(), kernel.trim(), hz())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}

/// The coarse clocks advance once a tick, so their resolution is the tick.
fn hz() -> u64 {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |tick| tick.tv_nsec());
    u64::try_from(resolution).ok().filter(|tick| *tick > 0).map_or(0, |tick| 1_000_000_000 / tick)
}
