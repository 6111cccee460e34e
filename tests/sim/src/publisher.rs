//! The heartbeat publisher: speaks for the node, and witnesses for the executor.

use std::rc::Rc;

use understudy_wire::{BootTime, Health, Heartbeat, Holder, Incarnation, Release};

use crate::{
    event::{Event, Input, Kind, Message, State},
    network::FIRST_DETECTOR,
    world::{Running, World},
};

pub(crate) struct Publisher {
    pub(crate) running: Running,
    /// What the executor last said of itself.
    pub(crate) state: Option<Rc<State>>,
    /// The first heartbeat that the executor has not answered, and whether the last one went out without its bid.
    asked: Option<BootTime>,
    lapsed: bool,
    /// When its latest heartbeats went out, in real time, the last one last.
    pub(crate) beats: [u64; 2],
    seq: u64,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self { running: Running::new(), state: None, asked: None, lapsed: false, beats: [0; 2], seq: 0 }
    }
}

impl World {
    pub(crate) fn start_publisher(&mut self, node: usize) {
        let publisher = &mut self.nodes[node].publisher;
        publisher.running.start();
        (publisher.state, publisher.asked, publisher.lapsed) = (None, None, false);
        publisher.seq = 0;
        self.trace.note(self.now, &[20, node as u64], || format!("publisher of node {node} starts"));
        let delay = self.local_delay(node, 1);
        let executor = self.process(Kind::Executor, node);
        self.after(delay, Event::Handle(executor, Input::PublisherBack));
        self.arm(Kind::Publisher, node, self.now);
    }

    pub(crate) fn kill_publisher(&mut self, node: usize) {
        self.trace.note(self.now, &[21, node as u64], || format!("publisher of node {node} is killed"));
        self.nodes[node].publisher.running.end();
        let delay = self.local_delay(node, 1);
        let executor = self.process(Kind::Executor, node);
        self.after(delay, Event::Handle(executor, Input::PublisherGone));
    }

    pub(crate) fn publisher_handles(&mut self, node: usize, input: Input) {
        match input {
            Input::Timer => {
                self.beat(node);
                let next = self.node_now(node).after(self.rules.interval);
                let next = self.nodes[node].clock.when(next);
                self.arm(Kind::Publisher, node, next);
            }
            Input::State(state) => {
                let publisher = &mut self.nodes[node].publisher;
                let news = publisher.lapsed || publisher.state.as_ref() != Some(&state);
                (publisher.state, publisher.asked) = (Some(state), None);
                if news {
                    self.beat(node);
                }
            }
            Input::ExecutorGone(incarnation) => self.testify(node, incarnation),
            _ => unreachable!("not for a publisher: {input:?}"),
        }
    }

    /// Sends a heartbeat (rule R1), and asks the executor for an answer. One that has not answered the heartbeat before
    /// is stopped or wedged, and no bid goes out for it.
    pub(crate) fn beat(&mut self, node: usize) {
        let now = self.node_now(node);
        let (host, patience) = (&mut self.nodes[node], self.rules.interval / 2);
        let overdue = host.publisher.asked.is_some_and(|asked| now.since(asked) > patience);
        host.publisher.lapsed = overdue && host.publisher.state.is_some();
        host.publisher.asked.get_or_insert(now);
        host.publisher.beats = [host.publisher.beats[1], self.now];
        // Rises over restarts of the publisher too.
        host.publisher.seq = now.0.max(host.publisher.seq + 1);
        let state = host.publisher.state.as_deref().filter(|_| !overdue);
        let health = match state {
            Some(state) if state.starting => Health::Starting,
            _ if host.healthy => Health::Healthy,
            _ => Health::Unhealthy,
        };
        let heartbeat = Heartbeat {
            cluster: self.identity.cluster.clone(),
            group: self.identity.group.clone(),
            node: self.names[node].clone(),
            boot: host.boot_id(node),
            incarnation: state.map(|state| state.incarnation),
            seq: host.publisher.seq,
            sent_at: now,
            health,
            standby: host.standby,
            ready: state.is_some_and(|state| !state.starting) && host.healthy,
            priority: host.priority,
            claims: state.map(|state| state.claims.clone()).unwrap_or_default(),
            known: state.map(|state| state.known.clone()).unwrap_or_default(),
            releases: state.map(|state| state.releases.clone()).unwrap_or_default(),
            details: Default::default(),
        };
        self.tell_seats(node, &Message::Heartbeat(Rc::new(heartbeat)));
        let delay = self.local_delay(node, 1);
        let executor = self.process(Kind::Executor, node);
        self.after(delay, Event::Handle(executor, Input::Asked));
    }

    /// To every detector's host.
    pub(crate) fn tell_seats(&mut self, node: usize, message: &Message) {
        for index in 0..self.detectors.len() {
            if self.detectors[index].running.alive {
                self.send(node as u8, FIRST_DETECTOR + index as u8, message);
            }
        }
    }

    /// The executor is dead: its gates went with it, which is proved before the seats are told (rule R8).
    fn testify(&mut self, node: usize, incarnation: Incarnation) {
        let state = &mut self.nodes[node].publisher.state;
        if state.take_if(|state| state.incarnation == incarnation).is_some() {
            self.nodes[node].publisher.asked = None;
        }
        let open = self.slots().any(|slot| self.check.serving(self.now, slot) == Some(node));
        if !open {
            let holder = self.holder(node, incarnation);
            let at = self.node_now(node);
            for slot in self.slots() {
                self.send_release(
                    node,
                    Release {
                        cluster: self.identity.cluster.clone(),
                        group: self.identity.group.clone(),
                        slot,
                        holder: holder.clone(),
                        at,
                        successor: None,
                    },
                );
            }
        }
        self.beat(node);
    }

    pub(crate) fn holder(&self, node: usize, incarnation: Incarnation) -> Holder {
        Holder { node: self.names[node].clone(), boot: self.nodes[node].boot_id(node), incarnation }
    }

    /// A release as a message of its own.
    pub(crate) fn send_release(&mut self, node: usize, release: Release) {
        self.tell_seats(node, &Message::Release(Rc::new(release)));
    }
}
