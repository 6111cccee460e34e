//! The standing of many nodes: alive, suspect, failed or unhealthy. It judges and never acts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use litemap::LiteMap;

use crate::accrual::{Accrual, AccrualConfig, Threshold};
use crate::time::after;

/// What is thought of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its heartbeats come and say that it is healthy.
    Alive,
    /// Its heartbeats come and say that its workload is not healthy.
    Unhealthy,
    /// Silent for longer than its own rhythm explains.
    Suspect,
    /// Silent for the configured time (the lease).
    Failed,
}

/// A node's standing changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<N> {
    /// The node.
    pub node: N,
    /// Its standing before; `None` if there was none.
    pub from: Option<Standing>,
    /// Its standing now.
    pub to: Standing,
    /// Suspicion now.
    pub phi: f64,
    /// Time since its last heartbeat, or since it was first expected.
    pub silent_for: Duration,
}

/// Settings of a [`FailureDetector`].
#[derive(Debug, Clone, Copy)]
pub struct FailureDetectorConfig {
    /// Settings of each node's accrual detector.
    pub accrual: AccrualConfig,
    /// Phi from which a node is suspect.
    pub suspect: Threshold,
    /// Silence after which a node has failed: the lease T.
    pub failed_after: Duration,
    /// Most nodes followed at once; bounds memory to about `max_nodes` windows of 2 bytes an interval.
    pub max_nodes: usize,
}

/// No more nodes can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("already following {limit} nodes, the most allowed")]
pub struct TooManyNodes {
    /// The limit, `max_nodes`.
    pub limit: usize,
}

#[derive(Debug, Clone)]
struct Node {
    accrual: Accrual,
    expected_since: u64,
    healthy: bool,
    reported: Option<Standing>,
    /// A heartbeat came since the last report: only that lets a standing improve.
    heard: bool,
    /// When the observer last blamed itself (R13).
    observer_late_at: Option<u64>,
    queued_at: Option<u64>,
}

/// Judges nodes by their heartbeats.
///
/// Feed it with [`handle_heartbeat`](Self::handle_heartbeat), then [`poll`](Self::poll), and again at
/// [`next_deadline`](Self::next_deadline). Duplicates from a second path must have been dropped before.
#[derive(Debug, Clone)]
pub struct FailureDetector<N> {
    config: FailureDetectorConfig,
    /// Sorted arrays, boxed nodes: most groups have two or three, and a tree would make room for eleven.
    nodes: LiteMap<N, Box<Node>>,
    /// When to look at which node again. A heartbeat moves a node's deadline further away without touching
    /// this queue: the old entry comes up, is found early and queued anew. Only the entry of a node's `queued_at`
    /// counts; one that was overtaken by a sooner one is passed over when it comes up, within `failed_after`.
    queue: BinaryHeap<Reverse<(u64, N)>>,
    /// Nodes to look at in the next poll, whatever the queue says.
    heard: BTreeSet<N>,
}

impl<N: Clone + Ord> FailureDetector<N> {
    /// A detector that follows no node yet.
    pub fn new(config: FailureDetectorConfig) -> Self {
        Self { config, nodes: LiteMap::new_vec(), queue: BinaryHeap::new(), heard: BTreeSet::new() }
    }

    /// Starts to wait for a node that is known from the config: without a heartbeat it fails after `failed_after`.
    /// Nothing happens if the node is followed already.
    pub fn expect(&mut self, node: &N, now_ns: u64) -> Result<(), TooManyNodes> {
        self.follow(node, now_ns).map(drop)
    }

    /// Takes in a heartbeat that arrived at `now_ns` with what it says of its workload; follows the node from now on.
    pub fn handle_heartbeat(&mut self, node: &N, healthy: bool, now_ns: u64) -> Result<(), TooManyNodes> {
        let config = self.config;
        let entry = self.follow(node, now_ns)?;
        entry.accrual.heartbeat(now_ns);
        entry.healthy = healthy;
        entry.heard = true;
        let (standing, deadline) = entry.assess(&config, now_ns);
        // A window that has become narrower can bring the deadline forward.
        let sooner = deadline.is_some_and(|at| entry.queued_at.is_none_or(|queued| at < queued));
        if sooner || entry.reported != standing {
            self.heard.insert(node.clone());
        }
        Ok(())
    }

    /// The observer itself ran late (R13). Call it before the heartbeats that queued up meanwhile: silence counts
    /// from now, nobody fails before then, and the gap is not learned.
    pub fn observer_was_late(&mut self, now_ns: u64) {
        for (_, node) in self.nodes.iter_mut() {
            node.accrual.observer_was_late(now_ns);
            node.observer_late_at = Some(now_ns);
        }
    }

    /// Stops following a node, without a change being told.
    pub fn forget(&mut self, node: &N) {
        self.nodes.remove(node);
        self.queue.retain(|Reverse((_, name))| name != node);
        self.heard.remove(node);
    }

    /// The changes since the last poll, at most one a node.
    pub fn poll(&mut self, now_ns: u64) -> Vec<Change<N>> {
        let mut look_at = std::mem::take(&mut self.heard);
        while let Some(Reverse((at, _))) = self.queue.peek()
            && *at <= now_ns
            && let Some(Reverse((at, name))) = self.queue.pop()
        {
            if let Some(node) = self.nodes.get_mut(&name)
                && node.queued_at.take_if(|queued| *queued == at).is_some()
            {
                look_at.insert(name);
            }
        }
        look_at.into_iter().filter_map(|name| self.judge(name, now_ns)).collect()
    }

    /// When to poll again; `None` if nothing can change without a heartbeat. May be early, never late.
    pub fn next_deadline(&self) -> Option<u64> {
        // Heard but not polled: due already.
        if self.heard.is_empty() { self.queue.peek().map(|Reverse((at, _))| *at) } else { Some(0) }
    }

    /// The standing last told by [`poll`](Self::poll).
    pub fn standing(&self, node: &N) -> Option<Standing> {
        self.nodes.get(node)?.reported
    }

    /// Suspicion of a node at `now_ns`; `None` if it is not followed.
    pub fn phi(&self, node: &N, now_ns: u64) -> Option<f64> {
        Some(self.nodes.get(node)?.accrual.phi(now_ns))
    }

    /// All nodes followed with the standing last told, in order.
    pub fn standings(&self) -> impl Iterator<Item = (&N, Option<Standing>)> {
        self.nodes.iter().map(|(name, node)| (name, node.reported))
    }

    fn follow(&mut self, name: &N, now_ns: u64) -> Result<&mut Node, TooManyNodes> {
        let full = self.nodes.len() >= self.config.max_nodes;
        if full && !self.nodes.contains_key(name) {
            return Err(TooManyNodes { limit: self.config.max_nodes });
        }
        let config = &self.config;
        let queue = &mut self.queue;
        Ok(self.nodes.entry(name.clone()).or_insert_with(|| {
            let node = Box::new(Node::new(config, now_ns));
            queue.extend(node.queued_at.map(|at| Reverse((at, name.clone()))));
            node
        }))
    }

    fn judge(&mut self, name: N, now_ns: u64) -> Option<Change<N>> {
        let node = self.nodes.get_mut(&name)?;
        let (judged, deadline) = node.assess(&self.config, now_ns);
        if node.queued_at != deadline {
            node.queued_at = deadline;
            self.queue.extend(deadline.map(|at| Reverse((at, name.clone()))));
        }

        // The observer's own lateness moves deadlines back, but without a heartbeat nobody gets better.
        let to = if node.heard { judged } else { judged.max(node.reported) }?;
        node.heard = false;
        let from = node.reported.replace(to);
        if from == Some(to) {
            return None;
        }
        let silent_since = node.accrual.last_heard().unwrap_or(node.expected_since);
        let silent_for = Duration::from_nanos(now_ns.saturating_sub(silent_since));
        Some(Change { node: name, from, to, phi: node.accrual.phi(now_ns), silent_for })
    }
}

impl Node {
    fn new(config: &FailureDetectorConfig, now_ns: u64) -> Self {
        Self {
            accrual: Accrual::new(config.accrual),
            expected_since: now_ns,
            healthy: false,
            reported: None,
            heard: false,
            observer_late_at: None,
            queued_at: Some(after(now_ns, config.failed_after)),
        }
    }

    /// The standing at `now_ns`, and when it has to be looked at again.
    fn assess(&self, config: &FailureDetectorConfig, now_ns: u64) -> (Option<Standing>, Option<u64>) {
        let suspect_at = self.accrual.suspect_at(config.suspect);
        let failed_at = self.failed_at(config, suspect_at);
        if now_ns >= failed_at {
            return (Some(Standing::Failed), None);
        }
        match suspect_at {
            None => (None, Some(failed_at)),
            Some(at) if now_ns >= at => (Some(Standing::Suspect), Some(failed_at)),
            Some(at) if self.healthy => (Some(Standing::Alive), Some(at.min(failed_at))),
            Some(at) => (Some(Standing::Unhealthy), Some(at.min(failed_at))),
        }
    }

    fn failed_at(&self, config: &FailureDetectorConfig, suspect_at: Option<u64>) -> u64 {
        let silent_since = self.accrual.last_heard().unwrap_or(self.expected_since);
        let failed_at = after(silent_since, config.failed_after);
        match self.observer_late_at {
            // R13: what passed while the observer slept proves nothing. A node fails when it has been silent for
            // the whole time and is suspect by what was seen since; at the latest a whole time after waking.
            Some(late_at) if late_at > silent_since => {
                let latest = after(late_at, config.failed_after);
                failed_at.max(suspect_at.unwrap_or(latest).min(latest))
            }
            _ => failed_at,
        }
    }
}
