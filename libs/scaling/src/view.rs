//! What the leader knows of the groups when it asks.

use std::{collections::BTreeMap, time::Duration};

use understudy_wire::{Epoch, GroupId, NodeId, Slot};

/// Seconds since 1970-01-01 00:00 UTC. Schedules and nothing else look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallClock(pub i64);

/// All groups at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Time of day; `None`: not trusted, so no schedule counts.
    pub wall: Option<WallClock>,
    /// Groups that are not in the rules are left alone.
    pub groups: BTreeMap<GroupId, GroupView>,
}

/// One group at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupView {
    /// Slots `0..open` are granted by the seats: N as it is stored.
    pub open: u16,
    /// Slots `0..serving` take new clients; those from `serving` to `open` are draining.
    pub serving: u16,
    /// What is known of slots: holder, epoch, connections.
    pub slots: BTreeMap<Slot, SlotView>,
    /// Every node that was heard and every instance that the driver lists, started or not: both, or a new leader
    /// would order again what is on its way.
    pub members: BTreeMap<NodeId, Member>,
    /// A takeover is under way. A slot in service without a holder counts as one by itself.
    pub failover: bool,
    /// The driver can restart an instance in place.
    pub can_restart: bool,
    /// What an operator has asked for.
    pub steering: Steering,
}

/// One slot at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotView {
    /// Who holds it.
    pub holder: Option<NodeId>,
    /// Highest epoch known.
    pub epoch: Epoch,
    /// Connections of clients that are still open; `None`: nobody counts them.
    pub connections: Option<u64>,
}

/// One member at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Member {
    /// How far it lives.
    pub life: Life,
    /// The driver lists it, so it can be restarted.
    pub managed: bool,
    /// The driver can remove it as things are.
    pub removable: bool,
    /// Its checks are up.
    pub healthy: bool,
    /// It could take a slot over now.
    pub ready: bool,
    /// An operator has taken it out.
    pub maintenance: bool,
    /// Incarnation of its executor as last heard; 0: never heard.
    pub incarnation: u64,
    /// Why it is not ready or not healthy, in its own words.
    pub reason: String,
    /// Failure domains.
    pub labels: BTreeMap<String, String>,
    /// Load signals by name: `cpu`, `memory`, `pressure_cpu`, `pressure_memory`, `pressure_io`, `in_flight`, or any
    /// name that its heartbeats carry.
    pub signals: BTreeMap<String, Sample>,
    /// Key of the order that made it, where the driver keeps it.
    pub key: Option<String>,
}

/// How far a member lives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Life {
    /// The driver lists it, no heartbeat yet.
    #[default]
    Starting,
    /// Its heartbeats come.
    Alive,
    /// A quorum of seats calls it failed, or the driver says that it has ended; with the cause, such as "image exits
    /// with 127".
    Failed(String),
}

/// One value of a load signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// In the signal's own unit; must be finite and not negative to count.
    pub value: f64,
    /// How old it is.
    pub age: Duration,
}

/// What an operator has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steering {
    /// Who paused the group: nothing is done at all.
    pub paused: Option<String>,
    /// N, whatever the load says; within `min` and `max`.
    pub pinned: Option<u16>,
    /// M in the place of the configured one.
    pub standby: Option<u16>,
    /// How often the repair budget was given anew; a rise empties the record of repairs.
    pub budgets_granted: u64,
}
