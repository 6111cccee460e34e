//! Services one version apart understand each other: what a newer one adds is passed over, what an older one does not
//! send yet has a meaning.

use prost::{Message as _, encoding};
use serde_json::{Value, json};
use understudy_wire::{Grant, Heartbeat, Release, Revoke, decode, event::EventBody, v1};

/// A number, a text and a message in fields that no version has had.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    encoding::uint64::encode(1_000, &7, &mut bytes);
    encoding::string::encode(1_001, &"of a later version".to_owned(), &mut bytes);
    let inner = v1::SlotEpoch { slot: 3, epoch: 4 };
    encoding::message::encode(1_002, &inner, &mut bytes);
    bytes
}

fn holder() -> v1::Holder {
    v1::Holder { node: "web-a".into(), boot: vec![7; 16], incarnation: 3 }
}

fn heartbeat() -> v1::Heartbeat {
    v1::Heartbeat {
        cluster: "demo".into(),
        group: "web".into(),
        node: "web-a".into(),
        boot: vec![7; 16],
        incarnation: 3,
        seq: 9,
        sent_at: 1_000,
        health: v1::Health::Healthy.into(),
        standby: v1::StandbyKind::Hot.into(),
        ready: true,
        priority: 100,
        claims: vec![v1::SlotEpoch { slot: 0, epoch: 17 }],
        known: vec![v1::SlotEpoch { slot: 1, epoch: 4 }],
        releases: vec![v1::SlotRelease { slot: 1, at: 8, successor: "web-b".into() }],
        details: v1::Details { address: "10.0.0.1".into(), ..Default::default() }.encode_to_vec(),
    }
}

fn grant() -> v1::Grant {
    v1::Grant {
        cluster: "demo".into(),
        group: "web".into(),
        seat: 2,
        detector_incarnation: 5,
        slot: 1,
        holder: Some(holder()),
        echo: 4,
        lease_nanos: 300_000_000,
        highest: 6,
        claimed: 5,
        promised: 7,
    }
}

fn release() -> v1::Release {
    v1::Release {
        cluster: "demo".into(),
        group: "web".into(),
        slot: 1,
        holder: Some(holder()),
        at: 4,
        successor: "web-b".into(),
    }
}

fn revoke() -> v1::Revoke {
    v1::Revoke {
        cluster: "demo".into(),
        group: "web".into(),
        seat: 2,
        detector_incarnation: 5,
        slot: 1,
        holder: Some(holder()),
        echo: 4,
        reason: "unhealthy".into(),
    }
}

fn presence() -> v1::Presence {
    v1::Presence {
        cluster: "demo".into(),
        seat: 2,
        incarnation: 5,
        address: "10.0.0.1:7410".into(),
        late_nanos: 4,
        state: "granting".into(),
    }
}

/// Reads it as if a newer service had sent it.
macro_rules! passes_over {
    ($($sent:expr => $type:ty),* $(,)?) => {$({
        let sent: $type = $sent;
        let read = decode::<$type>(stringify!($type), &newer(sent.encode_to_vec())).unwrap();
        assert_eq!(read, sent);
    })*};
}

#[test]
fn what_a_newer_service_adds_to_a_message_is_passed_over() {
    let in_a_grant = v1::seat_message::Message::Grant(grant());
    passes_over!(
        heartbeat() => v1::Heartbeat,
        grant() => v1::Grant,
        revoke() => v1::Revoke,
        release() => v1::Release,
        presence() => v1::Presence,
        v1::SeatMessage { message: Some(in_a_grant) } => v1::SeatMessage,
        v1::Details { phase: "serving".into(), ..Default::default() } => v1::Details,
        v1::Verdict { group: "web".into(), ..Default::default() } => v1::Verdict,
        v1::SwitchoverRequest { ..Default::default() } => v1::SwitchoverRequest,
        v1::MaintenanceRequest { ..Default::default() } => v1::MaintenanceRequest,
        v1::StatusRequest {} => v1::StatusRequest,
        v1::StatusReply { ..Default::default() } => v1::StatusReply,
    );
    // In what lies inside a message as well.
    let mut inner = heartbeat();
    inner.details = newer(inner.details);
    let read = Heartbeat::try_from(inner).unwrap();
    assert_eq!(read.details().address, "10.0.0.1");
}

#[test]
fn what_an_older_service_does_not_send_yet_has_a_meaning() {
    let old = v1::Heartbeat {
        known: Vec::new(),
        releases: Vec::new(),
        details: Vec::new(),
        priority: 0,
        ..heartbeat()
    };
    let read = decode::<v1::Heartbeat>("Heartbeat", &old.encode_to_vec()).unwrap();
    let read = Heartbeat::try_from(read).unwrap();
    assert!(read.releases.is_empty() && read.known.is_empty() && read.bidder().is_some());
    assert_eq!(read.details(), v1::Details::default());

    // Who claims nothing yet is not a claim of epoch 0.
    let read = Grant::try_from(v1::Grant { claimed: 0, ..grant() }).unwrap();
    assert_eq!(read.claimed, None);
    let read = Revoke::try_from(v1::Revoke { reason: String::new(), ..revoke() }).unwrap();
    assert!(read.reason.is_empty());
    let read = Release::try_from(v1::Release { successor: String::new(), ..release() }).unwrap();
    assert_eq!(read.successor, None);
    let old = v1::Presence { late_nanos: 0, state: String::new(), ..presence() };
    assert_eq!(decode::<v1::Presence>("Presence", &old.encode_to_vec()).unwrap(), old);
}

/// An event of a later version, and one of before any of its fields was there.
fn event_of_another_version<B: EventBody + Default + PartialEq + std::fmt::Debug>() {
    let mut later = serde_json::to_value(B::default()).unwrap();
    let fields = later.as_object_mut().unwrap();
    fields.insert("ofALaterVersion".into(), json!({"a": [1, "two", null]}));
    assert_eq!(serde_json::from_value::<B>(later).unwrap(), B::default(), "{}", B::TYPE);
    assert_eq!(serde_json::from_value::<B>(json!({})).unwrap(), B::default(), "{}", B::TYPE);
}

#[test]
fn events_of_other_versions_are_read() {
    macro_rules! each {
        ($($body:ident),* $(,)?) => {{
            $(event_of_another_version::<v1::$body>();)*
            [$(v1::$body::KIND),*]
        }};
    }
    let tried = each!(
        NodeJudged,
        SlotVacant,
        Takeover,
        TakeoverFailed,
        Demoted,
        TakeoverProved,
        DnsUpdated,
        MaintenanceChanged,
        SwitchoverAsked,
        SeatTrouble,
        ScalingDecided,
    );
    let all = understudy_wire::event::ALL.iter().map(|(kind, _)| *kind);
    assert!(all.eq(tried), "an event that is not tried here");
}

/// In lists inside an event, too, and known fields keep their values beside unknown ones.
#[test]
fn a_takeover_of_a_later_version_keeps_what_is_known_of_it() {
    let later = json!({
        "group": "web", "node": "web-a", "epoch": "17", "later": true,
        "steps": [{"name": "gate", "later": 1}],
    });
    let read: v1::Takeover = serde_json::from_value::<v1::Takeover>(later).unwrap();
    assert_eq!((read.group.as_str(), read.node.as_str(), read.epoch), ("web", "web-a", 17));
    assert_eq!(read.steps.len(), 1);
    let told: Value = serde_json::to_value(&read).unwrap();
    assert!(told.get("later").is_none());
}
