//! Ways around the gate that must not be, and ways past it that must.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::SockRef;
use understudy_vip::boottime_ns;
use understudy_vip::gate::{Gate, Guard, Protocol};

use crate::segment::{
    GUARDS, INTERFACE, MARK, Segment, VIP4, VIP6, VIPS, add_vips, config, install, own4, own6,
};
use crate::traffic::{Client, PATIENCE, PORT, answers, echo, refused, send_from, silent};

const MINUTE: u64 = 60_000_000_000;

#[test]
fn a_standby_behind_its_fence_reaches_the_address_on_another_node() {
    let segment = Segment::new(2);
    let [active, standby] = &segment.members[..] else { unreachable!() };
    let _echo: Vec<_> = VIPS.map(|vip| echo(active, vip, PORT)).into();
    let gate = active.run(|| async { install("web") });
    let _fence = standby.run(|| async { install("web") });
    add_vips(active);
    active.run(|| async { gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap() });
    for vip in VIPS {
        standby.run(|| async move { assert!(answers(vip, PORT), "{vip}") });
    }
}

#[test]
fn a_question_from_one_managed_address_about_another_is_not_answered() {
    let other: IpAddr = "10.77.0.101".parse().unwrap();
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let _echo = echo(node, own4(0), PORT);
    let guards = [GUARDS[0], Guard::Address(other)];
    let _gate = node.run(|| async move { Gate::install(config("web"), &guards).unwrap() });
    add_vips(node);
    peer.ip(&format!("address add {other}/24 dev {INTERFACE}"));
    peer.run(|| async move {
        // ARP asks with the source of the packet that waits for the answer.
        send_from(other, VIP4).unwrap();
        // Arrives after the question, on the same way.
        let mut client = Client::from(own4(1));
        assert!(client.ask((own4(0), PORT).into(), PATIENCE));
    });
    let entry = peer.ip(&format!("neighbour show {VIP4} dev {INTERFACE}"));
    assert!(!entry.contains("lladdr"), "{entry}");
}

#[test]
fn a_mark_of_somebody_else_opens_nothing() {
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let _echo: Vec<_> = [VIP4, own4(0)].map(|a| echo(node, a, PORT)).into();
    let _gate = node.run(|| async { install("web") });
    add_vips(node);
    node.run(|| async {
        let socket = UdpSocket::bind((VIP4, 0)).unwrap();
        SockRef::from(&socket).set_mark(MARK).unwrap();
        let error = socket.send_to(&[], (own4(1), 9)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    });
    // Marked by other rules before the gate sees it: the datagram as it arrives, its answer
    // on every hook as it leaves. The peer knows the hardware address without asking.
    for hook in ["prerouting", "output", "postrouting"] {
        node.nft(&format!("add table inet other_{hook}"));
        let priority = if hook == "postrouting" { 280 } else { -400 };
        node.nft(&format!(
            "add chain inet other_{hook} marking {{ type filter hook {hook} priority {priority}; }}"
        ));
        node.nft(&format!("add rule inet other_{hook} marking meta mark set {MARK}"));
    }
    let mac = node.ip(&format!("-o link show dev {INTERFACE}"));
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    peer.ip(&format!("neighbour replace {VIP4} lladdr {mac} dev {INTERFACE} nud permanent"));
    let control = (own4(0), PORT).into();
    peer.run(|| async move { assert!(silent((VIP4, PORT).into(), control)) });
    node.run(|| async move { assert!(refused(VIP4, own4(1))) });
}

#[test]
fn an_open_address_does_not_reach_a_shut_one_on_the_same_host() {
    let other: IpAddr = "10.77.0.101".parse().unwrap();
    let segment = Segment::new(1);
    let node = &segment.members[0];
    let _echo: Vec<_> = [other, own4(0)].map(|a| echo(node, a, PORT)).into();
    node.run(|| async {
        let gate = Gate::install(config("web"), &[GUARDS[0], Guard::Address(other)]).unwrap();
        add_vips(node);
        node.ip(&format!("address add {other}/24 dev {INTERFACE}"));
        gate.open(&GUARDS[..1], boottime_ns() + MINUTE).unwrap();
        // The loopback interface keeps the mark: it must not arrive with it.
        let mut client = Client::from(VIP4);
        assert!(client.ask((own4(0), PORT).into(), PATIENCE));
        assert!(!client.ask((other, PORT).into(), Duration::from_millis(100)));
        gate.open(&[Guard::Address(other)], boottime_ns() + MINUTE).unwrap();
        assert!(client.ask((other, PORT).into(), PATIENCE));
    });
}

#[test]
fn translated_traffic_is_held_back_too() {
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let _echo = echo(node, own4(0), PORT);
    let gate = node.run(|| async { install("web") });
    add_vips(node);
    node.nft("add table ip translate");
    node.nft("add chain ip translate in { type nat hook prerouting priority -100; }");
    node.nft("add chain ip translate out { type nat hook postrouting priority 100; }");
    node.nft(&format!("add rule ip translate in ip daddr {VIP4} dnat to {}", own4(0)));
    node.nft(&format!("add rule ip translate out udp dport 9 snat to {VIP4}"));
    let control = (own4(0), PORT).into();
    peer.run(|| async move { assert!(silent((VIP4, PORT).into(), control)) });
    node.run(|| async move { assert!(refused(own4(0), own4(1)), "left as {VIP4}") });
    node.run(|| async {
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        assert!(!refused(own4(0), own4(1)));
    });
    peer.run(|| async { assert!(answers(VIP4, PORT)) });
}

#[test]
fn duplicate_address_detection_of_a_shut_address_stays_silent() {
    let segment = Segment::new(2);
    let [active, standby] = &segment.members[..] else { unreachable!() };
    let gate = active.run(|| async { install("web") });
    let _fence = standby.run(|| async { install("web") });
    add_vips(active);
    active.run(|| async { gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap() });
    // Without `nodad`: the standby would ask, the active would answer, and it would fail.
    standby.ip(&format!("address add {VIP6}/64 dev {INTERFACE}"));
    let shown = || standby.ip(&format!("-6 address show dev {INTERFACE} to {VIP6}"));
    crate::traffic::wait_until("detection ends", || !shown().contains("tentative"));
    assert!(!shown().contains("dadfailed"), "{}", shown());
}

#[test]
fn a_service_is_guarded_by_its_port_alone() {
    for (own, other) in [(own4(0), own4(1)), (own6(0), own6(1))] {
        let segment = Segment::new(2);
        let [node, peer] = &segment.members[..] else { unreachable!() };
        let service = |protocol| Guard::Service { address: own, protocol, port: PORT };
        let guards = [service(Protocol::Udp), service(Protocol::Tcp)];
        let _echo: Vec<_> = [PORT, PORT + 1].map(|port| echo(node, own, port)).into();
        let _listeners =
            node.run(|| async move { [PORT, PORT + 1].map(|p| TcpListener::bind((own, p)).unwrap()) });
        // Guarded addresses beside it make most packets take a shorter way, but not these.
        let managed = [&guards[..], &GUARDS].concat();
        let gate = node.run(|| async move { Gate::install(config("web"), &managed).unwrap() });
        let guarded = SocketAddr::from((own, PORT));
        let free = SocketAddr::from((own, PORT + 1));
        let connects = move |to, patience| TcpStream::connect_timeout(&to, patience).is_ok();

        peer.run(|| async move {
            assert!(silent(guarded, free));
            assert!(connects(free, PATIENCE));
            assert!(!connects(guarded, Duration::from_millis(100)));
        });
        node.run(|| async {
            gate.open(&guards[..1], boottime_ns() + MINUTE).unwrap();
        });
        peer.run(|| async move {
            assert!(answers(own, PORT));
            assert!(!connects(guarded, Duration::from_millis(100)), "opened for UDP only");
        });
        node.run(|| async {
            gate.open(&guards, boottime_ns() + MINUTE).unwrap();
        });
        peer.run(|| async move { assert!(connects(guarded, PATIENCE)) });
        // A service's guard does not touch the node's own connections.
        node.run(|| async move { assert!(!refused(own, other)) });
    }
}

#[test]
fn two_gates_live_beside_each_other() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        add_vips(node);
        // One mark for both: each takes the bit off again, so they cannot open each other.
        let web = Gate::install(config("web"), &GUARDS[..1]).unwrap();
        let db = Gate::install(config("db"), &GUARDS[1..]).unwrap();
        let state = || (refused(VIP4, own4(0)), refused(VIP6, own6(0)));
        assert_eq!(state(), (true, true));
        web.open(&GUARDS[..1], boottime_ns() + MINUTE).unwrap();
        assert_eq!(state(), (false, true));
        db.open(&GUARDS[1..], boottime_ns() + MINUTE).unwrap();
        assert_eq!(state(), (false, false));
        web.uninstall().unwrap();
        assert_eq!(state(), (false, false));
        db.shut(&GUARDS[1..]).unwrap();
        assert_eq!(state(), (false, true));
    });
}
