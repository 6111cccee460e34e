//! What goes wrong.

use rand::Rng;

use crate::{
    event::{Event, Input, Kind, Process},
    network::{Cut, PATHS},
    options::Fault,
    trace::MS,
    world::{Rivalry, World},
};

/// Longest time until a second process on a seat is heard; shorter than every silence.
const PRESENCE_MAX: u64 = 50 * MS;

/// Whom a fault struck and for how long; nobody: no node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) node: Option<usize>,
    pub(crate) span: u64,
}

impl World {
    /// One of the faults of this run, and the next one later.
    pub(crate) fn strike(&mut self) {
        if self.now >= self.options.heal_at {
            return;
        }
        if !self.options.faults.is_empty() {
            let kind = self.options.faults[self.random.random_range(0..self.options.faults.len())];
            self.inject(kind);
        }
        let gap = self.random.random_range(0..=2 * self.options.fault_gap.min(10_000 * MS));
        self.after(gap, Event::Strike);
    }

    /// Something strikes somebody, for 1 ms to 3 s, more often briefly.
    pub(crate) fn inject(&mut self, fault: Fault) -> Hit {
        let node = self.random.random_range(0..self.nodes.len());
        let most = if self.random.random_bool(0.5) { 400 * MS } else { 3_000 * MS };
        let span = self.random.random_range(MS..most);
        self.trace.note(self.now, &[50, fault as u64, node as u64, span], || {
            format!("FAULT {fault:?}, node {node} if any, {:.3} ms", span as f64 / MS as f64)
        });
        match fault {
            Fault::NodeCrash | Fault::NodeFenced => self.crash_for(node, span, fault == Fault::NodeFenced),
            Fault::NodePause => self.pause_both(node, span),
            Fault::ExecutorPause => self.pause(Kind::Executor, node, span),
            Fault::PublisherPause => self.pause(Kind::Publisher, node, span),
            Fault::NodeCut => self.cut_node(node, true, true, span),
            Fault::NodeMute => self.cut_node(node, true, false, span),
            Fault::NodeDeaf => self.cut_node(node, false, true, span),
            Fault::ExecutorKill if self.nodes[node].executor.running.alive => {
                self.kill_executor(node);
                self.after(span, Event::Start(Kind::Executor, node));
            }
            Fault::PublisherKill if self.nodes[node].publisher.running.alive => {
                self.kill_publisher(node);
                self.after(span, Event::Start(Kind::Publisher, node));
            }
            Fault::Unhealthy => {
                self.set_health(node, false);
                self.after(span, Event::Healthy(node));
            }
            Fault::Maintenance => {
                self.set_maintenance(self.maintenance | 1 << node);
                self.after(span, Event::MaintenanceOver(node));
            }
            Fault::Switchover => self.ask_switchover(node),
            Fault::ExecutorKill | Fault::PublisherKill => {}
            _ => return self.inject_elsewhere(fault, span),
        }
        Hit { node: Some(node), span }
    }

    fn inject_elsewhere(&mut self, fault: Fault, span: u64) -> Hit {
        let seats = usize::from(self.options.seats);
        let seat = self.random.random_range(0..seats);
        match fault {
            Fault::SeatKill => self.restart_detector(seat, span),
            // The guarantee of two processes on one seat rests on their hearing each other in time.
            Fault::SeatPause if self.rivalry.is_none_or(|rivalry| rivalry.seat != seat) => {
                self.pause(Kind::Detector, seat, span);
            }
            Fault::SeatRival if self.rivalry.is_none() && self.detectors[seat].running.alive => {
                self.begin_rivalry(seat, span);
            }
            Fault::AllSeatsPause if self.rivalry.is_none() => {
                (0..seats).for_each(|seat| self.pause(Kind::Detector, seat, span.min(2_000 * MS)));
            }
            Fault::AllSeatsRestart => {
                for seat in 0..seats {
                    let apart = self.up_to(300 * MS);
                    self.restart_detector(seat, span / 4 + apart);
                }
            }
            Fault::Partition => self.partition(span),
            Fault::PathDown => {
                let path = self.random.random_range(0..PATHS);
                self.links.down_until[path] = self.links.down_until[path].max(self.now + span);
                self.after(span, Event::PathUp(path));
            }
            Fault::Resize => self.close(span),
            Fault::KvDown => self.store.down_until = self.store.down_until.max(self.now + span),
            _ => {}
        }
        Hit { node: None, span }
    }

    fn crash_for(&mut self, node: usize, span: u64, fence: bool) {
        if !self.nodes[node].up {
            return;
        }
        let boot = self.nodes[node].boots;
        self.crash(node);
        let mut off = span;
        if fence {
            // The agent confirms that it is off, and only then may it come back.
            let confirmed = self.random.random_range(5 * MS..100 * MS);
            off += 500 * MS + confirmed;
            for index in 0..self.detectors.len() {
                let process = self.process(Kind::Detector, index);
                self.after(confirmed, Event::Handle(process, Input::Fenced(node, boot)));
            }
        }
        self.after(off, Event::Boot(node));
    }

    fn pause_both(&mut self, node: usize, span: u64) {
        self.pause(Kind::Executor, node, span);
        self.pause(Kind::Publisher, node, span);
    }

    fn add_cut(&mut self, paths: u32, from: u32, to: u32, span: u64) {
        let id = self.fresh_id();
        self.links.cuts.push(Cut { id, paths, from, to });
        self.after(span, Event::Uncut(id));
    }

    fn cut_node(&mut self, node: usize, out: bool, into: bool, span: u64) {
        let all = u32::MAX;
        if out {
            self.add_cut(all, 1 << node, all, span);
        }
        if into {
            self.add_cut(all, all, 1 << node, span);
        }
    }

    /// Two sets of hosts, one or both ways, on one path or both.
    fn partition(&mut self, span: u64) {
        let side: u32 = self.random.random();
        let paths = self.random.random_range(1..4);
        self.add_cut(paths, side, !side, span);
        if self.random.random_bool(0.6) {
            self.add_cut(paths, !side, side, span);
        }
    }

    fn restart_detector(&mut self, index: usize, span: u64) {
        if self.detectors[index].running.alive {
            self.kill_detector(index);
            self.after(span, Event::Start(Kind::Detector, index));
        }
    }

    /// A second process comes up for a seat that has one.
    fn begin_rivalry(&mut self, seat: usize, span: u64) {
        if self.detectors[seat].running.paused {
            return;
        }
        let id = self.fresh_id();
        self.rivalry = Some(Rivalry { id, seat });
        self.start_detector(usize::from(self.options.seats), seat);
        self.after(0, Event::Presence(id));
        self.after(span, Event::RivalEnds(id));
    }

    /// Both hear each other once an interval.
    pub(crate) fn presence(&mut self, id: u64) {
        let Some(rivalry) = self.rivalry.filter(|rivalry| rivalry.id == id) else { return };
        let both = [rivalry.seat, usize::from(self.options.seats)];
        if both.iter().all(|index| self.detectors[*index].running.alive) {
            for index in both {
                let process = self.process(Kind::Detector, index);
                let delay = self.up_to(PRESENCE_MAX);
                self.after(delay, Event::Handle(process, Input::Rival));
            }
        }
        self.after(self.options.interval, Event::Presence(id));
    }

    /// One of the two ends; if it was the first, the second stays alone until it ends as well.
    pub(crate) fn end_rivalry(&mut self, id: u64) {
        let Some(rivalry) = self.rivalry.filter(|rivalry| rivalry.id == id) else { return };
        let spare = usize::from(self.options.seats);
        let first_ends = self.random.random() && self.detectors[rivalry.seat].running.alive;
        if first_ends && !self.links.healed {
            self.kill_detector(rivalry.seat);
            let more = self.random.random_range(MS..3_000 * MS);
            self.after(more, Event::RivalEnds(id));
            return;
        }
        self.kill_detector(spare);
        self.rivalry = None;
        self.after(MS, Event::Start(Kind::Detector, rivalry.seat));
    }

    /// The operator wants whoever serves to give its slot up; `node` only breaks ties between slots.
    fn ask_switchover(&mut self, node: usize) {
        let slot =
            self.slots().nth(node % usize::from(self.options.slots)).unwrap_or(understudy_wire::Slot(0));
        if let Some(holder) = self.check.serving(self.now, slot) {
            let process = self.process(Kind::Executor, holder);
            self.at(self.now, Event::Handle(process, Input::Switchover(slot)));
        }
    }

    /// Starts a process if its host is up and it does not run.
    pub(crate) fn start(&mut self, kind: Kind, index: usize) {
        let (seats, nodes) = (self.options.absent_seats, self.options.absent_nodes);
        let absent = self.links.healed && index < if kind == Kind::Detector { seats } else { nodes };
        if absent || self.running(kind, index).alive {
            return;
        }
        match kind {
            Kind::Detector => self.start_detector(index, index),
            _ if !self.nodes[index].up => {}
            Kind::Publisher => self.start_publisher(index),
            Kind::Executor => self.start_executor(index),
        }
    }

    /// Hosts and processes of the run, to be brought back.
    pub(crate) fn everyone(&self) -> Vec<Process> {
        let detectors = (0..self.detectors.len()).map(|index| self.process(Kind::Detector, index));
        let nodes = (0..self.nodes.len())
            .flat_map(|node| [self.process(Kind::Publisher, node), self.process(Kind::Executor, node)]);
        detectors.chain(nodes).collect()
    }

    /// Number of hosts of detectors, the spare not counted.
    pub(crate) fn seats(&self) -> usize {
        usize::from(self.options.seats)
    }
}
