use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ANSWER_LIMIT;
use crate::clock::Moment;

/// An answer to one question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it came.
    pub received: Moment,
    /// Node that gave it.
    pub node: Arc<str>,
}

/// One question of a probe and what became of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Number of the millisecond that it was asked in; the same for all askers.
    pub tick: usize,
    /// When it was asked.
    pub sent: Moment,
    /// Its answer, in time or late.
    pub answer: Option<Answer>,
}

impl Sample {
    /// Node that answered within [`ANSWER_LIMIT`].
    pub fn node(&self) -> Option<&str> {
        let answer = self.answer.as_ref()?;
        (answer.received.since(self.sent) <= ANSWER_LIMIT).then_some(&*answer.node)
    }
}

/// A time without answers, between two questions that were answered (or an end of what was looked at).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// Last answered question before it.
    pub from: Moment,
    /// First answered question after it.
    pub to: Moment,
    /// Questions in it that got no answer.
    pub lost: usize,
    /// Longest time in it without a question: so much of it may be the instrument's own pause.
    pub pause: Duration,
}

impl Gap {
    /// Its length in milliseconds.
    pub fn milliseconds(&self) -> f64 {
        self.to.since(self.from).as_secs_f64() * 1e3
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pause = self.pause.as_secs_f64() * 1e3;
        write!(
            formatter,
            "{:.1} ms without answer ({} questions lost, longest pause of the probe itself {pause:.1} ms)",
            self.milliseconds(),
            self.lost
        )
    }
}

/// What a probe has seen.
#[derive(Clone, Debug)]
pub struct History {
    /// Questions of the client, in order.
    pub client: Vec<Sample>,
    /// Questions of each node's watcher, in order.
    pub eyes: BTreeMap<String, Vec<Sample>>,
}

impl History {
    pub(super) fn new(client: Vec<Sample>, eyes: BTreeMap<String, Vec<Sample>>) -> Self {
        Self { client, eyes }
    }

    /// Longest time between two consecutive answered questions of the client, in milliseconds. See
    /// [`History::gap`].
    pub fn longest_gap(&self, from: Moment, to: Moment) -> f64 {
        self.gap(from, to).milliseconds()
    }

    /// The longest gap that the client saw between `from` and `to`, by the times its questions were asked. The
    /// span's ends count as answered, so no answer at all is one gap as long as the span. It is an upper bound:
    /// a pause of the probe itself counts in full, and is named.
    pub fn gap(&self, from: Moment, to: Moment) -> Gap {
        let mut gap = Gap { from, to: from, lost: 0, pause: Duration::ZERO };
        let mut longest = gap;
        let mut before = from;
        let inside = self.client.iter().filter(|sample| sample.sent >= from && sample.sent <= to);
        let ends = inside.map(|sample| (sample.sent, sample.node().is_some())).chain([(to, true)]);
        for (sent, answered) in ends {
            gap.pause = gap.pause.max(sent.since(before));
            before = sent;
            if !answered {
                gap.lost += 1;
                continue;
            }
            gap.to = sent;
            if gap.milliseconds() > longest.milliseconds() {
                longest = gap;
            }
            gap = Gap { from: sent, to: sent, lost: 0, pause: Duration::ZERO };
        }
        longest
    }

    /// Longest time between `from` and `to` in which the probe itself asked nothing.
    pub fn longest_pause(&self, from: Moment, to: Moment) -> Duration {
        let sent = |sample: &Sample| Some(sample.sent).filter(|sent| *sent >= from && *sent <= to);
        let times: Vec<Moment> =
            [from].into_iter().chain(self.client.iter().filter_map(sent)).chain([to]).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// Time in which more than one node answered: one millisecond for each in which the questions of two watchers
    /// were both answered.
    pub fn two_answering(&self) -> Duration {
        Duration::from_millis(self.ticks_with_two().len() as u64)
    }

    /// The same as moments with the nodes that answered, for messages.
    pub fn two_answering_at(&self) -> Vec<(Moment, Vec<String>)> {
        self.ticks_with_two().into_values().collect()
    }

    fn ticks_with_two(&self) -> BTreeMap<usize, (Moment, Vec<String>)> {
        let mut ticks: BTreeMap<usize, (Moment, Vec<String>)> = BTreeMap::new();
        for sample in self.eyes.values().flatten() {
            // In time only: what lay in the queue of a stopped workload is answered when it goes on, which may
            // be in a later tenure.
            if let Some(node) = sample.node() {
                let (_, nodes) = ticks.entry(sample.tick).or_insert_with(|| (sample.sent, Vec::new()));
                if !nodes.iter().any(|known| known == node) {
                    nodes.push(node.to_owned());
                }
            }
        }
        ticks.retain(|_, (_, nodes)| nodes.len() > 1);
        ticks
    }

    /// Nodes that answered their watcher's question of that millisecond.
    pub fn answering_at(&self, time: Moment) -> Vec<String> {
        let at = |eye: &&Vec<Sample>| {
            let index = eye.partition_point(|sample| sample.sent <= time).checked_sub(1)?;
            let sample = &eye[index];
            (time.since(sample.sent) <= super::INTERVAL * 2).then_some(())?;
            sample.node().map(str::to_owned)
        };
        self.eyes.values().filter_map(|eye| at(&eye)).collect()
    }

    /// First question of the client asked at or after `since` that `node` answered.
    pub fn first_answer(&self, node: &str, since: Moment) -> Option<Moment> {
        self.client
            .iter()
            .find(|sample| sample.sent >= since && sample.node() == Some(node))
            .map(|sample| sample.sent)
    }

    /// Last question, asked before `before`, that `node` answered to its watcher.
    pub fn last_served(&self, node: &str, before: Moment) -> Option<Moment> {
        let eye = self.eyes.get(node)?;
        eye.iter()
            .rfind(|sample| sample.sent < before && sample.node() == Some(node))
            .map(|sample| sample.sent)
    }

    /// Who served the client, in order: each with its first and last answered question.
    pub fn tenures(&self) -> Vec<(String, Moment, Moment)> {
        let mut tenures: Vec<(String, Moment, Moment)> = Vec::new();
        for sample in &self.client {
            let Some(node) = sample.node() else { continue };
            match tenures.last_mut() {
                Some((holder, _, last)) if holder == node => *last = sample.sent,
                _ => tenures.push((node.to_owned(), sample.sent, sample.sent)),
            }
        }
        tenures
    }
}
