//! What a group is to be kept at, and what is refused.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use understudy_wire::GroupId;

use crate::schedule::Schedule;

/// Longest window, cooldown and deadline: history is kept for every interval of a window.
const MAX_SPAN: Duration = Duration::from_secs(24 * 3600);

/// Longest stabilisation window, as in Kubernetes: at one decision a second 3,600 numbers a group.
const MAX_WINDOW: Duration = Duration::from_secs(3600);

/// Shortest decision interval: heartbeats and drivers answer in tens of milliseconds.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Members are named `<group>-<number>`, a DNS label of 63 characters in all; nine digits are left for the number.
const MAX_GROUP_NAME: usize = 53;

/// Rules of all groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Time between two decisions.
    pub interval: Duration,
    /// Groups that are scaled.
    pub groups: BTreeMap<GroupId, GroupRules>,
}

/// Rules of one group. Public, so that the simulation can weaken one at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRules {
    /// Least N.
    pub min: u16,
    /// Largest N.
    pub max: u16,
    /// M: ready standbys that are kept.
    pub standby: u16,
    /// Label whose values are failure domains, such as `rack`; members are spread over them.
    pub spread: Option<String>,
    /// How long a new member takes until it is ready.
    pub start_up: Duration,
    /// Most members of the group that start at a time.
    pub in_flight: u16,
    /// Longest drain: then the slot is closed whatever is still connected.
    pub drain: Duration,
    /// Self-healing.
    pub repair: Repair,
    /// Load.
    pub load: Load,
    /// Known peaks.
    pub schedules: Vec<Schedule>,
    /// Forecast from history.
    pub forecast: Option<Forecast>,
}

/// Self-healing of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// How long a member must have been failed or unhealthy before it is repaired.
    pub after: Duration,
    /// Restart in place first, where the driver can.
    pub restart: bool,
    /// How long a restart is given before the member is replaced.
    pub restart_for: Duration,
    /// Wait before a member is repaired a second time within an hour; doubles with each further time.
    pub backoff: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// Most restarts and replacements within an hour.
    pub budget: u32,
}

/// How a group follows its load.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The largest answer wins; none: N stays at `min`.
    pub targets: Vec<Target>,
    /// What all members share and more members cannot relieve.
    pub shared: Vec<Shared>,
    /// Nothing is scaled out while the signal is at most this share above its target.
    pub tolerance_out: f64,
    /// Scale-in leaves the signal at least this share below its target.
    pub tolerance_in: f64,
    /// More members must have been wanted for this long.
    pub window_out: Duration,
    /// Fewer members must have been wanted for this long.
    pub window_in: Duration,
    /// Time from one scale-out to the next.
    pub cooldown_out: Duration,
    /// Time from any change of N to a scale-in.
    pub cooldown_in: Duration,
    /// Most slots that are added to what is wanted in one decision.
    pub step_out: u16,
    /// Most slots that drain at a time.
    pub step_in: u16,
    /// A value older than this is missing.
    pub stale_after: Duration,
}

/// One load signal, kept at a value a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Name of the signal.
    pub signal: String,
    /// Mean over the serving members, in the signal's unit.
    pub value: f64,
}

/// A resource behind the members, such as the connections of one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// Name of the signal; the largest value of any member counts.
    pub signal: String,
    /// From this value on the resource limits, and scaling out is refused.
    pub full: f64,
}

/// Forecast of the load from its own history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Length of one season, usually a day.
    pub season: Duration,
}

/// What is wrong with a rule: the key below `[group.<name>.scaling]` and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// Key, such as `load.window_in`; empty: the group as a whole.
    pub key: String,
    /// What would be right, and why.
    pub why: String,
}

impl Default for Repair {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            after: secs(5),
            restart: true,
            restart_for: secs(30),
            backoff: secs(10),
            backoff_max: secs(300),
            budget: 10,
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            targets: Vec::new(),
            shared: Vec::new(),
            tolerance_out: 0.0,
            tolerance_in: 0.02,
            window_out: secs(5),
            window_in: secs(300),
            cooldown_out: Duration::ZERO,
            cooldown_in: secs(10),
            step_out: 4,
            step_in: 4,
            stale_after: secs(15),
        }
    }
}

impl Rules {
    /// The usual interval between two decisions.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    /// What is wrong, with the group it is wrong in; `None`: the interval.
    pub fn problems(&self) -> Vec<(Option<GroupId>, RuleProblem)> {
        let mut problems = Vec::new();
        if self.interval < MIN_INTERVAL || self.interval > MAX_WINDOW {
            let why = "must be from 1s to 1h; 5s is usual".to_owned();
            problems.push((None, RuleProblem { key: "interval".into(), why }));
        }
        for (name, group) in &self.groups {
            let mut found = group.problems();
            if name.as_str().len() > MAX_GROUP_NAME {
                let why = format!(
                    "must have a name of at most {MAX_GROUP_NAME} characters, since its members are called {name}-1, \
                     {name}-2 and so on, in 63 characters"
                );
                found.push(RuleProblem { key: String::new(), why });
            }
            problems.extend(found.into_iter().map(|problem| (Some(name.clone()), problem)));
        }
        problems
    }
}

impl GroupRules {
    /// `active` + `standby` members, no load; the rest as usual.
    pub fn fixed(active: u16, standby: u16) -> Self {
        Self {
            min: active,
            max: active,
            standby,
            spread: None,
            start_up: Duration::from_secs(60),
            in_flight: 10,
            drain: Duration::from_secs(60),
            repair: Repair::default(),
            load: Load::default(),
            schedules: Vec::new(),
            forecast: None,
        }
    }

    /// What is wrong, key by key.
    pub fn problems(&self) -> Vec<RuleProblem> {
        let mut found = Found(Vec::new());
        if self.min == 0 {
            found.add("min", "must be at least 1, since a group without members serves nobody");
        }
        if self.min > self.max {
            found.add(
                "min",
                format!(
                    "must be at most max ({}), else no size would be right; lower min or raise max",
                    self.max
                ),
            );
        }
        if self.in_flight == 0 {
            found.add("in_flight", "must be at least 1, else no member could ever start");
        }
        for (key, span) in [("start_up", self.start_up), ("drain", self.drain)] {
            if span.is_zero() || span > MAX_SPAN {
                found.add(key, "must be above 0 and at most 1 day");
            }
        }
        self.repair.problems(&mut found);
        self.load.problems(&mut found);
        for (index, schedule) in self.schedules.iter().enumerate() {
            // Where no size is right, that is said already.
            if self.min <= self.max && !(self.min..=self.max).contains(&schedule.active) {
                let why = format!("must be from min ({}) to max ({})", self.min, self.max);
                found.add(&format!("schedule[{index}].active"), why);
            }
            if schedule.lasts.is_zero() {
                found.add(&format!("schedule[{index}].lasts"), "must be above 0");
            }
        }
        if let Some(forecast) = self.forecast {
            let (least, most) = (Duration::from_secs(3600), Duration::from_secs(7 * 86_400));
            if forecast.season < least || forecast.season > most {
                found.add("forecast.season", "must be from 1h to 7days; 1day is usual");
            }
            if self.load.targets.is_empty() {
                found.add("forecast", "needs a target, since it is the load's history that is continued");
            }
        }
        found.0
    }

    /// What works but costs something.
    pub fn warnings(&self) -> Vec<RuleProblem> {
        let mut found = Found(Vec::new());
        if self.standby == 0 {
            found.add(
                "standby",
                format!(
                    "without a standby a failed member is missed until its replacement has started ({} s), and a \
                     scale-out helps only after that time; use at least 1",
                    self.start_up.as_secs()
                ),
            );
        }
        if self.min < self.max && self.load.targets.is_empty() && self.schedules.is_empty() {
            found.add("max", "has no effect without a target or a schedule: the group stays at min");
        }
        if self.repair.budget == 0 {
            found.add("repair.budget", "with 0 nothing is ever restarted or replaced");
        }
        found.0
    }
}

impl Repair {
    fn problems(&self, found: &mut Found) {
        for (key, span) in [
            ("repair.after", self.after),
            ("repair.restart_for", self.restart_for),
            ("repair.backoff", self.backoff),
            ("repair.backoff_max", self.backoff_max),
        ] {
            if span > MAX_SPAN {
                found.add(key, "must be at most 1 day");
            }
        }
        if self.backoff > self.backoff_max {
            found.add("repair.backoff", "must be at most repair.backoff_max");
        }
    }
}

impl Load {
    fn problems(&self, found: &mut Found) {
        for (index, target) in self.targets.iter().enumerate() {
            let key = format!("target[{index}]");
            name(&target.signal, &format!("{key}.signal"), found);
            if !(target.value > 0.0 && target.value.is_finite()) {
                found.add(
                    &format!("{key}.value"),
                    "must be above 0: the load is divided by it, and no number of members brings it to 0",
                );
            }
            if self.targets[..index].iter().any(|earlier| earlier.signal == target.signal) {
                found.add(&format!("{key}.signal"), "has a target already; one target a signal");
            }
        }
        for (index, shared) in self.shared.iter().enumerate() {
            name(&shared.signal, &format!("shared[{index}].signal"), found);
            if !(shared.full > 0.0 && shared.full.is_finite()) {
                found.add(
                    &format!("shared[{index}].full"),
                    "must be above 0, else nothing is ever scaled out",
                );
            }
        }
        if !(0.0..=1.0).contains(&self.tolerance_out) {
            found.add("tolerance_out", "must be from 0 to 1; 0.1 is ten percent");
        }
        if !(0.0..0.9).contains(&self.tolerance_in) {
            found.add("tolerance_in", "must be from 0 to below 0.9; 0.05 is five percent");
        }
        for (key, span) in [
            ("window_out", self.window_out),
            ("window_in", self.window_in),
            ("cooldown_out", self.cooldown_out),
            ("cooldown_in", self.cooldown_in),
        ] {
            if span > MAX_WINDOW {
                found.add(key, "must be at most 1h");
            }
        }
        for (key, step) in [("step_out", self.step_out), ("step_in", self.step_in)] {
            if step == 0 {
                found.add(key, "must be at least 1, else the size could never change");
            }
        }
        if self.stale_after.is_zero() || self.stale_after > MAX_WINDOW {
            found.add("stale_after", "must be above 0 and at most 1h; three intervals are usual");
        }
    }
}

fn name(signal: &str, key: &str, found: &mut Found) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if signal.is_empty() || signal.len() > 63 || !signal.bytes().all(fits) {
        found.add(key, "must be the name of a load signal, such as \"cpu\" or \"queue_depth\"");
    }
}

struct Found(Vec<RuleProblem>);

impl Found {
    fn add(&mut self, key: &str, why: impl Display) {
        self.0.push(RuleProblem { key: key.to_owned(), why: why.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut GroupRules)) -> Vec<String> {
        let mut rules = GroupRules::fixed(2, 1);
        rules.max = 4;
        rules.load.targets = vec![Target { signal: "cpu".into(), value: 0.7 }];
        change(&mut rules);
        rules.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn sound_rules_have_no_problem() {
        assert_eq!(keys(|_| ()), Vec::<String>::new());
        assert_eq!(GroupRules::fixed(1, 1).problems(), []);
        assert_eq!(GroupRules::fixed(1, 1).warnings(), []);
    }

    #[test]
    fn what_cannot_work_is_named_by_its_key() {
        assert_eq!(keys(|rules| rules.min = 5), ["min"]);
        assert_eq!(keys(|rules| rules.min = 0), ["min"]);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(keys(|rules| rules.load.targets[0].value = bad), ["target[0].value"], "{bad}");
        }
        assert_eq!(keys(|rules| rules.load.step_out = 0), ["step_out"]);
        assert_eq!(keys(|rules| rules.load.tolerance_in = f64::NAN), ["tolerance_in"]);
        let twice = |rules: &mut GroupRules| rules.load.targets.push(rules.load.targets[0].clone());
        assert_eq!(keys(twice), ["target[1].signal"]);
        let schedule = Schedule::new("0 8 * * *", Duration::from_secs(60), 9).unwrap();
        assert_eq!(keys(|rules| rules.schedules = vec![schedule]), ["schedule[0].active"]);
        let forecast = Some(Forecast { season: Duration::from_secs(86_400) });
        let blind = |rules: &mut GroupRules| (rules.load.targets, rules.forecast) = (Vec::new(), forecast);
        assert_eq!(keys(blind), ["forecast"]);
    }

    #[test]
    fn no_standby_is_warned_of_with_its_cost() {
        let warnings = GroupRules::fixed(2, 0).warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].why.contains("(60 s)"), "{}", warnings[0].why);
    }
}
