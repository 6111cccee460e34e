//! Invented names cannot fill a seat's memory.

use std::time::Duration;

use understudy_lease::{Identity, Rules, Seat};
use understudy_wire::{
    BootId, BootTime, ClusterId, GroupId, Health, Heartbeat, Incarnation, NodeId, Release,
    Seat as SeatNumber, Slot, StandbyKind,
};

fn heartbeat(name: &str, seq: u64) -> Heartbeat {
    Heartbeat {
        cluster: ClusterId::new("demo").unwrap(),
        group: GroupId::new("web").unwrap(),
        node: NodeId::new(name).unwrap(),
        boot: BootId(7),
        incarnation: Incarnation::new(3),
        seq,
        sent_at: BootTime(seq),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority: 0,
        claims: vec![],
        known: vec![],
        releases: vec![],
        details: Vec::new(),
    }
}

#[test]
fn a_flood_of_invented_names_is_forgotten_and_the_members_are_not() {
    const NODES: usize = 16_384;
    let millis = Duration::from_millis;
    let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
    let identity = Identity { cluster: cluster.clone(), group: group.clone(), slots: 1 };
    let rules = Rules::new(1, millis(300), millis(100), millis(1_000), 0.01);
    let mut seat = Seat::new(identity, rules, SeatNumber::new(1).unwrap(), 5, BootTime(0));
    // Within the silence nothing is granted, which would only make this slow.
    let now = BootTime(1);
    seat.handle_heartbeat(now, &heartbeat("web-a", 1));
    for stranger in 0..NODES + 100 {
        let sent = heartbeat(&format!("stranger-{stranger}"), 1);
        seat.handle_heartbeat(now, &sent);
        let holder = sent.bidder().unwrap();
        let (cluster, group) = (cluster.clone(), group.clone());
        let release = Release { cluster, group, slot: Slot(0), holder, at: now, successor: None };
        seat.handle_release(now, &release);
    }
    seat.handle_heartbeat(now, &heartbeat("web-a", 2));
    let kept = format!("{seat:?}");
    assert_eq!(kept.matches("heard_at").count(), NODES, "members");
    assert!(!kept.contains(&format!("stranger-{}", NODES + 99)), "the last stranger is remembered");
    assert!(kept.contains("seq: 2"), "a member is not heard any more");
}
