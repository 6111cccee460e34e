//! Two well-known rules on the same traces, with the same members, start-up time and standbys, as they are documented.
//!
//! **Kubernetes HPA** (`autoscaling/v2`, defaults): every 15 s `desired = ceil(current x ratio)`, nothing within a
//! tolerance of 10 %; members that are not ready yet count as idle on the way up, and where that turns the direction
//! nothing is done; at most the larger of +100 % and +4 members in 15 s; on the way down the largest recommendation of
//! the last 300 s. It reads the load without delay, which flatters it (metrics-server has a resolution of 15 s).
//!
//! **Target tracking** after AWS, cooldown 60 s: out when the mean of three minutes is above the target, in when it was
//! below 90 % of it for fifteen; no activity within 60 s of the last.
//!
//! Both keep M standbys beside the members, which cost the same and cannot be promoted by them. What they take away is
//! gone at once and costs nothing more.

use std::collections::VecDeque;

use super::bench::{Plant, Setup};
use super::demand::Demand;

/// Members of a rival: when each is ready.
#[derive(Debug)]
struct Members(Vec<u64>);

impl Members {
    fn ready(&self, now: u64) -> usize {
        self.0.iter().filter(|ready_at| **ready_at <= now).count()
    }

    fn resize(&mut self, now: u64, size: usize, start_up: u64) {
        // The youngest go first, as a ReplicaSet does with those that are not ready.
        self.0.truncate(size);
        self.0.resize(size, now + start_up);
    }
}

/// The HPA rule.
#[derive(Debug)]
pub(crate) struct Hpa {
    setup: Setup,
    members: Members,
    /// Recommendations of the last 300 s.
    recommended: VecDeque<(u64, usize)>,
}

impl Hpa {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, members: Members(vec![0; setup.start]), recommended: VecDeque::new() }
    }

    fn desired(&self, now: u64, load: f64) -> usize {
        let (current, ready) = (self.members.0.len(), self.members.ready(now));
        let ratio = load / ready.max(1) as f64;
        let within = |ratio: f64| (ratio - 1.0).abs() <= 0.1;
        if within(ratio) {
            return current;
        }
        if ratio < 1.0 || ready == current {
            return (ratio * ready as f64).ceil() as usize;
        }
        let idle = load / current as f64;
        if within(idle) || idle < 1.0 { current } else { (idle * current as f64).ceil() as usize }
    }
}

impl Plant for Hpa {
    fn second(&mut self, now: u64, demand: &Demand) -> (f64, f64) {
        if now.is_multiple_of(15) {
            let current = self.members.0.len();
            let desired = self.desired(now, demand.measured(now)).clamp(self.setup.min, self.setup.max);
            self.recommended.push_back((now, desired));
            while self.recommended.front().is_some_and(|(at, _)| now - at >= 300) {
                self.recommended.pop_front();
            }
            let stable = self.recommended.iter().map(|(_, desired)| *desired).max().unwrap_or(desired);
            let size =
                if desired > current { desired.min(current + current.max(4)) } else { stable.min(current) };
            self.members.resize(now, size, self.setup.start_up);
        }
        (self.members.ready(now) as f64, (self.members.0.len() + self.setup.standby) as f64)
    }
}

/// Target tracking.
#[derive(Debug)]
pub(crate) struct Tracking {
    setup: Setup,
    members: Members,
    /// Load over target, one mean a minute, newest last.
    minutes: VecDeque<f64>,
    sum: f64,
    acted_at: Option<u64>,
}

impl Tracking {
    pub(crate) fn new(setup: Setup) -> Self {
        let members = Members(vec![0; setup.start]);
        Self { setup, members, minutes: VecDeque::new(), sum: 0.0, acted_at: None }
    }
}

impl Plant for Tracking {
    fn second(&mut self, now: u64, demand: &Demand) -> (f64, f64) {
        let ready = self.members.ready(now).max(1);
        self.sum += demand.measured(now) / ready as f64;
        if now % 60 == 59 {
            self.minutes.push_back(self.sum / 60.0);
            self.sum = 0.0;
            if self.minutes.len() > 15 {
                self.minutes.pop_front();
            }
            let cools = self.acted_at.is_some_and(|at| now - at < 60);
            let last = self.minutes.back().copied().unwrap_or(1.0);
            let high = self.minutes.len() >= 3 && self.minutes.iter().rev().take(3).all(|mean| *mean > 1.0);
            let low = self.minutes.len() == 15 && self.minutes.iter().all(|mean| *mean < 0.9);
            if (high || low) && !cools {
                let size = (last * ready as f64).ceil() as usize;
                let current = self.members.0.len();
                let size = if high { size.max(current) } else { size.min(current) };
                let size = size.clamp(self.setup.min, self.setup.max);
                if size != current {
                    self.members.resize(now, size, self.setup.start_up);
                    self.acted_at = Some(now);
                    self.minutes.clear();
                }
            }
        }
        (self.members.ready(now) as f64, (self.members.0.len() + self.setup.standby) as f64)
    }
}
