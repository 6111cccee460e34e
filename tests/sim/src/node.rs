//! A member of the group: its host, its workload, and the kernel's gate.

use rand::{Rng, rngs::SmallRng};
use understudy_wire::{BootId, BootTime, Slot, StandbyKind};

use crate::{
    clock::Clock,
    event::{Event, Kind},
    executor::Executor,
    options::{Mutant, Options},
    publisher::Publisher,
    trace::MS,
    world::World,
};

pub(crate) struct Node {
    pub(crate) clock: Clock,
    pub(crate) up: bool,
    pub(crate) boots: u64,
    pub(crate) healthy: bool,
    pub(crate) standby: StandbyKind,
    pub(crate) priority: i32,
    /// The workload of a cold standby runs.
    pub(crate) started: bool,
    pub(crate) publisher: Publisher,
    pub(crate) executor: Executor,
    /// Streams between the two processes keep their order: earliest next arrival, to the publisher and back.
    pub(crate) local: [u64; 2],
}

/// A clock that has been running for some time, off by a rate within the bound.
pub(crate) fn any_clock(options: &Options, random: &mut SmallRng) -> Clock {
    let most = options.drift_ppm;
    let drift = match options.drift_extreme {
        true if random.random() => most,
        true => -most,
        false => random.random_range(-most..=most),
    };
    Clock::new(0, random.random_range(1_000..100_000_000 * MS), drift)
}

impl Node {
    pub(crate) fn new(options: &Options, random: &mut SmallRng) -> Self {
        let standby = match random.random_range(0..3) {
            0 if !options.all_hot => StandbyKind::Cold,
            1 if !options.all_hot => StandbyKind::Warm,
            _ => StandbyKind::Hot,
        };
        Self {
            clock: any_clock(options, random),
            up: false,
            boots: 0,
            healthy: true,
            standby,
            priority: if random.random_bool(0.2) { random.random_range(-1..=1) } else { 0 },
            started: false,
            publisher: Publisher::new(),
            executor: Executor::new(options.slots),
            local: [0; 2],
        }
    }

    pub(crate) fn boot_id(&self, index: usize) -> BootId {
        boot_id(index, self.boots)
    }
}

/// Boot `boots` of node `index`.
pub(crate) fn boot_id(index: usize, boots: u64) -> BootId {
    BootId((index as u128) << 64 | u128::from(boots))
}

impl World {
    /// A host comes up: a new boot id, a clock from zero, both processes.
    pub(crate) fn boot(&mut self, node: usize) {
        if self.nodes[node].up || (self.links.healed && node < self.options.absent_nodes) {
            return;
        }
        let host = &mut self.nodes[node];
        host.up = true;
        host.boots += 1;
        if host.boots > 1 {
            host.clock.reboot(self.now);
        }
        host.local = [0; 2];
        host.started = false;
        self.trace.note(self.now, &[10, node as u64], || format!("node {node} boots"));
        for kind in [Kind::Publisher, Kind::Executor] {
            let after = self.up_to(50 * MS);
            self.after(after, Event::Start(kind, node));
        }
    }

    /// The host is off at once, and with it its gates.
    pub(crate) fn crash(&mut self, node: usize) {
        self.trace.note(self.now, &[11, node as u64], || format!("node {node} crashes"));
        let host = &mut self.nodes[node];
        host.up = false;
        host.publisher.running.end();
        host.executor.end();
        self.kernel_shuts_all(node);
    }

    /// Gates of a process go with it (the pass table is flagged `owner`).
    pub(crate) fn kernel_shuts_all(&mut self, node: usize) {
        for slot in self.slots() {
            self.check.shut(self.now, slot, node);
        }
    }

    pub(crate) fn kernel_shuts(&mut self, node: usize, slot: Slot) {
        self.check.shut(self.now, slot, node);
        self.trace.note(self.now, &[12, node as u64, slot.0.into()], || {
            format!("node {node} shuts the gate of slot {slot}")
        });
    }

    /// Lets traffic through until the node's clock shows `until` (rule R5).
    pub(crate) fn kernel_opens(&mut self, node: usize, slot: Slot, until: BootTime) {
        let until = match self.options.mutant {
            Some(Mutant::GateStays) => u64::MAX,
            _ => self.nodes[node].clock.when(until),
        };
        self.trace.note(self.now, &[13, node as u64, slot.0.into(), until], || {
            format!("node {node} opens slot {slot} until {:.3} ms", until as f64 / MS as f64)
        });
        self.check.open(self.now, slot, node, until);
    }

    pub(crate) fn set_health(&mut self, node: usize, healthy: bool) {
        let host = &mut self.nodes[node];
        if host.healthy == healthy {
            return;
        }
        host.healthy = healthy;
        self.trace.note(self.now, &[14, node as u64, healthy.into()], || {
            format!("the workload of node {node} is {}", if healthy { "healthy" } else { "unhealthy" })
        });
        // Its checks tell the publisher, which does not wait for the next interval.
        let running = &self.nodes[node].publisher.running;
        if running.alive && !running.paused {
            self.beat(node);
        }
    }

    /// Delay of the stream between the processes of a node; `way` 0 is towards the publisher.
    pub(crate) fn local_delay(&mut self, node: usize, way: usize) -> u64 {
        let at = self.now + self.up_to(self.options.local_max);
        let earliest = &mut self.nodes[node].local[way];
        *earliest = at.max(*earliest);
        *earliest - self.now
    }
}
