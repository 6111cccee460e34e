//! The messages that leases are made of, as they come from NATS and from direct streams.

use std::fmt::Debug;

use prost::Message;
use understudy_bus::{direct::FromNode, paths::FromSeat};
use understudy_wire::{
    Claim, DecodeError, Epoch, Grant, Heartbeat, Holder, MAX_MESSAGE, Release, Revoke, Slot, decode, v1,
};

use crate::text::{assert_name, assert_says};

/// What `understudy_wire` promises of every slot and epoch: they are below these.
const SLOTS: u16 = 1_024;
const EPOCHS: u64 = 1 << 62;

/// A decoded message, or nothing after a look at its error.
pub(crate) fn decoded<M: Message + Default>(what: &'static str, data: &[u8]) -> Option<M> {
    match decode(what, data) {
        Ok(message) => {
            assert!(data.len() <= MAX_MESSAGE, "{} bytes were read", data.len());
            Some(message)
        }
        Err(error) => {
            assert_says(&error, &[what, "message of"]);
            None
        }
    }
}

/// The same after its fields were checked.
pub(crate) fn checked<R, C>(raw: R) -> Option<C>
where
    C: TryFrom<R, Error = DecodeError>,
{
    C::try_from(raw)
        .map_err(|error| assert_says(&error, &["field ", "cluster name", "group name", "node name"]))
        .ok()
}

/// What was accepted means the same to the next one who reads it.
fn assert_reads_back<R, C>(accepted: &C)
where
    R: Message + Default + for<'a> From<&'a C>,
    C: TryFrom<R, Error = DecodeError> + PartialEq + Debug,
{
    let bytes = R::from(accepted).encode_to_vec();
    let raw = R::decode(&*bytes).expect("what is sent can be decoded");
    assert_eq!(C::try_from(raw).as_ref(), Ok(accepted), "what is sent is what was meant");
}

fn assert_slot(slot: Slot) {
    assert!(slot.0 < SLOTS, "slot {slot} was accepted");
}

fn assert_epoch(epoch: Epoch) {
    assert!(epoch.0 < EPOCHS, "epoch {epoch} was accepted");
}

fn assert_claims(claims: &[Claim]) {
    assert!(claims.len() <= usize::from(SLOTS), "{} claims were accepted", claims.len());
    for claim in claims {
        assert_slot(claim.slot);
        assert_epoch(claim.epoch);
        assert!(claim.epoch > Epoch(0), "an epoch of 0 was claimed");
    }
}

fn assert_holder(holder: &Holder) {
    assert_name(holder.node.as_str());
}

pub(crate) fn assert_heartbeat(heartbeat: &Heartbeat) {
    assert_name(heartbeat.cluster.as_str());
    assert_name(heartbeat.group.as_str());
    assert_name(heartbeat.node.as_str());
    assert_claims(&heartbeat.claims);
    assert_claims(&heartbeat.known);
    for release in &heartbeat.releases {
        assert_slot(release.slot);
        if let Some(successor) = &release.successor {
            assert_name(successor.as_str());
        }
    }
    // Its details travel unread, whatever they are: whoever reads them takes what does not decode for none.
    let _ = heartbeat.details();
    assert_reads_back::<v1::Heartbeat, _>(heartbeat);
}

pub(crate) fn assert_release(release: &Release) {
    assert_name(release.cluster.as_str());
    assert_name(release.group.as_str());
    assert_slot(release.slot);
    assert_holder(&release.holder);
    assert_reads_back::<v1::Release, _>(release);
}

pub(crate) fn assert_grant(grant: &Grant) {
    assert_name(grant.cluster.as_str());
    assert_name(grant.group.as_str());
    assert_slot(grant.slot);
    assert_holder(&grant.holder);
    assert_epoch(grant.highest);
    grant.claimed.into_iter().chain(grant.promised).for_each(assert_epoch);
    assert_reads_back::<v1::Grant, _>(grant);
}

pub(crate) fn assert_revoke(revoke: &Revoke) {
    assert_name(revoke.cluster.as_str());
    assert_name(revoke.group.as_str());
    assert_slot(revoke.slot);
    assert_holder(&revoke.holder);
    assert_reads_back::<v1::Revoke, _>(revoke);
}

/// A heartbeat over NATS.
pub(crate) fn heartbeat(data: &[u8]) {
    decoded::<v1::Heartbeat>("Heartbeat", data)
        .and_then(checked)
        .into_iter()
        .for_each(|heartbeat: Heartbeat| assert_heartbeat(&heartbeat));
}

/// A release over NATS.
pub(crate) fn release(data: &[u8]) {
    decoded::<v1::Release>("Release", data).and_then(checked).iter().for_each(assert_release);
}

/// What a detector says to a node, over either path.
pub(crate) fn seat_message(data: &[u8]) {
    let Some(raw) = decoded::<v1::SeatMessage>("SeatMessage", data) else { return };
    match checked(raw) {
        Some(FromSeat::Grant(grant)) => assert_grant(&grant),
        Some(FromSeat::Revoke(revoke)) => assert_revoke(&revoke),
        Some(FromSeat::Presence(_)) | None => {}
    }
}

/// What a node says to a detector on a direct stream.
pub(crate) fn node_message(data: &[u8]) {
    let Some(raw) = decoded::<v1::NodeMessage>("NodeMessage", data) else { return };
    match checked(raw) {
        Some(FromNode::Heartbeat(heartbeat)) => assert_heartbeat(&heartbeat),
        Some(FromNode::Release(release)) => assert_release(&release),
        None => {}
    }
}
