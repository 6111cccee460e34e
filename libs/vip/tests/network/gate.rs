//! What the gate is for: shut means dark, open means through, and time shuts it.

use std::net::IpAddr;
use std::time::Duration;

use understudy_vip::boottime_ns;
use understudy_vip::gate::{GateError, Guard, available};
use understudy_vip::neighbours::watch;

use crate::segment::{GUARDS, INTERFACE, Segment, VIP4, VIP6, VIPS, add_vips, install, own4, own6};
use crate::traffic::{
    Background, Client, PATIENCE, PORT, answers, echo, last_sent_until_refused, refused, silent,
};

const MS: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MS;

/// The coarsest kernel tick there is (HZ=100), twice, and once more for the kernel's own
/// rounding: the earliest that a timeout may end before its time.
const EARLY_MAX: u64 = 30 * MS;

fn own_like(vip: IpAddr, member: usize) -> IpAddr {
    if vip.is_ipv4() { own4(member) } else { own6(member) }
}

/// Whether the peer can resolve the address, told after it has resolved `control`, which it
/// asks for later.
async fn resolves(address: IpAddr, control: IpAddr) -> bool {
    let (mut sightings, watcher) = watch(INTERFACE, vec![address, control]).unwrap();
    watcher.solicit(address).unwrap();
    watcher.solicit(control).unwrap();
    let mut seen = false;
    loop {
        let next = tokio::time::timeout(PATIENCE, sightings.recv());
        let sighting = next.await.expect("the control is not seen").unwrap();
        seen |= sighting.vip == address && sighting.lladdr.is_some();
        if sighting.vip == control && sighting.lladdr.is_some() {
            return seen;
        }
    }
}

#[test]
fn nftables_is_available_here_and_the_probe_leaves_nothing() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async { available().unwrap() });
    assert_eq!(segment.members[0].nft("list tables"), "");
}

#[test]
fn shut_is_dark_both_ways_and_open_is_not() {
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let _echo: Vec<_> = [VIP4, VIP6, own4(0), own6(0)].map(|a| echo(node, a, PORT)).into();
    let gate = node.run(|| async { install("web") });
    add_vips(node);
    for vip in VIPS {
        let (here, there) = (own_like(vip, 0), own_like(vip, 1));
        let control = (here, PORT).into();
        peer.run(|| async move { assert!(answers(here, PORT)) });

        // Shut: neither ARP or ND answers the peer, nor IP, nor does anything leave.
        peer.ip(&format!("neighbour flush dev {INTERFACE}"));
        assert!(!peer.run(|| resolves(vip, here)), "{vip} answers ARP or ND");
        peer.run(|| async move { assert!(silent((vip, PORT).into(), control)) });
        node.run(|| async move { assert!(refused(vip, there)) });

        node.run(|| async {
            gate.open(&[Guard::Address(vip)], boottime_ns() + MINUTE).unwrap();
            assert!(!refused(vip, there));
        });
        peer.run(|| async move { assert!(answers(vip, PORT)) });

        // Shut again: now the peer knows the hardware address, so this is IP alone.
        node.run(|| async {
            gate.shut(&[Guard::Address(vip)]).unwrap();
            assert!(refused(vip, there), "acknowledged, so shut");
        });
        peer.run(|| async move { assert!(silent((vip, PORT).into(), control)) });
    }
}

#[test]
fn time_shuts_the_gate_and_never_late() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        for left in [40, 100, 200, 301, 303, 305, 307, 50] {
            let until = boottime_ns() + left * MS;
            gate.open(&GUARDS, until).unwrap();
            let last_sent = last_sent_until_refused(until);
            let shut = boottime_ns();
            assert!(last_sent < until, "{} us late", (last_sent - until) / 1000);
            assert!(shut + EARLY_MAX > until, "{} us early", (until - shut) / 1000);
            assert!(refused(VIP6, own6(0)), "all guards of one call share one time");
        }
    });
}

#[test]
fn a_shorter_time_replaces_a_longer_one_and_an_expired_guard_opens_again() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        let until = boottime_ns() + 60 * MS;
        gate.open(&GUARDS, until).unwrap();
        crate::traffic::wait_until("shut at the shorter time", || refused(VIP4, own4(0)));
        assert!(boottime_ns() < until + 50 * MS);
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        assert!(!refused(VIP4, own4(0)) && !refused(VIP6, own6(0)));
        // One of the two expires alone.
        gate.open(&GUARDS[..1], boottime_ns() + 60 * MS).unwrap();
        crate::traffic::wait_until("one is shut", || refused(VIP4, own4(0)));
        assert!(!refused(VIP6, own6(0)));
        let until = boottime_ns() + 100 * MS;
        gate.open(&GUARDS, until).unwrap();
        assert!(!refused(VIP4, own4(0)) && !refused(VIP6, own6(0)));
        crate::traffic::wait_until("both are shut", || refused(VIP4, own4(0)) && refused(VIP6, own6(0)));
        assert!(boottime_ns() < until + 50 * MS, "the minute of the other one is over, too");
    });
}

#[test]
fn what_must_not_be_opened_is_refused() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        let now = boottime_ns();
        gate.open(&GUARDS, now + MINUTE).unwrap();
        let hour = 3600 * 1000 * MS;
        let far = gate.open(&GUARDS, now + hour + MINUTE);
        assert!(matches!(far, Err(GateError::TooFarAhead { .. })), "{far:?}");
        let other = Guard::Address("10.77.0.101".parse().unwrap());
        let unmanaged = gate.open(&[GUARDS[0], other], now + MINUTE);
        assert!(matches!(unmanaged, Err(GateError::Unmanaged { guard }) if guard == other));
        assert!(!refused(VIP4, own4(0)), "a refused call changes nothing");

        // What is over, or nearer than two ticks, shuts instead.
        for until in [now, boottime_ns() + MS] {
            gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
            let late = gate.open(&GUARDS, until);
            assert!(matches!(late, Err(GateError::TooLate { .. })), "{late:?}");
            assert!(refused(VIP4, own4(0)));
        }
    });
}

#[test]
fn shutting_twice_is_fine() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async {
        let gate = install("web");
        gate.shut(&GUARDS).unwrap();
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        gate.shut(&GUARDS[..1]).unwrap();
        gate.shut(&GUARDS).unwrap();
        gate.shut(&GUARDS).unwrap();
        gate.shut(&[]).unwrap();
        gate.open(&[], boottime_ns() + MINUTE).unwrap();
    });
}

#[test]
fn renewals_of_equal_length_extend() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        // Always the same timeout, which a kernel that is only asked to update may leave as it runs.
        let end = boottime_ns() + 1000 * MS;
        while boottime_ns() < end {
            gate.open(&GUARDS, boottime_ns() + 400 * MS).unwrap();
            assert!(!refused(VIP4, own4(0)), "not extended");
        }
    });
}

#[test]
fn renewing_drops_no_packet() {
    const RENEWALS: usize = 3000;
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let _echo: Vec<_> = VIPS.map(|vip| echo(node, vip, PORT)).into();
    let gate = node.run(|| async { install("web") });
    add_vips(node);
    node.run(|| async { gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap() });
    for vip in VIPS {
        peer.run(|| async move { assert!(answers(vip, PORT)) });
    }
    // One question at a time: an answer that does not come was dropped, not queued.
    let askers: Vec<_> = VIPS
        .map(|vip| {
            Background::start(peer, move || {
                let mut client = Client::new(vip);
                move || {
                    assert!(client.ask((vip, PORT).into(), Duration::from_secs(2)), "{vip}: dropped");
                    1
                }
            })
        })
        .into();
    let sender = Background::start(node, || {
        move || {
            assert!(!refused(VIP4, own4(1)), "refused while open");
            1
        }
    });
    node.run(|| async {
        for round in 0..RENEWALS {
            // Alike and unlike timeouts, as renewals of a lease would be.
            let left = 300 * MS + (round % 3) as u64 * MS;
            gate.open(&GUARDS, boottime_ns() + left).unwrap();
        }
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
    });
    assert!(sender.finish() > 100);
    for asker in askers {
        assert!(asker.finish() > 100);
    }
}
