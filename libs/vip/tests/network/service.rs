//! Services on a node's own address: who has an old record is refused at once, and a witness proves them shut.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use understudy_vip::boottime_ns;
use understudy_vip::gate::{Gate, Guard, Protocol};
use understudy_vip::proof::{Proof, prove_shut};

use crate::proof::witness;
use crate::segment::{INTERFACE, Namespace, Segment, config, own4, own6};
use crate::traffic::{PATIENCE, PORT, answers, echo, wait_until};

const MINUTE: u64 = 60_000_000_000;

/// A port that ordinary users may not bind.
const WELL_KNOWN: u16 = 443;

fn service(address: IpAddr, protocol: Protocol, port: u16) -> Guard {
    Guard::Service { address, protocol, port }
}

fn install(node: &Namespace, guards: &[Guard]) -> Gate {
    node.run(|| async { Gate::install(config("web"), guards).unwrap() })
}

fn open(node: &Namespace, gate: &Gate, guards: &[Guard]) {
    node.run(|| async { gate.open(guards, boottime_ns() + MINUTE).unwrap() });
}

fn shut(node: &Namespace, gate: &Gate, guards: &[Guard]) {
    node.run(|| async { gate.shut(guards).unwrap() });
}

/// What a client on `from` gets that connects.
fn connect(from: &Namespace, to: SocketAddr) -> Result<TcpStream, ErrorKind> {
    from.run(|| async move { TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| error.kind()) })
}

/// What a client on `from` gets that sends a datagram and waits.
fn ask(from: &Namespace, to: SocketAddr) -> Result<usize, ErrorKind> {
    from.run(|| async move {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"question").unwrap();
        socket.recv(&mut [0; 64]).map_err(|error| error.kind())
    })
}

#[test]
fn a_shut_service_refuses_at_once_as_a_closed_port_does() {
    for own in [own4(0), own6(0)] {
        let segment = Segment::new(2);
        let [node, peer] = &segment.members[..] else { unreachable!() };
        let guards = [service(own, Protocol::Tcp, PORT), service(own, Protocol::Udp, PORT)];
        let _listener = node.run(|| async move { TcpListener::bind((own, PORT)).unwrap() });
        let _echo = echo(node, own, PORT);
        let gate = install(node, &guards);
        let address = SocketAddr::from((own, PORT));
        // A refusal comes long before the patience ends; a packet that is dropped would end as TimedOut.
        for client in [peer, node] {
            assert_eq!(connect(client, address).err(), Some(ErrorKind::ConnectionRefused), "{own}");
            assert_eq!(ask(client, address), Err(ErrorKind::ConnectionRefused), "{own}");
        }
        open(node, &gate, &guards);
        assert!(connect(peer, address).is_ok());
        assert_eq!(ask(peer, address), Ok(b"question".len()));
        shut(node, &gate, &guards);
        assert_eq!(connect(peer, address).err(), Some(ErrorKind::ConnectionRefused), "{own}");
        drop(gate);
        assert_eq!(connect(peer, address).err(), Some(ErrorKind::ConnectionRefused), "no gate, but a fence");
    }
}

#[test]
fn a_connection_from_before_is_reset_and_carries_nothing_more() {
    for own in [own4(0), own6(0)] {
        let segment = Segment::new(2);
        let [node, peer] = &segment.members[..] else { unreachable!() };
        let guards = [service(own, Protocol::Tcp, PORT)];
        let listener = node.run(|| async move { TcpListener::bind((own, PORT)).unwrap() });
        let gate = install(node, &guards);
        open(node, &gate, &guards);
        let mut client = connect(peer, (own, PORT).into()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        shut(node, &gate, &guards);
        // What the workload still says does not leave: its bytes stay in the kernel, and the client sees none.
        server.write_all(b"stale").unwrap();
        client.set_nonblocking(true).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(client.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "{own}");
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"request").unwrap();
        assert_eq!(client.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset, "{own}");
    }
}

#[test]
fn the_proof_follows_the_gate_while_the_workload_has_the_port() {
    for own in [own4(0), own6(0)] {
        for port in [PORT, WELL_KNOWN] {
            let segment = Segment::new(1);
            let node = &segment.members[0];
            let _listener = node.run(|| async move { TcpListener::bind((own, port)).unwrap() });
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let guard = service(own, protocol, port);
                assert_eq!(witness(node, guard), Proof::Open, "no gate");
                let gate = install(node, &[guard]);
                assert_eq!(witness(node, guard), Proof::Refused);
                open(node, &gate, &[guard]);
                assert_eq!(witness(node, guard), Proof::Open);
                shut(node, &gate, &[guard]);
                assert_eq!(witness(node, guard), Proof::Refused);
                open(node, &gate, &[guard]);
                drop(gate);
                assert_eq!(witness(node, guard), Proof::Refused, "the pass tables went with the gate");
                let gate = install(node, &[guard]);
                node.run(|| async { gate.uninstall().unwrap() });
                assert_eq!(witness(node, guard), Proof::Open, "the fence is gone");
            }
        }
    }
}

#[test]
fn one_open_protocol_of_a_port_spoils_the_proof_of_both() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    let guards = [Protocol::Tcp, Protocol::Udp].map(|protocol| service(own4(0), protocol, PORT));
    let gate = install(node, &guards);
    for one in guards {
        open(node, &gate, &[one]);
        // Both questions are the same datagram, so the answer is the careful one.
        assert_eq!(guards.map(|guard| witness(node, guard)), [Proof::Open; 2]);
        shut(node, &gate, &[one]);
        assert_eq!(guards.map(|guard| witness(node, guard)), [Proof::Refused; 2]);
    }
}

#[test]
fn time_alone_gives_the_proof_too() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    let guard = service(own4(0), Protocol::Tcp, PORT);
    let gate = install(node, &[guard]);
    node.run(|| async move {
        let until = boottime_ns() + 100_000_000;
        gate.open(&[guard], until).unwrap();
        assert_eq!(prove_shut(guard), Proof::Open);
        wait_until("the proof", || prove_shut(guard) == Proof::Refused);
    });
}

#[test]
fn an_address_that_is_gone_serves_nobody() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    let guard = service(own4(0), Protocol::Tcp, PORT);
    let gate = install(node, &[guard]);
    open(node, &gate, &[guard]);
    node.ip(&format!("address delete {}/24 dev {INTERFACE}", own4(0)));
    assert_eq!(witness(node, guard), Proof::Absent);
}

#[test]
fn a_firewall_against_the_port_proves_nothing() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.nft("add table inet firewall");
    node.nft("add chain inet firewall out { type filter hook output priority 0; }");
    node.nft(&format!("add rule inet firewall out udp dport {PORT} drop"));
    for own in [own4(0), own6(0)] {
        assert_eq!(witness(node, service(own, Protocol::Tcp, PORT)), Proof::Open);
    }
}

#[test]
fn only_the_question_is_held_back_from_other_datagrams_to_the_port() {
    let segment = Segment::new(2);
    let [node, peer] = &segment.members[..] else { unreachable!() };
    let own = own4(0);
    let _gate = install(node, &[service(own, Protocol::Tcp, PORT)]);
    // TCP is guarded; a UDP service with the same number is somebody else's.
    let _echo = echo(node, own, PORT);
    for client in [node, peer] {
        client.run(|| async move { assert!(answers(own, PORT)) });
    }
    // Nor does a guard keep this host from sending even empty datagrams to that port elsewhere.
    let there = own4(1);
    let socket = peer.run(|| async move { UdpSocket::bind((there, PORT)).unwrap() });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    node.run(|| async move {
        UdpSocket::bind((own, 0)).unwrap().send_to(&[], (there, PORT)).unwrap();
    });
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 0);
}
