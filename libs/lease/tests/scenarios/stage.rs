//! A stage for the two machines: three seats, up to three nodes, a network that is instant unless told otherwise.
//! Nodes beat every 100 ms (a at .00, b at .10, c at .20) and at once when what they say has changed. All clocks
//! agree here; that they need not is what the simulation is for.

use std::{collections::BTreeSet, time::Duration};

use understudy_lease::{Holder, HolderOutput, Identity, Rules, Seat, SeatOutput, Standing, Why};
use understudy_wire::{
    BootId, BootTime, Claim, ClusterId, Epoch, GroupId, Health, Heartbeat, Holder as HolderId, Incarnation,
    NodeId, Release, Seat as SeatNumber, Slot, SlotRelease, StandbyKind,
};

const SLOT: Slot = Slot(0);

struct Node {
    name: NodeId,
    incarnation: u64,
    holder: Holder,
    beats: u64,
    health: Health,
    priority: i32,
    alive: bool,
    mute: bool,
    deaf: bool,
    /// Releases are not sent while this is set.
    held_back: Option<Release>,
    hold_back: bool,
    /// What the publisher goes on to say while it has not heard of a change: claims and releases.
    lagging: Option<(Vec<Claim>, Vec<SlotRelease>)>,
}

struct Detector {
    seat: Option<Seat>,
    starts: u64,
    /// What waits while it is away.
    away: Option<Vec<Heartbeat>>,
    granted: Option<NodeId>,
}

pub(crate) struct Stage {
    now: u64,
    rules: Rules,
    identity: Identity,
    nodes: Vec<Node>,
    detectors: Vec<Detector>,
    store_up: bool,
    trace: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let ms = Duration::from_millis;
        let cluster = ClusterId::new("test").unwrap();
        let identity = Identity { cluster, group: GroupId::new("web").unwrap(), slots: 1 };
        Self {
            now: 10_000,
            rules: Rules::new(3, ms(300), ms(100), ms(300), 0.01),
            identity,
            nodes: Vec::new(),
            detectors: Vec::new(),
            store_up: true,
            trace: String::new(),
        }
    }

    fn at(&self) -> BootTime {
        BootTime(self.now * 1_000_000)
    }

    fn say(&mut self, line: &str) {
        self.trace += &format!("{:>5}  {line}\n", self.now - 10_000);
    }

    fn node(&mut self, name: &str) -> usize {
        self.nodes
            .iter()
            .position(|node| node.name.as_str() == name)
            .expect("the script names a node that runs")
    }

    fn seat(word: &str) -> usize {
        word.parse::<usize>().expect("the script names a seat") - 1
    }

    fn tell_node(&mut self, word: &str, name: &str) {
        let (index, now) = (self.node(name), self.at());
        let node = &mut self.nodes[index];
        match word {
            "crash" => node.alive = false,
            "mute" => node.mute = true,
            "deaf" => node.deaf = true,
            "hears" => node.deaf = false,
            "speaks" => node.mute = false,
            "unhealthy" => node.health = Health::Unhealthy,
            "healthy" => node.health = Health::Healthy,
            "prefer" => node.priority = 1,
            "lags" => node.lagging = Some((node.holder.claims(now), node.holder.releases())),
            "learns" => {
                node.lagging = None;
                self.beat(index);
            }
            "hold-back" => node.hold_back = true,
            "let-go" => {
                node.hold_back = false;
                if let Some(release) = node.held_back.take() {
                    self.spread(&release);
                }
            }
            _ => panic!("no such command: {word} {name}"),
        }
    }

    /// A new executor process; the first one boots the node.
    fn start_node(&mut self, name: &str) {
        let known = self.nodes.iter().position(|node| node.name.as_str() == name);
        let incarnation = known.map_or(1, |index| self.nodes[index].incarnation + 1);
        let name = NodeId::new(name).unwrap();
        let me = HolderId {
            node: name.clone(),
            boot: BootId(1),
            incarnation: Incarnation::new(incarnation).unwrap(),
        };
        let node = Node {
            holder: Holder::new(self.identity.clone(), self.rules.clone(), me),
            name,
            incarnation,
            beats: known.map_or(0, |index| self.nodes[index].beats),
            health: Health::Healthy,
            priority: known.map_or(0, |index| self.nodes[index].priority),
            alive: true,
            mute: false,
            deaf: false,
            held_back: None,
            hold_back: false,
            lagging: None,
        };
        match known {
            Some(index) => self.nodes[index] = node,
            None => self.nodes.push(node),
        }
    }

    fn start_seat(&mut self, index: usize) {
        while self.detectors.len() <= index {
            self.detectors.push(Detector { seat: None, starts: 0, away: None, granted: None });
        }
        let number = SeatNumber::new(index as u8 + 1).unwrap();
        let detector = &mut self.detectors[index];
        detector.starts += 1;
        detector.granted = None;
        let ceiling = Epoch(1_000 * (detector.starts - 1));
        let now = BootTime(self.now * 1_000_000);
        let seat = Seat::new(self.identity.clone(), self.rules.clone(), number, detector.starts, now);
        detector.seat = Some(seat);
        self.with_seat(index, |seat, now| seat.handle_ceiling(now, SLOT, ceiling));
    }

    /// R13: what is queued is taken in, then the timer.
    fn back(&mut self, index: usize) {
        let waiting = self.detectors[index].away.take().unwrap_or_default();
        for heartbeat in waiting {
            self.with_seat(index, |seat, now| seat.handle_heartbeat(now, &heartbeat));
        }
        self.with_seat(index, |seat, now| seat.handle_time(now));
        let now = self.at();
        if self.detectors[index].seat.as_ref().is_some_and(|seat| seat.standing(now) == Standing::Late) {
            self.say(&format!("seat {} was late", index + 1));
        }
    }

    fn give_up(&mut self, name: &str, to: Option<&str>) {
        let index = self.node(name);
        let successor = to.map(|to| NodeId::new(to).unwrap());
        let now = self.at();
        self.nodes[index].holder.give_up(now, SLOT, Why::Switchover, successor);
        self.drain_node(index);
    }

    fn with_seat(&mut self, index: usize, input: impl FnOnce(&mut Seat, BootTime)) {
        let now = self.at();
        if let Some(seat) = self.detectors[index].seat.as_mut() {
            input(seat, now);
            self.drain_seat(index);
        }
    }

    fn drain_seat(&mut self, index: usize) {
        while let Some(output) = self.detectors[index].seat.as_mut().and_then(Seat::poll_output) {
            let number = index + 1;
            match output {
                SeatOutput::Grant(grant) => {
                    let now = self.at();
                    let to = self.node(grant.holder.node.as_str());
                    if self.nodes[to].alive && !self.nodes[to].deaf {
                        if let Err(refused) = self.nodes[to].holder.handle_grant(now, &grant) {
                            self.say(&format!(
                                "{} refuses a grant of seat {number}: {refused:?}",
                                grant.holder.node
                            ));
                        }
                        self.drain_node(to);
                    }
                }
                SeatOutput::Revoke(revoke) => {
                    self.say(&format!(
                        "seat {number} asks {} to leave: {}",
                        revoke.holder.node, revoke.reason
                    ));
                    let to = self.node(revoke.holder.node.as_str());
                    let now = self.at();
                    let _ = self.nodes[to].holder.handle_revoke(now, &revoke);
                    self.drain_node(to);
                }
                SeatOutput::RaiseCeiling { slot, to } => {
                    self.say(&format!("seat {number} asks for the ceiling {to}"));
                    if self.store_up {
                        self.with_seat(index, |seat, now| seat.handle_ceiling(now, slot, to));
                    }
                }
                SeatOutput::Elected { holder, .. } => {
                    self.say(&format!(
                        "seat {number} grants to {} {}",
                        holder.node,
                        holder.incarnation.raw()
                    ));
                    self.detectors[index].granted = Some(holder.node);
                }
                SeatOutput::Vacant { highest, reason, .. } => {
                    self.say(&format!("seat {number} has nobody after epoch {highest}: {reason}"));
                }
            }
        }
    }

    fn drain_node(&mut self, index: usize) {
        let mut changed = false;
        while let Some(output) = self.nodes[index].holder.poll_output() {
            let name = self.nodes[index].name.clone();
            changed |= !matches!(output, HolderOutput::Renew { .. } | HolderOutput::Confirmed { .. });
            match output {
                HolderOutput::Claim { epoch, .. } => self.say(&format!("{name} claims epoch {epoch}")),
                HolderOutput::Take { epoch, until, .. } => {
                    let left = until.since(self.at()).as_millis();
                    self.say(&format!("{name} takes epoch {epoch} for {left} ms"));
                }
                HolderOutput::Renew { .. } => {}
                HolderOutput::Confirmed { epoch, .. } => {
                    self.say(&format!("{name} has epoch {epoch} confirmed"));
                }
                HolderOutput::Shut { epoch, why, .. } => {
                    self.say(&format!("{name} shuts epoch {epoch}: {why}"));
                    let now = self.at();
                    self.nodes[index].holder.gate_shut(now, SLOT);
                }
                HolderOutput::Release(release) => {
                    self.say(&format!("{name} releases"));
                    if self.nodes[index].hold_back {
                        self.nodes[index].held_back = Some(release);
                    }
                }
            }
        }
        if changed {
            self.beat(index);
        }
    }

    fn spread(&mut self, release: &Release) {
        for seat in 0..self.detectors.len() {
            self.with_seat(seat, |seat, now| seat.handle_release(now, release));
        }
    }

    fn beat(&mut self, index: usize) {
        let now = self.at();
        let node = &mut self.nodes[index];
        if !node.alive || node.mute {
            return;
        }
        node.beats += 1;
        let own = || (node.holder.claims(now), node.holder.releases());
        let (claims, releases) = node.lagging.clone().unwrap_or_else(own);
        let heartbeat = Heartbeat {
            cluster: self.identity.cluster.clone(),
            group: self.identity.group.clone(),
            node: node.name.clone(),
            boot: BootId(1),
            incarnation: Incarnation::new(node.incarnation),
            seq: node.beats,
            sent_at: now,
            health: node.health,
            standby: StandbyKind::Hot,
            ready: node.health == Health::Healthy,
            priority: node.priority,
            claims,
            known: node.holder.known(),
            releases: if node.held_back.is_some() { Vec::new() } else { releases },
            details: Default::default(),
        };
        for seat in 0..self.detectors.len() {
            match &mut self.detectors[seat].away {
                Some(waiting) => waiting.push(heartbeat.clone()),
                None => self.with_seat(seat, |seat, now| seat.handle_heartbeat(now, &heartbeat)),
            }
        }
    }
}

impl understudy_golden::Stage for Stage {
    /// Millisecond by millisecond up to `ms` after the start.
    fn advance(&mut self, ms: u64) {
        while self.now < 10_000 + ms {
            self.now += 1;
            let now = self.at();
            for index in 0..self.detectors.len() {
                let detector = &self.detectors[index];
                let due = detector.seat.as_ref().is_some_and(|seat| seat.next_deadline() <= now);
                if due && detector.away.is_none() {
                    self.with_seat(index, |seat, now| seat.handle_time(now));
                }
            }
            for index in 0..self.nodes.len() {
                let node = &mut self.nodes[index];
                if node.alive && node.holder.next_deadline().is_some_and(|due| due <= now) {
                    node.holder.handle_time(now);
                    self.drain_node(index);
                }
                let phase = u64::from(self.nodes[index].name.as_str().as_bytes()[0] - b'a') * 10;
                if self.now % 100 == phase {
                    self.beat(index);
                }
            }
        }
    }

    /// One line of a script.
    fn command(&mut self, line: &str) {
        self.say(&format!("> {line}"));
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["node", name] => self.start_node(name),
            ["seat", seat] => self.start_seat(Self::seat(seat)),
            ["crash", "seat", seat] => self.detectors[Self::seat(seat)].seat = None,
            ["away", seat] => self.detectors[Self::seat(seat)].away = Some(Vec::new()),
            ["back", seat] => self.back(Self::seat(seat)),
            ["rival", seat] => self.with_seat(Self::seat(seat), |seat, now| seat.handle_rival(now)),
            ["store", word] => self.store_up = word == "up",
            ["fenced", name] => {
                let node = NodeId::new(name).unwrap();
                (0..3).for_each(|seat| {
                    self.with_seat(seat, |seat, now| seat.handle_fenced(now, &node, BootId(1)));
                });
            }
            ["maintenance", name] => {
                let nodes = BTreeSet::from([NodeId::new(name).unwrap()]);
                (0..3).for_each(|seat| {
                    self.with_seat(seat, |seat, now| seat.handle_maintenance(now, nodes.clone()));
                });
            }
            ["size", open, seat] => {
                let open = open.parse().ok();
                self.with_seat(Self::seat(seat), |seat, now| seat.handle_size(now, open));
            }
            ["damped", name, seat] => {
                let nodes = BTreeSet::from([NodeId::new(name).unwrap()]);
                self.with_seat(Self::seat(seat), |seat, now| seat.handle_damped(now, nodes));
            }
            ["switchover", name] => self.give_up(name, None),
            ["switchover", name, to] => self.give_up(name, Some(to)),
            [word, name] => self.tell_node(word, name),
            _ => panic!("no such command: {line}"),
        }
    }

    fn into_trace(self) -> String {
        self.trace
    }
}
