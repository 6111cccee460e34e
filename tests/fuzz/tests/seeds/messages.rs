//! Protobuf messages.

use std::time::Duration;

use prost::Message;
use understudy_wire::{
    BootId, BootTime, Claim, ClusterId, Epoch, Grant, GroupId, Health, Heartbeat, Holder, Incarnation,
    NodeId, Release, Revoke, Seat, Slot, SlotRelease, StandbyKind,
    v1::{self, node_message, seat_message},
};

use crate::{Seed, piece};

fn cluster() -> ClusterId {
    ClusterId::new("demo").unwrap()
}

fn group() -> GroupId {
    GroupId::new("web").unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn holder(name: &str) -> Holder {
    Holder { node: node(name), boot: BootId(7), incarnation: Incarnation::new(3).unwrap() }
}

/// A standby that says no more than it must.
fn bare(name: &str, seq: u64) -> Heartbeat {
    Heartbeat {
        cluster: cluster(),
        group: group(),
        node: node(name),
        boot: BootId(7),
        incarnation: Incarnation::new(3),
        seq,
        sent_at: BootTime(seq * 100_000_000),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority: 100,
        claims: vec![],
        known: vec![],
        releases: vec![],
        details: Vec::new(),
    }
}

fn details() -> v1::Details {
    v1::Details {
        address: "10.77.0.41".into(),
        link_address: vec![2, 0, 0, 0, 0, 1],
        reason: "http: status 503, expected 200 to 399".into(),
        checks: vec![check()],
        load: Some(v1::Load { cpu: 0.5, memory: 0.25, pressure_cpu: Some(12.5), ..Default::default() }),
        sightings: vec![sighting()],
        // One: a map has no order.
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
        interval_nanos: 100_000_000,
        phase: "serving".into(),
        signals: [("queue".to_owned(), 12.5)].into(),
    }
}

fn check() -> v1::CheckResult {
    v1::CheckResult { name: "http".into(), up: false, reason: "status 503".into(), latency_nanos: 1_000_000 }
}

fn sighting() -> v1::Sighting {
    v1::Sighting { vip: "10.77.0.100".into(), link_address: vec![2, 0, 0, 0, 0, 2] }
}

fn full(name: &str, seq: u64) -> Heartbeat {
    Heartbeat {
        health: Health::Unhealthy,
        standby: StandbyKind::Warm,
        claims: vec![Claim { slot: Slot(0), epoch: Epoch(17) }],
        known: vec![Claim { slot: Slot(0), epoch: Epoch(17) }, Claim { slot: Slot(1), epoch: Epoch(4) }],
        releases: vec![SlotRelease { slot: Slot(1), at: BootTime(8), successor: Some(node("web-b")) }],
        details: details().encode_to_vec(),
        ..bare(name, seq)
    }
}

fn encoded(heartbeat: &Heartbeat) -> Vec<u8> {
    v1::Heartbeat::from(heartbeat).encode_to_vec()
}

pub(crate) fn heartbeats() -> Vec<Seed> {
    let mut dead = bare("web-c", 9);
    dead.incarnation = None;
    let mut dotted = v1::Heartbeat::from(&bare("web-a", 1));
    dotted.node = "web.a".into();
    vec![
        ("bare", encoded(&bare("web-b", 1))),
        ("full", encoded(&full("web-a", 1))),
        ("no-executor", encoded(&dead)),
        ("bad-name", dotted.encode_to_vec()),
    ]
}

fn release(successor: Option<NodeId>) -> Release {
    let at = BootTime(1_500_000_000);
    Release { cluster: cluster(), group: group(), slot: Slot(0), holder: holder("web-a"), at, successor }
}

pub(crate) fn releases() -> Vec<Seed> {
    let encoded = |release: &Release| v1::Release::from(release).encode_to_vec();
    vec![
        ("for-anybody", encoded(&release(None))),
        ("for-a-successor", encoded(&release(Some(node("web-b"))))),
    ]
}

fn grant(echo: u64, claimed: Option<Epoch>) -> Grant {
    Grant {
        cluster: cluster(),
        group: group(),
        seat: Seat::new(1).unwrap(),
        detector: 5,
        slot: Slot(0),
        holder: holder("web-a"),
        echo: BootTime(echo),
        lease: Duration::from_millis(300),
        highest: Epoch(16),
        claimed,
        promised: None,
    }
}

fn revoke() -> Revoke {
    let Grant { cluster, group, seat, detector, slot, holder, echo, .. } = grant(1_000_000_000, None);
    Revoke { cluster, group, seat, detector, slot, holder, echo, reason: "the workload is unhealthy".into() }
}

fn presence() -> v1::Presence {
    v1::Presence {
        cluster: "demo".into(),
        seat: 1,
        incarnation: 5,
        address: "10.77.0.21:7410".into(),
        late_nanos: 1_000_000,
        state: "granting".into(),
    }
}

fn from_seat(message: seat_message::Message) -> Vec<u8> {
    v1::SeatMessage { message: Some(message) }.encode_to_vec()
}

fn from_node(message: node_message::Message) -> Vec<u8> {
    v1::NodeMessage { message: Some(message) }.encode_to_vec()
}

pub(crate) fn seat_messages() -> Vec<Seed> {
    let promise = Grant { promised: Some(Epoch(18)), ..grant(1_000_000_000, None) };
    vec![
        ("grant", from_seat(seat_message::Message::Grant((&grant(1_000_000_000, None)).into()))),
        ("promise", from_seat(seat_message::Message::Grant((&promise).into()))),
        ("claimed", from_seat(seat_message::Message::Grant((&grant(1_000_000_000, Some(Epoch(17)))).into()))),
        ("revoke", from_seat(seat_message::Message::Revoke((&revoke()).into()))),
        ("presence", from_seat(seat_message::Message::Presence(presence()))),
    ]
}

fn hello() -> v1::Hello {
    v1::Hello { cluster: "demo".into(), group: "web".into(), node: "web-a".into(), grants: true }
}

pub(crate) fn node_messages() -> Vec<Seed> {
    vec![
        ("hello", from_node(node_message::Message::Hello(hello()))),
        ("heartbeat", from_node(node_message::Message::Heartbeat((&full("web-a", 12)).into()))),
        ("release", from_node(node_message::Message::Release((&release(None)).into()))),
    ]
}

/// Scripts of the target `lease`: its steps are listed in `World::step`.
pub(crate) fn scripts() -> Vec<Seed> {
    const ONE_SEAT: u8 = 0;
    const THREE_SEATS: u8 = 1;
    let tenure = [5, 8, 5, 8, 0, 50, 5, 8, 0, 50, 5, 8];
    let give_up = [10, 0, 9, 5, 0, 20, 5, 8];
    let run_out = [0, 255, 0, 255, 9, 5];
    let script = |parts: &[&[u8]]| parts.concat();
    let to_seat = |message| script(&[&[3], &piece(&from_node(message))]);
    let to_holder = |message| script(&[&[4], &piece(&from_seat(message))]);
    let heartbeat = to_seat(node_message::Message::Heartbeat((&bare("web-b", 10)).into()));
    let claim = to_seat(node_message::Message::Heartbeat((&full("web-b", 11)).into()));
    let released = to_seat(node_message::Message::Release((&release(None)).into()));
    let vote = to_holder(seat_message::Message::Grant((&grant(1_000_000_000, None)).into()));
    let other = Grant { seat: Seat::new(2).unwrap(), ..grant(1_000_000_000, Some(Epoch(17))) };
    let other = to_holder(seat_message::Message::Grant((&other).into()));
    let revoked = to_holder(seat_message::Message::Revoke((&revoke()).into()));
    vec![
        ("tenure", script(&[&[ONE_SEAT], &tenure, &give_up, &tenure, &run_out, &tenure])),
        ("rival", script(&[&[ONE_SEAT], &tenure, &[12, 0, 255], &tenure])),
        ("fenced", script(&[&[ONE_SEAT], &tenure, &[14, 0, 7, 13, 0], &tenure])),
        ("votes", script(&[&[THREE_SEATS], &vote, &other, &[5], &revoked, &[9, 5]])),
        ("strangers", script(&[&[ONE_SEAT], &heartbeat, &tenure, &claim, &released, &tenure])),
    ]
}

pub(crate) fn node_link() -> Vec<Seed> {
    let state = v1::ExecutorState {
        incarnation: 3,
        ready: true,
        phase: "serving".into(),
        claims: vec![v1::SlotEpoch { slot: 0, epoch: 17 }],
        known: vec![v1::SlotEpoch { slot: 1, epoch: 4 }],
        releases: vec![v1::SlotRelease { slot: 1, at: 8, successor: "web-b".into() }],
        sightings: vec![sighting()],
        address: "10.77.0.41".into(),
        link_address: vec![2, 0, 0, 0, 0, 1],
        guards: vec![v1::Guard { address: "10.77.0.100".into(), ..Default::default() }],
        ..Default::default()
    };
    let port = v1::Guard { address: "10.77.0.41".into(), protocol: "tcp".into(), port: 80 };
    let ports = v1::ExecutorState { guards: vec![port], ..state.clone() };
    let leaving = v1::ExecutorState { leaving: true, reason: "leaving".into(), ..state.clone() };
    let publisher = v1::PublisherState { health: v1::Health::Healthy.into(), checks: vec![check()] };
    let executor = |state: &v1::ExecutorState| [&[0][..], &state.encode_to_vec()].concat();
    vec![
        ("serving", executor(&state)),
        ("ports", executor(&ports)),
        ("leaving", executor(&leaving)),
        ("publisher", [&[1][..], &publisher.encode_to_vec()].concat()),
    ]
}

pub(crate) fn verdicts() -> Vec<Seed> {
    let verdict = v1::Verdict {
        cluster: "demo".into(),
        group: "web".into(),
        node: "web-a".into(),
        seat: 1,
        detector_incarnation: 5,
        judgement: v1::Judgement::Suspect.into(),
        phi: 8.5,
        silent_ms: 250.0,
        reason: "silent".into(),
        claims: vec![v1::SlotEpoch { slot: 0, epoch: 7 }],
    };
    vec![("suspect", verdict.encode_to_vec())]
}

pub(crate) fn commands() -> Vec<Seed> {
    let command = |kind: u8, message: Vec<u8>| [&[kind][..], &message].concat();
    let (group, node) = ("web".to_owned(), "web-a".to_owned());
    let switchover = v1::SwitchoverRequest {
        group: group.clone(),
        to: "web-b".into(),
        request: "1".into(),
        ..Default::default()
    };
    let maintenance =
        v1::MaintenanceRequest { group: group.clone(), node: node.clone(), on: true, by: "ops".into() };
    let switched =
        v1::SwitchoverReply { reason: "no ready standby".into(), from: node.clone(), ..Default::default() };
    let stored = v1::MaintenanceReply { stored: true, ..Default::default() };
    let slot = v1::SlotStatus {
        granted: Some((&holder("web-a")).into()),
        remaining_ms: 250.0,
        highest_epoch: 17,
        vips: vec!["10.77.0.100".into()],
        names: vec!["web.ha.test.".into()],
        ..Default::default()
    };
    let nodes = vec![v1::NodeStatus { node, phi: 0.5, details: Some(details()), ..Default::default() }];
    let groups = vec![v1::GroupStatus { group, active: 1, standby: 1, slots: vec![slot], nodes }];
    let scale = |request: &str, steer| v1::ScalingRequest {
        group: "web".into(),
        by: "ops".into(),
        request: request.into(),
        steer: Some(steer),
    };
    let size = v1::ScalingSize { active: Some(3), standby: Some(2) };
    let scaled = v1::ScalingReply { accepted: true, ..Default::default() };
    vec![
        ("scale", command(8, scale("1", v1::scaling_request::Steer::Size(size)).encode_to_vec())),
        ("pause", command(8, scale("2", v1::scaling_request::Steer::Pause(true)).encode_to_vec())),
        ("scaled", command(9, scaled.encode_to_vec())),
        ("switchover", command(0, switchover.encode_to_vec())),
        ("maintenance", command(1, maintenance.encode_to_vec())),
        ("hello", command(2, hello().encode_to_vec())),
        ("switched", command(3, switched.encode_to_vec())),
        ("stored", command(4, stored.encode_to_vec())),
        ("status", command(5, v1::StatusReply { presence: Some(presence()), groups }.encode_to_vec())),
        ("ask", command(6, v1::StatusRequest {}.encode_to_vec())),
        ("presence", command(7, presence().encode_to_vec())),
    ]
}
