//! The executor: the production holder machine, and what its shell does for it.

use std::rc::Rc;

use rand::Rng;
use understudy_lease::{Holder, HolderOutput, Why};
use understudy_wire::{Epoch, Incarnation, Slot, StandbyKind};

use crate::{
    event::{Event, Input, Kind, Message, State},
    options::Mutant,
    trace::MS,
    world::{Running, World},
};

/// Longest takeover of a hot standby: address, gate, announcement.
const TAKEOVER_MAX: u64 = 3 * MS;

pub(crate) struct Executor {
    pub(crate) running: Running,
    pub(crate) holder: Option<Holder>,
    pub(crate) incarnation: Incarnation,
    started: u64,
    /// The tenure whose takeover is through, by slot.
    serving: Vec<Option<Epoch>>,
    /// Highest promise of any seat, for [`Mutant::PromiseOfOne`].
    promised: Epoch,
    sent: Option<Rc<State>>,
    publisher_there: bool,
    starting: bool,
}

impl Executor {
    pub(crate) fn new(slots: u16) -> Self {
        Self {
            running: Running::new(),
            holder: None,
            incarnation: Incarnation::new(1).expect("is not 0"),
            started: 0,
            serving: vec![None; usize::from(slots)],
            promised: Epoch(0),
            sent: None,
            publisher_there: false,
            starting: false,
        }
    }

    pub(crate) fn end(&mut self) {
        self.running.end();
        self.holder = None;
    }

    fn machine(&mut self) -> &mut Holder {
        self.holder.as_mut().expect("a live executor has its machine")
    }
}

impl World {
    pub(crate) fn start_executor(&mut self, node: usize) {
        let mut rules = self.rules.clone();
        match self.options.mutant {
            Some(Mutant::NoDrift) => rules.drift = 0.0,
            Some(Mutant::HalfQuorum) => rules.quorum = usize::from(rules.seats) / 2,
            _ => {}
        }
        let executor = &mut self.nodes[node].executor;
        let started = executor.started + 1;
        let raw = if self.options.mutant == Some(Mutant::NoIncarnation) { 1 } else { started };
        let incarnation = Incarnation::new(raw).expect("counts from 1");
        let mut running = std::mem::replace(&mut executor.running, Running::new());
        running.start();
        *executor = Executor { running, incarnation, started, ..Executor::new(self.options.slots) };
        self.trace.note(self.now, &[30, node as u64, started], || {
            format!("executor {started} of node {node} starts")
        });
        let mut machine = Holder::new(self.identity.clone(), rules, self.holder(node, incarnation));
        machine.set_willing(false);
        self.nodes[node].executor.holder = Some(machine);
        if self.nodes[node].publisher.running.alive {
            self.executor_handles(node, Input::PublisherBack);
        }
    }

    pub(crate) fn kill_executor(&mut self, node: usize) {
        self.trace.note(self.now, &[31, node as u64], || format!("executor of node {node} is killed"));
        let incarnation = self.nodes[node].executor.incarnation;
        self.nodes[node].executor.end();
        self.kernel_shuts_all(node);
        let delay = self.local_delay(node, 0);
        let publisher = self.process(Kind::Publisher, node);
        self.after(delay, Event::Handle(publisher, Input::ExecutorGone(incarnation)));
    }

    pub(crate) fn executor_handles(&mut self, node: usize, input: Input) {
        let now = self.node_now(node);
        let slots = self.slots();
        let executor = &mut self.nodes[node].executor;
        // Grants come by the thousand and rarely change what a heartbeat says: what does is an output.
        let (told, asked) = (!matches!(input, Input::Message(_)), matches!(input, Input::Asked));
        match input {
            Input::Message(Message::Grant(mut grant)) => {
                match self.options.mutant {
                    Some(Mutant::NoPromise) => Rc::make_mut(&mut grant).promised = Some(grant.highest.next()),
                    Some(Mutant::PromiseOfOne) => {
                        executor.promised = executor.promised.max(grant.promised.unwrap_or_default());
                        Rc::make_mut(&mut grant).promised = Some(executor.promised);
                    }
                    _ => {}
                }
                let outcome = executor.machine().handle_grant(now, &grant);
                self.trace.note(self.now, &[32, node as u64, grant.seat.raw().into(), grant.echo.0], || {
                    let (seat, slot) = (grant.seat, grant.slot);
                    format!("node {node} has a grant of seat {seat} for slot {slot}: {outcome:?}")
                });
            }
            Input::Message(Message::Revoke(revoke)) => {
                let outcome = executor.machine().handle_revoke(now, &revoke);
                self.trace.note(self.now, &[33, node as u64, revoke.seat.raw().into()], || {
                    format!("node {node} has a revoke of seat {}: {outcome:?}", revoke.seat)
                });
            }
            Input::Message(_) => unreachable!("seats send grants and revokes only"),
            Input::Timer | Input::Asked => executor.machine().handle_time(now),
            Input::TakenOver(slot, epoch) => self.taken_over(node, slot, epoch),
            Input::Switchover(slot) => self.switch_over(node, slot),
            Input::PublisherGone => {
                executor.publisher_there = false;
                executor.machine().set_willing(false);
                let why = || Why::Leaving("the witness is gone".into());
                slots.for_each(|slot| executor.machine().give_up(now, slot, why(), None));
            }
            Input::PublisherBack => {
                executor.publisher_there = true;
                executor.sent = None;
                executor.machine().set_willing(true);
            }
            _ => unreachable!("not for an executor: {input:?}"),
        }
        self.flush(node);
        if told {
            self.tell_publisher(node, asked);
        }
    }

    /// Carries out what the machine wants, in its order, then tells the publisher what changed.
    fn flush(&mut self, node: usize) {
        let mut changed = false;
        while let Some(output) = self.nodes[node].executor.machine().poll_output() {
            changed |= !matches!(output, HolderOutput::Renew { .. });
            match output {
                HolderOutput::Claim { slot, epoch } => {
                    self.trace.note(self.now, &[39, node as u64, slot.0.into(), epoch.0], || {
                        format!("node {node} claims slot {slot} with epoch {epoch}")
                    });
                }
                HolderOutput::Take { slot, epoch, .. } => self.take(node, slot, epoch),
                HolderOutput::Renew { slot, until } => {
                    if self.nodes[node].executor.serving[usize::from(slot.0)].is_some() {
                        self.kernel_opens(node, slot, until);
                    }
                }
                HolderOutput::Confirmed { slot, epoch } => {
                    self.trace.note(self.now, &[34, node as u64, epoch.0], || {
                        format!("node {node}: epoch {epoch} of slot {slot} is confirmed")
                    });
                    if self.options.mutant != Some(Mutant::EarlyEpoch) {
                        self.use_token(node, slot, epoch);
                    }
                }
                HolderOutput::Shut { slot, epoch, why } => self.shut(node, slot, epoch, &why),
                HolderOutput::Release(release) => {
                    self.trace.note(
                        self.now,
                        &[35, node as u64, release.slot.0.into(), release.at.0],
                        || format!("node {node} releases slot {}", release.slot),
                    );
                    // Usually the publisher's next heartbeat carries it; without a publisher nobody else would.
                    if !self.nodes[node].executor.publisher_there {
                        self.send_release(node, release);
                    }
                }
            }
        }
        if changed {
            self.tell_publisher(node, false);
        }
        let executor = &self.nodes[node].executor;
        if let Some(deadline) = executor.holder.as_ref().and_then(Holder::next_deadline) {
            let at = self.nodes[node].clock.when(deadline);
            self.arm(Kind::Executor, node, at);
        }
    }

    fn take(&mut self, node: usize, slot: Slot, epoch: Epoch) {
        self.trace.note(self.now, &[36, node as u64, slot.0.into(), epoch.0], || {
            format!("node {node} takes slot {slot} with epoch {epoch}")
        });
        // What passes the ceiling while the store is down may be forgotten by seats that restart (R6).
        if epoch <= self.store.ceilings[usize::from(slot.0)] {
            self.check.taken(self.now, slot, node, epoch);
        }
        if self.options.mutant == Some(Mutant::EarlyEpoch) {
            self.use_token(node, slot, epoch);
        }
        let cold = self.nodes[node].standby != StandbyKind::Hot && !self.nodes[node].started;
        let span =
            if cold { 20 * MS + self.up_to(self.options.startup_max) } else { self.up_to(TAKEOVER_MAX) };
        self.nodes[node].executor.starting = cold;
        let process = self.process(Kind::Executor, node);
        self.after(span, Event::Handle(process, Input::TakenOver(slot, epoch)));
    }

    fn taken_over(&mut self, node: usize, slot: Slot, epoch: Epoch) {
        let now = self.node_now(node);
        let fails = self.random.random_range(0..65_536) < self.options.takeover_fails && !self.links.healed;
        let host = &mut self.nodes[node];
        let machine = host.executor.machine();
        machine.handle_time(now);
        let held = machine.claims(now).iter().any(|claim| claim.slot == slot && claim.epoch == epoch);
        if !held {
            return;
        }
        host.executor.starting = false;
        if fails {
            let why = Why::TakeoverFailed("the promote hook failed".into());
            return host.executor.machine().give_up(now, slot, why, None);
        }
        host.started = true;
        host.executor.serving[usize::from(slot.0)] = Some(epoch);
        if let Some(until) = host.executor.machine().held_until(now, slot) {
            self.kernel_opens(node, slot, until);
        }
    }

    /// The gate first, and only then the release (rule R8).
    fn shut(&mut self, node: usize, slot: Slot, epoch: Epoch, why: &Why) {
        self.kernel_shuts(node, slot);
        self.trace.note(self.now, &[37, node as u64, slot.0.into(), epoch.0], || {
            format!("node {node} ends epoch {epoch} of slot {slot}: {why}")
        });
        let executor = &mut self.nodes[node].executor;
        executor.serving[usize::from(slot.0)] = None;
        executor.starting = false;
        let now = self.node_now(node);
        self.nodes[node].executor.machine().gate_shut(now, slot);
    }

    /// What changed, at once; as the answer to a heartbeat, what did not change as well.
    fn tell_publisher(&mut self, node: usize, asked: bool) {
        let now = self.node_now(node);
        let executor = &mut self.nodes[node].executor;
        if !executor.publisher_there {
            return;
        }
        let (incarnation, starting) = (executor.incarnation, executor.starting);
        let machine = executor.machine();
        let (claims, known, releases) = (machine.claims(now), machine.known(), machine.releases());
        let state = State { incarnation, claims, known, releases, starting };
        if !asked && executor.sent.as_deref() == Some(&state) {
            return;
        }
        let state = Rc::new(state);
        executor.sent = Some(state.clone());
        let delay = self.local_delay(node, 0);
        let publisher = self.process(Kind::Publisher, node);
        self.after(delay, Event::Handle(publisher, Input::State(state)));
    }

    fn switch_over(&mut self, node: usize, slot: Slot) {
        let now = self.node_now(node);
        let others: Vec<_> = (0..self.nodes.len()).filter(|other| *other != node).collect();
        let successor = others[self.random.random_range(0..others.len())];
        let named = self.random.random_bool(0.7).then(|| self.names[successor].clone());
        self.nodes[node].executor.machine().give_up(now, slot, Why::Switchover, named);
    }

    /// The epoch goes out as a fencing token: to DNS, after a while.
    fn use_token(&mut self, node: usize, slot: Slot, epoch: Epoch) {
        self.check.token(self.now, slot, node, epoch);
        let late = if self.random.random_bool(0.1) { 3_000 * MS } else { 20 * MS };
        let delay = self.up_to(late);
        self.after(delay, Event::Register(node, slot, epoch));
    }

    /// A DNS update arrives; whoever sent it may be long gone.
    pub(crate) fn write_register(&mut self, node: usize, slot: Slot, epoch: Epoch) {
        let taken = self.check.register(slot, node, epoch);
        self.trace.note(self.now, &[38, node as u64, slot.0.into(), epoch.0, taken.into()], || {
            let answer = if taken { "applied" } else { "newer known" };
            format!("register of slot {slot}: node {node} with epoch {epoch}: {answer}")
        });
    }
}
