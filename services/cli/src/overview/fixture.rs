//! Answers of detectors to build pictures from: three seats, web-a active with epoch 1017, web-b and web-c waiting.

use std::time::Duration;

use understudy_wire::v1::{
    Details, GroupStatus, Health, Holder, Judgement, NodeStatus, Presence, SlotEpoch, SlotStatus,
    StandbyKind, StatusReply,
};

use crate::session::Expected;

pub(crate) const EXPECTED: Expected =
    Expected { seats: 3, assumed: false, interval: Duration::from_millis(100) };

pub(crate) fn holder(node: &str) -> Holder {
    Holder { node: node.into(), boot: vec![7; 16], incarnation: 1 }
}

pub(crate) fn node(name: &str, claim: Option<u64>) -> NodeStatus {
    NodeStatus {
        node: name.into(),
        judgement: Judgement::Alive.into(),
        phi: 0.1,
        silent_ms: 34.0,
        health: Health::Healthy.into(),
        ready: true,
        standby: StandbyKind::Hot.into(),
        priority: 100,
        claims: claim.map(|epoch| SlotEpoch { slot: 0, epoch }).into_iter().collect(),
        details: Some(Details {
            phase: if claim.is_some() { "serving" } else { "standby" }.into(),
            ..Details::default()
        }),
        ..NodeStatus::default()
    }
}

pub(crate) fn answer(seat: u32, granted: Option<&str>) -> StatusReply {
    let slot = SlotStatus {
        slot: 0,
        granted: granted.map(holder),
        remaining_ms: if granted.is_some() { 250.0 } else { 0.0 },
        highest_epoch: 1017,
        vips: vec!["10.77.0.100".into()],
        names: vec!["web.ha.test.".into()],
    };
    StatusReply {
        presence: Some(Presence {
            cluster: "demo".into(),
            seat,
            incarnation: 40 + u64::from(seat),
            address: format!("10.77.0.2{seat}:7410"),
            late_nanos: 120_000,
            state: if seat == 0 { "observing" } else { "granting" }.into(),
        }),
        groups: vec![GroupStatus {
            group: "web".into(),
            active: 1,
            standby: 2,
            slots: vec![slot],
            nodes: vec![node("web-a", Some(1017)), node("web-b", None), node("web-c", None)],
        }],
    }
}

/// All three seats agree.
pub(crate) fn calm() -> Vec<StatusReply> {
    (1..=3).map(|seat| answer(seat, Some("web-a"))).collect()
}

/// Changes what every seat says of the node at `index`.
pub(crate) fn change(replies: &mut [StatusReply], index: usize, change: impl Fn(&mut NodeStatus)) {
    replies.iter_mut().for_each(|reply| change(&mut reply.groups[0].nodes[index]));
}
