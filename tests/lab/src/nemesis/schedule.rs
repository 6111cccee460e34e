//! What is done, to what, when and for how long: a pure function of a seed.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use serde::{Deserialize, Serialize};

use crate::deployment::Plan;

/// Faults at a time, at most.
pub(super) const LANES: usize = 2;
/// Faults between two healings.
pub(super) const ROUND: usize = 100;
/// Milliseconds that a lane rests between two faults.
const PAUSE: std::ops::Range<u64> = 20..350;
/// Milliseconds that a fault lasts, and how often of a hundred: a blip below T, a few T, and longer than any timeout
/// of the NATS client. With [`PAUSE`] two lanes get through a hundred faults in less than a minute.
const SPANS: [(u32, std::ops::Range<u64>); 3] = [(40, 30..400), (45, 400..1_500), (15, 1_500..3_000)];
/// Never ended, so that what a process gathers over a whole run can be seen; stopped and cut off like all others.
pub(super) const SPARED: [&str; 3] = ["detector-3", "web-c-heartbeat", "web-c-executor"];

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Stop,
    /// SIGTERM; started again at the end.
    Restart,
    /// No frame passes to or from the host.
    Isolate,
    /// No frame passes between the host and its peers; clients still reach it.
    Cut,
    /// No frame of the host reaches its peers.
    Mute,
    /// No frame of the peers reaches the host.
    Deafen,
}

impl Action {
    /// Whether the process ends by it.
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Kill | Self::Restart)
    }
}

/// One fault. Times are milliseconds since its round began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// Counted over the whole run, by the time of its beginning within a round.
    pub(super) number: usize,
    /// When it strikes.
    pub(super) begin: u64,
    /// When it is healed.
    pub(super) end: u64,
    /// What is done.
    pub(super) action: Action,
    /// Processes, or the one host, it is done to.
    pub(super) on: Vec<String>,
    /// Hosts that a cut is to or from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) peers: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = format!("{:?}", self.action).to_lowercase();
        let (begin, span) = (self.begin as f64 / 1e3, self.end - self.begin);
        write!(f, "{:>4}  {begin:>7.3} s  {span:>4} ms  {action} {}", self.number, self.on.join(" "))?;
        if self.peers.is_empty() { Ok(()) } else { write!(f, " and {}", self.peers.join(" ")) }
    }
}

/// What there is to strike, by name.
#[derive(Clone, Debug)]
struct Cast {
    nodes: Vec<String>,
    detectors: Vec<String>,
    nats: Vec<String>,
}

impl Cast {
    fn of(plan: &Plan) -> Self {
        let numbered = |kind: &str, count| (1..=count).map(|number| format!("{kind}-{number}")).collect();
        Self {
            nodes: plan.members.iter().map(|member| member.name.clone()).collect(),
            detectors: numbered("detector", plan.detectors),
            nats: numbered("nats", plan.nats),
        }
    }

    /// All hosts that speak with each other, but one.
    fn others(&self, host: &str) -> Vec<String> {
        let all = self.nodes.iter().chain(&self.detectors).chain(&self.nats);
        all.filter(|other| *other != host).cloned().collect()
    }
}

/// The rounds of a run: `faults` in all, each round healed before the next begins.
///
/// # Panics
/// When the plan has no nodes, detectors or NATS servers: there would be nothing to strike.
pub(super) fn schedule(plan: &Plan, seed: u64, faults: usize) -> Vec<Vec<Fault>> {
    let cast = Cast::of(plan);
    let mut random = SmallRng::seed_from_u64(seed);
    let firsts = (0..faults).step_by(ROUND);
    firsts.map(|first| round(&cast, &mut random, first, ROUND.min(faults - first))).collect()
}

/// The schedule as text, one line a fault.
pub(super) fn describe(rounds: &[Vec<Fault>]) -> String {
    let mut text = String::new();
    for (round, faults) in rounds.iter().enumerate() {
        let _ = writeln!(text, "round {round}");
        faults.iter().for_each(|fault| {
            let _ = writeln!(text, "{fault}");
        });
    }
    text
}

fn round(cast: &Cast, random: &mut SmallRng, first: usize, count: usize) -> Vec<Fault> {
    let mut free = [0; LANES];
    let mut faults: Vec<Fault> = Vec::new();
    while faults.len() < count {
        let lane = (0..LANES).min_by_key(|lane| free[*lane]).unwrap_or_default();
        let begin = free[lane] + random.random_range(PAUSE);
        let end = begin + span(random);
        // Two at a time may meet on one host, but one must not heal what the other did.
        let fault = loop {
            let (action, on, peers) = draw(cast, random);
            let fault = Fault { number: 0, begin, end, action, on, peers };
            let meets = |other: &&Fault| fault.begin <= other.end && other.begin <= fault.end;
            if faults.iter().filter(meets).all(|other| fault.touches().is_disjoint(&other.touches())) {
                break fault;
            }
        };
        free[lane] = end;
        faults.push(fault);
    }
    faults.sort_by_key(|fault| (fault.begin, fault.end));
    faults.iter_mut().zip(first..).for_each(|(fault, number)| fault.number = number);
    faults
}

impl Fault {
    /// Processes, isolations and directed cuts that it begins and ends.
    fn touches(&self) -> BTreeSet<(&str, &str)> {
        match self.action {
            Action::Kill | Action::Stop | Action::Restart | Action::Isolate => {
                let kind = if self.action == Action::Isolate { "cable" } else { "process" };
                self.on.iter().map(|on| (on.as_str(), kind)).collect()
            }
            Action::Cut | Action::Mute | Action::Deafen => self.directions().into_iter().collect(),
        }
    }

    /// Directed pairs of hosts between which it takes all frames.
    pub(super) fn directions(&self) -> Vec<(&str, &str)> {
        let (out, back) = match self.action {
            Action::Cut => (true, true),
            Action::Mute => (true, false),
            Action::Deafen => (false, true),
            _ => (false, false),
        };
        let pairs =
            self.on.iter().flat_map(|on| self.peers.iter().map(move |peer| (on.as_str(), peer.as_str())));
        pairs
            .flat_map(|(on, peer)| [(on, peer, out), (peer, on, back)])
            .filter_map(|(from, to, taken)| taken.then_some((from, to)))
            .collect()
    }
}

fn span(random: &mut SmallRng) -> u64 {
    let (_, span) = weighted(random, &SPANS, |(weight, _)| *weight);
    random.random_range(span.clone())
}

fn weighted<'a, T>(random: &mut SmallRng, choices: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
    let mut left = random.random_range(0..choices.iter().map(&weight).sum());
    choices
        .iter()
        .find(|choice| {
            let found = left < weight(choice);
            left = left.saturating_sub(weight(choice));
            found
        })
        .expect("what is drawn is below the sum of the weights")
}

/// Action, what it is done to, and the peers of a cut.
type Drawn = (Action, Vec<String>, Vec<String>);
type Kind = fn(&Cast, &mut SmallRng) -> Drawn;

fn draw(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let kinds: [(u32, Kind); 7] = [
        (32, one_process),
        (12, whole_node),
        (24, network_of_a_node),
        (14, detector),
        (6, network_of_a_detector),
        (8, nats),
        (4, name_server),
    ];
    let (_, kind) = weighted(random, &kinds, |(weight, _)| *weight);
    kind(cast, random)
}

fn pick(random: &mut SmallRng, names: &[String]) -> String {
    names.choose(random).expect("the plan has some of each").clone()
}

/// Ends or stops processes; those that are spared are stopped.
fn strike(random: &mut SmallRng, on: Vec<String>) -> Drawn {
    let drawn = *[Action::Kill, Action::Stop, Action::Restart].choose(random).expect("three");
    let spared = on.iter().any(|name| SPARED.contains(&name.as_str()));
    (if spared { Action::Stop } else { drawn }, on, Vec::new())
}

fn one_process(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let node = pick(random, &cast.nodes);
    let kinds = [(2, "executor"), (2, "heartbeat"), (1, "workload")];
    let (_, kind) = *weighted(random, &kinds, |(weight, _)| *weight);
    strike(random, vec![format!("{node}-{kind}")])
}

fn whole_node(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let node = pick(random, &cast.nodes);
    strike(random, ["executor", "heartbeat", "workload"].map(|kind| format!("{node}-{kind}")).into())
}

fn detector(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let on = vec![pick(random, &cast.detectors)];
    strike(random, on)
}

fn nats(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let on = vec![pick(random, &cast.nats)];
    strike(random, on)
}

fn name_server(_cast: &Cast, _random: &mut SmallRng) -> Drawn {
    (Action::Stop, vec!["dns-1".to_owned()], Vec::new())
}

fn network_of_a_node(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let node = pick(random, &cast.nodes);
    let control = || cast.detectors.iter().chain(&cast.nats).cloned().collect();
    let peers = match random.random_range(0..4) {
        0 => return (Action::Isolate, vec![node], Vec::new()),
        1 => vec![pick(random, &cast.others(&node))],
        2 => cast.others(&node),
        _ => control(),
    };
    cut(random, node, peers)
}

fn network_of_a_detector(cast: &Cast, random: &mut SmallRng) -> Drawn {
    let detector = pick(random, &cast.detectors);
    let peers = match random.random_range(0..3) {
        0 => return (Action::Isolate, vec![detector], Vec::new()),
        1 => cast.nodes.clone(),
        _ => cast.others(&detector),
    };
    cut(random, detector, peers)
}

fn cut(random: &mut SmallRng, host: String, peers: Vec<String>) -> Drawn {
    let action = *[Action::Cut, Action::Mute, Action::Deafen].choose(random).expect("three");
    (action, vec![host], peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seed: u64, faults: usize) -> Vec<Vec<Fault>> {
        schedule(&Plan::new("nemesis"), seed, faults)
    }

    #[test]
    fn a_seed_is_one_schedule() {
        assert_eq!(of(7, 250), of(7, 250));
        assert_ne!(of(7, 250), of(8, 250));
        let rounds = of(7, 250);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(rounds[2][49].number, 249);
    }

    /// A recorded seed is worth nothing once the same seed gives other faults.
    #[test]
    fn the_schedule_of_a_seed_does_not_change_unnoticed() {
        let round = &of(28, 100)[0];
        assert_eq!(round[16].to_string(), "  16    8.752 s  2329 ms  restart nats-1");
        assert_eq!(round[99].to_string(), "  99   49.618 s  1407 ms  kill detector-1");
    }

    #[test]
    fn at_most_two_at_a_time_and_none_heals_what_another_did() {
        for seed in 0..50 {
            for round in of(seed, 200) {
                for fault in &round {
                    let at = |other: &&Fault| other.begin <= fault.begin && fault.begin < other.end;
                    let meeting: Vec<_> = round.iter().filter(at).collect();
                    assert!(meeting.len() <= LANES, "seed {seed}: {meeting:?}");
                    for other in meeting.into_iter().filter(|other| *other != fault) {
                        assert!(
                            fault.touches().is_disjoint(&other.touches()),
                            "seed {seed}: {fault} {other}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_action_comes_and_the_spared_never_end() {
        let faults: Vec<Fault> = (0..20).flat_map(|seed| of(seed, 100)).flatten().collect();
        let actions: BTreeSet<Action> = faults.iter().map(|fault| fault.action).collect();
        assert_eq!(actions.len(), 7, "{actions:?}");
        let ended = faults.iter().filter(|fault| fault.action.ends()).flat_map(|fault| &fault.on);
        let ended: BTreeSet<&str> = ended.map(String::as_str).collect();
        assert!(SPARED.iter().all(|name| !ended.contains(name)), "{ended:?}");
        for name in ["web-a-executor", "web-b-heartbeat", "web-c-workload", "detector-1", "nats-3"] {
            assert!(ended.contains(name), "{name} is never ended: {ended:?}");
        }
    }

    #[test]
    fn a_round_takes_less_than_a_minute() {
        for seed in 0..50 {
            let last = of(seed, 100)[0].iter().map(|fault| fault.end).max();
            assert!(last < Some(65_000), "seed {seed}: {last:?} ms");
        }
    }
}
