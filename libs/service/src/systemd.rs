//! What systemd is told (sd_notify(3)): that the service has started, and that its main loop ticks. Elsewhere nothing
//! happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::Health;

/// Food for the watchdog: well within any `WatchdogSec` that makes sense beside [`crate::http::TICK_LIMIT`].
const FEEDING: Duration = Duration::from_secs(1);

/// Says that the service has started, then feeds the watchdog of its unit until the main loop begins and for as long as
/// it ticks. A loop that hangs is not fed for, so systemd ends the service and starts it anew.
pub(crate) fn start(health: Health) {
    tell(&NotifyState::Ready);
    if sd_notify::watchdog_enabled().is_some() {
        tokio::spawn(feed(health, || tell(&NotifyState::Watchdog)));
    }
}

async fn feed(health: Health, meal: impl Fn()) {
    let mut meals = interval(FEEDING);
    meals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        meals.tick().await;
        if is_well(&health) {
            meal();
        }
    }
}

/// A service that still starts is not ended for that: why it refuses would never be told.
fn is_well(health: &Health) -> bool {
    !health.began() || health.live().is_ok()
}

/// Says that the service is handing over and ending.
pub(crate) fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(what: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(what)) {
        tracing::warn!(%error, ?what, "telling systemd");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::timeout;

    use super::*;

    async fn meals_in_a_minute(tick_limit: Duration) -> u32 {
        let (eaten, health) = (AtomicU32::new(0), Health::new(tick_limit));
        health.tick();
        let feeding = feed(health, || {
            eaten.fetch_add(1, Ordering::Relaxed);
        });
        assert!(timeout(Duration::from_secs(60), feeding).await.is_err());
        eaten.into_inner()
    }

    // The clock of the runtime flies, that of the health goes as it does.
    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_every_second_and_for_a_loop_that_hangs_never() {
        assert!(meals_in_a_minute(Duration::from_secs(600)).await >= 60);
        assert_eq!(meals_in_a_minute(Duration::ZERO).await, 0);
    }

    #[test]
    fn a_long_start_is_fed_for_and_a_loop_that_hangs_is_not() {
        let health = Health::new(Duration::ZERO);
        let overdue = |health: &Health| {
            while health.live().is_ok() {
                std::thread::yield_now();
            }
        };
        overdue(&health);
        assert!(is_well(&health), "it starts");
        health.tick();
        overdue(&health);
        assert!(!is_well(&health), "its loop hangs");
        let patient = Health::new(Duration::from_secs(3_600));
        patient.tick();
        assert!(is_well(&patient));
    }
}
