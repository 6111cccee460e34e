//! Storms, single faults, mutants: design section 11, invariants 1 to 5.

mod common;

use std::sync::Mutex;

use common::{SHOWN, THREADS, expect_caught, expect_none, expect_one_trace};
use understudy_sim::{Fault, Mutant, Options, Suspicion, run, run_many};

const MS: u64 = 1_000_000;

#[test]
fn ten_thousand_storms_break_nothing_and_converge() {
    let began = std::time::Instant::now();
    let summary = run_many(0, 10_000, THREADS, SHOWN, Options::storm, |_| ());
    let took = began.elapsed().as_secs_f64();
    println!("{:.0} seeds of 60 s a second, {took:.1} s in all", summary.runs as f64 / took);
    expect_none("storm", &summary, Options::storm);
}

#[test]
fn single_faults_move_at_most_one_slot_and_only_with_cause() {
    let summary = run_many(0, 6_000, THREADS, SHOWN, Options::single, |_| ());
    expect_none("single", &summary, Options::single);
}

/// Invariant 3 in figures. The bound is T by the slowest clock and the round trips of a takeover.
#[test]
fn a_crashed_holder_is_replaced_within_t() {
    let outages = Mutex::new(Vec::new());
    let summary = run_many(0, 2_000, THREADS, SHOWN, Options::crash, |outcome| {
        let Some((at, slot)) = outcome.found.struck else { return };
        let gap = outcome.found.gaps.iter().find(|gap| gap.slot == slot && gap.to > at);
        let gap = gap.expect("a crashed holder's slot is dark for a while");
        outages.lock().expect("nobody panicked").push((gap.to - at) as f64 / 1e6);
    });
    expect_none("crash", &summary, Options::crash);
    let mut outages = outages.into_inner().expect("nobody panicked");
    outages.sort_by(f64::total_cmp);
    assert!(outages.len() > 300, "only {} crashes struck a holder", outages.len());
    let part = |share: f64| outages[((outages.len() - 1) as f64 * share) as usize];
    println!(
        "crash outage at T = 300 ms, I = 100 ms: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms of {} crashes",
        part(0.5),
        part(0.99),
        part(1.0),
        outages.len()
    );
    assert!(part(1.0) < 315.0);
}

/// A holder whose publisher, executor or host goes on before its lease has run out keeps it: not only a stop that is
/// over before the next heartbeat is due, but also one that made one or two of them late.
#[test]
fn a_short_stop_loses_no_lease() {
    let late = Mutex::new([0; 3]);
    let summary = run_many(0, 12_000, THREADS, SHOWN, Options::pause, |outcome| {
        if outcome.found.stood_still.is_some_and(|span| (150 * MS..=240 * MS).contains(&span)) {
            late.lock().expect("nobody panicked")[(outcome.seed % 3) as usize] += 1;
        }
    });
    expect_none("pause", &summary, Options::pause);
    let late = late.into_inner().expect("nobody panicked");
    println!(
        "stood still for 150 to 240 ms at T = 300 ms, I = 100 ms, with no gap: {late:?} (publisher, both, executor)"
    );
    assert!(late.iter().all(|struck| *struck > 50), "{late:?}");
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..8 {
        for options in [Options::storm(seed), Options::single(seed)] {
            expect_one_trace(&options, 500);
        }
    }
    assert_ne!(run(Options::storm(1)).hash, run(Options::storm(2)).hash);
}

/// Suspicion informs people and never moves a slot (R10): the lease's trace is the same whatever phi says. Without
/// flap damping, since after a late observer (R13) phi has a say in when a node counts as failed.
#[test]
fn suspicion_moves_nothing() {
    for seed in 0..200 {
        let usual = run(Options { damping: false, ..Options::storm(seed) });
        let paranoid = Options { suspicion: Suspicion::Paranoid, damping: false, ..Options::storm(seed) };
        let paranoid = run(paranoid);
        assert_eq!(usual.hash, paranoid.hash, "seed {seed}");
    }
}

fn catches(mutant: Mutant, invariant: u8, most: u64, options: fn(u64) -> Options) {
    expect_caught(mutant, invariant, most, |seed| options(seed).weakened(mutant));
}

#[test]
fn mutant_no_silence_after_restart() {
    catches(Mutant::NoSilence, 1, 300, Options::storm);
}

#[test]
fn mutant_no_ceiling() {
    catches(Mutant::NoCeiling, 2, 300, Options::storm);
}

#[test]
fn mutant_release_without_time() {
    catches(Mutant::ReleaseWithoutTime, 1, 600, Options::storm);
}

#[test]
fn mutant_holder_without_incarnation() {
    catches(Mutant::NoIncarnation, 1, 600, Options::storm);
}

#[test]
fn mutant_no_drift_margin() {
    catches(Mutant::NoDrift, 1, 300, Options::storm);
}

#[test]
fn mutant_quorum_of_half_the_seats() {
    catches(Mutant::HalfQuorum, 1, 100, Options::storm);
}

#[test]
fn mutant_gate_left_open_at_expiry() {
    catches(Mutant::GateStays, 1, 100, Options::storm);
}

#[test]
fn mutant_epoch_used_before_it_is_confirmed() {
    catches(Mutant::EarlyEpoch, 2, 300, Options::storm);
}

#[test]
fn mutant_promises_are_not_kept() {
    catches(Mutant::NoPromise, 2, 600, Options::storm);
}

#[test]
fn mutant_one_seat_promises_for_all() {
    catches(Mutant::PromiseOfOne, 2, 600, Options::storm);
}

/// Breaks nothing at any instant, but gives a false failover when all seats wake: a single fault shows it.
#[test]
fn mutant_late_observer_judges_at_once() {
    catches(Mutant::LateJudge, 4, 300, Options::single);
}

#[test]
fn mutant_closed_slots_are_renewed() {
    catches(Mutant::SizeUnheard, 3, 300, Options::storm);
}

/// Every kind of fault comes up in single-fault runs, so none is allowed for by chance.
#[test]
fn every_fault_is_drawn() {
    let drawn: std::collections::BTreeSet<_> =
        (0..500).filter_map(|seed| Options::single(seed).single).collect();
    assert_eq!(drawn.len(), Fault::all().len());
}
