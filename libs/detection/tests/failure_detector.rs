//! Standings of several nodes over time.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::time::Duration;

use understudy_detection::{
    AccrualConfig, FailureDetector, FailureDetectorConfig, Standing, Threshold, TooManyNodes,
};

const MS: u64 = 1_000_000;

fn config() -> FailureDetectorConfig {
    let ms = Duration::from_millis;
    FailureDetectorConfig {
        accrual: AccrualConfig::new(ms(100), 20, ms(5), ms(300)).unwrap(),
        suspect: Threshold::new(3.0).unwrap(),
        failed_after: ms(300),
        max_nodes: 3,
    }
}

/// Follows "a" with regular heartbeats until `last` ms, its first change already polled.
fn alive(last: u64) -> FailureDetector<&'static str> {
    let mut detector = FailureDetector::new(config());
    for at in (0..=last).step_by(100) {
        detector.handle_heartbeat(&"a", true, at * MS).unwrap();
        detector.poll(at * MS);
    }
    assert_eq!(detector.standing(&"a"), Some(Standing::Alive));
    detector
}

/// Polls at every deadline until nothing more happens; time in ms and new standing of each change.
fn run(detector: &mut FailureDetector<&'static str>) -> Vec<(u64, &'static str, Standing)> {
    let mut changes = Vec::new();
    let mut polls = 0;
    while let Some(at) = detector.next_deadline() {
        changes.extend(detector.poll(at).into_iter().map(|change| (at / MS, change.node, change.to)));
        polls += 1;
        assert!(polls < 10, "polled over and over without an end");
    }
    changes
}

#[test]
fn a_silent_node_is_suspected_then_failed_at_the_deadlines_it_names() {
    let mut detector = alive(3_000);
    // Q(3.09) = 0.001: 3,000 + 100 + 3.09·5 ms.
    let expected = [(3_115, "a", Standing::Suspect), (3_300, "a", Standing::Failed)];
    assert_eq!(run(&mut detector), expected);
}

#[test]
fn a_change_says_from_what_to_what_and_how_long_silent() {
    let mut detector = alive(3_000);
    let change = detector.poll(3_200 * MS).remove(0);
    assert_eq!((change.from, change.to), (Some(Standing::Alive), Standing::Suspect));
    assert_eq!(change.silent_for, Duration::from_millis(200));
    assert!(change.phi > 80.0);
    assert_eq!(detector.poll(3_201 * MS), [], "told once");
}

#[test]
fn a_heartbeat_brings_it_back_and_health_is_told_at_once() {
    let mut detector = alive(3_000);
    detector.poll(3_300 * MS);
    assert_eq!(detector.standing(&"a"), Some(Standing::Failed));
    detector.handle_heartbeat(&"a", false, 3_301 * MS).unwrap();
    assert_eq!(detector.next_deadline(), Some(0), "due already");
    assert_eq!(detector.poll(3_301 * MS)[0].to, Standing::Unhealthy);
    detector.handle_heartbeat(&"a", true, 3_401 * MS).unwrap();
    assert_eq!(detector.poll(3_401 * MS)[0].to, Standing::Alive);
}

#[test]
fn an_expected_node_that_never_speaks_fails() {
    let mut detector = FailureDetector::new(config());
    detector.expect(&"b", 1_000 * MS).unwrap();
    assert_eq!(detector.standing(&"b"), None);
    assert_eq!(run(&mut detector), [(1_300, "b", Standing::Failed)]);
    assert_eq!(detector.standing(&"b"), Some(Standing::Failed));
}

/// R13: the observer wakes at 5,000 ms. Nobody has failed by then; a node silent since is suspected and failed
/// when what was seen since the awakening says so.
#[test]
fn a_late_observer_blames_itself_first() {
    let mut detector = alive(3_000);
    detector.observer_was_late(5_000 * MS);
    assert_eq!(detector.poll(5_000 * MS), []);
    assert_eq!(run(&mut detector), [(5_115, "a", Standing::Failed)]);
}

#[test]
fn a_late_observer_improves_nobody() {
    let mut detector = alive(3_000);
    detector.poll(3_150 * MS);
    assert_eq!(detector.standing(&"a"), Some(Standing::Suspect));
    detector.observer_was_late(3_200 * MS);
    assert_eq!(detector.poll(3_200 * MS), []);
    assert_eq!(detector.standing(&"a"), Some(Standing::Suspect));
    assert_eq!(run(&mut detector), [(3_315, "a", Standing::Failed)]);
}

/// A wide window first puts the deadline far away; then it narrows, and the deadline must follow.
#[test]
fn a_narrower_window_brings_the_deadline_forward() {
    let ms = Duration::from_millis;
    let accrual = AccrualConfig::new(ms(100), 4, ms(5), ms(3_000)).unwrap();
    let mut detector =
        FailureDetector::new(FailureDetectorConfig { accrual, failed_after: ms(20_000), ..config() });
    let wide = [0, 2_000, 2_010, 4_000];
    let narrow = (1..=8).map(|beat| 4_000 + beat * 100);
    for at in wide.into_iter().chain(narrow) {
        detector.handle_heartbeat(&"a", true, at * MS).unwrap();
        detector.poll(at * MS);
    }
    assert_eq!(detector.next_deadline().unwrap() / MS, 4_915);
}

#[test]
fn a_forgotten_node_leaves_nothing_behind() {
    let mut detector = alive(3_000);
    detector.forget(&"a");
    assert_eq!(detector.next_deadline(), None);
    assert_eq!(detector.standings().count(), 0);
}

#[test]
fn no_more_nodes_than_allowed() {
    let mut detector = FailureDetector::new(config());
    for node in ["a", "b", "c"] {
        detector.handle_heartbeat(&node, true, 0).unwrap();
    }
    assert_eq!(detector.handle_heartbeat(&"d", true, 0), Err(TooManyNodes { limit: 3 }));
    assert_eq!(detector.handle_heartbeat(&"c", true, 1), Ok(()));
    detector.forget(&"a");
    assert_eq!(detector.expect(&"d", 2), Ok(()));
}
