//! Bytes from outside: whatever they are, a message or an error comes out, and a message reads back as it was sent.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use understudy_wire::{
    BootId, BootTime, Claim, ClusterId, DecodeError, Epoch, Grant, GroupId, Health, Heartbeat, Holder,
    Incarnation, MAX_MESSAGE, NodeId, Release, Revoke, Seat, Slot, SlotRelease, StandbyKind, decode, v1,
};

fn heartbeat() -> Heartbeat {
    Heartbeat {
        cluster: ClusterId::new("demo").unwrap(),
        group: GroupId::new("web").unwrap(),
        node: NodeId::new("web-a").unwrap(),
        boot: BootId(7),
        incarnation: Incarnation::new(3),
        seq: 9,
        sent_at: BootTime(1_000),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority: 100,
        claims: vec![Claim { slot: Slot(0), epoch: Epoch(17) }],
        known: vec![Claim { slot: Slot(1), epoch: Epoch(4) }],
        releases: vec![SlotRelease {
            slot: Slot(1),
            at: BootTime(8),
            successor: Some(NodeId::new("b").unwrap()),
        }],
        details: v1::Details { address: "10.0.0.1".into(), ..Default::default() }.encode_to_vec(),
    }
}

fn holder() -> Holder {
    heartbeat().bidder().unwrap()
}

#[test]
fn every_message_reads_back() {
    let sent = heartbeat();
    let raw = v1::Heartbeat::from(&sent).encode_to_vec();
    let read: Heartbeat = decode::<v1::Heartbeat>("Heartbeat", &raw).unwrap().try_into().unwrap();
    assert_eq!(read, sent);

    let (cluster, group) = (sent.cluster, sent.group);
    let grant = Grant {
        cluster: cluster.clone(),
        group: group.clone(),
        seat: Seat::new(2).unwrap(),
        detector: 5,
        slot: Slot(1),
        holder: holder(),
        echo: BootTime(4),
        lease: Duration::from_millis(300),
        highest: Epoch(6),
        claimed: None,
        promised: Some(Epoch(7)),
    };
    assert_eq!(Grant::try_from(v1::Grant::from(&grant)).unwrap(), grant);
    let revoke = Revoke {
        cluster: cluster.clone(),
        group: group.clone(),
        seat: Seat::new(2).unwrap(),
        detector: 5,
        slot: Slot(1),
        holder: holder(),
        echo: BootTime(4),
        reason: "unhealthy".into(),
    };
    assert_eq!(Revoke::try_from(v1::Revoke::from(&revoke)).unwrap(), revoke);
    let release =
        Release { cluster, group, slot: Slot(1), holder: holder(), at: BootTime(4), successor: None };
    assert_eq!(Release::try_from(v1::Release::from(&release)).unwrap(), release);
}

#[test]
fn each_bad_field_is_named() {
    let spoil = |spoil: fn(&mut v1::Heartbeat)| {
        let mut raw = v1::Heartbeat::from(&heartbeat());
        spoil(&mut raw);
        Heartbeat::try_from(raw).unwrap_err().to_string()
    };
    assert!(spoil(|raw| raw.cluster.clear()).starts_with("cluster name"));
    assert!(spoil(|raw| raw.node = "a.b".into()).starts_with("node name"));
    assert!(spoil(|raw| raw.group = "*".into()).starts_with("group name"));
    assert_eq!(spoil(|raw| raw.boot = vec![0; 15]), "field boot: must have 16 bytes");
    assert_eq!(spoil(|raw| raw.health = 99), "field health: must be a known value");
    assert_eq!(spoil(|raw| raw.standby = 0), "field standby: must be a known value");
    assert_eq!(spoil(|raw| raw.claims[0].slot = 1024), "field slot: must be below 1024");
    assert_eq!(spoil(|raw| raw.claims[0].epoch = 0), "field epoch: must not be 0");
    assert_eq!(spoil(|raw| raw.known[0].epoch = u64::MAX), "field epoch: must be below 2^62");
    assert_eq!(spoil(|raw| raw.claims = vec![raw.claims[0]; 1025]), "field claims: more than 1024 slots");
    assert!(spoil(|raw| raw.releases[0].successor = "x y".into()).starts_with("node name"));
}

#[test]
fn a_huge_payload_is_refused_before_it_is_read() {
    let bytes = vec![0; 10 * 1024 * 1024];
    assert_eq!(decode::<v1::Heartbeat>("Heartbeat", &bytes), Err(DecodeError::TooLarge(bytes.len())));
    assert_eq!(MAX_MESSAGE, 65_536);
}

#[test]
fn an_older_reader_skips_fields_it_does_not_know() {
    let mut raw = v1::Heartbeat::from(&heartbeat()).encode_to_vec();
    // Field 2000, wire type 2, three bytes: a field of some later version.
    prost::encoding::encode_key(2000, prost::encoding::WireType::LengthDelimited, &mut raw);
    raw.extend([3, 1, 2, 3]);
    let read: Heartbeat = decode::<v1::Heartbeat>("Heartbeat", &raw).unwrap().try_into().unwrap();
    assert_eq!(read, heartbeat());
}

proptest! {
    #[test]
    fn no_bytes_crash_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode::<v1::Heartbeat>("Heartbeat", &bytes).map(Heartbeat::try_from);
        let _ = decode::<v1::Grant>("Grant", &bytes).map(Grant::try_from);
        let _ = decode::<v1::Revoke>("Revoke", &bytes).map(Revoke::try_from);
        let _ = decode::<v1::Release>("Release", &bytes).map(Release::try_from);
    }

    #[test]
    fn a_truncated_heartbeat_never_passes_for_another_node(cut in 0usize..100) {
        let whole = v1::Heartbeat::from(&heartbeat()).encode_to_vec();
        let cut = cut.min(whole.len() - 1);
        if let Ok(Ok(read)) = decode::<v1::Heartbeat>("Heartbeat", &whole[..cut]).map(Heartbeat::try_from) {
            prop_assert_eq!(read.node, heartbeat().node);
        }
    }
}
