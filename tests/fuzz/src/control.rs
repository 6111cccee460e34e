//! What decides no lease: verdicts, commands and their answers, and what publisher and executor of one node tell each
//! other.

use prost::Message;
use understudy_heartbeat::witness::Witness;
use understudy_wire::{BootId, BootTime, Claim, GroupId, Holder, Incarnation, NodeId, SlotRelease, v1};

use crate::{
    bytes::Bytes,
    lease_messages::{checked, decoded},
    text::assert_name,
};

/// Reads a message of type `M` and makes sure that it means the same when it is sent on. By length and not byte by
/// byte, since maps have no order.
fn read<M: Message + Default>(what: &'static str, data: &[u8]) -> Option<M> {
    let message: M = decoded(what, data)?;
    let bytes = message.encode_to_vec();
    let again = M::decode(&*bytes).expect("what is sent can be decoded");
    assert_eq!(again.encoded_len(), bytes.len());
    Some(message)
}

/// `node.sock`, both directions: the first byte says which.
pub(crate) fn node_link(data: &[u8]) {
    let mut input = Bytes(data);
    if input.byte().is_multiple_of(2) {
        if let Some(state) = read::<v1::ExecutorState>("ExecutorState", input.0) {
            executor_state(&state);
        }
    } else if let Some(state) = read::<v1::PublisherState>("PublisherState", input.0) {
        // A value of a later version is no health at all.
        assert!(v1::Health::try_from(state.health).is_ok() || state.health() == v1::Health::Unspecified);
    }
}

fn executor_state(state: &v1::ExecutorState) {
    for claim in state.claims.iter().chain(&state.known) {
        checked::<_, Claim>(*claim);
    }
    for release in &state.releases {
        checked::<_, SlotRelease>(release.clone());
    }
    let Some(incarnation) = Incarnation::new(state.incarnation) else { return };
    let node = NodeId::new("web-a").expect("is a name");
    let holder = Holder { node, boot: BootId(7), incarnation };
    let now = BootTime(1_000_000_000);
    let lease = std::time::Duration::from_millis(300);
    let Some(witness) = Witness::of(holder.clone(), state, now, lease) else { return };
    assert!(!state.leaving, "a witness for an executor that left on purpose");
    assert!(!witness.slots.is_empty() && witness.slots.len() <= state.claims.len());
    assert_eq!(witness.holder, holder);
    assert_eq!(witness.deadline(now), Some(now));
    assert_eq!(witness.deadline(now.after(lease)), None, "proofs are tried for one lease");
}

/// A detector's judgement.
pub(crate) fn verdict(data: &[u8]) {
    read::<v1::Verdict>("Verdict", data);
}

/// Commands, answers and presence: the first byte says which.
pub(crate) fn command(data: &[u8]) {
    let mut input = Bytes(data);
    let kind = input.byte();
    let data = input.0;
    let group_and_node = |group: &str, node: &str| {
        GroupId::new(group).into_iter().for_each(|group| assert_name(group.as_str()));
        NodeId::new(node).into_iter().for_each(|node| assert_name(node.as_str()));
    };
    match kind % 10 {
        0 => read::<v1::SwitchoverRequest>("SwitchoverRequest", data)
            .iter()
            .for_each(|request| group_and_node(&request.group, &request.to)),
        1 => read::<v1::MaintenanceRequest>("MaintenanceRequest", data)
            .iter()
            .for_each(|request| group_and_node(&request.group, &request.node)),
        2 => read::<v1::Hello>("Hello", data)
            .iter()
            .for_each(|hello| group_and_node(&hello.group, &hello.node)),
        3 => drop(read::<v1::SwitchoverReply>("SwitchoverReply", data)),
        4 => drop(read::<v1::MaintenanceReply>("MaintenanceReply", data)),
        5 => drop(read::<v1::StatusReply>("StatusReply", data)),
        6 => drop(read::<v1::StatusRequest>("StatusRequest", data)),
        7 => drop(read::<v1::Presence>("Presence", data)),
        8 => read::<v1::ScalingRequest>("ScalingRequest", data)
            .iter()
            .for_each(|request| group_and_node(&request.group, "")),
        _ => drop(read::<v1::ScalingReply>("ScalingReply", data)),
    }
}
