//! The four lease messages after every field was checked.

use std::time::Duration;

use prost::Message;

use crate::{BootId, BootTime, ClusterId, Epoch, GroupId, Incarnation, InvalidName, NodeId, Seat, Slot, v1};

/// Largest message taken from a network, bytes. A heartbeat with 64 checks is below 16 KiB.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most slots a message may name: far above any group, small enough that nothing can be bloated.
const MAX_SLOTS: usize = 1024;
/// Highest epoch taken from a network: a forged one must not bring the counter near its end.
const MAX_EPOCH: u64 = 1 << 62;

/// Why bytes from outside were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {0} bytes: at most {MAX_MESSAGE} are taken")]
    TooLarge(usize),
    /// Not the protobuf type it should be.
    #[error("not a valid {what}")]
    Malformed {
        /// Protobuf type.
        what: &'static str,
        /// What the decoder said.
        #[source]
        cause: prost::DecodeError,
    },
    /// A name that breaks the rules for names.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A field that is missing or out of range.
    #[error("field {field}: {why}")]
    Field {
        /// Field name as in the proto file.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// Decodes one protobuf message of at most [`MAX_MESSAGE`] bytes.
pub fn decode<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    M::decode(bytes).map_err(|cause| DecodeError::Malformed { what, cause })
}

fn field<T>(value: Option<T>, field: &'static str, why: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Field { field, why })
}

fn boot(bytes: &[u8]) -> Result<BootId, DecodeError> {
    let bytes: Option<[u8; 16]> = bytes.try_into().ok();
    Ok(BootId(u128::from_be_bytes(field(bytes, "boot", "must have 16 bytes")?)))
}

fn slot(raw: u32) -> Result<Slot, DecodeError> {
    let slot = u16::try_from(raw).ok().filter(|slot| usize::from(*slot) < MAX_SLOTS);
    Ok(Slot(field(slot, "slot", "must be below 1024")?))
}

fn seat(raw: u32) -> Result<Seat, DecodeError> {
    field(u8::try_from(raw).ok().and_then(Seat::new), "seat", "must be 1 to 255")
}

/// How the workload of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every check is up.
    Healthy,
    /// A check is down.
    Unhealthy,
    /// Being started or promoted: not judged yet.
    Starting,
}

/// What a standby needs before it can serve. Ordered: the quicker one first (rule R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StandbyKind {
    /// Runs and is ready.
    Hot,
    /// Runs and must be promoted.
    Warm,
    /// Must be started.
    Cold,
}

/// A slot and an epoch of it: held, or known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The slot.
    pub slot: Slot,
    /// The epoch, never 0 in a claim.
    pub epoch: Epoch,
}

/// A release that a heartbeat repeats (rule R8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRelease {
    /// The slot given up.
    pub slot: Slot,
    /// When, by the node's clock; its gate was proved shut before.
    pub at: BootTime,
    /// Who should follow, if the operator named one.
    pub successor: Option<NodeId>,
}

/// Who exactly holds or bids: a node, since its boot, with this executor process (rule R2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Its executor process.
    pub incarnation: Incarnation,
}

/// A node's heartbeat and bid (rule R1).
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// Deployment it belongs to.
    pub cluster: ClusterId,
    /// Group of the node.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Executor behind it; `None`: no bid.
    pub incarnation: Option<Incarnation>,
    /// Rises with every heartbeat of a boot.
    pub seq: u64,
    /// The node's clock when it was made.
    pub sent_at: BootTime,
    /// Health of the workload.
    pub health: Health,
    /// What the node needs before it can serve.
    pub standby: StandbyKind,
    /// Whether it could take a slot over now.
    pub ready: bool,
    /// Higher is preferred.
    pub priority: i32,
    /// Slots it holds.
    pub claims: Vec<Claim>,
    /// Highest epochs it knows.
    pub known: Vec<Claim>,
    /// Recent releases.
    pub releases: Vec<SlotRelease>,
    /// What no lease rule looks at.
    pub details: v1::Details,
}

impl Heartbeat {
    /// The holder that this heartbeat bids for, if an executor stands behind it.
    pub fn bidder(&self) -> Option<Holder> {
        let incarnation = self.incarnation?;
        Some(Holder { node: self.node.clone(), boot: self.boot, incarnation })
    }

    /// Epoch under which the node claims `slot`.
    pub fn claim(&self, slot: Slot) -> Option<Epoch> {
        self.claims.iter().find(|claim| claim.slot == slot).map(|claim| claim.epoch)
    }
}

/// One seat's vote (rule R2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Who votes.
    pub seat: Seat,
    /// Process behind the seat.
    pub detector: u64,
    /// For which slot.
    pub slot: Slot,
    /// For whom.
    pub holder: Holder,
    /// `sent_at` of the heartbeat answered.
    pub echo: BootTime,
    /// Length of the lease, T.
    pub lease: Duration,
    /// Highest epoch the seat knows.
    pub highest: Epoch,
    /// Epoch that the answered heartbeat claimed (rule R7).
    pub claimed: Option<Epoch>,
}

/// A seat asks a holder to shut its gate and release (rule R10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Who asks.
    pub seat: Seat,
    /// Process behind the seat.
    pub detector: u64,
    /// For which slot.
    pub slot: Slot,
    /// From whom.
    pub holder: Holder,
    /// `sent_at` of the heartbeat that is the cause.
    pub echo: BootTime,
    /// Why, for people.
    pub reason: String,
}

/// A slot given up, its gate proved shut (rule R8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Which slot.
    pub slot: Slot,
    /// By whom: grants to anyone else stay.
    pub holder: Holder,
    /// When, by the node's clock: grants with a later echo stay.
    pub at: BootTime,
    /// Who should follow, if the operator named one.
    pub successor: Option<NodeId>,
}

fn optional_node(name: &str) -> Result<Option<NodeId>, InvalidName> {
    if name.is_empty() { Ok(None) } else { NodeId::new(name).map(Some) }
}

fn claims(raw: Vec<v1::SlotEpoch>) -> Result<Vec<Claim>, DecodeError> {
    if raw.len() > MAX_SLOTS {
        return Err(DecodeError::Field { field: "claims", why: "more than 1024 slots" });
    }
    raw.into_iter().map(TryInto::try_into).collect()
}

fn epoch(raw: u64) -> Result<Epoch, DecodeError> {
    Ok(Epoch(field((raw < MAX_EPOCH).then_some(raw), "epoch", "must be below 2^62")?))
}

fn raw_claims(claims: &[Claim]) -> Vec<v1::SlotEpoch> {
    claims.iter().map(|claim| v1::SlotEpoch { slot: claim.slot.0.into(), epoch: claim.epoch.0 }).collect()
}

impl TryFrom<v1::SlotRelease> for SlotRelease {
    type Error = DecodeError;

    fn try_from(raw: v1::SlotRelease) -> Result<Self, DecodeError> {
        let successor = optional_node(&raw.successor)?;
        Ok(Self { slot: slot(raw.slot)?, at: BootTime(raw.at), successor })
    }
}

impl From<&SlotRelease> for v1::SlotRelease {
    fn from(release: &SlotRelease) -> Self {
        let successor = release.successor.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { slot: release.slot.0.into(), at: release.at.0, successor }
    }
}

impl TryFrom<v1::SlotEpoch> for Claim {
    type Error = DecodeError;

    fn try_from(raw: v1::SlotEpoch) -> Result<Self, DecodeError> {
        field((raw.epoch != 0).then_some(()), "epoch", "must not be 0")?;
        Ok(Self { slot: slot(raw.slot)?, epoch: epoch(raw.epoch)? })
    }
}

impl TryFrom<v1::Holder> for Holder {
    type Error = DecodeError;

    fn try_from(raw: v1::Holder) -> Result<Self, DecodeError> {
        let incarnation = field(Incarnation::new(raw.incarnation), "incarnation", "must not be 0")?;
        Ok(Self { node: NodeId::new(&raw.node)?, boot: boot(&raw.boot)?, incarnation })
    }
}

impl From<&Holder> for v1::Holder {
    fn from(holder: &Holder) -> Self {
        Self {
            node: holder.node.to_string(),
            boot: holder.boot.0.to_be_bytes().to_vec(),
            incarnation: holder.incarnation.raw(),
        }
    }
}

impl TryFrom<v1::Heartbeat> for Heartbeat {
    type Error = DecodeError;

    fn try_from(raw: v1::Heartbeat) -> Result<Self, DecodeError> {
        let health = match raw.health() {
            v1::Health::Healthy => Some(Health::Healthy),
            v1::Health::Unhealthy => Some(Health::Unhealthy),
            v1::Health::Starting => Some(Health::Starting),
            v1::Health::Unspecified => None,
        };
        let standby = match raw.standby() {
            v1::StandbyKind::Hot => Some(StandbyKind::Hot),
            v1::StandbyKind::Warm => Some(StandbyKind::Warm),
            v1::StandbyKind::Cold => Some(StandbyKind::Cold),
            v1::StandbyKind::Unspecified => None,
        };
        if raw.releases.len() > MAX_SLOTS {
            return Err(DecodeError::Field { field: "releases", why: "more than 1024 slots" });
        }
        Ok(Self {
            cluster: ClusterId::new(&raw.cluster)?,
            group: GroupId::new(&raw.group)?,
            node: NodeId::new(&raw.node)?,
            boot: boot(&raw.boot)?,
            incarnation: Incarnation::new(raw.incarnation),
            seq: raw.seq,
            sent_at: BootTime(raw.sent_at),
            health: field(health, "health", "must be a known value")?,
            standby: field(standby, "standby", "must be a known value")?,
            ready: raw.ready,
            priority: raw.priority,
            claims: claims(raw.claims)?,
            known: claims(raw.known)?,
            releases: raw.releases.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            details: raw.details.unwrap_or_default(),
        })
    }
}

impl From<&Heartbeat> for v1::Heartbeat {
    fn from(heartbeat: &Heartbeat) -> Self {
        Self {
            cluster: heartbeat.cluster.to_string(),
            group: heartbeat.group.to_string(),
            node: heartbeat.node.to_string(),
            boot: heartbeat.boot.0.to_be_bytes().to_vec(),
            incarnation: heartbeat.incarnation.map_or(0, Incarnation::raw),
            seq: heartbeat.seq,
            sent_at: heartbeat.sent_at.0,
            health: v1::Health::from(heartbeat.health).into(),
            standby: v1::StandbyKind::from(heartbeat.standby).into(),
            ready: heartbeat.ready,
            priority: heartbeat.priority,
            claims: raw_claims(&heartbeat.claims),
            known: raw_claims(&heartbeat.known),
            releases: heartbeat.releases.iter().map(Into::into).collect(),
            details: Some(heartbeat.details.clone()),
        }
    }
}

impl From<Health> for v1::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => Self::Healthy,
            Health::Unhealthy => Self::Unhealthy,
            Health::Starting => Self::Starting,
        }
    }
}

impl From<StandbyKind> for v1::StandbyKind {
    fn from(kind: StandbyKind) -> Self {
        match kind {
            StandbyKind::Hot => Self::Hot,
            StandbyKind::Warm => Self::Warm,
            StandbyKind::Cold => Self::Cold,
        }
    }
}

impl TryFrom<v1::Grant> for Grant {
    type Error = DecodeError;

    fn try_from(raw: v1::Grant) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: ClusterId::new(&raw.cluster)?,
            group: GroupId::new(&raw.group)?,
            seat: seat(raw.seat)?,
            detector: raw.detector_incarnation,
            slot: slot(raw.slot)?,
            holder: field(raw.holder, "holder", "is missing")?.try_into()?,
            echo: BootTime(raw.echo),
            lease: Duration::from_nanos(raw.lease_nanos),
            highest: epoch(raw.highest)?,
            claimed: if raw.claimed == 0 { None } else { Some(epoch(raw.claimed)?) },
        })
    }
}

impl From<&Grant> for v1::Grant {
    fn from(grant: &Grant) -> Self {
        Self {
            cluster: grant.cluster.to_string(),
            group: grant.group.to_string(),
            seat: grant.seat.raw().into(),
            detector_incarnation: grant.detector,
            slot: grant.slot.0.into(),
            holder: Some((&grant.holder).into()),
            echo: grant.echo.0,
            lease_nanos: u64::try_from(grant.lease.as_nanos()).unwrap_or(u64::MAX),
            highest: grant.highest.0,
            claimed: grant.claimed.map_or(0, |epoch| epoch.0),
        }
    }
}

impl TryFrom<v1::Revoke> for Revoke {
    type Error = DecodeError;

    fn try_from(raw: v1::Revoke) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: ClusterId::new(&raw.cluster)?,
            group: GroupId::new(&raw.group)?,
            seat: seat(raw.seat)?,
            detector: raw.detector_incarnation,
            slot: slot(raw.slot)?,
            holder: field(raw.holder, "holder", "is missing")?.try_into()?,
            echo: BootTime(raw.echo),
            reason: raw.reason,
        })
    }
}

impl From<&Revoke> for v1::Revoke {
    fn from(revoke: &Revoke) -> Self {
        Self {
            cluster: revoke.cluster.to_string(),
            group: revoke.group.to_string(),
            seat: revoke.seat.raw().into(),
            detector_incarnation: revoke.detector,
            slot: revoke.slot.0.into(),
            holder: Some((&revoke.holder).into()),
            echo: revoke.echo.0,
            reason: revoke.reason.clone(),
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = DecodeError;

    fn try_from(raw: v1::Release) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: ClusterId::new(&raw.cluster)?,
            group: GroupId::new(&raw.group)?,
            slot: slot(raw.slot)?,
            holder: field(raw.holder, "holder", "is missing")?.try_into()?,
            at: BootTime(raw.at),
            successor: optional_node(&raw.successor)?,
        })
    }
}

impl From<&Release> for v1::Release {
    fn from(release: &Release) -> Self {
        Self {
            cluster: release.cluster.to_string(),
            group: release.group.to_string(),
            slot: release.slot.0.into(),
            holder: Some((&release.holder).into()),
            at: release.at.0,
            successor: release.successor.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}
