//! Who may be failed back to. `a` is preferred, `b` holds the slot.

use prost::Message as _;
use understudy_detection::FlapConfig;
use understudy_wire::{BootId, Claim, ClusterId, GroupId, Incarnation, StandbyKind, v1};

use super::*;

const HOLDER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const STABLE: Duration = Duration::from_secs(5);
const TICK: u64 = 100;

fn at(ms: u64) -> BootTime {
    BootTime(ms * 1_000_000)
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("is a name")
}

fn vips() -> [IpAddr; 2] {
    ["10.77.0.100", "fd77::100"].map(|vip| vip.parse().expect("is an address"))
}

/// A heartbeat of a node that could take over and sees the holder.
fn able(name: &str, priority: i32) -> Heartbeat {
    let sees = |vip: IpAddr| v1::Sighting { vip: vip.to_string(), link_address: HOLDER.to_vec() };
    Heartbeat {
        cluster: ClusterId::new("test").expect("is a name"),
        group: GroupId::new("web").expect("is a name"),
        node: node(name),
        boot: BootId(1),
        incarnation: Incarnation::new(1),
        seq: 0,
        sent_at: at(0),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority,
        claims: Vec::new(),
        known: Vec::new(),
        releases: Vec::new(),
        details: v1::Details { sightings: vips().map(sees).into(), ..v1::Details::default() }.encode_to_vec(),
    }
}

fn holding(name: &str, priority: i32) -> Heartbeat {
    Heartbeat { claims: vec![Claim { slot: Slot(1), epoch: Epoch(7) }], ..able(name, priority) }
}

fn peers() -> Peers {
    let steady = Flap::new(FlapConfig::default()).expect("is valid");
    Peers::new(steady)
}

/// A heartbeat in each tick from `from` to before `to`, in ms.
fn hear(peers: &mut Peers, heartbeat: &Heartbeat, from: u64, to: u64) {
    (from..to).step_by(TICK as usize).for_each(|ms| peers.heard(at(ms), heartbeat.clone()));
}

/// What `b` (priority 90) would do.
fn choice(peers: &Peers, ms: u64) -> Option<String> {
    let (node, vips) = (node("b"), vips());
    let holder = FailingBack { node: &node, priority: 90, link_address: HOLDER, vips: &vips };
    peers.to_fail_back(at(ms), STABLE, &holder).map(|node| node.to_string())
}

#[test]
fn preferred_after_it_was_able_for_long_enough() {
    let mut peers = peers();
    hear(&mut peers, &able("a", 100), 0, 5_000);
    hear(&mut peers, &able("c", 90), 0, 5_000);
    assert_eq!(choice(&peers, 4_999), None);
    assert_eq!(choice(&peers, 5_000).as_deref(), Some("a"));
    assert_eq!(choice(&peers, 7_400).as_deref(), Some("a"), "nine of what it tells may be lost");
    assert_eq!(choice(&peers, 7_401), None, "it has told nothing for too long");
    peers.silent(at(5_100), &node("a"), at(5_000), &[]);
    assert_eq!(choice(&peers, 5_200), None, "a detector has missed its heartbeats");
}

#[test]
fn one_heartbeat_that_says_otherwise_begins_the_time_anew() {
    for broken in [
        Heartbeat { ready: false, ..able("a", 100) },
        Heartbeat { incarnation: None, ..able("a", 100) },
        Heartbeat { health: Health::Unhealthy, ..able("a", 100) },
    ] {
        let mut peers = peers();
        hear(&mut peers, &able("a", 100), 0, 3_000);
        peers.heard(at(3_000), broken);
        hear(&mut peers, &able("a", 100), 3_100, 8_200);
        assert_eq!(choice(&peers, 8_099), None);
        assert_eq!(choice(&peers, 8_100).as_deref(), Some("a"));
    }
}

#[test]
fn silence_and_maintenance_begin_the_time_anew() {
    let mut silent = peers();
    hear(&mut silent, &able("a", 100), 0, 3_000);
    silent.silent(at(3_100), &node("a"), at(3_000), &[]);
    silent.back(at(3_200), &node("a"));
    hear(&mut silent, &able("a", 100), 3_300, 8_400);
    assert_eq!(choice(&silent, 8_299), None);
    assert_eq!(choice(&silent, 8_300).as_deref(), Some("a"));

    let mut maintained = peers();
    hear(&mut maintained, &able("a", 100), 0, 3_000);
    maintained.set_maintenance(BTreeSet::from([node("a")]));
    hear(&mut maintained, &able("a", 100), 3_000, 9_000);
    maintained.set_maintenance(BTreeSet::new());
    hear(&mut maintained, &able("a", 100), 9_000, 14_100);
    assert_eq!(choice(&maintained, 13_999), None);
    assert_eq!(choice(&maintained, 14_000).as_deref(), Some("a"));
}

#[test]
fn nobody_whose_network_does_not_reach_the_holder() {
    for sightings in [
        Vec::new(),
        able("a", 100).details().sightings.into_iter().take(1).collect(),
        able("a", 100)
            .details()
            .sightings
            .into_iter()
            .map(|seen| v1::Sighting { link_address: vec![2, 0, 0, 0, 0, 9], ..seen })
            .collect(),
    ] {
        let mut peers = peers();
        let details = v1::Details { sightings, ..v1::Details::default() }.encode_to_vec();
        hear(&mut peers, &Heartbeat { details, ..able("a", 100) }, 0, 8_000);
        assert_eq!(choice(&peers, 8_000), None);
    }
}

#[test]
fn nobody_who_flaps_until_it_has_been_quiet() {
    let mut peers = peers();
    // Each start is another executor; the third fall is one too many.
    for start in 0..4 {
        let again = Heartbeat { incarnation: Incarnation::new(start + 1), ..able("a", 100) };
        hear(&mut peers, &again, start * 1_000, (start + 1) * 1_000);
    }
    let last = Heartbeat { incarnation: Incarnation::new(4), ..able("a", 100) };
    hear(&mut peers, &last, 4_000, 60_000);
    assert_eq!(choice(&peers, 60_000), None, "a minute after the last fall");
    hear(&mut peers, &last, 60_000, 200_000);
    assert_eq!(choice(&peers, 200_000).as_deref(), Some("a"));
}

/// How much `a` flaps after it was silent three times for `silence` ms, each time found out by a detector.
fn after_silence(silence: u64, found: impl Fn(&mut Peers, BootTime)) -> Peers {
    let mut peers = peers();
    for start in [0, 10_000, 20_000] {
        hear(&mut peers, &able("a", 100), start, start + 5_000);
        peers.silent(at(start + 5_100), &node("a"), at(start + 5_000), &[]);
        found(&mut peers, at(start + 5_000 + silence));
    }
    hear(&mut peers, &able("a", 100), 30_000, 36_000);
    peers
}

#[test]
fn long_silence_is_a_fall_and_a_pause_is_none() {
    let judged = |peers: &mut Peers, now| assert!(peers.back(now, &node("a")));
    let told = |peers: &mut Peers, now| peers.heard(now, able("a", 100));
    for (silence, flaps) in [(900, false), (1_100, true)] {
        assert_eq!(choice(&after_silence(silence, judged), 36_000).is_none(), flaps, "{silence} ms, judged");
        assert_eq!(choice(&after_silence(silence, told), 36_000).is_none(), flaps, "{silence} ms, told");
    }
}

#[test]
fn the_last_claim_is_the_last_that_is_known_of() {
    let (slot, a) = (Slot(1), node("a"));
    let last = |peers: &Peers| peers.previous(slot, Epoch(8)).expect("held it").last_claim;
    let mut crashed = peers();
    crashed.heard(at(0), holding("a", 100));
    assert_eq!(last(&crashed), at(0));
    crashed.silent(at(900), &a, at(800), &[]);
    assert_eq!(last(&crashed), at(800), "a detector has heard more of it");
    crashed.silent(at(800), &a, at(700), &[]);
    crashed.silent(at(1000), &a, at(900), &[]);
    assert_eq!(last(&crashed), at(800), "one that says otherwise later");
    crashed.heard(at(5_000), able("a", 100));
    assert_eq!(last(&crashed), at(800), "back, without its claim");

    let mut released = peers();
    released.heard(at(0), holding("a", 100));
    released.heard(at(600), able("a", 100));
    assert_eq!(last(&released), at(600), "it claimed until it told otherwise");

    let mut restarted = peers();
    restarted.heard(at(0), holding("a", 100));
    restarted.heard(at(600), Heartbeat { incarnation: Incarnation::new(2), ..able("a", 100) });
    assert_eq!(last(&restarted), at(0), "another executor claims nothing for it");
}

#[test]
fn who_held_the_slot_is_learned_from_a_detector_too() {
    let (slot, a) = (Slot(1), node("a"));
    let claim = |epoch| [Claim { slot, epoch: Epoch(epoch) }];
    let mut peers = peers();
    peers.heard(at(0), holding("c", 100));
    let before = SlotRelease { slot, at: at(0), successor: None };
    peers.heard(at(0), Heartbeat { releases: vec![before], ..able("a", 100) });
    // This member was away: `a` took the slot over and fell before it told of it again.
    peers.silent(at(900), &a, at(800), &claim(8));
    let known = peers.previous(slot, Epoch(9)).expect("a detector told");
    assert_eq!((known.node.as_str(), known.epoch, known.last_claim), ("a", Epoch(8), at(800)));
    assert_eq!((known.released, known.suspected_at), (None, Some(at(900))));
    peers.silent(at(950), &a, at(850), &claim(7));
    assert_eq!(peers.previous(slot, Epoch(9)), Some(known), "another detector has heard less");
}

#[test]
fn what_was_known_of_the_holder_before_is_only_added_to() {
    let known = |node_name: &str, epoch, released, suspected_at| Previous {
        node: node(node_name),
        epoch: Epoch(epoch),
        last_claim: at(100),
        released,
        suspected_at,
    };
    let suspected = known("a", 7, None, Some(at(200)));
    let gave_up = known("a", 7, Some(false), None);
    let both = known("a", 7, Some(false), Some(at(200)));
    assert_eq!(suspected.clone().updated(gave_up.clone()), both);
    assert_eq!(gave_up.updated(suspected.clone()), both);
    assert_eq!(suspected.clone().updated(known("c", 8, None, None)), known("c", 8, None, None));
    assert_eq!(suspected.clone().updated(known("c", 6, None, None)), suspected);
}

#[test]
fn only_a_release_of_the_tenure_ends_it() {
    let (slot, a) = (Slot(1), node("a"));
    let gave_up = |ms, successor| SlotRelease { slot, at: at(ms), successor };
    let told = |peers: &mut Peers, ms, heartbeat: Heartbeat, release: &SlotRelease| {
        peers.heard(at(ms), Heartbeat { releases: vec![release.clone()], ..heartbeat });
        peers.previous(slot, Epoch(8)).expect("held it").released
    };
    let mut peers = peers();
    let (before, now) = (gave_up(5, None), gave_up(995, Some(a)));
    assert_eq!(told(&mut peers, 100, holding("a", 100), &before), None);
    assert_eq!(
        told(&mut peers, 990, able("a", 100), &before),
        None,
        "its claim ends, its gate is being shut"
    );
    assert_eq!(told(&mut peers, 1_000, able("a", 100), &now), Some(true));
}

#[test]
fn a_holder_that_falls_again_and_again_flaps_too() {
    let mut peers = peers();
    for start in 0..4 {
        // Silent for two seconds between its tenures.
        let from = start * 4_000;
        let held = Heartbeat { incarnation: Incarnation::new(start + 1), ..holding("a", 100) };
        hear(&mut peers, &held, from, from + 2_000);
    }
    let back = Heartbeat { incarnation: Incarnation::new(4), ..able("a", 100) };
    hear(&mut peers, &back, 14_000, 30_000);
    assert_eq!(choice(&peers, 30_000), None);
}

#[test]
fn the_least_preferred_holder_gives_way() {
    let mut peers = peers();
    hear(&mut peers, &able("a", 100), 0, 6_000);
    hear(&mut peers, &holding("c", 80), 0, 6_000);
    assert_eq!(choice(&peers, 6_000), None, "it is the turn of c");
    hear(&mut peers, &holding("c", 95), 6_000, 12_000);
    hear(&mut peers, &able("a", 100), 6_000, 12_000);
    assert_eq!(choice(&peers, 12_000).as_deref(), Some("a"));
}

#[test]
fn an_executor_that_came_or_came_back_is_a_newcomer_once() {
    let mut peers = peers();
    let one = able("a", 100);
    let other = Heartbeat { incarnation: Incarnation::new(2), ..one.clone() };
    let none = Heartbeat { incarnation: None, ..one.clone() };
    let mut comes = |ms, heartbeat: &Heartbeat| {
        let newcomer = peers.is_newcomer(at(ms), heartbeat);
        peers.heard(at(ms), heartbeat.clone());
        newcomer
    };
    assert!(comes(0, &one));
    assert!(!comes(1_000, &one));
    assert!(comes(2_000, &other), "restarted");
    assert!(!comes(3_000, &none), "nobody is there that could hear");
    assert!(comes(4_000, &other));
    assert!(!comes(5_000, &other));
    assert!(comes(8_000, &other), "it was not heard for three seconds");
    peers.silent(at(8_500), &node("a"), at(8_200), &[]);
    assert!(peers.is_newcomer(at(9_000), &other), "detectors had lost it");
    assert!(peers.back(at(9_100), &node("a")), "it must be told of the others");
    assert!(!peers.back(at(9_200), &node("a")), "once");
}
