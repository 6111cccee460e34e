//! What a run is made of, drawn from its seed. Times in seconds.

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use understudy_scaling::{GroupRules, Rules, Target};
use understudy_wire::GroupId;

use super::demand::Shape;

/// One rule weakened from outside: through the rules, or in the simulated leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// No stabilisation window for scale-in.
    NoWindow,
    /// Old metrics count like fresh ones.
    StaleScalesIn,
    /// A metric that is missing counts as 0.
    MissingIsIdle,
    /// The policy believes that no standby is wanted.
    LastStandbyTaken,
    /// Repairs are not counted.
    BudgetIgnored,
    /// Keys and names come from the clock.
    KeyFromTime,
    /// A failover is not seen.
    BlindToFailover,
    /// A restart in place is waited for without end.
    RestartForEver,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[allow(missing_docs)]
pub enum Fault {
    /// A member ends.
    Crash,
    /// A member's instance is deleted by somebody.
    Vanish,
    /// A member is cut off and comes back.
    Cut,
    /// All members of one rack end.
    Rack,
    /// Every standby and some holders restart at once.
    ThunderingRestart,
    /// A member's workload is unhealthy for a while.
    Ill,
    /// New instances end at once.
    BadImage,
    /// A holder's metric is missing, old, or nonsense.
    Metrics,
    /// Another leader, who knows the last one's memory.
    NewLeader,
    /// Another leader, who knows nothing.
    Amnesia,
    /// For a while another leader, who knows nothing, acts beside the right one.
    TwoLeaders,
    /// The driver refuses everything for a while.
    DriverDown,
}

impl Fault {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }
}

/// Everything that shapes a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed that these came from, and of everything random in the run.
    pub seed: u64,
    /// Rules of the group, before a mutant has weakened them.
    pub group: GroupRules,
    /// Between two turns.
    pub interval: u64,
    /// Load.
    pub shape: Shape,
    /// Load at rest and at the peak, members.
    pub load: (f64, f64),
    /// Noise of the metrics.
    pub noise: f64,
    /// Failure domains.
    pub racks: usize,
    /// A slot is vacant for so long, although a standby is ready.
    pub takeover: u64,
    /// Longest time until the driver does what it is told.
    pub driver_delay: u64,
    /// A new instance takes from this to `start_up` to be ready.
    pub start_least: u64,
    /// A restart takes up to this.
    pub restart_most: u64,
    /// Share of restarts that help.
    pub restart_helps: f64,
    /// The driver can restart in place.
    pub can_restart: bool,
    /// Instances are numbered without gaps and come back by themselves, and only the last of them can go: a StatefulSet.
    pub ordinals: bool,
    /// Faults that may come up.
    pub faults: Vec<Fault>,
    /// Mean time between faults.
    pub fault_gap: u64,
    /// The one fault of a single-fault run.
    pub single: Option<Fault>,
    /// From when on faults come.
    pub faults_from: u64,
    /// From when on nothing goes wrong and the load is flat.
    pub calm_from: u64,
    /// End of the run.
    pub end: u64,
    /// Rule to weaken.
    pub mutant: Option<Mutant>,
}

impl Options {
    /// An hour and more of faults and load, then calm.
    pub fn storm(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x5ca1e);
        let mut options = Self::quiet(seed, &mut random);
        options.shape = Shape::value_variants()[random.random_range(0..Shape::value_variants().len())];
        options.faults = Fault::all().iter().copied().filter(|_| random.random_bool(0.5)).collect();
        options.fault_gap = random.random_range(30..=400);
        options.restart_helps = random.random_range(0.0..1.0);
        options.driver_delay = random.random_range(0..=8);
        // One in five is about the budget; for the others it would only hide what comes after.
        options.group.repair.budget =
            if random.random_bool(0.2) { random.random_range(1..=6) } else { 1_000 };
        // In the end the load lies between two sizes, or noise alone could bring about a late change.
        options.load.0 = options.load.0.floor() + 0.5;
        options.calm_from = 3_000;
        // What was cut off is back, the longest wait of a line is over, windows and drains are through.
        options.end = options.calm_from + options.settle() + 600;
        options
    }

    /// A storm over a StatefulSet.
    pub fn ordinals(seed: u64) -> Self {
        Self { ordinals: true, ..Self::storm(seed) }
    }

    /// A calm group and exactly one fault, of which kind is drawn too.
    pub fn single(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x51_4617);
        let mut options = Self::quiet(seed, &mut random);
        // Far enough from a change of size that noise brings none.
        options.load.0 = f64::from(options.group.min) - 0.5;
        options.single = Some(Fault::all()[random.random_range(0..Fault::all().len())]);
        options.faults_from = 400 + random.random_range(0..60);
        options.calm_from = u64::MAX;
        options.end = options.faults_from + 900;
        options
    }

    fn quiet(seed: u64, random: &mut SmallRng) -> Self {
        let min = random.random_range(1..=3);
        let max = min + random.random_range(0..=6);
        let secs = Duration::from_secs;
        let mut group = GroupRules::fixed(min, random.random_range(1..=3));
        group.max = max;
        group.spread = Some("rack".into());
        group.start_up = secs(random.random_range(10..=60));
        group.drain = secs(random.random_range(10..=60));
        group.load.targets = vec![Target { signal: "cpu".into(), value: 0.7 }];
        group.repair.budget = 1_000;
        group.repair.backoff_max = secs(60);
        let interval = random.random_range(2..=8);
        group.repair.after = secs(random.random_range(0..=interval));
        group.load.window_out = secs(interval * random.random_range(0..=3));
        group.load.window_in = secs(random.random_range(60..=300));
        group.load.stale_after = secs(3 * interval);
        let low = random.random_range(0.3..f64::from(min));
        Self {
            seed,
            group,
            interval,
            shape: Shape::Flat,
            load: (low, random.random_range(low..f64::from(max) + 1.0)),
            noise: random.random_range(0.0..0.01),
            racks: random.random_range(1..=4),
            takeover: random.random_range(1..=10),
            driver_delay: 0,
            start_least: 5,
            restart_most: 10,
            restart_helps: 1.0,
            can_restart: random.random_bool(0.5),
            ordinals: false,
            faults: Vec::new(),
            fault_gap: u64::MAX,
            single: None,
            faults_from: 400,
            calm_from: u64::MAX,
            end: 1_000,
            mutant: None,
        }
    }

    /// The same run with one rule weakened, and with the faults that stress this rule more likely.
    pub fn weakened(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        match mutant {
            Mutant::BudgetIgnored => {
                self.group.repair.budget = 2;
                self.faults.push(Fault::Crash);
            }
            Mutant::StaleScalesIn | Mutant::MissingIsIdle => self.faults = vec![Fault::Metrics],
            Mutant::KeyFromTime => self.faults = vec![Fault::Crash, Fault::TwoLeaders],
            Mutant::BlindToFailover => self.takeover = 60,
            Mutant::RestartForEver => (self.can_restart, self.restart_helps) = (true, 0.0),
            _ => {}
        }
        self
    }

    /// Name of the one group.
    pub(crate) fn id() -> GroupId {
        GroupId::new("web").expect("a good name")
    }

    /// Rules as the policy of this run has them.
    pub(crate) fn rules(&self) -> Rules {
        let mut group = self.group.clone();
        let ages = Duration::from_secs(1_000_000);
        match self.mutant {
            Some(Mutant::NoWindow) => {
                (group.load.window_in, group.load.cooldown_in) = (Duration::ZERO, Duration::ZERO);
            }
            Some(Mutant::StaleScalesIn) => group.load.stale_after = ages,
            Some(Mutant::LastStandbyTaken) => group.standby = 0,
            Some(Mutant::BudgetIgnored) => group.repair.budget = u32::MAX,
            Some(Mutant::RestartForEver) => group.repair.restart_for = ages,
            _ => {}
        }
        Rules { interval: Duration::from_secs(self.interval), groups: BTreeMap::from([(Self::id(), group)]) }
    }

    /// Bound of invariant 6: from a failure until N + M are ready again. One interval until a turn sees it and, with a
    /// patience of no more than an interval, another until a turn acts; then the driver has its delay and the new member
    /// its start-up. Where a restart is tried first it is given its time, and the patience comes on top.
    pub(crate) fn restored_within(&self) -> u64 {
        let repair = &self.group.repair;
        let restart =
            if self.can_restart { repair.after.as_secs() + repair.restart_for.as_secs() } else { 0 };
        self.group.start_up.as_secs() + 2 * self.interval + self.driver_delay + restart
    }

    /// Bound from the end of all faults until nothing moves any more: repairs with their longest wait and an action
    /// that got lost, then windows, and drains step by step.
    pub(crate) fn settle(&self) -> u64 {
        let group = &self.group;
        let one = self.restored_within() + group.repair.after.as_secs() + self.takeover;
        let repairs = 3 * one + group.repair.backoff_max.as_secs() + 12 * self.interval;
        let windows = group.load.window_in.as_secs() + group.load.window_out.as_secs();
        let steps = u64::from(group.max.div_ceil(group.load.step_in)) + 1;
        let drains = steps * (group.drain.as_secs() + group.load.cooldown_in.as_secs() + 4 * self.interval);
        repairs + 2 * windows + drains + 600
    }
}
