//! Networks and faults: what a cut takes and what it leaves.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use understudy_lab::{Host, Network, Traffic, wait_until};

const SECOND: Duration = Duration::from_secs(1);

fn pair(name: &str) -> (Network, Host, Host) {
    let network = Network::create(name).unwrap();
    let one = network.host_numbered("one", 1).unwrap();
    let two = network.host_numbered("two", 2).unwrap();
    (network, one, two)
}

fn socket(host: &Host, address: SocketAddr) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("a datagram comes");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Both ways once, so that the neighbours know each other.
fn acquaint(one: &UdpSocket, two: &UdpSocket) {
    one.send_to(b"hello", two.local_addr().unwrap()).unwrap();
    assert_eq!(receive(two), "hello");
    two.send_to(b"hello", one.local_addr().unwrap()).unwrap();
    assert_eq!(receive(one), "hello");
}

fn one_way(name: &str, address: impl Fn(&Host) -> SocketAddr) {
    let (network, one, two) = pair(name);
    let (at_one, at_two) = (socket(&one, address(&one)), socket(&two, address(&two)));
    acquaint(&at_one, &at_two);

    network.cut("one", "two").unwrap();
    at_one.send_to(b"lost", at_two.local_addr().unwrap()).unwrap();
    at_two.send_to(b"the other way", at_one.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&at_one), "the other way");

    network.heal_between("two", "one").unwrap();
    at_one.send_to(b"after healing", at_two.local_addr().unwrap()).unwrap();
    // Datagrams keep their order here: had the first passed the cut, it would be the one received.
    assert_eq!(receive(&at_two), "after healing");
}

#[test]
fn a_cut_is_one_way_for_ipv4() {
    one_way("cut4", |host| host.socket(9000));
}

#[test]
fn a_cut_is_one_way_for_ipv6() {
    one_way("cut6", |host| SocketAddr::new(host.ipv6().into(), 9000));
}

fn neighbour(host: &Host, of: &Host) -> String {
    host.run("ip", ["-4", "neigh", "show", "to", &of.ipv4().to_string()]).unwrap()
}

#[test]
fn a_cut_of_arp_alone_leaves_requests_of_the_other_way() {
    let (network, one, two) = pair("cutarp");
    network.cut_traffic(&["one"], &["two"], &[Traffic::Arp]).unwrap();
    let (at_one, at_two) = (socket(&one, one.socket(9000)), socket(&two, two.socket(9000)));

    at_two.send_to(b"waits for arp", at_one.local_addr().unwrap()).unwrap();
    // The request of two arrives: one learns the sender. Its reply is lost: two learns nothing.
    wait_until("one to know two", SECOND, || neighbour(&one, &two).contains(two.mac())).unwrap();
    assert!(!neighbour(&two, &one).contains("lladdr"), "{}", neighbour(&two, &one));

    network.heal_all().unwrap();
    // The kernel asks again once a second.
    assert_eq!(receive(&at_one), "waits for arp");
    assert!(neighbour(&two, &one).contains(one.mac()));
}

#[test]
fn a_cut_of_one_port_leaves_the_others() {
    let (network, one, two) = pair("cutport");
    let listen = |port| two.enter(|| TcpListener::bind(two.socket(port))).unwrap().unwrap();
    let _listeners = [listen(4222), listen(7443)];
    let connect = |port| one.enter(|| TcpStream::connect_timeout(&two.socket(port), SECOND / 4)).unwrap();
    assert!(connect(4222).is_ok() && connect(7443).is_ok());

    network.cut_traffic(&["one"], &["two"], &[Traffic::Tcp(4222)]).unwrap();
    assert_eq!(connect(4222).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(connect(7443).is_ok());
    // The answers of a server carry its port as source: the way back is cut by the same name.
    network.heal_all().unwrap();
    network.cut_traffic(&["two"], &["one"], &[Traffic::Tcp(7443)]).unwrap();
    assert!(connect(4222).is_ok());
    assert_eq!(connect(7443).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn an_isolated_host_is_reached_by_its_watcher_only() {
    let (network, one, two) = pair("isolate");
    let eye = network.watcher(&one, one.ipv4().into()).unwrap();
    let _listener = one.enter(|| TcpListener::bind(one.socket(80))).unwrap().unwrap();
    let connect =
        |host: &Host| host.enter(|| TcpStream::connect_timeout(&one.socket(80), SECOND / 4)).unwrap();
    assert!(connect(&two).is_ok() && connect(&eye).is_ok());

    network.isolate("one").unwrap();
    assert!(connect(&two).is_err());
    assert!(connect(&eye).is_ok());
    network.heal("one").unwrap();
    assert!(connect(&two).is_ok());
}

#[test]
fn a_host_comes_back_with_its_addresses() {
    let (network, one, two) = pair("link");
    let _listener = one.enter(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
    let reached =
        |address: SocketAddr| two.enter(|| TcpStream::connect_timeout(&address, SECOND / 4)).unwrap().is_ok();
    let addresses = [one.socket(80), SocketAddr::new(one.ipv6().into(), 80)];
    let all = || addresses.iter().all(|address| reached(*address));
    assert!(all());

    network.unplug("one").unwrap();
    assert!(!reached(addresses[0]) && !reached(addresses[1]));
    network.plug("one").unwrap();
    // Where one asked for its neighbours while it was off, it asks again only a second later.
    wait_until("one to be reached after its cable is back", 5 * SECOND, all).unwrap();

    network.link_down("one").unwrap();
    assert!(!reached(addresses[0]) && !reached(addresses[1]));
    network.link_up("one").unwrap();
    wait_until("one to be reached after its link is up", 5 * SECOND, all).unwrap();
}

#[test]
fn two_networks_with_the_same_addresses_do_not_meet() {
    let (_first, one, two) = pair("side");
    let (_second, _, other_two) = pair("side");
    let (at_two, at_other) = (socket(&two, two.socket(9000)), socket(&other_two, other_two.socket(9000)));
    let from_one = socket(&one, one.socket(9000));
    from_one.send_to(b"for two", at_two.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&at_two), "for two");
    at_other.set_nonblocking(true).unwrap();
    assert!(at_other.recv(&mut [0; 8]).is_err());
}

#[test]
fn sixteen_hosts_are_quickly_there() {
    let network = Network::create("many").unwrap();
    let begin = Instant::now();
    for number in 1..=16 {
        network.host_numbered(&format!("host-{number}"), number).unwrap();
    }
    let taken = begin.elapsed();
    assert!(taken < Duration::from_millis(1500), "{} ms", taken.as_millis());
}

#[test]
fn mistakes_are_named() {
    let (network, _, _) = pair("mistakes");
    let message = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
    assert!(message(network.cut("one", "three")).contains("no host three"));
    assert!(message(network.host_numbered("one", 3).map(drop)).contains("already"));
    assert!(message(network.host_numbered("three", 2).map(drop)).contains("taken"));
    assert!(
        message(network.host("three", "10.77.0.300/24", "fd77::3/64").map(drop)).contains("10.77.0.300/24")
    );
    assert!(message(network.host_numbered("Web.A", 3).map(drop)).contains("Web.A"));
}
