//! Known peaks: a size from a cron time on, for a while.

use std::time::Duration;

use chrono::DateTime;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

use crate::view::WallClock;

/// At least `active` members serve from each time of `cron` on, for `lasts`.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    /// How long it holds.
    pub lasts: Duration,
    /// N, at least.
    pub active: u16,
}

/// A cron expression that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be five cron fields (minute hour day month weekday, UTC), such as \"0 8 * * 1-5\": {0}")]
pub struct InvalidSchedule(String);

impl Schedule {
    /// Reads `cron`: minute, hour, day of month, month, day of week, in UTC.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(cron: &str, lasts: Duration, active: u16) -> Result<Self, InvalidSchedule> {
        // By default a sixth field is the second and a seventh the year.
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(cron).map_err(|error| InvalidSchedule(error.to_string()))?;
        Ok(Self { text: cron.to_owned(), cron: parsed, lasts, active })
    }

    /// The expression as written.
    pub fn cron(&self) -> &str {
        &self.text
    }

    /// Whether it holds at `now`.
    pub fn holds(&self, now: WallClock) -> bool {
        let Some(now) = DateTime::from_timestamp(now.0, 0) else { return false };
        let Ok(began) = self.cron.find_previous_occurrence(&now, true) else { return false };
        let since = (now - began).num_seconds();
        u64::try_from(since).is_ok_and(|since| since < self.lasts.as_secs())
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.lasts, self.active) == (&other.text, other.lasts, other.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-05 00:00 UTC, a Monday.
    const MONDAY: i64 = 1_767_571_200;

    #[test]
    fn a_schedule_holds_from_its_time_on_for_as_long_as_it_lasts() {
        let hour = Duration::from_secs(3600);
        let schedule = Schedule::new("0 8 * * 1-5", hour * 10, 6).unwrap();
        let at =
            |day: i64, hour: i64, minute: i64| WallClock(MONDAY + day * 86_400 + hour * 3600 + minute * 60);
        for (time, holds) in [
            (at(0, 7, 59), false),
            (at(0, 8, 0), true),
            (at(0, 17, 59), true),
            (at(0, 18, 0), false),
            (at(5, 9, 0), false),
        ] {
            assert_eq!(schedule.holds(time), holds, "{time:?}");
        }
        let night = Schedule::new("0 22 * * *", hour * 4, 3).unwrap();
        assert!(night.holds(at(1, 1, 59)) && !night.holds(at(1, 2, 0)));
    }

    #[test]
    fn what_is_no_cron_expression_is_refused() {
        for text in ["", "8", "0 25 * * *", "every day", "61 * * * *", "0 0 8 * * 1-5", "0 0 8 * * 1-5 2030"]
        {
            let error = Schedule::new(text, Duration::from_secs(60), 1).unwrap_err().to_string();
            assert!(error.starts_with("must be five cron fields"), "{text:?}: {error}");
        }
    }
}
