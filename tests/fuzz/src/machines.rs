//! A live seat and a live holder, fed with messages from outside between those that they send each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use understudy_bus::{direct::FromNode, paths::FromSeat};
use understudy_lease::{Holder, HolderOutput, Identity, Refused, Rules, Seat, SeatOutput, Standing, Why};
use understudy_wire::{
    BootId, BootTime, ClusterId, Epoch, Grant, GroupId, Health, Heartbeat, Holder as HolderId, Incarnation,
    NodeId, Seat as SeatNumber, Slot, StandbyKind, v1,
};

use crate::{
    bytes::Bytes,
    lease_messages::{assert_grant, assert_heartbeat, assert_release, assert_revoke, checked, decoded},
};

const SLOTS: u16 = 2;
const LEASE: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(100);
const LEASE_MAX: Duration = Duration::from_millis(1_000);

/// Steps of one input: enough for several tenures, few enough that an input takes milliseconds.
const STEPS: usize = 256;

/// Epochs from outside that are this high are left out: those that follow them would reach the 2^62 from which on
/// nobody takes them (`Epoch::new`).
const NEAR_THE_END: u64 = (1 << 62) - 1_000_000;

struct World {
    now: BootTime,
    seat: Seat,
    holder: Holder,
    me: HolderId,
    seq: u64,
    /// Gates that are being shut.
    shutting: BTreeSet<Slot>,
    /// Highest epoch that the holder took, per slot.
    taken: BTreeMap<Slot, Epoch>,
    /// What the seat has sent and the holder has not got yet.
    granted: Vec<Grant>,
}

/// The bytes are a script: each step begins with a byte that says what it is.
pub(crate) fn lease(data: &[u8]) {
    let mut script = Bytes(data);
    let mut world = World::new(if script.byte().is_multiple_of(2) { 1 } else { 3 });
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        world.step(&mut script);
        world.assert_holds();
    }
}

fn node(name: u8) -> NodeId {
    let name = ["web-a", "web-b", "web-c"][usize::from(name) % 3];
    NodeId::new(name).expect("is a name")
}

impl World {
    /// `seats`: how many there are, the one here is the first.
    fn new(seats: u8) -> Self {
        let identity = Identity {
            cluster: ClusterId::new("demo").expect("is a name"),
            group: GroupId::new("web").expect("is a name"),
            slots: SLOTS,
        };
        let rules = Rules::new(seats, LEASE, INTERVAL, LEASE_MAX, 0.01);
        let me =
            HolderId { node: node(0), boot: BootId(7), incarnation: Incarnation::new(3).expect("is not 0") };
        let number = SeatNumber::new(1).expect("is not 0");
        let mut seat = Seat::new(identity.clone(), rules.clone(), number, 5, BootTime(0));
        let now = BootTime(0).after(LEASE_MAX);
        for slot in 0..SLOTS {
            seat.handle_ceiling(now, Slot(slot), Epoch(1_000));
        }
        let holder = Holder::new(identity, rules, me.clone());
        Self {
            now,
            seat,
            holder,
            me,
            seq: 0,
            shutting: BTreeSet::new(),
            taken: BTreeMap::new(),
            granted: Vec::new(),
        }
    }

    fn step(&mut self, script: &mut Bytes<'_>) {
        let slot = |raw: u8| Slot(u16::from(raw) % (SLOTS + 1));
        let kind = script.byte();
        match kind % 16 {
            0..=2 => self.pass_time(u64::from(script.byte())),
            3 => self.hear_node(script.piece()),
            4 => self.hear_seat(script.piece()),
            5..=7 => self.beat(kind),
            8 => self.deliver(),
            9 => self.shut_gates(),
            10 => self.holder.give_up(self.now, slot(script.byte()), Why::Switchover, Some(node(1))),
            11 => self.holder.set_willing(script.byte().is_multiple_of(2)),
            12 => self.seat.handle_rival(self.now),
            13 => self.seat.handle_maintenance(self.now, BTreeSet::from([node(script.byte())])),
            14 => self.seat.handle_fenced(self.now, &node(script.byte()), BootId(script.byte().into())),
            _ => {
                let ceiling = Epoch(u64::from(script.byte()) * 100);
                self.seat.handle_ceiling(self.now, slot(script.byte()), ceiling);
            }
        }
        self.take_outputs();
    }

    fn pass_time(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        self.holder.handle_time(self.now);
        self.seat.handle_time(self.now);
    }

    /// What the network brings the seat; what it refuses changes nothing.
    fn hear_node(&mut self, bytes: &[u8]) {
        let Some(message) = decoded("NodeMessage", bytes).and_then(checked::<v1::NodeMessage, _>) else {
            return;
        };
        self.seat.handle_time(self.now);
        self.take_outputs();
        let before = format!("{:?}", self.seat);
        let refused = match &message {
            FromNode::Heartbeat(heartbeat) => {
                let epochs = heartbeat.claims.iter().chain(&heartbeat.known);
                if epochs.clone().any(|claim| claim.epoch.0 >= NEAR_THE_END) {
                    return;
                }
                self.seat.handle_heartbeat(self.now, heartbeat);
                heartbeat.cluster.as_str() != "demo" || heartbeat.group.as_str() != "web"
            }
            FromNode::Release(release) => {
                self.seat.handle_release(self.now, release);
                release.cluster.as_str() != "demo" || release.group.as_str() != "web"
            }
        };
        if refused {
            assert_eq!(before, format!("{:?}", self.seat), "a foreign message changed the seat");
        }
    }

    /// What the network brings the holder.
    fn hear_seat(&mut self, bytes: &[u8]) {
        let Some(message) = decoded("SeatMessage", bytes).and_then(checked::<v1::SeatMessage, _>) else {
            return;
        };
        match message {
            FromSeat::Grant(grant)
                if grant.highest.max(grant.promised.unwrap_or_default()).0 >= NEAR_THE_END => {}
            FromSeat::Grant(grant) => self.grant(&grant),
            FromSeat::Revoke(revoke) => {
                self.refusing(|holder, now| holder.handle_revoke(now, &revoke));
            }
            FromSeat::Presence(_) => {}
        }
    }

    fn grant(&mut self, grant: &Grant) {
        self.refusing(|holder, now| holder.handle_grant(now, grant));
    }

    /// A message that the holder refuses changes nothing.
    fn refusing(&mut self, handle: impl FnOnce(&mut Holder, BootTime) -> Result<(), Refused>) {
        self.holder.handle_time(self.now);
        let before = format!("{:?}", self.holder);
        if handle(&mut self.holder, self.now).is_err() {
            assert_eq!(before, format!("{:?}", self.holder), "a refused message changed the holder");
        }
    }

    /// The node's own heartbeat, over the wire.
    fn beat(&mut self, kind: u8) {
        self.seq += 1;
        let heartbeat = Heartbeat {
            cluster: ClusterId::new("demo").expect("is a name"),
            group: GroupId::new("web").expect("is a name"),
            node: self.me.node.clone(),
            boot: self.me.boot,
            incarnation: Some(self.me.incarnation),
            seq: self.seq,
            sent_at: self.now,
            health: if kind < 128 { Health::Healthy } else { Health::Unhealthy },
            standby: StandbyKind::Hot,
            ready: true,
            priority: 100,
            claims: self.holder.claims(self.now),
            known: self.holder.known(),
            releases: self.holder.releases(),
            details: Vec::new(),
        };
        let raw = v1::Heartbeat::from(&heartbeat).encode_to_vec();
        let read = decoded("Heartbeat", &raw).and_then(checked::<v1::Heartbeat, Heartbeat>);
        let read = read.expect("every heartbeat of a holder is accepted");
        self.seat.handle_heartbeat(self.now, &read);
        assert_heartbeat(&heartbeat);
    }

    fn deliver(&mut self) {
        for grant in std::mem::take(&mut self.granted) {
            self.grant(&grant);
        }
    }

    fn shut_gates(&mut self) {
        for slot in std::mem::take(&mut self.shutting) {
            self.holder.gate_shut(self.now, slot);
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.seat.poll_output() {
            match output {
                SeatOutput::Grant(grant) => {
                    assert_ne!(self.seat.standing(self.now), Standing::Silent, "granted while silent");
                    assert_ne!(self.seat.standing(self.now), Standing::Conflict, "granted beside a rival");
                    assert_grant(&grant);
                    if grant.holder == self.me {
                        self.granted.push(grant);
                    }
                }
                SeatOutput::Revoke(revoke) => assert_revoke(&revoke),
                SeatOutput::RaiseCeiling { to, .. } => assert!(to.0 < 1 << 62, "a ceiling of {to}"),
                SeatOutput::Vacant { reason, .. } => assert!(!reason.is_empty()),
                SeatOutput::Elected { .. } => {}
            }
        }
        while let Some(output) = self.holder.poll_output() {
            match output {
                HolderOutput::Take { slot, epoch, until } => {
                    assert!(until > self.now, "a lease that has run out was taken");
                    assert!(self.taken.insert(slot, epoch) < Some(epoch), "epoch {epoch} is not new");
                }
                HolderOutput::Shut { slot, .. } => {
                    assert!(self.holder.held_until(self.now, slot).is_none(), "held and shut");
                    self.shutting.insert(slot);
                }
                HolderOutput::Release(release) => {
                    assert!(!self.shutting.contains(&release.slot), "released before the gate is shut (R8)");
                    assert_release(&release);
                }
                HolderOutput::Claim { slot, .. } => {
                    assert!(self.holder.held_until(self.now, slot).is_none(), "held before it is taken (R7)");
                }
                HolderOutput::Renew { .. } | HolderOutput::Confirmed { .. } => {}
            }
        }
    }

    fn assert_holds(&self) {
        let held: Vec<_> = (0..SLOTS)
            .filter_map(|slot| Some((Slot(slot), self.holder.held_until(self.now, Slot(slot))?)))
            .collect();
        assert!(held.len() <= 1, "a node serves one slot at most");
        for (slot, until) in held {
            assert!(
                until.since(self.now) <= LEASE_MAX,
                "slot {slot} is held for {:?}",
                until.since(self.now)
            );
            assert!(!self.shutting.contains(&slot), "slot {slot} is held while its gate is being shut");
        }
        assert!(self.holder.next_deadline().is_none_or(|due| due > self.now), "a deadline that has passed");
        for slot in (0..SLOTS).map(Slot) {
            let view = self.seat.view(self.now, slot).expect("the slot is there");
            let until = view.granted.map(|(_, until)| until.since(self.now));
            assert!(until.is_none_or(|left| left <= LEASE), "slot {slot} is granted for {until:?}");
        }
    }
}
