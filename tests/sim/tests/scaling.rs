//! The autoscaling policy holds its invariants for every seed, and every mutant is caught.

mod common;

use std::collections::BTreeSet;

use common::{SHOWN, THREADS, expect_caught, expect_none, expect_one_trace};
use understudy_sim::{
    run, run_many,
    scaling::{self, Fault, Mutant, Options},
};

#[test]
fn storms_break_nothing_and_converge() {
    let summary = run_many(0, 1_500, THREADS, SHOWN, Options::storm, |_| ());
    expect_none("storm", &summary, Options::storm);
    assert!(summary.count > 30 * summary.runs, "only {} actions: the storms are too mild", summary.count);
}

/// Only the highest instance can go and the others come back by themselves: the policy neither waits for what cannot be
/// nor fights it.
#[test]
fn a_driver_that_can_only_remove_the_highest_is_no_worse() {
    let summary = run_many(0, 1_000, THREADS, SHOWN, Options::ordinals, |_| ());
    expect_none("ordinals", &summary, Options::ordinals);
}

/// Half of the runs have a driver that can restart: those are given the time of a restart as well.
#[test]
fn a_single_fault_is_made_good_within_start_up_and_two_intervals_after_any_restart() {
    let summary = run_many(0, 3_000, THREADS, SHOWN, Options::single, |_| ());
    expect_none("single", &summary, Options::single);
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..8 {
        for options in [Options::storm(seed), Options::single(seed)] {
            expect_one_trace(&options, 100);
        }
    }
    assert_ne!(run(Options::storm(1)).hash, run(Options::storm(2)).hash);
}

/// Every kind of fault comes up in single-fault runs, so none is allowed for by chance.
#[test]
fn every_fault_is_drawn() {
    let drawn: BTreeSet<_> = (0..500).filter_map(|seed| Options::single(seed).single).collect();
    assert_eq!(drawn.len(), Fault::all().len());
}

/// What the bench promises, with fewer seeds: at most half of the HPA rule's minutes over target, at no more than 105 % of
/// its instance-hours.
#[test]
fn half_of_the_minutes_over_target_for_the_same_hours() {
    for trace in scaling::bench::traces(3) {
        let median = |what: &str| trace["ratios"][what]["median"].as_f64().expect("a number");
        let (minutes, hours) = (median("minutes_over_target"), median("instance_hours"));
        println!("{}: {minutes} of the minutes over target, {hours} of the instance-hours", trace["trace"]);
        assert!(minutes <= 0.5 && hours <= 1.05, "{trace:#}");
    }
}

fn catches(mutant: Mutant, invariant: u8, most: u64, options: fn(u64) -> Options) {
    expect_caught(mutant, invariant, most, |seed| options(seed).weakened(mutant));
}

#[test]
fn mutant_no_stabilisation_window() {
    catches(Mutant::NoWindow, 2, 100, Options::storm);
}

#[test]
fn mutant_stale_metrics_scale_in() {
    catches(Mutant::StaleScalesIn, 3, 300, Options::storm);
}

#[test]
fn mutant_missing_metrics_count_as_idle() {
    catches(Mutant::MissingIsIdle, 3, 300, Options::storm);
}

#[test]
fn mutant_last_standby_taken() {
    catches(Mutant::LastStandbyTaken, 1, 100, Options::storm);
}

#[test]
fn mutant_budget_ignored() {
    catches(Mutant::BudgetIgnored, 4, 100, Options::storm);
}

#[test]
fn mutant_key_from_time() {
    catches(Mutant::KeyFromTime, 5, 100, Options::storm);
}

#[test]
fn mutant_blind_to_failover() {
    catches(Mutant::BlindToFailover, 1, 500, Options::storm);
}

/// The group stays without a standby behind a restart that does not help.
#[test]
fn mutant_restart_waited_for_without_end() {
    catches(Mutant::RestartForEver, 6, 300, Options::single);
}
