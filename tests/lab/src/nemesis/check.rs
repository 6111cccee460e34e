//! Decides over a recorded history whether anything happened that must not. It knows nothing of Understudy's own code:
//! only the file, what CloudEvents carry (specification 1.0.2) and what the TXT records say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use anyhow::Result;

use super::{
    events::{self, Claim, Told},
    history::{self, CLIENT, Line},
    schedule::Action,
    tenures::{self, Hindrance},
    verdict::{Verdict, Violation},
};

/// An answer that takes longer does not count: what lay in the queue of a stopped workload is answered when it goes
/// on, which may be in a later tenure.
const ANSWER_LIMIT: u64 = 10_000_000;
/// From the healing of a round until every slot is served.
const FILLED_WITHIN: Duration = Duration::from_secs(5);
/// What a process that is asked to end still says.
const LEAVING: u64 = 500_000_000;
/// A slot that is served is not without an answer for longer than this: T at its default.
const UNBROKEN: u64 = 300_000_000;

/// Judges the history in a file.
///
/// # Errors
/// When the file cannot be read, or a line is not of the format.
pub fn check_file(path: &Path) -> Result<Verdict> {
    let mut recorded = Recorded::default();
    history::read(path, |line| recorded.add(line))?;
    Ok(recorded.judge())
}

/// What the lines say, by what it is needed for.
#[derive(Default)]
struct Recorded {
    begun: Option<(u64, u64)>,
    has_end: bool,
    faults: usize,
    /// From when on a process was silent, since a fault ended it, and which.
    killed: Vec<(u64, String)>,
    hindered: Vec<Hindrance>,
    healed: BTreeMap<usize, u64>,
    resumed: BTreeMap<usize, u64>,
    /// Events may come before the line that says how their clock runs.
    events: Vec<(BTreeMap<String, String>, serde_json::Value)>,
    dns: Vec<(u64, BTreeMap<u32, u64>)>,
    slots: BTreeMap<u32, Answers>,
    violations: Vec<Violation>,
}

/// Answers for one slot that came in time.
#[derive(Default)]
struct Answers {
    /// When the client asked.
    client: Vec<u64>,
    /// When a watcher asked, and who answered.
    eyes: Vec<(u64, String)>,
    /// By probe and tick: when it was asked, and who answered.
    ticks: HashMap<(usize, usize), (u64, String)>,
    two: BTreeMap<u64, BTreeSet<String>>,
}

impl Recorded {
    fn add(&mut self, line: Line) {
        match line {
            Line::Begin { at, wall_ns, .. } => self.begun = Some((at, wall_ns)),
            Line::Struck { at, fault } => {
                self.faults += 1;
                self.hindered.extend(Hindrance::of(at, &fault));
                if fault.action.ends() {
                    let silent_from = if fault.action == Action::Restart { at + LEAVING } else { at };
                    self.killed.extend(fault.on.into_iter().map(|process| (silent_from, process)));
                }
            }
            Line::Mended { at, number } => {
                let mended = self.hindered.iter_mut().filter(|hindrance| hindrance.number == number);
                mended.for_each(|hindrance| hindrance.to = at);
            }
            Line::Healed { at, round } => {
                self.healed.insert(round, at);
            }
            Line::Resumed { at, round } => {
                self.resumed.insert(round, at);
            }
            Line::Ended { at, process } => self.violations.push(Violation::Ended { process, at }),
            Line::Panicked { process, text } => self.violations.push(Violation::Panicked { process, text }),
            Line::Answer { sent, received, .. } if received.saturating_sub(sent) > ANSWER_LIMIT => {}
            Line::Answer { slot, probe, tick, by, node, sent, .. } => {
                let answers = self.slots.entry(slot).or_default();
                if by == CLIENT {
                    answers.client.push(sent);
                } else {
                    answers.watched((probe, tick), sent, node);
                }
            }
            Line::Event { headers, body, .. } => self.events.push((headers, body)),
            Line::Dns { at, records: Some(records) } => self.dns.push((at, events::epochs(&records))),
            Line::Dns { records: None, .. } => {}
            Line::End { .. } => self.has_end = true,
        }
    }

    fn judge(mut self) -> Verdict {
        let ahead = self.begun.map_or(0, |(at, wall)| wall.saturating_sub(at));
        let events = self.events.iter().filter_map(|(headers, body)| events::told(headers, body, ahead));
        // Each came once from every server, and again when JetStream did not acknowledge it.
        let told: BTreeSet<Told> = events.collect();
        let told: Vec<Told> = told.into_iter().collect();
        self.dns.sort_by_key(|(at, _)| *at);
        let mut verdict = Verdict { faults: self.faults, ..Verdict::default() };
        verdict.violations = std::mem::take(&mut self.violations);
        verdict.violations.extend(self.gaps_in_the_record(&told));
        for (slot, answers) in &mut self.slots {
            let told: Vec<Told> = told.iter().filter(|told| told.slot == *slot).cloned().collect();
            answers.client.sort_unstable();
            answers.judge(*slot, &told, &self.killed, &self.hindered, &mut verdict);
            let rounds =
                self.healed.iter().map(|(round, at)| (*round, *at, self.resumed.get(round).copied()));
            rounds.for_each(|round| answers.judge_filling(*slot, round, &mut verdict));
            judge_zone(*slot, &self.dns, &told, &mut verdict);
        }
        let epochs = || told.iter().map(|told| told.claim.epoch);
        verdict.epochs = epochs().min().zip(epochs().max());
        verdict
    }

    /// A history in which nothing could be found is not a good one.
    fn gaps_in_the_record(&self, told: &[Told]) -> Vec<Violation> {
        let needed = [
            (self.begun.is_some(), "no line says when the run began"),
            (self.has_end, "the history is cut off before its end"),
            (self.faults > 0, "no fault was begun"),
            (!self.healed.is_empty(), "nothing was healed"),
            (self.healed.keys().eq(self.resumed.keys()), "a healing was not watched to its end"),
            (self.slots.values().any(|answers| !answers.eyes.is_empty()), "no watcher had an answer"),
            (self.slots.values().any(|answers| !answers.client.is_empty()), "no client had an answer"),
            (told.iter().any(|told| told.takeover), "no event tells of a takeover"),
            (self.dns.iter().any(|(_, epochs)| !epochs.is_empty()), "no epoch was seen in the zone"),
        ];
        needed.into_iter().filter(|(there, _)| !there).map(|(_, why)| Violation::Incomplete(why)).collect()
    }
}

impl Answers {
    /// Two nodes whose watchers asked in the same millisecond, both answered in time.
    fn watched(&mut self, tick: (usize, usize), sent: u64, node: String) {
        let (at, first) = self.ticks.entry(tick).or_insert_with(|| (sent, node.clone()));
        if *first != node {
            self.two.entry(*at).or_default().extend([first.clone(), node.clone()]);
        }
        self.eyes.push((sent, node));
    }

    fn judge(
        &mut self,
        slot: u32,
        told: &[Told],
        killed: &[(u64, String)],
        hindered: &[Hindrance],
        verdict: &mut Verdict,
    ) {
        let two = std::mem::take(&mut self.two).into_iter();
        verdict.violations.extend(two.map(|(at, nodes)| Violation::TwoAnswering { slot, at, nodes }));
        let mut owners: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for told in told {
            owners.entry(told.claim.epoch).or_default().insert(told.claim.node.clone());
        }
        let twice = owners.into_iter().filter(|(_, nodes)| nodes.len() > 1);
        verdict.violations.extend(twice.map(|(epoch, nodes)| Violation::EpochTwice { slot, epoch, nodes }));

        let takeovers: Vec<Told> = told.iter().filter(|told| told.takeover).cloned().collect();
        let tenures = tenures::of(std::mem::take(&mut self.eyes));
        verdict.tenures += tenures.len();
        let mut highest: Option<Claim> = None;
        for (index, tenure) in tenures.iter().enumerate() {
            let silent_from = tenure.silent_from(killed);
            let mut later = tenures[index + 1..].iter().filter(|later| later.node == tenure.node);
            let until = later.next().map(|later| later.first).into_iter().chain(silent_from).min();
            let Some(claim) = tenure.claim(until.unwrap_or(u64::MAX), &takeovers) else {
                if tenure.is_excused(silent_from, hindered) {
                    verdict.excused += 1;
                } else if index > 0 {
                    let (node, at) = (tenure.node.clone(), tenure.first);
                    verdict.violations.push(Violation::NoTakeover { slot, node, at });
                }
                // Who served when the probe began may have told before anybody listened.
                continue;
            };
            if let Some(earlier) = highest.as_ref().filter(|earlier| earlier.epoch >= claim.epoch) {
                let (earlier, later) = (earlier.clone(), claim.clone());
                verdict.violations.push(Violation::EpochBack { slot, earlier, later });
            }
            highest = highest.max(Some(claim));
        }
        verdict.served = self.share_served();
    }

    /// From the healing of a round to the first answer after which the client was served without a break, up to the
    /// end of the watch.
    fn judge_filling(&self, slot: u32, round: (usize, u64, Option<u64>), verdict: &mut Verdict) {
        let (round, healed, Some(resumed)) = round else { return };
        let asked = self.client.iter().copied().filter(|sent| *sent >= healed && *sent <= resumed);
        let mut since = None;
        let mut last = 0;
        for sent in asked {
            if since.is_none() || sent - last > UNBROKEN {
                since = Some(sent);
            }
            last = sent;
        }
        let after =
            since.filter(|_| resumed - last <= UNBROKEN).map(|since| Duration::from_nanos(since - healed));
        verdict.filled.extend(after);
        if after.is_none_or(|after| after > FILLED_WITHIN) {
            verdict.violations.push(Violation::NotFilled { slot, round, after });
        }
    }

    fn share_served(&self) -> f64 {
        let (Some(first), Some(last)) = (self.client.first(), self.client.last()) else { return 0.0 };
        let dark = self.client.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > ANSWER_LIMIT);
        1.0 - dark.sum::<u64>() as f64 / (last - first).max(1) as f64
    }
}

/// The zone never goes back, and at the end it has no epoch below that of the last takeover.
fn judge_zone(slot: u32, dns: &[(u64, BTreeMap<u32, u64>)], told: &[Told], verdict: &mut Verdict) {
    let mut before: Option<u64> = None;
    for (at, epochs) in dns {
        let now = epochs.get(&slot).copied();
        if let Some(from) = before
            && now < before
        {
            verdict.violations.push(Violation::DnsBack { slot, at: *at, from, to: now });
        }
        before = now;
    }
    let last = told.iter().filter(|told| told.takeover).map(|told| &told.claim).max();
    if let Some(holder) = last.filter(|holder| before < Some(holder.epoch)).cloned() {
        verdict.violations.push(Violation::DnsBehind { slot, zone: before, holder });
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
