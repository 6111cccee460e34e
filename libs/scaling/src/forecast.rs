//! Forecast of a group's demand from its own history: seasonal and trend decomposition (MSTL), `augurs`.

use std::{collections::VecDeque, time::Duration};

use augurs_core::{Fit, Predict};
use augurs_mstl::MSTLModel;
use understudy_wire::BootTime;

use crate::rules::Forecast;

/// Parts of a season, each one value: five minutes of a day.
const PARTS: u32 = 288;

/// Seasons that are kept; the decomposition needs two.
const SEASONS: usize = 7;

/// Demand over the last seasons, one value a part: the largest that was measured in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) values: VecDeque<f32>,
    part_began: Option<BootTime>,
    largest: Option<f32>,
    /// Demand forecast for the parts from the current one on, made when the last part ended.
    points: Vec<f64>,
    /// A part has ended since.
    due: bool,
}

impl History {
    /// A history that another leader has gathered, oldest first.
    pub(crate) fn restored(values: &[f32]) -> Self {
        let values = values.iter().copied().filter(|value| value.is_finite() && *value >= 0.0);
        let mut history = Self { values: values.collect(), due: true, ..Self::default() };
        history.bound();
        history
    }

    fn bound(&mut self) {
        while self.values.len() > SEASONS * PARTS as usize {
            self.values.pop_front();
        }
    }

    /// Takes in the demand of this moment, in members; `None`: not known.
    pub(crate) fn add(&mut self, rules: Forecast, demand: Option<f64>, now: BootTime) {
        let part = rules.season / PARTS;
        let mut began = *self.part_began.get_or_insert(now);
        let mut passed = 0;
        while now.since(began) >= part {
            // A part nobody measured is taken to be like the one before it.
            let value = self.largest.or(self.values.back().copied()).unwrap_or(0.0);
            self.values.push_back(value);
            self.due = true;
            began = began.after(part);
            passed += 1;
            if passed > SEASONS as u32 * PARTS {
                began = now;
            }
        }
        if passed > 0 {
            self.largest = None;
            self.bound();
        }
        self.part_began = Some(began);
        if let Some(demand) = demand {
            self.largest = Some(self.largest.unwrap_or(0.0).max(demand as f32));
        }
    }

    /// Whether a fit is due: one costs milliseconds, so the policy spreads them over turns.
    pub(crate) fn due(&self) -> bool {
        self.due && self.values.len() > 2 * PARTS as usize
    }

    /// Fits the model to the whole history and keeps what it says of the next `lead`.
    pub(crate) fn fit(&mut self, rules: Forecast, lead: Duration) {
        self.due = false;
        let part = rules.season / PARTS;
        let horizon = 2 + usize::try_from(lead.as_nanos() / part.as_nanos().max(1)).unwrap_or(0);
        let values: Vec<f64> = self.values.iter().map(|value| f64::from(*value)).collect();
        let fitted = MSTLModel::naive(vec![PARTS as usize]).fit(&values);
        let forecast = fitted.ok().and_then(|model| model.predict(horizon.min(PARTS as usize), None).ok());
        self.points = forecast.map(|forecast| forecast.point).unwrap_or_default();
    }

    /// Largest demand forecast from now until a member that is ordered now is ready, in members.
    pub(crate) fn demand(&self) -> Option<f64> {
        self.points.iter().copied().filter(|point| point.is_finite() && *point >= 0.0).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// 4 members, and 8 from 08:00 to 16:00.
    fn demand(second: u64) -> f64 {
        if (8..16).contains(&(second % 86_400 / 3600)) { 8.0 } else { 4.0 }
    }

    fn history(days: u64, extra: u64) -> History {
        let mut history = History::default();
        for second in (0..=days * 86_400 + extra).step_by(300) {
            let now = BootTime(0).after(Duration::from_secs(second));
            history.add(Forecast { season: DAY }, Some(demand(second)), now);
        }
        history
    }

    #[test]
    fn a_peak_that_comes_daily_is_seen_before_it_comes() {
        let lead = Duration::from_secs(600);
        let mut quiet = history(3, 4 * 3600);
        assert!(quiet.due());
        quiet.fit(Forecast { season: DAY }, lead);
        let quiet = quiet.demand().unwrap();
        assert!((3.0..5.0).contains(&quiet), "{quiet}");

        let mut eve = history(3, 8 * 3600 - 300);
        eve.fit(Forecast { season: DAY }, lead);
        let eve = eve.demand().unwrap();
        assert!((7.0..9.0).contains(&eve), "{eve}");
    }

    #[test]
    fn two_seasons_are_needed_and_seven_are_kept() {
        assert!(!history(1, 0).due());
        assert_eq!(history(9, 0).values.len(), SEASONS * PARTS as usize);
    }

    #[test]
    fn a_gap_is_bridged_with_the_last_value() {
        let mut history = history(1, 0);
        let before = history.values.len();
        history.add(Forecast { season: DAY }, Some(4.0), BootTime(0).after(DAY + Duration::from_secs(3000)));
        assert_eq!(history.values.len(), before + 10);
        assert!(history.values.iter().rev().take(10).all(|value| *value == 4.0));
    }
}
