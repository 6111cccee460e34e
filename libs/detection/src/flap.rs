//! Flap damping in the spirit of RFC 2439: each change adds a penalty that decays exponentially; too much of it
//! and the node is passed over until it has been quiet for a while.

use std::time::Duration;

use crate::time::nanos;

/// Why a [`FlapConfig`] was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FlapConfigError {
    /// A penalty or limit is not a positive finite number.
    #[error("{name} {value}: must be above 0 and finite")]
    NotPositive {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: f64,
    },
    /// Reuse not below suppress: a node would never come back, or be damped and reused at once.
    #[error("reuse below {reuse} must be smaller than suppress above {suppress}")]
    Order {
        /// `reuse_below` as given.
        reuse: f64,
        /// `suppress_above` as given.
        suppress: f64,
    },
    /// The half-life or the longest suppression is zero.
    #[error("{0}: must be above zero")]
    Zero(&'static str),
    /// With its ceiling (what decays to reuse within the longest suppression) the penalty never reaches suppress.
    #[error("longest suppression {0:?} is too short for this half-life: nothing would ever be suppressed")]
    Unreachable(Duration),
}

/// Settings of flap damping (RFC 2439 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlapConfig {
    /// Added by each change for the worse.
    pub penalty: f64,
    /// A penalty above this damps the node.
    pub suppress_above: f64,
    /// A damped node is used again when its penalty has fallen below this.
    pub reuse_below: f64,
    /// The penalty halves in this time.
    pub half_life: Duration,
    /// No node stays damped for longer after its last change.
    pub longest_suppression: Duration,
}

impl Default for FlapConfig {
    /// Shape of the common router defaults (1000 a change, suppress 2000, reuse 750), with a half-life of one minute
    /// instead of fifteen: a server that has been quiet for minutes is worth using again.
    fn default() -> Self {
        Self {
            penalty: 1_000.0,
            suppress_above: 2_000.0,
            reuse_below: 750.0,
            half_life: Duration::from_secs(60),
            longest_suppression: Duration::from_secs(240),
        }
    }
}

/// A damped node stays damped for so many half-lives after its last fall at most, as in [`FlapConfig::default`].
const LONGEST_SUPPRESSION: u32 = 4;

impl FlapConfig {
    /// With the default penalty, and a suppression of at most four half-lives. Refuses settings that could not work.
    pub fn new(half_life: Duration, suppress_above: f64, reuse_below: f64) -> Result<Self, FlapConfigError> {
        let longest_suppression = half_life.saturating_mul(LONGEST_SUPPRESSION);
        let config = Self { half_life, suppress_above, reuse_below, longest_suppression, ..Self::default() };
        config.check().map(|()| config)
    }

    /// Refuses settings that could not work.
    pub fn check(&self) -> Result<(), FlapConfigError> {
        let positive = [
            ("penalty", self.penalty),
            ("suppress above", self.suppress_above),
            ("reuse below", self.reuse_below),
        ];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(FlapConfigError::NotPositive { name, value });
            }
        }
        if self.half_life.is_zero() {
            return Err(FlapConfigError::Zero("half-life"));
        }
        if self.longest_suppression.is_zero() {
            return Err(FlapConfigError::Zero("longest suppression"));
        }
        if self.reuse_below >= self.suppress_above {
            return Err(FlapConfigError::Order { reuse: self.reuse_below, suppress: self.suppress_above });
        }
        if self.ceiling() <= self.suppress_above {
            return Err(FlapConfigError::Unreachable(self.longest_suppression));
        }
        Ok(())
    }

    /// The penalty that decays to reuse in exactly the longest suppression.
    fn ceiling(&self) -> f64 {
        let half_lives = self.longest_suppression.as_secs_f64() / self.half_life.as_secs_f64();
        (self.reuse_below * libm::exp2(half_lives)).min(f64::MAX)
    }
}

/// Flap history of one node: one number and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flap {
    config: FlapConfig,
    penalty: f64,
    counted_at: u64,
    reuse_at: Option<u64>,
}

impl Flap {
    /// A node that has never flapped. Refuses settings that could not work.
    pub fn new(config: FlapConfig) -> Result<Self, FlapConfigError> {
        config.check()?;
        Ok(Self { config, penalty: 0.0, counted_at: 0, reuse_at: None })
    }

    /// The node changed for the worse at `now_ns`.
    pub fn down(&mut self, now_ns: u64) {
        let damped = self.damped(now_ns);
        self.penalty = (self.penalty(now_ns) + self.config.penalty).min(self.config.ceiling());
        self.counted_at = self.counted_at.max(now_ns);
        self.reuse_at = (damped || self.penalty > self.config.suppress_above).then(|| self.decayed_at());
    }

    /// The penalty left at `now_ns`.
    pub fn penalty(&self, now_ns: u64) -> f64 {
        let age = now_ns.saturating_sub(self.counted_at) as f64;
        self.penalty * libm::exp2(-age / nanos(self.config.half_life) as f64)
    }

    /// Too many changes: pass it over until [`Flap::reuse_at`].
    pub fn damped(&self, now_ns: u64) -> bool {
        self.reuse_at.is_some_and(|reuse_at| now_ns < reuse_at)
    }

    /// When the node may be used again, if the changes so far damped it; may have passed.
    pub fn reuse_at(&self) -> Option<u64> {
        self.reuse_at
    }

    /// When the penalty will have fallen to reuse.
    fn decayed_at(&self) -> u64 {
        let half_lives = libm::log2(self.penalty / self.config.reuse_below).max(0.0);
        let wait = (half_lives * nanos(self.config.half_life) as f64).ceil();
        self.counted_at.saturating_add(wait as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn flap() -> Flap {
        Flap::new(FlapConfig::default()).unwrap()
    }

    #[test]
    fn one_or_two_changes_do_not_damp_and_the_third_does() {
        let mut node = flap();
        node.down(0);
        node.down(0);
        assert!(!node.damped(0), "2000 is not above 2000");
        assert_eq!(node.reuse_at(), None);
        node.down(0);
        assert!(node.damped(0));
    }

    #[test]
    fn penalty_halves_with_every_half_life() {
        let mut node = flap();
        node.down(5 * MINUTE);
        assert_eq!(node.penalty(5 * MINUTE), 1_000.0);
        assert_eq!(node.penalty(6 * MINUTE), 500.0);
        assert_eq!(node.penalty(8 * MINUTE), 125.0);
    }

    /// 3000 to 750 are exactly two half-lives.
    #[test]
    fn reused_when_decayed_below_reuse_not_below_suppress() {
        let mut node = flap();
        (0..3).for_each(|_| node.down(0));
        assert_eq!(node.reuse_at(), Some(2 * MINUTE));
        assert!(node.damped(2 * MINUTE - 1), "hysteresis: still damped although below suppress");
        assert!(!node.damped(2 * MINUTE));
    }

    #[test]
    fn a_change_while_damped_prolongs_it_and_one_after_does_not() {
        let mut node = flap();
        (0..3).for_each(|_| node.down(0));
        let mut again = node;
        again.down(MINUTE);
        assert!(again.reuse_at() > node.reuse_at());
        node.down(2 * MINUTE);
        assert!(!node.damped(2 * MINUTE), "1750 is below suppress");
    }

    #[test]
    fn never_damped_for_longer_than_the_longest_suppression() {
        let mut node = flap();
        (0..1_000).for_each(|_| node.down(7));
        assert!(node.reuse_at().unwrap() <= 7 + 4 * MINUTE + 1);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let good = FlapConfig::default();
        let bad = [
            FlapConfig { penalty: f64::NAN, ..good },
            FlapConfig { reuse_below: 2_000.0, ..good },
            FlapConfig { half_life: Duration::ZERO, ..good },
            FlapConfig { longest_suppression: Duration::ZERO, ..good },
            FlapConfig { longest_suppression: Duration::from_secs(60), ..good },
        ];
        for config in bad {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
