//! What holds for any input: phi monotone and finite, deadlines never late, penalties decaying.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use understudy_detection::{
    Accrual, AccrualConfig, FailureDetector, FailureDetectorConfig, Flap, FlapConfig, RiseFall, Standing,
    Threshold,
};

fn accrual_config() -> impl Strategy<Value = AccrualConfig> {
    (1_u64..10_000_000_000, 2_usize..300, 1_000_u64..1_000_000_000).prop_map(|(interval, window, floor)| {
        let ns = Duration::from_nanos;
        AccrualConfig::new(ns(interval), window, ns(floor), ns(3 * interval)).unwrap()
    })
}

/// Any times: equal ones, going backwards, and the ends of the clock.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let time = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0_u64..10_000_000_000];
    prop::collection::vec(time, 0..600)
}

fn accrual() -> impl Strategy<Value = Accrual> {
    let late = prop::option::of(any::<u64>());
    (accrual_config(), arrivals(), late).prop_map(|(config, times, late)| {
        let mut accrual = Accrual::new(config);
        times.into_iter().for_each(|at| accrual.heartbeat(at));
        if let Some(at) = late {
            accrual.observer_was_late(at);
        }
        accrual
    })
}

/// Steps between heartbeats, zero among them.
fn steps() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec((prop_oneof![Just(0), 0_u64..1_000_000_000], any::<bool>()), 1..200)
}

proptest! {
    #[test]
    fn phi_is_finite_and_never_falls_while_time_passes(accrual in accrual(), mut times in prop::collection::vec(any::<u64>(), 2..40)) {
        times.sort_unstable();
        let phis: Vec<f64> = times.iter().map(|at| accrual.phi(*at)).collect();
        prop_assert!(phis.iter().all(|phi| phi.is_finite() && *phi >= 0.0), "{phis:?}");
        // A rounding error of the last digits is no fall.
        prop_assert!(phis.is_sorted_by(|a, b| *b >= a * (1.0 - 1e-14)), "{phis:?}");
    }

    #[test]
    fn suspect_at_and_phi_agree(accrual in accrual(), phi in 0.01_f64..100.0) {
        let threshold = Threshold::new(phi).unwrap();
        if let Some(at) = accrual.suspect_at(threshold) && at < 1 << 60 {
            prop_assert!(accrual.phi(at) >= phi * (1.0 - 1e-6), "{} at {at}", accrual.phi(at));
        }
    }

    #[test]
    fn the_window_bounds_what_is_remembered(config in accrual_config(), times in arrivals()) {
        let mut accrual = Accrual::new(config);
        for at in times {
            accrual.heartbeat(at);
            prop_assert!(accrual.mean() <= Duration::from_secs(30));
            prop_assert!(accrual.deviation() <= Duration::from_secs(30));
        }
    }

    /// Polled only at its deadlines, the detector tells what one polled at every step tells.
    #[test]
    fn a_deadline_is_never_late(steps in steps()) {
        let ms = Duration::from_millis;
        let config = FailureDetectorConfig {
            accrual: AccrualConfig::new(ms(100), 5, ms(5), ms(900)).unwrap(),
            suspect: Threshold::new(3.0).unwrap(),
            failed_after: ms(900),
            max_nodes: 1,
        };
        let mut detector = FailureDetector::new(config);
        let mut now = 0;
        for (step, healthy) in steps {
            detector.handle_heartbeat(&(), healthy, now).unwrap();
            detector.poll(now);
            let next = now + step;
            let deadline = detector.next_deadline().unwrap();
            prop_assert!(deadline > now, "would spin");
            let mut eager = detector.clone();
            for at in (now..next).step_by(1_000_000) {
                let early = at < deadline;
                let changed = !eager.poll(at).is_empty();
                prop_assert!(!(early && changed), "changed at {at}, deadline {deadline}");
            }
            while let Some(at) = detector.next_deadline() && at < next {
                detector.poll(at);
            }
            eager.poll(next);
            detector.poll(next);
            prop_assert_eq!(detector.standing(&()), eager.standing(&()));
            now = next;
        }
    }

    /// At most one change a node and poll, and each starts where the last one ended.
    #[test]
    fn changes_form_a_chain(steps in prop::collection::vec((0_u64..400_000_000, 0_u8..4, any::<bool>()), 1..300)) {
        let ms = Duration::from_millis;
        let config = FailureDetectorConfig {
            accrual: AccrualConfig::new(ms(100), 20, ms(5), ms(300)).unwrap(),
            suspect: Threshold::new(3.0).unwrap(),
            failed_after: ms(300),
            max_nodes: 4,
        };
        let mut detector = FailureDetector::new(config);
        let mut known: BTreeMap<u8, Standing> = BTreeMap::new();
        let mut now = 0;
        for (step, node, flag) in steps {
            now += step;
            if step % 7 == 0 {
                detector.observer_was_late(now);
            }
            detector.handle_heartbeat(&node, flag, now).unwrap();
            for change in detector.poll(now) {
                prop_assert!(change.phi.is_finite());
                prop_assert_eq!(change.from, known.insert(change.node, change.to));
                prop_assert_ne!(change.from, Some(change.to));
            }
        }
    }

    #[test]
    fn a_penalty_is_bounded_and_decays(downs in prop::collection::vec(any::<u64>(), 1..50), later in any::<u64>(), more in any::<u64>()) {
        let mut flap = Flap::new(FlapConfig::default()).unwrap();
        downs.iter().for_each(|at| flap.down(*at));
        let (first, second) = (flap.penalty(later), flap.penalty(later.saturating_add(more)));
        prop_assert!(first.is_finite() && second <= first && second >= 0.0);
        prop_assert!(first <= 12_000.0);
        if let Some(at) = flap.reuse_at() {
            prop_assert!(!flap.damped(at));
            prop_assert!(at == u64::MAX || flap.penalty(at) <= 750.0 + 1e-3);
        }
    }

    /// The state differs from the results only while the count against it is still running.
    #[test]
    fn rise_and_fall_count_what_came_in_a_row(rise in 0_u32..5, fall in 0_u32..5, results in prop::collection::vec(any::<bool>(), 0..100)) {
        let mut check = RiseFall::new(rise, fall, true);
        let mut row = 0;
        let mut last = None;
        for ok in results {
            row = if last == Some(ok) { row + 1 } else { 1 };
            last = Some(ok);
            check.observe(ok);
            let enough = if ok { rise.max(1) } else { fall.max(1) };
            if row >= enough {
                prop_assert_eq!(check.is_up(), ok);
            }
        }
    }
}
