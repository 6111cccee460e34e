//! The second phase of a storm: everything that must be there is well again, and has to converge.

use crate::{
    check::Gap,
    event::{Event, Kind},
    world::World,
};

impl World {
    /// All faults end.
    pub(crate) fn heal(&mut self) {
        self.trace.note(self.now, &[60], || "HEAL: everything is well from here on".into());
        self.links.healed = true;
        self.links.cuts.clear();
        self.links.down_until = Default::default();
        self.store.down_until = 0;
        for process in self.everyone() {
            self.resume(process);
        }
        if let Some(rivalry) = self.rivalry {
            self.end_rivalry(rivalry.id);
        }
        for seat in 0..self.options.absent_seats {
            self.kill_detector(seat);
        }
        for seat in self.options.absent_seats..self.seats() {
            self.at(self.now, Event::Start(Kind::Detector, seat));
        }
        for node in 0..self.options.absent_nodes {
            self.crash(node);
        }
        for node in self.options.absent_nodes..self.nodes.len() {
            self.boot(node);
            self.at(self.now, Event::Start(Kind::Publisher, node));
            self.at(self.now, Event::Start(Kind::Executor, node));
            self.set_health(node, true);
        }
        self.set_maintenance(0);
        self.reopen(0);
    }

    /// At the end of a run.
    pub(crate) fn judge(&mut self) {
        match self.struck {
            Some(struck) => self.judge_single(struck),
            None => self.judge_healed(),
        }
    }

    /// Invariant 3: every slot is served soon after everything is well, and by the same node from then on.
    fn judge_healed(&mut self) {
        let due = self.options.heal_at + self.options.settle();
        for slot in self.slots() {
            let Some(node) = self.check.serving(self.now, slot) else {
                let until = self.check.served_until(slot);
                let what = format!("slot {slot} is served by nobody at the end, last until {until}");
                self.check.fail(3, self.now, what);
                continue;
            };
            let late = |gap: &&Gap| gap.slot == slot.0 && gap.to > due;
            if let Some(gap) = self.check.gaps.iter().find(late).copied() {
                let what = format!("slot {slot} was to be served for good from {due}, yet {gap:?}");
                self.check.fail(3, self.now, what);
            }
            self.check.register_follows(self.now, slot, node);
        }
    }
}
