//! Runs with exactly one fault: what may move, and for how long.

use understudy_wire::Slot;

use crate::{check::Gap, faults::Hit, options::Fault, trace::MS, world::World};

/// A heartbeat and its grants on a quiet network, or the answer of an executor and what follows from it, the delays of
/// the streams on the node included.
const ROUND_TRIPS: u64 = 10 * MS;

/// The fault of this run, and what was before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    pub(crate) at: u64,
    pub(crate) hit: Hit,
    /// Who served each slot.
    pub(crate) before: [Option<usize>; 2],
    /// Latest heartbeat of the node it struck that was granted before.
    pub(crate) granted: Option<u64>,
}

impl Struck {
    /// Where the fault stopped processes of a node for a while: from its last granted heartbeat until they went on.
    pub(crate) fn stood_still(&self) -> Option<u64> {
        let stop = matches!(self.fault, Fault::NodePause | Fault::PublisherPause | Fault::ExecutorPause);
        stop.then(|| self.granted.map(|granted| self.at + self.hit.span - granted)).flatten()
    }
}

/// What a slot may go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Served without a gap.
    Nothing,
    /// Dark for a while, but nobody else serves it.
    SameHolder,
    /// Dark for this long after the fault, and one move.
    Gap(u64),
    /// Served at the end.
    Anything,
}

impl World {
    pub(crate) fn strike_once(&mut self, fault: Fault) {
        let mut before = [None; 2];
        for slot in self.slots() {
            before[usize::from(slot.0)] = self.check.serving(self.now, slot);
            if before[usize::from(slot.0)].is_none() {
                self.check.fail(3, self.now, format!("slot {slot} is not served before any fault"));
            }
        }
        let hit = self.inject(fault);
        let granted = hit.node.and_then(|node| {
            let beats = self.nodes[node].publisher.beats;
            beats.into_iter().rev().find(|beat| *beat > 0 && beat + ROUND_TRIPS <= self.now)
        });
        self.struck = Some(Struck { fault, at: self.now, hit, before, granted });
    }

    fn allowed(&self, struck: &Struck, slot: Slot) -> Allowed {
        let holder = struck.before[usize::from(slot.0)];
        let quick = Allowed::Gap(40 * MS);
        match struck.fault {
            Fault::AllSeatsRestart | Fault::Partition => Allowed::Anything,
            // With less than 3 I a lease can run out while no seat has been late by more than R13 forgives.
            Fault::AllSeatsPause if self.options.lease >= 3 * self.options.interval => Allowed::SameHolder,
            Fault::AllSeatsPause => Allowed::Anything,
            // The highest slot is closed for a while, on purpose.
            Fault::Resize if slot.0 + 1 == self.options.slots => Allowed::Anything,
            // Which holder was asked is not recorded: either may move, quickly.
            Fault::Switchover => quick,
            _ if struck.hit.node.is_none() || struck.hit.node != holder => Allowed::Nothing,
            // What goes on before the lease has run out loses nothing: the first heartbeat, or the first answer, bids.
            _ if struck.stood_still().is_some_and(|span| span + ROUND_TRIPS < self.trusted()) => {
                Allowed::Nothing
            }
            Fault::ExecutorKill | Fault::PublisherKill | Fault::Unhealthy => quick,
            // It reaches the detectors within 30 ms, and a holder is asked at its next heartbeat.
            Fault::Maintenance => Allowed::Gap(40 * MS + 30 * MS + self.options.interval),
            _ => Allowed::Gap(self.outage()),
        }
    }

    /// A lease as its holder trusts it (rule R4), by the fastest clock.
    fn trusted(&self) -> u64 {
        self.options.lease - self.options.lease * 3 / 100
    }

    /// T by the slowest clock, a round trip, a takeover: invariant 3 for hot standbys on a quiet network.
    fn outage(&self) -> u64 {
        let lease = self.options.lease;
        lease + lease / 50 + 20 * MS
    }

    /// Invariants 4 and 5.
    pub(crate) fn judge_single(&mut self, struck: Struck) {
        for slot in self.slots() {
            let since: Vec<Gap> = self.gaps_since(struck.at, slot);
            let allowed = self.allowed(&struck, slot);
            let total: u64 = since.iter().map(|gap| gap.to - gap.from.max(struck.at)).sum();
            let dark_until = since.iter().map(|gap| gap.to).max().unwrap_or(struck.at) - struck.at;
            let moves = since.iter().filter(|gap| gap.before != gap.after).count();
            let held = match allowed {
                Allowed::Nothing => since.is_empty(),
                Allowed::SameHolder => moves == 0,
                Allowed::Gap(longest) => total <= longest && moves <= 1,
                Allowed::Anything => true,
            };
            let fault = struck.fault;
            if !held {
                let what = format!(
                    "slot {slot} after {fault:?} (allowed {allowed:?}): {moves} moves, dark for {total} ns in all, \
                     settled after {dark_until} ns: {since:?}"
                );
                self.check.fail(if total == 0 { 5 } else { 4 }, self.now, what);
            }
            if self.check.serving(self.now, slot).is_none() {
                self.check.fail(3, self.now, format!("slot {slot} is not served after {fault:?}"));
            }
        }
    }

    fn gaps_since(&self, at: u64, slot: Slot) -> Vec<Gap> {
        self.check.gaps.iter().filter(|gap| gap.slot == slot.0 && gap.to > at).copied().collect()
    }
}
