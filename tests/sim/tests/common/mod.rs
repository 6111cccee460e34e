//! What is asked of every simulation.

use std::{fmt::Debug, path::Path};

use understudy_sim::{Simulation, Summary, replay, run, save};

/// The machine that this must be fit for has two cores.
pub(crate) const THREADS: usize = 2;
/// Failures shown before a test gives up.
pub(crate) const SHOWN: usize = 3;

/// Fails with the seeds that failed, their traces kept.
pub(crate) fn expect_none<S: Simulation>(
    kind: &str,
    summary: &Summary<S::Found>,
    options: impl Fn(u64) -> S,
) {
    println!("{kind}: {} runs, {} {}", summary.runs, summary.count, S::COUNTED);
    let command = S::NAME.map(|name| format!("{name} ")).unwrap_or_default();
    let mut report = String::new();
    for outcome in &summary.failed {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sim");
        let path = save(&folder, kind, options(outcome.seed)).expect("the trace is saved");
        let violation = outcome.violation.as_ref().expect("failed runs have one");
        report += &format!(
            "\nseed {}: {violation}\n  trace: {}\n  again: cargo run -p understudy-sim -- {command}replay --runs {kind} {}",
            outcome.seed,
            path.display(),
            outcome.seed
        );
    }
    assert!(summary.failed.is_empty(), "{report}");
}

/// The same seed gives the same trace, of more than `least` events, whether or not it is kept.
pub(crate) fn expect_one_trace<S: Simulation>(options: &S, least: usize) {
    let seed = options.seed();
    let (first, lines) = replay(options.clone());
    let (second, again) = replay(options.clone());
    assert_eq!(lines, again, "seed {seed}");
    assert_eq!(first.hash, second.hash, "seed {seed}");
    assert_eq!(first.hash, run(options.clone()).hash, "seed {seed}: keeping lines changed the run");
    assert!(lines.len() > least, "seed {seed} has only {} events", lines.len());
}

/// Finds the violation of `invariant` within `most` seeds of runs that `mutant` has weakened, and says how many it took.
pub(crate) fn expect_caught<S: Simulation>(
    mutant: impl Debug,
    invariant: u8,
    most: u64,
    weakened: impl Fn(u64) -> S,
) {
    let hit = (0..most).find_map(|seed| {
        let violation = run(weakened(seed)).violation?;
        (violation.invariant == invariant).then_some((seed, violation))
    });
    let (seed, violation) = hit.unwrap_or_else(|| panic!("{mutant:?} survived {most} seeds"));
    println!("mutant {mutant:?}: caught after {} seeds: {violation}", seed + 1);
}
