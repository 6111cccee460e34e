//! Lease messages from the wire, every field checked, and back.

use std::time::Duration;

use prost::Message;

use crate::{
    BootId, BootTime, ClusterId, Epoch, GroupId, Incarnation, InvalidName, NodeId, Seat, Slot,
    message::{Claim, Grant, Health, Heartbeat, Holder, Release, Revoke, SlotRelease, StandbyKind},
    v1,
};

/// Largest message taken from a network, bytes. A heartbeat with 64 checks is below 16 KiB.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most slots a message may name: far above any group, small enough that nothing can be bloated.
const MAX_SLOTS: usize = 1024;

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
    field(Epoch::new(raw), "epoch", "must be below 2^62")
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
        let (cluster, group) = (ClusterId::new(&raw.cluster)?, GroupId::new(&raw.group)?);
        let node = NodeId::new(&raw.node)?;
        Self::named(raw, cluster, group, node)
    }
}

impl Heartbeat {
    /// As [`Heartbeat::try_from`], but a name that is the one given is shared with it and not made anew.
    pub fn sharing(
        raw: v1::Heartbeat,
        cluster: &ClusterId,
        group: &GroupId,
        node: &NodeId,
    ) -> Result<Self, DecodeError> {
        let cluster =
            if raw.cluster == cluster.as_str() { cluster.clone() } else { ClusterId::new(&raw.cluster)? };
        let group = if raw.group == group.as_str() { group.clone() } else { GroupId::new(&raw.group)? };
        let node = if raw.node == node.as_str() { node.clone() } else { NodeId::new(&raw.node)? };
        Self::named(raw, cluster, group, node)
    }

    fn named(
        raw: v1::Heartbeat,
        cluster: ClusterId,
        group: GroupId,
        node: NodeId,
    ) -> Result<Self, DecodeError> {
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
            cluster,
            group,
            node,
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
            details: raw.details,
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
            details: heartbeat.details.clone(),
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
            promised: if raw.promised == 0 { None } else { Some(epoch(raw.promised)?) },
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
            promised: grant.promised.map_or(0, |epoch| epoch.0),
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
