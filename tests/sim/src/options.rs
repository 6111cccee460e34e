//! What a run is made of, drawn from its seed.

use std::time::Duration;

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use understudy_lease::Rules;

use crate::trace::MS;

/// One rule weakened from outside: through the public fields of [`Rules`], or in the simulated shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// A restarted seat grants at once (R6a).
    NoSilence,
    /// A restarted seat is told that no epoch was ever used (R6b).
    NoCeiling,
    /// Releases that travel as messages void whatever the seat has granted since (R8).
    ReleaseWithoutTime,
    /// Every executor process of a boot has the same incarnation (R2).
    NoIncarnation,
    /// Holders believe that all clocks run alike (R4).
    NoDrift,
    /// S/2 grants make a lease.
    HalfQuorum,
    /// The kernel does not close the gate by itself (R5).
    GateStays,
    /// The epoch is used as a token when the slot is taken (R7).
    EarlyEpoch,
    /// Seats promise the epoch after the highest that they know, whatever they have promised before (R7).
    NoPromise,
    /// Holders take the promise of one seat for that of all (R7).
    PromiseOfOne,
    /// A seat that was away judges at once (R13).
    LateJudge,
    /// Seats go on renewing slots that were closed (R14).
    SizeUnheard,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[allow(missing_docs)]
pub enum Fault {
    NodeCrash,
    NodeFenced,
    NodePause,
    NodeCut,
    NodeMute,
    NodeDeaf,
    ExecutorKill,
    ExecutorPause,
    PublisherKill,
    PublisherPause,
    SeatKill,
    SeatPause,
    SeatRival,
    AllSeatsPause,
    AllSeatsRestart,
    Partition,
    PathDown,
    KvDown,
    Unhealthy,
    Maintenance,
    Switchover,
    Resize,
}

impl Fault {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }
}

/// How the network treats a message, each path by itself. Chances are out of 65,536.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Lost.
    pub loss: u64,
    /// Delayed by up to `tail_max` instead of `delay_max`, so also reordered.
    pub tail: u64,
    /// Delivered twice.
    pub duplicate: u64,
    /// Longest usual delay; at least 50 us always pass.
    pub delay_max: u64,
    /// Longest delay, 600 ms.
    pub tail_max: u64,
}

/// How the accrual detectors are set: they must never move anything, so no trace of the lease may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// As in production.
    Usual,
    /// Suspects everybody all the time.
    Paranoid,
}

/// Everything that shapes a run. Times in nanoseconds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed that these came from, and of everything random in the run.
    pub seed: u64,
    /// S: 3 or 5.
    pub seats: u8,
    /// 2 to 5.
    pub nodes: usize,
    /// 1 or 2.
    pub slots: u16,
    /// T.
    pub lease: u64,
    /// I.
    pub interval: u64,
    /// Silence after a start.
    pub lease_max: u64,
    /// Bound on the rate error of clocks, parts per million; every host is within it.
    pub drift_ppm: i64,
    /// Hosts are at either end of it rather than anywhere between.
    pub drift_extreme: bool,
    /// Treatment of messages until everything is healed.
    pub network: Network,
    /// Longest delay between the processes of a node.
    pub local_max: u64,
    /// Longest start-up of a cold standby.
    pub startup_max: u64,
    /// Share of takeovers that fail, out of 65,536.
    pub takeover_fails: u64,
    /// Only hot standbys.
    pub all_hot: bool,
    /// Faults that may come up (a swarm: each seed has some of them).
    pub faults: Vec<Fault>,
    /// Mean time between faults.
    pub fault_gap: u64,
    /// The one fault of a single-fault run.
    pub single: Option<Fault>,
    /// When the (first) fault comes.
    pub faults_from: u64,
    /// When everything is healed.
    pub heal_at: u64,
    /// Seats that stay away when everything else is healed: less than half.
    pub absent_seats: usize,
    /// Nodes that stay away then: one more than the slots remain.
    pub absent_nodes: usize,
    /// End of the run.
    pub end: u64,
    /// Settings of the accrual detectors.
    pub suspicion: Suspicion,
    /// Whether failures count as flaps, which order candidates.
    pub damping: bool,
    /// Rule to weaken.
    pub mutant: Option<Mutant>,
}

impl Options {
    /// A minute: 48 s of random faults, then everything is healed and has to converge.
    pub fn storm(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x5707);
        let mut options = Self::quiet(seed, &mut random);
        options.network = Network {
            loss: chance(&mut random, 6_000),
            tail: chance(&mut random, 4_000),
            duplicate: chance(&mut random, 6_000),
            delay_max: random.random_range(1..=20) * MS,
            tail_max: 600 * MS,
        };
        options.takeover_fails = chance(&mut random, 8_000);
        options.all_hot = random.random_bool(0.5);
        options.faults = Fault::all().iter().copied().filter(|_| random.random_bool(0.6)).collect();
        options.fault_gap = random.random_range(150..=1_500) * MS;
        if random.random_bool(0.5) {
            options.absent_seats = random.random_range(0..=usize::from(options.seats) / 2);
            options.absent_nodes = random.random_range(0..options.nodes - usize::from(options.slots));
        }
        options
    }

    /// Twelve seconds: a quiet system and exactly one fault, of which kind is drawn too.
    pub fn single(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x0051_4617);
        let mut options = Self::quiet(seed, &mut random);
        let kind = Fault::all()[random.random_range(0..Fault::all().len())];
        options.single = Some(kind);
        options.faults_from = 3_000 * MS + random.random_range(0..1_000 * MS);
        // Never healed by decree: the fault ends by itself, and what follows is judged too.
        options.heal_at = u64::MAX;
        options.end = 12_000 * MS;
        options
    }

    fn quiet(seed: u64, random: &mut SmallRng) -> Self {
        let interval = random.random_range(80..=120) * MS;
        let lease = match random.random_range(0..4) {
            0 => interval * random.random_range(2..=5),
            _ => interval * 3,
        };
        let slots = if random.random_bool(0.3) { 2 } else { 1 };
        Self {
            seed,
            seats: if random.random_bool(0.3) { 5 } else { 3 },
            nodes: random.random_range(usize::from(slots) + 1..=5),
            slots,
            lease,
            interval,
            lease_max: if random.random_bool(0.7) { lease } else { 2 * lease },
            drift_ppm: 10_000,
            drift_extreme: random.random_bool(0.3),
            network: Network { loss: 0, tail: 0, duplicate: 0, delay_max: 2 * MS, tail_max: 600 * MS },
            local_max: 2 * MS,
            startup_max: 800 * MS,
            takeover_fails: 0,
            all_hot: true,
            faults: Vec::new(),
            fault_gap: u64::MAX,
            single: None,
            faults_from: 2_000 * MS,
            heal_at: 50_000 * MS,
            absent_seats: 0,
            absent_nodes: 0,
            end: 60_000 * MS,
            suspicion: Suspicion::Usual,
            damping: true,
            mutant: None,
        }
    }

    /// The same run with one rule weakened, and with the faults that stress this rule more likely.
    pub fn weakened(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        match mutant {
            // Late releases of a process that has the slot again: its witness comes and goes, messages dawdle.
            Mutant::ReleaseWithoutTime => {
                self.faults = vec![Fault::PublisherKill, Fault::PublisherPause, Fault::ExecutorPause];
                self.network.tail = 16_000;
                self.fault_gap = 300 * MS;
            }
            // Grants to a dead process reach the next one of the same node.
            Mutant::NoIncarnation => {
                self.faults = vec![Fault::ExecutorKill, Fault::PublisherPause, Fault::SeatPause];
                self.network.tail = 16_000;
                self.fault_gap = 300 * MS;
            }
            // Epochs above the ceiling, for want of the store, that every seat then forgets.
            Mutant::EarlyEpoch => {
                self.faults = vec![Fault::AllSeatsRestart, Fault::KvDown, Fault::ExecutorKill];
                self.fault_gap = 300 * MS;
            }
            Mutant::SizeUnheard => (self.faults, self.fault_gap) = (vec![Fault::Resize], 1_000 * MS),
            Mutant::LateJudge => self.single = Some(Fault::AllSeatsPause),
            _ => {}
        }
        self
    }

    /// As [`Options::single`] at the defaults of the product, T = 300 ms and I = 100 ms: a node crashes.
    pub fn crash(seed: u64) -> Self {
        let options = Self::single(seed);
        let (lease, interval) = (300 * MS, 100 * MS);
        Self { single: Some(Fault::NodeCrash), lease, interval, lease_max: lease, ..options }
    }

    /// At the same defaults: publisher, executor or both of a node stand still for a while.
    pub fn pause(seed: u64) -> Self {
        let stops = [Fault::PublisherPause, Fault::NodePause, Fault::ExecutorPause];
        Self { single: Some(stops[(seed % 3) as usize]), ..Self::crash(seed) }
    }

    /// Rules as the seats and holders of this run have them.
    pub(crate) fn rules(&self) -> Rules {
        let span = Duration::from_nanos;
        let drift = self.drift_ppm as f64 / 1e6;
        Rules::new(self.seats, span(self.lease), span(self.interval), span(self.lease_max), drift)
    }

    /// Bound of invariant 3: from the end of all faults until every slot is served.
    ///
    /// What may lie between: messages still under way (the tail of a path), the silence of seats that start then, and
    /// what an old holder has left of its lease; a split vote or two (T/4 each, rule R9); whoever was elected and then
    /// failed to take it costs T; a cold start-up.
    pub(crate) fn settle(&self) -> u64 {
        self.network.tail_max + 2 * self.lease_max + 3 * self.lease + self.startup_max + 500 * MS
    }
}

fn chance(random: &mut SmallRng, most: u64) -> u64 {
    if random.random_bool(0.3) { 0 } else { random.random_range(0..most) }
}
