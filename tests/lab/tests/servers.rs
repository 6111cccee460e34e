//! The real servers and the workload.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use understudy_lab::{
    DnsProbe, Host, KEY_ALGORITHM, KEY_NAME, KEY_SECRET, NameServer, NatsCluster, Network, Software, fetch,
    wait_until, workload,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_nats_cluster_survives_the_loss_of_any_one_server() {
    let network = Network::create("nats").unwrap();
    let hosts: Vec<Host> =
        (1..=3).map(|number| network.host_numbered(&format!("nats-{number}"), number).unwrap()).collect();
    let cluster = NatsCluster::start(&hosts).unwrap();
    assert_eq!(cluster.urls()[0], "nats://10.77.0.1:4222");

    // The leader: the one whose loss shows.
    let leader = cluster.wait_leader(SECOND).unwrap();
    let lost = cluster.servers().iter().find(|server| server.host().name() == leader).unwrap();
    lost.process().kill9().unwrap();
    let next = cluster.wait_leader(30 * SECOND).unwrap();
    assert_ne!(next, leader);
    lost.process().restart().unwrap();
    cluster.wait_ready(30 * SECOND).unwrap();
}

#[test]
fn a_single_nats_server_has_jetstream_too() {
    let network = Network::create("nats1").unwrap();
    let host = network.host_numbered("nats-1", 1).unwrap();
    let cluster = NatsCluster::start(std::slice::from_ref(&host)).unwrap();
    let page = fetch(&host, host.socket(understudy_lab::MONITOR_PORT), "/jsz", SECOND).unwrap();
    assert!(page.body.contains("\"store_dir\""), "{}", page.body);
    cluster.servers()[0].process().terminate().unwrap();
    cluster.servers()[0].process().wait_exit(5 * SECOND).unwrap();
}

fn update(client: &Host, key: Option<&str>, lines: &str) -> anyhow::Result<String> {
    let mut arguments = vec!["-t".to_owned(), "2".to_owned()];
    if let Some(secret) = key {
        arguments.extend(["-y".to_owned(), format!("{KEY_ALGORITHM}:{KEY_NAME}:{secret}")]);
    }
    client.run_with_input("knsupdate", arguments, &format!("server 10.77.0.53\nzone ha.test.\n{lines}send\n"))
}

#[test]
fn knot_takes_signed_updates_only_and_keeps_them() {
    takes_signed_updates_only_and_keeps_them("knot", Software::Knot);
}

#[test]
fn bind_takes_signed_updates_only_and_keeps_them() {
    takes_signed_updates_only_and_keeps_them("bind", Software::Bind);
}

fn takes_signed_updates_only_and_keeps_them(name: &str, software: Software) {
    let network = Network::create(name).unwrap();
    let server = NameServer::start(software, &network.host_numbered("dns", 53).unwrap()).unwrap();
    let client = network.host_numbered("client", 2).unwrap();
    let probe = DnsProbe::start(&client, server.address(), "web.ha.test.", "A").unwrap();
    let first: IpAddr = "10.77.0.11".parse().unwrap();

    update(
        &client,
        Some(KEY_SECRET),
        "add web.ha.test. 1 A 10.77.0.11\nadd _e.web.ha.test. 1 TXT \"slot=0 epoch=7\"\n",
    )
    .unwrap();
    probe.wait_for(&[first], 5 * SECOND).unwrap();
    assert_eq!(server.records("_e.web.ha.test.", "TXT").unwrap(), ["slot=0 epoch=7"]);

    assert!(update(&client, None, "add web.ha.test. 1 A 10.77.0.12\n").is_err());
    assert!(
        update(&client, Some("d3Jvbmcgc2VjcmV0IG9mIGFub3RoZXIgem9uZSBrZXk="), "del web.ha.test.\n").is_err()
    );
    assert_eq!(server.records("web.ha.test.", "A").unwrap(), ["10.77.0.11"]);
    assert_eq!(server.records("nobody.ha.test.", "A").unwrap(), [""; 0]);

    server.process().kill9().unwrap();
    wait_until("the probe to notice", 5 * SECOND, || probe.addresses_now().is_none()).unwrap();
    server.restart().unwrap();
    probe.wait_for(&[first], 5 * SECOND).unwrap();
    let samples = probe.snapshot();
    assert_eq!(samples.first().unwrap().addresses.as_deref(), Some(&[][..]));
    assert!(samples.iter().all(|sample| sample.addresses.iter().flatten().all(|address| *address == first)));
}

/// Answer to a datagram from exactly the address that it was sent to.
fn echo(client: &Host, address: SocketAddr) -> Option<String> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = client.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(SECOND / 5)).unwrap();
    socket.send(b"ping").unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn the_workload_answers_from_the_address_that_was_asked() {
    let network = Network::create("work").unwrap();
    let web = network.host_numbered("web-a", 11).unwrap();
    let client = network.host_numbered("client", 2).unwrap();
    let _workload = workload::start(&web, 7000).unwrap();
    for (own, extra) in [("10.77.0.100/32", "10.77.0.100:7000"), ("fd77::100/128", "[fd77::100]:7000")] {
        web.run(
            "ip",
            ["addr", "add", own, "dev", "eth0", "nodad"][..if own.contains(':') { 6 } else { 5 }].iter(),
        )
        .unwrap();
        assert_eq!(echo(&client, extra.parse().unwrap()).as_deref(), Some("web-a ping"));
    }
    assert_eq!(echo(&client, web.socket(7000)).as_deref(), Some("web-a ping"));
    let answer = fetch(&client, "10.77.0.100:7000".parse().unwrap(), "/", SECOND).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "web-a\n"));
    assert_eq!(fetch(&client, web.socket(7000), "/nothing", SECOND).unwrap().status, 404);
}

#[test]
fn a_hung_workload_accepts_and_never_answers() {
    let network = Network::create("hang").unwrap();
    let web = network.host_numbered("web-a", 11).unwrap();
    let client = network.host_numbered("client", 2).unwrap();
    let workload = workload::start(&web, 7000).unwrap();

    workload.signal(Signal::SIGUSR1).unwrap();
    wait_until("it to hang", 5 * SECOND, || echo(&client, web.socket(7000)).is_none()).unwrap();
    let mut stream =
        client.enter(|| TcpStream::connect_timeout(&web.socket(7000), SECOND)).unwrap().expect("it accepts");
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(SECOND / 5)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    workload.signal(Signal::SIGUSR2).unwrap();
    wait_until("it to answer again", 5 * SECOND, || echo(&client, web.socket(7000)).is_some()).unwrap();
    assert_eq!(fetch(&client, web.socket(7000), "/healthz", SECOND).unwrap().status, 200);
}
