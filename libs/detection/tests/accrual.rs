//! The accrual detector against the normal distribution's published values, and under R13.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::time::Duration;

use understudy_detection::{Accrual, AccrualConfig, ConfigError, MAX_WINDOW, Threshold};

const MS: u64 = 1_000_000;

fn config(window: usize) -> AccrualConfig {
    let (interval, floor, gap) =
        (Duration::from_millis(100), Duration::from_millis(5), Duration::from_millis(300));
    AccrualConfig::new(interval, window, floor, gap).unwrap()
}

/// Heartbeats every 100 ms from 0 to `last` ms.
fn regular(window: usize, last: u64) -> Accrual {
    let mut accrual = Accrual::new(config(window));
    (0..=last).step_by(100).for_each(|at| accrual.heartbeat(at * MS));
    accrual
}

fn assert_close(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9 * right.abs().max(1.0), "{left} is not {right}");
}

/// The seeds are 75 and 125 ms: mean 100 ms, deviation 25 ms.
#[test]
fn phi_after_the_first_heartbeat_follows_the_configured_interval() {
    let mut accrual = Accrual::new(config(200));
    assert_eq!(accrual.phi(u64::MAX), 0.0, "never heard: nothing to suspect");
    accrual.heartbeat(1_000 * MS);
    assert_close(accrual.phi(1_100 * MS), 2.0_f64.log10());
    assert_close(accrual.phi(1_125 * MS), -0.158_655_253_931_457_05_f64.log10());
    assert_close(accrual.phi(1_175 * MS), -0.001_349_898_031_630_094_5_f64.log10());
    assert_close(accrual.phi(1_350 * MS), -7.619_853_024_160_526e-24_f64.log10());
}

/// Intervals 80 and 120 ms in turn fill the window: mean 100 ms, deviation 20 ms.
#[test]
fn phi_follows_the_measured_rhythm_once_the_seeds_have_left_the_window() {
    let mut accrual = Accrual::new(config(10));
    let mut now = 0;
    for turn in 0..21 {
        accrual.heartbeat(now * MS);
        now += if turn % 2 == 0 { 80 } else { 120 };
    }
    let last = accrual.last_heard().unwrap();
    assert_eq!(
        (accrual.mean(), accrual.deviation()),
        (Duration::from_millis(100), Duration::from_millis(20))
    );
    assert_close(accrual.phi(last + 140 * MS), -0.022_750_131_948_179_2_f64.log10());
}

#[test]
fn a_quiet_network_meets_the_floor() {
    let accrual = regular(10, 2_000);
    assert_eq!(accrual.deviation(), Duration::from_millis(5));
    assert_close(accrual.phi(2_105 * MS), -0.158_655_253_931_457_05_f64.log10());
}

#[test]
fn suspect_at_is_when_phi_crosses_the_threshold() {
    let accrual = regular(10, 2_000);
    let threshold = Threshold::new(8.0).unwrap();
    let at = accrual.suspect_at(threshold).unwrap();
    assert!(accrual.phi(at) >= 8.0 - 1e-9, "{}", accrual.phi(at));
    assert!(accrual.phi(at - 1_000) < 8.0);
    // Q(5.612) = 1e-8.
    assert_eq!((at - 2_100 * MS) / 100_000, 280);
    assert_eq!(Accrual::new(config(10)).suspect_at(threshold), None);
}

#[test]
fn an_outage_is_not_learned_as_jitter() {
    let mut accrual = regular(10, 2_000);
    accrual.heartbeat(60_000 * MS);
    assert_eq!((accrual.mean(), accrual.deviation()), (Duration::from_millis(100), Duration::from_millis(5)));
}

/// R13: the observer slept from 2,000 to 2,250 ms, then three queued heartbeats came at once.
#[test]
fn a_late_observer_learns_neither_its_own_gap_nor_the_burst_after_it() {
    let mut accrual = regular(10, 2_000);
    let before = accrual.phi(2_250 * MS);
    accrual.observer_was_late(2_250 * MS);
    assert!(before > 100.0);
    assert!(accrual.phi(2_250 * MS) < 1e-9, "silence counts from the awakening");
    (0..3).for_each(|late| accrual.heartbeat(2_250 * MS + late));
    for at in [2_300, 2_400, 2_500, 2_600] {
        accrual.heartbeat(at * MS);
    }
    assert_eq!((accrual.mean(), accrual.deviation()), (Duration::from_millis(100), Duration::from_millis(5)));
}

#[test]
fn learning_goes_on_after_the_observer_has_caught_up() {
    let mut accrual = regular(4, 2_000);
    accrual.observer_was_late(2_050 * MS);
    (0..10).for_each(|beat| accrual.heartbeat((2_100 + beat * 150) * MS));
    assert_eq!(accrual.mean(), Duration::from_millis(150));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let ms = Duration::from_millis;
    let new = AccrualConfig::new;
    assert_eq!(new(ms(100), 1, ms(5), ms(300)), Err(ConfigError::Window(1)));
    assert_eq!(new(ms(100), MAX_WINDOW + 1, ms(5), ms(300)), Err(ConfigError::Window(MAX_WINDOW + 1)));
    assert_eq!(new(ms(0), 10, ms(5), ms(300)), Err(ConfigError::Interval(ms(0))));
    assert_eq!(new(ms(400), 10, ms(5), ms(300)), Err(ConfigError::Interval(ms(400))));
    assert_eq!(new(ms(100), 10, ms(0), ms(300)), Err(ConfigError::Floor(ms(0))));
    assert_eq!(new(ms(100), 10, ms(5), Duration::MAX), Err(ConfigError::Gap(Duration::MAX)));
    for phi in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Threshold::new(phi).is_err(), "{phi}");
    }
}
