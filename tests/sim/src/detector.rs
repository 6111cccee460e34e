//! A detector's process: the production seat, and the production accrual detectors beside it.

use std::{rc::Rc, time::Duration};

use rand::{Rng, rngs::SmallRng};
use understudy_detection::{
    AccrualConfig, FailureDetector, FailureDetectorConfig, Flap, FlapConfig, Standing, Threshold,
};
use understudy_lease::{Seat, SeatOutput};
use understudy_wire::{BootId, BootTime, Epoch, Heartbeat, NodeId, Release, Seat as SeatNumber, Slot};

use crate::{
    clock::Clock,
    event::{Event, Input, Kind, Message, Process},
    network::FIRST_DETECTOR,
    node::{any_clock, boot_id},
    options::{Mutant, Options, Suspicion},
    trace::MS,
    world::{Running, World},
};

/// How long a request to the store waits before it is tried again.
const STORE_RETRY: u64 = 100 * MS;
/// Longest until a detector hears of a new size.
pub(crate) const NOTICE_MAX: u64 = 300 * MS;
/// Longest round trip to the store.
const STORE_MAX: u64 = 20 * MS;

pub(crate) struct Detector {
    pub(crate) running: Running,
    pub(crate) clock: Clock,
    /// Which seat, from 0.
    pub(crate) seat: usize,
    incarnation: u64,
    machine: Option<Seat>,
    suspicion: FailureDetector<usize>,
    flaps: Vec<Flap>,
    damped: u32,
    /// Newest heartbeat of each node: boot, seq, and when it was taken in.
    newest: Vec<Option<(BootId, u64, BootTime)>>,
    last_turn: BootTime,
}

fn suspicion(options: &Options) -> FailureDetector<usize> {
    let span = Duration::from_nanos;
    let floor = Duration::from_millis(5);
    let accrual =
        AccrualConfig::new(span(options.interval), 100, floor, span(options.lease)).expect("is valid");
    let phi = match options.suspicion {
        Suspicion::Usual => 3.0,
        Suspicion::Paranoid => 1e-3,
    };
    FailureDetector::new(FailureDetectorConfig {
        accrual,
        suspect: Threshold::new(phi).expect("is valid"),
        failed_after: span(options.lease),
        max_nodes: 16,
    })
}

impl Detector {
    pub(crate) fn new(options: &Options, random: &mut SmallRng) -> Self {
        Self {
            running: Running::new(),
            clock: any_clock(options, random),
            seat: 0,
            incarnation: 0,
            machine: None,
            suspicion: suspicion(options),
            flaps: Vec::new(),
            damped: 0,
            newest: Vec::new(),
            last_turn: BootTime(0),
        }
    }

    fn machine(&mut self) -> &mut Seat {
        self.machine.as_mut().expect("a live detector has its machine")
    }
}

/// Index of a node by its name.
fn index(node: &NodeId) -> usize {
    usize::from(node.as_str().as_bytes()[0] - b'a')
}

impl World {
    /// Starts the process on host `index` for seat `seat` (both from 0).
    pub(crate) fn start_detector(&mut self, index: usize, seat: usize) {
        let mut rules = self.rules.clone();
        match self.options.mutant {
            Some(Mutant::NoSilence) => rules.silence = Duration::ZERO,
            Some(Mutant::LateJudge) => rules.late_after = Duration::from_secs(3_600),
            _ => {}
        }
        let incarnation = self.fresh_id();
        let number = SeatNumber::new(seat as u8 + 1).expect("counts from 1");
        let nodes = self.nodes.len();
        let quiet = FlapConfig { half_life: Duration::from_secs(10), ..FlapConfig::default() };
        let quiet = FlapConfig { longest_suppression: Duration::from_secs(40), ..quiet };
        let detector = &mut self.detectors[index];
        let now = detector.clock.read(self.now);
        detector.running.start();
        detector.seat = seat;
        detector.incarnation = incarnation;
        detector.machine = Some(Seat::new(self.identity.clone(), rules, number, incarnation, now));
        detector.suspicion = suspicion(&self.options);
        detector.flaps = vec![Flap::new(quiet).expect("is valid"); nodes];
        detector.damped = 0;
        detector.newest = vec![None; nodes];
        detector.last_turn = now;
        self.trace.note(self.now, &[40, index as u64, seat as u64], || {
            format!("detector {index} starts for seat {number}")
        });
        let process = self.process(Kind::Detector, index);
        for slot in self.slots() {
            let delay = self.up_to(STORE_MAX);
            self.after(delay, Event::Store(process, slot, None));
        }
        self.at(self.now, Event::Handle(process, Input::Maintenance(self.maintenance)));
        self.at(self.now, Event::Handle(process, Input::Size));
    }

    pub(crate) fn kill_detector(&mut self, index: usize) {
        self.trace.note(self.now, &[41, index as u64], || format!("detector {index} is killed"));
        self.detectors[index].running.end();
        self.detectors[index].machine = None;
    }

    pub(crate) fn detector_handles(&mut self, index: usize, input: Input) {
        self.notice_lateness(index);
        if self.is_duplicate(index, &input) {
            return;
        }
        let names = &self.names;
        let set =
            |bits: u32| (0..8).filter(|bit| bits & (1 << bit) != 0).map(|bit| names[bit].clone()).collect();
        let detector = &mut self.detectors[index];
        let now = detector.clock.read(self.now);
        match input {
            Input::Message(Message::Heartbeat(heartbeat)) => {
                detector.machine().handle_heartbeat(now, &heartbeat);
                self.trace.note(self.now, &[42, index as u64, heartbeat.sent_at.0], || {
                    let claims: Vec<_> = heartbeat.claims.iter().map(|claim| claim.epoch.0).collect();
                    format!(
                        "detector {index} hears node {} seq {} claims {claims:?}",
                        heartbeat.node, heartbeat.seq
                    )
                });
                self.suspect(index, now, &heartbeat);
            }
            Input::Message(Message::Release(release)) => {
                self.trace.note(self.now, &[43, index as u64, release.at.0], || {
                    format!(
                        "detector {index} hears that {} released slot {}",
                        release.holder.node, release.slot
                    )
                });
                if self.options.mutant == Some(Mutant::ReleaseWithoutTime) {
                    // As old as it may be, it voids all that the seat has granted by now.
                    let node = self::index(&release.holder.node);
                    let at = self.nodes[node].clock.read(self.now);
                    let release = Release { at, ..Release::clone(&release) };
                    detector.machine().handle_release(now, &release);
                } else {
                    detector.machine().handle_release(now, &release);
                }
            }
            Input::Message(_) => unreachable!("nodes send heartbeats and releases only"),
            Input::Timer => {
                detector.machine().handle_time(now);
                self.judge_nodes(index, now);
            }
            Input::Ceiling(slot, ceiling) => detector.machine().handle_ceiling(now, slot, ceiling),
            Input::Rival => detector.machine().handle_rival(now),
            Input::Maintenance(nodes) => detector.machine().handle_maintenance(now, set(nodes)),
            Input::Size if self.options.mutant == Some(Mutant::SizeUnheard) => {}
            Input::Size => detector.machine().handle_size(now, Some(self.open)),
            Input::Fenced(node, boot) => {
                detector.machine().handle_fenced(now, &names[node], boot_id(node, boot));
            }
            _ => unreachable!("not for a detector: {input:?}"),
        }
        self.drain(index);
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.detectors[index].machine().poll_output() {
            let from = FIRST_DETECTOR + index as u8;
            match output {
                SeatOutput::Grant(grant) => {
                    let to = self::index(&grant.holder.node) as u8;
                    self.send(from, to, &Message::Grant(Rc::new(grant)));
                }
                SeatOutput::Revoke(revoke) => {
                    let to = self::index(&revoke.holder.node) as u8;
                    self.send(from, to, &Message::Revoke(Rc::new(revoke)));
                }
                SeatOutput::RaiseCeiling { slot, to } => {
                    let process = self.process(Kind::Detector, index);
                    let delay = self.up_to(STORE_MAX);
                    self.after(delay, Event::Store(process, slot, Some(to)));
                }
                SeatOutput::Elected { slot, holder, .. } => {
                    self.trace.note(self.now, &[44, index as u64, self::index(&holder.node) as u64], || {
                        format!("detector {index} elects {} for slot {slot}", holder.node)
                    });
                }
                SeatOutput::Vacant { slot, reason, .. } => {
                    self.trace.note(self.now, &[45, index as u64, slot.0.into()], || {
                        format!("detector {index} has nobody for slot {slot}: {reason}")
                    });
                }
            }
        }
        let deadline = self.detectors[index].machine().next_deadline();
        let at = self.detectors[index].clock.when(deadline);
        self.arm(Kind::Detector, index, at);
    }

    /// A request reaches the store, which may be down: then it is tried again while the process lives.
    pub(crate) fn serve_store(&mut self, process: Process, slot: Slot, to: Option<Epoch>) {
        if !self.lives(process) {
            return;
        }
        if self.now < self.store.down_until {
            return self.after(STORE_RETRY, Event::Store(process, slot, to));
        }
        let kept = &mut self.store.ceilings[usize::from(slot.0)];
        *kept = (*kept).max(to.unwrap_or_default());
        let forgets = to.is_none() && self.options.mutant == Some(Mutant::NoCeiling);
        let ceiling = if forgets { Epoch(0) } else { to.unwrap_or(*kept) };
        let delay = self.up_to(STORE_MAX);
        self.after(delay, Event::Handle(process, Input::Ceiling(slot, ceiling)));
    }

    /// R13 for the accrual detectors, which leave it to their shell.
    fn notice_lateness(&mut self, index: usize) {
        let detector = &mut self.detectors[index];
        let now = detector.clock.read(self.now);
        if now.since(detector.last_turn) > 2 * self.rules.interval {
            detector.suspicion.observer_was_late(now.0);
        }
        detector.last_turn = now;
    }

    /// What the other path has brought already is dropped before any machine sees it.
    fn is_duplicate(&self, index: usize, input: &Input) -> bool {
        let Input::Message(Message::Heartbeat(heartbeat)) = input else { return false };
        let newest = self.detectors[index].newest[self::index(&heartbeat.node)];
        newest.is_some_and(|(boot, seq, _)| boot == heartbeat.boot && seq == heartbeat.seq)
    }

    /// Feeds the accrual detector with each heartbeat that is new.
    fn suspect(&mut self, index: usize, now: BootTime, heartbeat: &Heartbeat) {
        let node = self::index(&heartbeat.node);
        let detector = &mut self.detectors[index];
        let newest = &mut detector.newest[node];
        if newest.is_some_and(|(boot, seq, _)| (heartbeat.boot, heartbeat.seq) <= (boot, seq)) {
            return;
        }
        *newest = Some((heartbeat.boot, heartbeat.seq, now));
        let healthy = heartbeat.health == understudy_wire::Health::Healthy;
        detector.suspicion.handle_heartbeat(&node, healthy, now.0).expect("there is room for every node");
        self.judge_nodes(index, now);
    }

    /// Verdicts go nowhere but into the trace and the flap count, which only orders candidates.
    fn judge_nodes(&mut self, index: usize, now: BootTime) {
        let detector = &mut self.detectors[index];
        if detector.suspicion.next_deadline().is_none_or(|at| at > now.0) {
            return;
        }
        for change in detector.suspicion.poll(now.0) {
            if change.to != Standing::Failed {
                continue;
            }
            detector.flaps[change.node].down(now.0);
            let heard = detector.newest[change.node].map_or(BootTime(0), |(_, _, at)| at);
            if now.since(heard) < self.rules.lease {
                let what = format!("detector {index} calls node {} failed, heard at {heard:?}", change.node);
                self.check.fail(0, self.now, what);
            }
        }
        let flaps = detector.flaps.iter().enumerate();
        let damped = flaps.filter(|(_, flap)| flap.damped(now.0)).fold(0, |bits, (node, _)| bits | 1 << node);
        if damped != detector.damped && self.options.damping {
            detector.damped = damped;
            let nodes = (0..self.nodes.len()).filter(|node| damped & (1 << node) != 0);
            let nodes = nodes.map(|node| self.names[node].clone()).collect();
            self.detectors[index].machine().handle_damped(now, nodes);
        }
    }

    /// A size reaches each detector when it does, so that for a while they differ (rule R14).
    fn set_size(&mut self, open: u16, notice: u64) {
        self.open = open;
        self.trace.note(self.now, &[47, open.into()], || format!("slots below {open} are open"));
        for index in 0..self.detectors.len() {
            let delay = self.up_to(notice);
            let process = self.process(Kind::Detector, index);
            self.after(delay, Event::Handle(process, Input::Size));
        }
    }

    /// Closes the highest slot, also the only one, which nobody would do but makes the case more frequent.
    pub(crate) fn close(&mut self, span: u64) {
        if self.closed_at.is_some() {
            return;
        }
        self.closed_at = Some(self.now);
        self.set_size(self.options.slots - 1, NOTICE_MAX);
        self.after(span, Event::Reopen);
    }

    /// Rule R14: nobody serves a closed slot any more, once every seat has heard of it and a lease has run out.
    pub(crate) fn reopen(&mut self, notice: u64) {
        let Some(closed_at) = self.closed_at.take() else { return };
        // By the slowest clock.
        let lease = self.options.lease + self.options.lease / 50;
        let slot = Slot(self.options.slots - 1);
        if self.now >= closed_at + NOTICE_MAX + lease
            && let Some(node) = self.check.serving(self.now, slot)
        {
            self.check.fail(3, self.now, format!("node {node} serves slot {slot}, closed since {closed_at}"));
        }
        self.set_size(self.options.slots, notice);
    }

    /// Maintenance reaches each detector when it does.
    pub(crate) fn set_maintenance(&mut self, nodes: u32) {
        self.maintenance = nodes;
        self.trace.note(self.now, &[46, nodes.into()], || format!("maintenance: {nodes:#b}"));
        let delay = self.random.random_range(0..30 * MS);
        for index in 0..self.detectors.len() {
            let process = self.process(Kind::Detector, index);
            self.after(delay, Event::Handle(process, Input::Maintenance(nodes)));
        }
    }
}
