//! Where sender and receiver write down what they saw: one cell per question, no locks on the way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::history::{Answer, History, Sample};
use super::{ANSWER_LIMIT, ByNode, INTERVAL};
use crate::clock::Moment;

/// What is recorded at most: no test runs longer, and it bounds the memory (16 bytes a question).
pub(super) const LONGEST: Duration = Duration::from_secs(150);
/// Questions of one asker in that time.
pub(super) const MOST_TICKS: usize = (LONGEST.as_nanos() / INTERVAL.as_nanos()) as usize;
/// Bits of an answer's cell that hold the node's number; the others hold the time it took, in nanoseconds.
const NODE_BITS: u32 = 16;
/// Nodes that may answer: more names than this are all recorded under the last number.
const MOST_NODES: usize = 64;

/// All that a probe records.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Moment,
    pub(super) client: Stream,
    pub(super) eyes: ByNode<Stream>,
    /// Names by number; an answer may come from a node that nobody told of.
    names: Mutex<Vec<Arc<str>>>,
    /// Order of the eyes' streams, as their sockets are ordered.
    order: Vec<String>,
}

impl Recorder {
    pub(super) fn new(nodes: Vec<String>, start: Moment) -> Self {
        Self {
            start,
            client: Stream::new(),
            eyes: nodes.iter().map(|node| (node.clone(), Stream::new())).collect(),
            names: Mutex::new(nodes.iter().map(|node| Arc::from(node.as_str())).collect()),
            order: nodes,
        }
    }

    /// The client's stream, then the eyes' in the order of the nodes.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Stream> {
        std::iter::once(&self.client).chain(self.order.iter().map(|node| &self.eyes[node]))
    }

    pub(super) fn time_of(&self, tick: usize) -> Moment {
        self.start + INTERVAL * tick as u32
    }

    pub(super) fn tick_at(&self, time: Moment) -> usize {
        (time.since(self.start).as_nanos() / INTERVAL.as_nanos()) as usize
    }

    pub(super) fn number(&self, node: &str) -> usize {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = names.iter().position(|name| &**name == node) {
            return number;
        }
        if names.len() < MOST_NODES {
            names.push(Arc::from(node));
        }
        names.len() - 1
    }

    pub(super) fn name(&self, number: usize) -> String {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)[number].to_string()
    }

    pub(super) fn history(&self, until: Moment) -> History {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        History::new(
            self.client.samples(until, &names),
            self.eyes.iter().map(|(node, eye)| (node.clone(), eye.samples(until, &names))).collect(),
        )
    }
}

/// Questions of one asker and their answers, by tick.
#[derive(Debug)]
pub(super) struct Stream {
    /// When it was sent, CLOCK_BOOTTIME nanoseconds; 0 = not at all.
    sent: Box<[AtomicU64]>,
    /// Time taken and node's number + 1; 0 = no answer.
    answers: Box<[AtomicU64]>,
    newest: AtomicU64,
}

impl Stream {
    fn new() -> Self {
        let cells = || (0..MOST_TICKS).map(|_| AtomicU64::new(0)).collect();
        Self { sent: cells(), answers: cells(), newest: AtomicU64::new(0) }
    }

    pub(super) fn sent(&self, tick: usize, at: Moment) {
        self.sent[tick].store(at.nanos(), Ordering::SeqCst);
        self.newest.store(tick as u64, Ordering::SeqCst);
    }

    /// Only the first answer counts, and only to a question that was asked.
    pub(super) fn answered(&self, tick: usize, at: Moment, node: usize) {
        let Some(sent) = self.sent.get(tick).map(|sent| sent.load(Ordering::SeqCst)).filter(|sent| *sent > 0)
        else {
            return;
        };
        let taken = at.since(Moment::from_nanos(sent)).as_nanos() as u64;
        let cell = taken << NODE_BITS | (node as u64 + 1);
        let _ = self.answers[tick].compare_exchange(0, cell, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn answer(&self, tick: usize) -> Option<(usize, Duration)> {
        let cell = self.answers[tick].load(Ordering::SeqCst);
        let node = (cell & ((1 << NODE_BITS) - 1)).checked_sub(1)? as usize;
        Some((node, Duration::from_nanos(cell >> NODE_BITS)))
    }

    /// Node and time of the newest question asked at or after `since` that was answered in time.
    pub(super) fn last_answer(&self, since: Moment) -> Option<(usize, Moment)> {
        let newest = self.newest.load(Ordering::SeqCst) as usize;
        for tick in (0..=newest).rev() {
            let sent = self.sent[tick].load(Ordering::SeqCst);
            if sent == 0 {
                continue;
            }
            if sent < since.nanos() {
                return None;
            }
            if let Some((node, _)) = self.answer(tick).filter(|(_, taken)| *taken <= ANSWER_LIMIT) {
                return Some((node, Moment::from_nanos(sent)));
            }
        }
        None
    }

    fn samples(&self, until: Moment, names: &[Arc<str>]) -> Vec<Sample> {
        let newest = self.newest.load(Ordering::SeqCst) as usize;
        let sample = |tick: usize| {
            let sent = self.sent[tick].load(Ordering::SeqCst);
            if sent == 0 || sent > until.nanos() {
                return None;
            }
            let sent = Moment::from_nanos(sent);
            let answer = self
                .answer(tick)
                .map(|(node, taken)| Answer { received: sent + taken, node: Arc::clone(&names[node]) });
            Some(Sample { tick, sent, answer })
        };
        (0..=newest).filter_map(sample).collect()
    }
}
