//! Hosts, processes and the queue of what happens next.

use std::collections::{BinaryHeap, VecDeque};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use understudy_lease::{Identity, Rules};
use understudy_wire::{BootTime, ClusterId, Epoch, GroupId, NodeId, Slot};

use crate::{
    check::Check,
    detector::Detector,
    event::{Entry, Event, Input, Kind, Process},
    network::{FIRST_DETECTOR, Links},
    node::Node,
    options::Options,
    single::Struck,
    trace::{MS, Trace},
};

/// What all kinds of process have in common.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) generation: u32,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    /// What came while it was paused.
    pub(crate) inbox: VecDeque<Input>,
    /// Real time of its next timer.
    pub(crate) armed: u64,
}

impl Running {
    pub(crate) fn new() -> Self {
        let inbox = VecDeque::new();
        Self { generation: 0, alive: false, paused: false, inbox, armed: u64::MAX }
    }

    /// A new process in place of the old one; nothing that was meant for that reaches it.
    pub(crate) fn start(&mut self) {
        *self = Self { generation: self.generation + 1, alive: true, ..Self::new() };
    }

    pub(crate) fn end(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::new() };
    }
}

/// The durable store of ceilings (JetStream KV).
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) ceilings: Vec<Epoch>,
    pub(crate) down_until: u64,
}

/// Two processes on one seat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rivalry {
    pub(crate) id: u64,
    pub(crate) seat: usize,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) rules: Rules,
    pub(crate) identity: Identity,
    pub(crate) names: Vec<NodeId>,
    pub(crate) random: SmallRng,
    pub(crate) now: u64,
    queue: BinaryHeap<Entry>,
    number: u64,
    /// One for each seat, and a spare for a second process on one of them.
    pub(crate) detectors: Vec<Detector>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Links,
    pub(crate) store: Store,
    /// Bits of nodes that the operator took out.
    pub(crate) maintenance: u32,
    /// Slots below this are open, and since when fewer than all are.
    pub(crate) open: u16,
    pub(crate) closed_at: Option<u64>,
    pub(crate) rivalry: Option<Rivalry>,
    pub(crate) ids: u64,
    pub(crate) struck: Option<Struck>,
    pub(crate) check: Check,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(options: Options, keep_lines: bool) -> Self {
        let name = |name: &str| NodeId::new(name).expect("is a name");
        let cluster = ClusterId::new("sim").expect("is a name");
        let group = GroupId::new("web").expect("is a name");
        let mut random = SmallRng::seed_from_u64(options.seed);
        let slots = usize::from(options.slots);
        let detectors = (0..=options.seats).map(|_| Detector::new(&options, &mut random)).collect();
        let nodes = (0..options.nodes).map(|_| Node::new(&options, &mut random)).collect();
        let mut world = Self {
            rules: options.rules(),
            identity: Identity { cluster, group, slots: options.slots },
            names: ["a", "b", "c", "d", "e"].into_iter().map(name).collect(),
            random,
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            detectors,
            nodes,
            links: Links::default(),
            store: Store { ceilings: vec![Epoch(0); slots], down_until: 0 },
            maintenance: 0,
            open: options.slots,
            closed_at: None,
            rivalry: None,
            ids: 0,
            struck: None,
            check: Check::new(options.slots),
            trace: Trace::new(keep_lines),
            options,
        };
        world.begin();
        world
    }

    /// Everything starts within half a second, in random order.
    fn begin(&mut self) {
        for detector in 0..usize::from(self.options.seats) {
            let after = self.up_to(500 * MS);
            self.after(after, Event::Start(Kind::Detector, detector));
        }
        for node in 0..self.nodes.len() {
            let after = self.up_to(500 * MS);
            self.after(after, Event::Boot(node));
        }
        let first = match self.options.single {
            Some(fault) => Event::Single(fault),
            None => Event::Strike,
        };
        self.at(self.options.faults_from, first);
        if self.options.heal_at < self.options.end {
            self.at(self.options.heal_at, Event::Heal);
        }
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.queue.push(Entry { at, number: self.number, event });
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// A random span below `most` nanoseconds.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..most.max(1))
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.options.slots).map(Slot)
    }

    /// Until the end of the run or the first violation.
    pub(crate) fn run(&mut self) {
        while self.check.violation.is_none()
            && let Some(Entry { at, event, .. }) = self.queue.pop()
            && at < self.options.end
        {
            self.now = at;
            self.dispatch(event);
        }
        if self.check.violation.is_none() {
            self.now = self.options.end;
            self.judge();
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Deliver { to, message } => {
                let process = match to.checked_sub(FIRST_DETECTOR) {
                    None => self.process(Kind::Executor, usize::from(to)),
                    Some(index) => self.process(Kind::Detector, usize::from(index)),
                };
                self.handle(process, Input::Message(message));
            }
            Event::Handle(process, input) => self.handle(process, input),
            Event::Resume(process) => self.resume(process),
            Event::Store(process, slot, to) => self.serve_store(process, slot, to),
            Event::Presence(id) => self.presence(id),
            Event::RivalEnds(id) => self.end_rivalry(id),
            Event::Start(kind, index) => self.start(kind, index),
            Event::Boot(node) => self.boot(node),
            Event::Uncut(id) => self.links.cuts.retain(|cut| cut.id != id),
            Event::PathUp(path) => {
                self.trace.note(self.now, &[1, path as u64], || format!("path {path} is up"));
            }
            Event::Healthy(node) => self.set_health(node, true),
            Event::Reopen => self.reopen(crate::detector::NOTICE_MAX),
            Event::MaintenanceOver(node) => self.set_maintenance(self.maintenance & !(1 << node)),
            Event::Register(node, slot, epoch) => self.write_register(node, slot, epoch),
            Event::Strike => self.strike(),
            Event::Single(fault) => self.strike_once(fault),
            Event::Heal => self.heal(),
        }
    }

    pub(crate) fn running(&self, kind: Kind, index: usize) -> &Running {
        match kind {
            Kind::Detector => &self.detectors[index].running,
            Kind::Publisher => &self.nodes[index].publisher.running,
            Kind::Executor => &self.nodes[index].executor.running,
        }
    }

    pub(crate) fn running_mut(&mut self, kind: Kind, index: usize) -> &mut Running {
        match kind {
            Kind::Detector => &mut self.detectors[index].running,
            Kind::Publisher => &mut self.nodes[index].publisher.running,
            Kind::Executor => &mut self.nodes[index].executor.running,
        }
    }

    /// The process that runs there now.
    pub(crate) fn process(&self, kind: Kind, index: usize) -> Process {
        Process::new(kind, index, self.running(kind, index).generation)
    }

    pub(crate) fn lives(&self, process: Process) -> bool {
        let running = self.running(process.kind, process.index());
        running.alive && running.generation == process.generation
    }

    fn handle(&mut self, process: Process, input: Input) {
        if !self.lives(process) {
            return;
        }
        let now = self.now;
        let running = self.running_mut(process.kind, process.index());
        if running.paused {
            running.inbox.push_back(input);
            return;
        }
        if matches!(input, Input::Timer) {
            // Superseded by an earlier one.
            if now < running.armed {
                return;
            }
            running.armed = u64::MAX;
        }
        match process.kind {
            Kind::Detector => self.detector_handles(process.index(), input),
            Kind::Publisher => self.publisher_handles(process.index(), input),
            Kind::Executor => self.executor_handles(process.index(), input),
        }
    }

    /// Calls the process at real time `at`, or before.
    pub(crate) fn arm(&mut self, kind: Kind, index: usize, at: u64) {
        let at = at.max(self.now);
        let running = self.running_mut(kind, index);
        if at < running.armed {
            running.armed = at;
            let process = self.process(kind, index);
            self.at(at, Event::Handle(process, Input::Timer));
        }
    }

    /// Stops a process for `span`; timers of the kernel go on.
    pub(crate) fn pause(&mut self, kind: Kind, index: usize, span: u64) {
        let now = self.now;
        let running = self.running_mut(kind, index);
        if !running.alive || running.paused {
            return;
        }
        running.paused = true;
        let process = self.process(kind, index);
        self.after(span, Event::Resume(process));
        self.trace.note(now, &[2, kind as u64, index as u64], || format!("{kind:?} {index} is paused"));
    }

    /// What waited is handled first, or the timers are: no order is promised.
    pub(crate) fn resume(&mut self, process: Process) {
        if !self.lives(process) || !self.running(process.kind, process.index()).paused {
            return;
        }
        self.trace.note(self.now, &[3, process.kind as u64, process.index() as u64], || {
            format!("{:?} {} goes on", process.kind, process.index())
        });
        let running = self.running_mut(process.kind, process.index());
        running.paused = false;
        let waiting = std::mem::take(&mut running.inbox);
        let timers_first: bool = self.random.random();
        if timers_first && waiting.iter().any(|input| matches!(input, Input::Timer)) {
            self.handle(process, Input::Timer);
        }
        for input in waiting {
            self.handle(process, input);
        }
    }

    pub(crate) fn node_now(&self, node: usize) -> BootTime {
        self.nodes[node].clock.read(self.now)
    }
}
