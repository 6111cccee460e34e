//! The policy against two well-known rules on the same traces, and the cost of one turn for a large cluster.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use understudy_scaling::{
    GroupRules, GroupView, Life, Member, Policy, Rules, Sample, SlotView, Target, View, WallClock,
};
use understudy_wire::{BootTime, Epoch, GroupId, NodeId, Slot};

use super::{
    demand::{Demand, Shape},
    options::Options,
    rivals::{Hpa, Tracking},
    world::World,
};

/// Noise of a measurement over the whole group.
const NOISE: f64 = 0.02;

/// The traces: kind, load at rest and peak in members, length in seconds.
const TRACES: [(Shape, (f64, f64), u64); 3] = [
    (Shape::Daily, (4.0, 16.0), 86_400),
    (Shape::Spike, (6.0, 14.0), 7_200),
    (Shape::Ramp, (4.0, 16.0), 10_800),
];

/// What all rules are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) standby: usize,
    pub(crate) start_up: u64,
    /// Members at the start.
    pub(crate) start: usize,
}

/// A group under some rule.
pub(crate) trait Plant {
    /// One second later: members that serve, and instances that cost.
    fn second(&mut self, now: u64, demand: &Demand) -> (f64, f64);
}

/// The production policy in the simulated world.
struct Ours(World);

impl Ours {
    fn new(seed: u64, setup: Setup, (shape, load, length): (Shape, (f64, f64), u64)) -> Self {
        let mut group = GroupRules::fixed(setup.min as u16, setup.standby as u16);
        group.max = setup.max as u16;
        group.start_up = Duration::from_secs(setup.start_up);
        group.drain = Duration::from_secs(30);
        group.load.targets = vec![Target { signal: "cpu".into(), value: 0.7 }];
        let options = Options {
            group,
            interval: Rules::INTERVAL.as_secs(),
            shape,
            load,
            noise: NOISE,
            racks: 3,
            takeover: 1,
            driver_delay: 0,
            start_least: setup.start_up,
            faults: Vec::new(),
            single: None,
            faults_from: u64::MAX - 1_000,
            calm_from: length,
            end: length,
            ..Options::storm(seed)
        };
        Self(World::new(options, false).sized(setup.start as u16))
    }
}

impl Plant for Ours {
    fn second(&mut self, _: u64, _: &Demand) -> (f64, f64) {
        self.0.second();
        let holding =
            self.0.slots.range(..Slot(self.0.serving)).filter(|(_, slot)| slot.holder.is_some()).count();
        (holding as f64, self.0.instances.len() as f64)
    }
}

/// What a rule cost on a trace.
#[derive(Debug, Clone, Copy)]
struct Cost {
    over_target: f64,
    over_by_tenth: f64,
    hours: f64,
}

fn follow(plant: &mut dyn Plant, demand: &Demand, length: u64) -> Cost {
    let mut cost = Cost { over_target: 0.0, over_by_tenth: 0.0, hours: 0.0 };
    for now in 0..length {
        let (serving, instances) = plant.second(now, demand);
        let ratio = demand.at(now) / serving.max(1e-9);
        cost.over_target += f64::from(u8::from(ratio > 1.0)) / 60.0;
        cost.over_by_tenth += f64::from(u8::from(ratio > 1.1)) / 60.0;
        cost.hours += instances / 3600.0;
    }
    cost
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let round = |value: f64| (value * 100.0).round() / 100.0;
    json!({
        "median": round(values[values.len() / 2]),
        "least": round(values[0]),
        "most": round(values[values.len() - 1]),
    })
}

fn summary(costs: &[Cost]) -> Value {
    json!({
        "minutes_over_target": spread(costs.iter().map(|cost| cost.over_target).collect()),
        "minutes_over_target_by_a_tenth": spread(costs.iter().map(|cost| cost.over_by_tenth).collect()),
        "instance_hours": spread(costs.iter().map(|cost| cost.hours).collect()),
    })
}

/// Between 90 % and 110 % of the load: whole members at rest would suit whatever rule rounds in a certain way.
fn sized(load: (f64, f64), seed: u64) -> (f64, f64) {
    let mut random = SmallRng::seed_from_u64(seed ^ 0xbe4c);
    (load.0 * random.random_range(0.9..1.1), load.1 * random.random_range(0.9..1.1))
}

/// One trace under three rules, seed by seed; `ratios` are ours over the HPA's.
fn compare(trace: (Shape, (f64, f64), u64), seeds: u64) -> Value {
    let (shape, load, length) = trace;
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for seed in 0..seeds {
        let trace = (shape, sized(load, seed), length);
        let (_, load, _) = trace;
        let demand = Demand::new(shape, seed, load, length, NOISE);
        let start = load.0.ceil() as usize + 1;
        let setup = Setup { min: 2, max: 40, standby: 2, start_up: 60, start };
        costs[0].push(follow(&mut Ours::new(seed, setup, trace), &demand, length));
        costs[1].push(follow(&mut Hpa::new(setup), &demand, length));
        costs[2].push(follow(&mut Tracking::new(setup), &demand, length));
    }
    let [ours, hpa, tracking] = &costs;
    let pairs = || ours.iter().zip(hpa);
    let over = pairs().map(|(ours, hpa)| ours.over_target / hpa.over_target.max(1.0 / 60.0)).collect();
    let hours = pairs().map(|(ours, hpa)| ours.hours / hpa.hours).collect();
    json!({
        "trace": format!("{shape:?}").to_lowercase(),
        "members": [load.0, load.1],
        "seconds": length,
        "understudy": summary(ours),
        "hpa": summary(hpa),
        "target_tracking": summary(tracking),
        "ratios": { "minutes_over_target": spread(over), "instance_hours": spread(hours) },
    })
}

/// A cluster of `groups` groups with ten members each, every one with a load.
fn cluster(groups: usize) -> (Rules, View) {
    let mut rules = Rules { interval: Rules::INTERVAL, groups: BTreeMap::new() };
    let mut view = View { wall: Some(WallClock(0)), groups: BTreeMap::new() };
    for number in 0..groups {
        let id = GroupId::new(&format!("group-{number}")).expect("a good name");
        let mut rule = GroupRules::fixed(8, 2);
        (rule.min, rule.max, rule.spread) = (4, 16, Some("rack".into()));
        rule.load.targets =
            ["cpu", "memory"].map(|signal| Target { signal: signal.into(), value: 0.7 }).into();
        rules.groups.insert(id.clone(), rule);
        let mut group = GroupView { open: 8, serving: 8, ..GroupView::default() };
        for member in 0..10u16 {
            let node = NodeId::new(&format!("{id}-{member}")).expect("a good name");
            let sample = Sample { value: 0.6, age: Duration::from_secs(1) };
            let signals = ["cpu", "memory"].map(|signal| (signal.to_owned(), sample));
            let labels = BTreeMap::from([("rack".to_owned(), format!("r{}", member % 3))]);
            let (life, incarnation) = (Life::Alive, 1);
            let well = Member {
                removable: true,
                life,
                managed: true,
                healthy: true,
                ready: true,
                incarnation,
                labels,
                ..Member::default()
            };
            group.members.insert(node.clone(), Member { signals: signals.into(), ..well });
            if member < 8 {
                let slot = SlotView { holder: Some(node), epoch: Epoch(1), connections: Some(3) };
                group.slots.insert(Slot(member), slot);
            }
        }
        view.groups.insert(id, group);
    }
    (rules, view)
}

/// One leader with 1,000 groups and 10,000 members, an hour of turns, and one turn in which every group lost a member.
fn large() -> anyhow::Result<Value> {
    let (rules, mut view) = cluster(1_000);
    let mut policy = Policy::new(rules);
    let mut took = Vec::new();
    let mut turn = |view: &View, number: u64| {
        let began = Instant::now();
        let plan = policy.observe(view, BootTime(0).after(Rules::INTERVAL * number as u32));
        took.push(began.elapsed());
        plan.decisions.iter().flat_map(|decision| decision.actions()).count()
    };
    for number in 0..720 {
        turn(&view, number);
    }
    for group in view.groups.values_mut() {
        let first = group.members.values_mut().next().context("a group has members")?;
        first.life = Life::Failed("exits with 1".into());
    }
    turn(&view, 720);
    let actions = turn(&view, 721);
    let memory = peak_memory()?;
    took.sort();
    let millis = |took: Duration| (took.as_secs_f64() * 1e5).round() / 100.0;
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    anyhow::ensure!(actions >= 1_000, "only {actions} actions for 1,000 broken members");
    Ok(json!({
        "groups": 1_000,
        "members": 10_000,
        "turns": took.len(),
        "turn_ms": { "median": millis(median), "most": millis(most) },
        "actions_when_every_group_lost_a_member": actions,
        "peak_memory_mib": (memory as f64 / f64::from(1 << 20) * 100.0).round() / 100.0,
    }))
}

/// Most memory that this process ever had, bytes: `VmHWM` of proc(5).
fn peak_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM is no number")?;
    Ok(kib << 10)
}

/// Every trace under all three rules; `ratios` are ours over the HPA's.
pub fn traces(seeds: u64) -> Vec<Value> {
    TRACES.iter().map(|trace| compare(*trace, seeds)).collect()
}

/// Everything, as `make bench` writes it to `target/bench/scaling.json`. The large cluster comes first: its memory is the process's.
///
/// # Errors
/// When the kernel does not tell the memory.
pub fn bench(seeds: u64) -> anyhow::Result<Value> {
    let large = large()?;
    Ok(json!({
        "seeds": seeds,
        "start_up_seconds": 60,
        "standby": 2,
        "noise": NOISE,
        "traces": traces(seeds),
        "large_cluster": large,
    }))
}
