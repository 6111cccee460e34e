//! A takeover as the rest of the segment sees it.

use std::time::Duration;

use tokio::sync::mpsc;
use understudy_vip::address::Addresses;
use understudy_vip::announce::{AnnounceError, Announcer};
use understudy_vip::boottime_ns;
use understudy_vip::neighbours::{Sighting, watch};

use crate::segment::{GUARDS, INTERFACE, Namespace, Segment, VIP4, VIP6, VIPS, add_vips, install};
use crate::traffic::PATIENCE;

const MINUTE: u64 = 60_000_000_000;

fn mac(node: &Namespace) -> [u8; 6] {
    node.run(|| async { Addresses::connect([]).unwrap().link(INTERFACE).await.unwrap().mac })
}

/// Reads sightings until each VIP was last seen behind this hardware address.
async fn all_behind(sightings: &mut mpsc::Receiver<Sighting>, mac: [u8; 6]) {
    let mut waiting: Vec<_> = VIPS.into();
    while !waiting.is_empty() {
        let next = tokio::time::timeout(PATIENCE, sightings.recv()).await;
        let sighting = next.unwrap_or_else(|_| panic!("{waiting:?} not seen")).unwrap();
        if sighting.lladdr == Some(mac) {
            waiting.retain(|vip| *vip != sighting.vip);
        }
    }
}

/// The new holder takes over from a node that does not help.
async fn take_over(node: &Namespace) {
    let gate = install("web");
    add_vips(node);
    let until = boottime_ns() + MINUTE;
    gate.open(&GUARDS, until).unwrap();
    let announcer = Announcer::open(INTERFACE).unwrap();
    for vip in VIPS {
        announcer.announce(vip, until).unwrap();
    }
    // Shut before anybody could ask: what the others know, they know from the announcement.
    gate.shut(&GUARDS).unwrap();
}

#[test]
fn announcements_move_the_address_for_clients_and_for_members_behind_a_fence() {
    let segment = Segment::new(4);
    let [old, new, client, member] = &segment.members[..] else { unreachable!() };
    let old_gate = old.run(|| async { install("web") });
    add_vips(old);
    old.run(|| async { old_gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap() });
    let _fence = member.run(|| async { install("web") });
    let (old_mac, new_mac) = (mac(old), mac(new));

    let (seen, both) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        for watching in [client, member] {
            let seen = seen.clone();
            scope.spawn(move || {
                watching.run(|| async move {
                    let (mut sightings, watcher) = watch(INTERFACE, VIPS.into()).unwrap();
                    for vip in VIPS {
                        watcher.solicit(vip).unwrap();
                    }
                    all_behind(&mut sightings, old_mac).await;
                    seen.send(()).unwrap();
                    all_behind(&mut sightings, new_mac).await;
                });
            });
        }
        drop(seen);
        for _ in 0..2 {
            both.recv_timeout(2 * PATIENCE).expect("the old holder is not seen");
        }
        old.run(|| async { old_gate.shut(&GUARDS).unwrap() });
        new.run(|| take_over(new));
    });
}

#[test]
fn what_is_not_true_any_more_is_not_announced() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let _gate = install("web");
        add_vips(node);
        let announcer = Announcer::open(INTERFACE).unwrap();
        let now = boottime_ns();
        for vip in VIPS {
            let late = announcer.announce(vip, now);
            assert!(matches!(late, Err(AnnounceError::TooLate { .. })), "{late:?}");
        }
        // The gate holds an advertisement back whatever the caller believes.
        let shut = announcer.announce(VIP6, now + MINUTE);
        let Err(AnnounceError::Send { source, .. }) = shut else { panic!("{shut:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EPERM));
    });
}

#[test]
fn an_announcer_needs_an_ethernet_interface() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async {
        assert!(matches!(Announcer::open("eth9"), Err(AnnounceError::Open { .. })));
        assert!(watch("eth9", VIPS.into()).is_err());
    });
}

#[test]
fn a_watch_tells_how_the_table_stands_and_what_changes() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    let entry = |vip, mac| format!("neighbour replace {vip} lladdr {mac} dev {INTERFACE} nud permanent");
    node.ip(&entry(VIP4, "02:00:00:00:00:01"));
    node.run(|| async {
        let (mut sightings, _watcher) = watch(INTERFACE, VIPS.into()).unwrap();
        let mut next = async || tokio::time::timeout(PATIENCE, sightings.recv()).await.unwrap().unwrap();
        let one = Some([2, 0, 0, 0, 0, 1]);
        assert_eq!(next().await, Sighting { vip: VIP4, lladdr: one });
        assert_eq!(next().await, Sighting { vip: VIP6, lladdr: None });
        node.ip(&entry(VIP6, "02:00:00:00:00:01"));
        assert_eq!(next().await, Sighting { vip: VIP6, lladdr: one });
        // Not a change, and somebody else's: the next sighting is the one after.
        node.ip(&entry(VIP4, "02:00:00:00:00:01"));
        node.ip(&entry("10.77.0.50".parse().unwrap(), "02:00:00:00:00:01"));
        node.ip(&entry(VIP4, "02:00:00:00:00:02"));
        assert_eq!(next().await, Sighting { vip: VIP4, lladdr: Some([2, 0, 0, 0, 0, 2]) });
        node.ip(&format!("neighbour del {VIP4} dev {INTERFACE}"));
        assert_eq!(next().await, Sighting { vip: VIP4, lladdr: None });
    });
}

#[test]
fn a_watch_that_lost_notifications_lists_the_table_anew() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let (mut sightings, _watcher) = watch(INTERFACE, vec![VIP4]).unwrap();
        let first = tokio::time::timeout(PATIENCE, sightings.recv()).await.unwrap().unwrap();
        assert_eq!(first.lladdr, None);
        // This thread runs the watch, too: while it is here the kernel's queue overflows
        // with notifications of strangers, and the one that matters is lost.
        let batch: String = (0..2000)
            .map(|i| {
                format!(
                    "neighbour replace 10.78.{}.{} lladdr 02:00:00:00:00:01 dev {INTERFACE} nud permanent\n",
                    i / 250,
                    i % 250 + 1
                )
            })
            .chain([format!(
                "neighbour replace {VIP4} lladdr 02:00:00:00:00:02 dev {INTERFACE} nud permanent\n"
            )])
            .collect();
        let file = std::env::temp_dir().join(format!("{}.batch", node.name));
        std::fs::write(&file, batch).unwrap();
        node.ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let next = tokio::time::timeout(Duration::from_secs(10), sightings.recv()).await.unwrap().unwrap();
        assert_eq!(next, Sighting { vip: VIP4, lladdr: Some([2, 0, 0, 0, 0, 2]) });
    });
}
