use understudy_wire::{BootId, Claim, ClusterId, Incarnation, StandbyKind};

use super::*;

fn web() -> GroupId {
    GroupId::new("web").unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn at(ms: u64) -> BootTime {
    BootTime(1_000_000_000_000).after(Duration::from_millis(ms))
}

fn beat(name: &str, seq: u64, claims: &[(u16, u64)]) -> Heartbeat {
    let details = v1::Details {
        load: Some(v1::Load { cpu: 0.5, pressure_cpu: Some(25.0), ..Default::default() }),
        signals: [("connections".to_owned(), 2.0), ("queue".to_owned(), 7.0)].into(),
        ..Default::default()
    };
    let claim = |(slot, epoch): &(u16, u64)| Claim { slot: Slot(*slot), epoch: Epoch(*epoch) };
    Heartbeat {
        cluster: ClusterId::new("test").unwrap(),
        group: web(),
        node: node(name),
        boot: BootId(1),
        incarnation: Incarnation::new(7),
        seq,
        sent_at: at(0),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority: 0,
        claims: claims.iter().map(claim).collect(),
        known: Vec::new(),
        releases: Vec::new(),
        details: details.encode_to_vec(),
    }
}

fn book() -> Book {
    let mut book = Book::new([web()], 2, Duration::from_millis(300));
    for seat in 1..=3 {
        let presence = v1::Presence { seat, incarnation: 10 + u64::from(seat), ..Default::default() };
        book.presence(at(0), &presence);
    }
    book
}

fn says(book: &mut Book, seat: u32, judgement: v1::Judgement) {
    book.verdict(&v1::Verdict {
        group: "web".into(),
        node: "web-1".into(),
        seat,
        detector_incarnation: 10 + u64::from(seat),
        judgement: judgement.into(),
        ..Default::default()
    });
}

fn view(book: &Book, ms: u64, listing: &Listing) -> GroupView {
    let maintenance = BTreeSet::new();
    let steering = Steering::default();
    let facts =
        Facts { open: 1, serving: 1, listing, maintenance: &maintenance, steering, can_restart: true };
    book.view(at(ms), &web(), &facts)
}

fn instance(state: State) -> Instance {
    Instance { state, key: Some("web/fill/web-1".into()), labels: BTreeMap::new(), removable: true }
}

#[test]
fn a_node_has_failed_when_a_quorum_says_so_and_it_is_silent() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[(0, 5)]));
    let none = Listing::new();
    let life = |book: &Book, ms| view(book, ms, &none).members[&node("web-1")].life.clone();
    assert_eq!(life(&book, 100), Life::Alive);
    says(&mut book, 1, v1::Judgement::Failed);
    assert_eq!(life(&book, 5_000), Life::Alive, "one seat is no quorum");
    says(&mut book, 2, v1::Judgement::Failed);
    assert_eq!(life(&book, 5_000), Life::Failed("silent for 5 s".into()));
    assert_eq!(life(&book, 200), Life::Alive, "it is heard");
    // The seat's process was replaced: what the old one said counts no more.
    book.presence(at(5_000), &v1::Presence { seat: 2, incarnation: 99, ..Default::default() });
    assert_eq!(life(&book, 5_000), Life::Alive);
}

#[test]
fn who_is_deaf_calls_nobody_failed() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[]));
    let none = Listing::new();
    let life = |book: &Book| view(book, 40_000, &none).members[&node("web-1")].life.clone();
    assert_eq!(life(&book), Life::Alive, "no seat is heard either");
    for seat in 1..=2 {
        book.presence(at(39_900), &v1::Presence { seat, incarnation: 50, ..Default::default() });
    }
    assert_eq!(life(&book), Life::Failed("silent for 40 s".into()), "seats are heard that never heard it");
}

#[test]
fn seats_that_speak_once_a_second_are_heard_all_the_time() {
    let mut book = book();
    for second in 0..5 {
        for ms in [0, 700, 999] {
            assert!(
                book.hears_seats(at(second * 1_000 + ms)),
                "{ms} ms after the messages of second {second}"
            );
        }
        assert!(book.hears_seats(at(second * 1_000 + 2_400)), "one was lost");
        assert!(!book.hears_seats(at(second * 1_000 + 2_600)));
        for seat in 1..=2 {
            book.presence(
                at((second + 1) * 1_000),
                &v1::Presence { seat, incarnation: 50, ..Default::default() },
            );
        }
    }
}

#[test]
fn the_highest_claim_that_is_fresh_holds_the_slot() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[(0, 5)]));
    book.heartbeat(at(200), beat("web-2", 1, &[(0, 6)]));
    let seen = view(&book, 250, &Listing::new());
    let slot = &seen.slots[&Slot(0)];
    assert_eq!((slot.holder.as_ref(), slot.epoch), (Some(&node("web-2")), Epoch(6)));
    assert_eq!(slot.connections, Some(2));
    book.heartbeat(at(900), beat("web-1", 2, &[]));
    assert_eq!(view(&book, 900, &Listing::new()).slots[&Slot(0)].holder, None, "a claim of long ago is none");
    assert!(!book.heartbeat(at(950), beat("web-1", 1, &[(0, 9)])), "an old heartbeat changes nothing");
    let holds = book.holds(at(900), &web(), &node("web-2"), 1);
    assert!(holds, "until it says otherwise, or somebody else has the slot, it may still hold it");
}

#[test]
fn the_claim_of_a_dead_node_counts_until_another_has_the_slot() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[(0, 5)]));
    book.heartbeat(at(0), beat("web-2", 1, &[]));
    let holds = |book: &Book, ms, open| book.holds(at(ms), &web(), &node("web-1"), open);
    assert!(holds(&book, 100, 1) && holds(&book, 10_000, 1), "it may be silent only here");
    assert!(holds(&book, 100, 0), "it claims a slot at this moment, closed or not");
    assert!(!holds(&book, 10_000, 0), "the slot is closed");
    book.heartbeat(at(10_000), beat("web-2", 2, &[(1, 9)]));
    assert!(holds(&book, 10_000, 2), "that is another slot");
    book.heartbeat(at(10_100), beat("web-2", 3, &[(0, 4)]));
    assert!(holds(&book, 10_100, 2), "that is an older claim");
    book.heartbeat(at(10_200), beat("web-2", 4, &[(0, 6)]));
    assert!(!holds(&book, 10_200, 2), "web-2 has the slot");
    assert!(holds(&book, 20_000, 2), "nobody is heard any more");
    assert!(!book.holds(at(0), &web(), &node("web-9"), 1), "never heard");
}

#[test]
fn signals_have_the_names_that_targets_use() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[]));
    let seen = view(&book, 250, &Listing::new());
    let signals = &seen.members[&node("web-1")].signals;
    let value = |name: &str| signals.get(name).map(|sample| sample.value);
    assert_eq!((value("cpu"), value("pressure_cpu"), value("queue")), (Some(0.5), Some(0.25), Some(7.0)));
    assert_eq!(value("pressure_io"), None);
    assert_eq!(signals["cpu"].age, Duration::from_millis(250));
}

#[test]
fn what_the_driver_removed_is_no_member_once_it_is_silent() {
    let mut book = book();
    book.heartbeat(at(0), beat("web-1", 1, &[]));
    let listing = Listing::from([(node("web-1"), instance(State::Running))]);
    book.listed(at(0), &web(), &listing);
    says(&mut book, 1, v1::Judgement::Failed);
    says(&mut book, 2, v1::Judgement::Failed);
    book.listed(at(100), &web(), &Listing::new());
    assert_eq!(view(&book, 100, &Listing::new()).members.len(), 1, "it is still heard");
    book.listed(at(1_000), &web(), &listing);
    assert_eq!(view(&book, 1_000, &listing).members.len(), 1, "it is still listed");
    book.listed(at(1_000), &web(), &Listing::new());
    assert_eq!(view(&book, 1_000, &Listing::new()).members.len(), 0);
}

#[test]
fn an_instance_that_was_never_heard_starts_or_has_ended() {
    let book = book();
    for (state, life) in [
        (State::Starting, Life::Starting),
        (State::Running, Life::Starting),
        (State::Ended("exited with 127".into()), Life::Failed("exited with 127".into())),
    ] {
        let listing = Listing::from([(node("web-1"), instance(state))]);
        let seen = view(&book, 0, &listing);
        let member = &seen.members[&node("web-1")];
        assert_eq!((&member.life, member.managed, member.ready), (&life, true, false));
        assert_eq!(member.key.as_deref(), Some("web/fill/web-1"));
    }
}
