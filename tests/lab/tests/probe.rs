//! The instrument itself: it must see a gap, and two nodes at a time, where there are some.
//! An address is moved by hand, with `ip`.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use understudy_lab::{
    Host, KEY_ALGORITHM, KEY_NAME, KEY_SECRET, Moment, NameServer, Network, Probe, Process, Software, ZONE,
    wait_until, workload,
};

const SECOND: Duration = Duration::from_secs(1);
/// A name server has its part in it.
const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 7000;

struct Stage {
    network: Network,
    client: Host,
    nodes: [Host; 2],
    _workloads: [Process; 2],
    vip: SocketAddr,
}

impl Stage {
    fn new(name: &str, vip: &str) -> Self {
        let network = Network::create(name).unwrap();
        let client = network.host_numbered("client", 2).unwrap();
        let nodes =
            [network.host_numbered("web-a", 11).unwrap(), network.host_numbered("web-b", 12).unwrap()];
        let workloads =
            [workload::start(&nodes[0], PORT).unwrap(), workload::start(&nodes[1], PORT).unwrap()];
        Self {
            network,
            client,
            nodes,
            _workloads: workloads,
            vip: SocketAddr::new(vip.parse().unwrap(), PORT),
        }
    }

    fn probe(&self) -> Probe {
        Probe::start(&self.network, &self.client, &[&self.nodes[0], &self.nodes[1]], self.vip).unwrap()
    }

    fn add(&self, node: usize) {
        let (vip, bits) = (self.vip.ip(), if self.vip.is_ipv4() { 32 } else { 128 });
        let mut arguments = vec!["addr".to_owned(), "add".to_owned(), format!("{vip}/{bits}")];
        arguments.extend(["dev".to_owned(), "eth0".to_owned()]);
        if self.vip.is_ipv6() {
            arguments.push("nodad".to_owned());
        }
        self.nodes[node].run("ip", arguments).unwrap();
        // In place of an announcement: the client forgets, and asks anew who has the address.
        self.client.run("ip", ["neigh", "flush", &vip.to_string()]).unwrap();
    }

    fn remove(&self, node: usize) {
        let (vip, bits) = (self.vip.ip(), if self.vip.is_ipv4() { 32 } else { 128 });
        self.nodes[node].run("ip", ["addr", "del", &format!("{vip}/{bits}"), "dev", "eth0"]).unwrap();
    }
}

fn milliseconds(from: Moment, to: Moment) -> f64 {
    to.since(from).as_secs_f64() * 1e3
}

fn sees_the_gap_of_a_move(stage: &Stage) {
    stage.add(0);
    let probe = stage.probe();
    probe.wait_served_by("web-a", SECOND).unwrap();

    let before = probe.mark();
    stage.remove(0);
    let removed = probe.mark();
    probe.wait_dark(SECOND).unwrap();
    let added = probe.mark();
    stage.add(1);
    let served = probe.wait_served_by("web-b", 5 * SECOND).unwrap();
    assert_eq!(probe.serving_now().as_deref(), Some("web-b"));
    wait_until("the watcher of web-b to see it", SECOND, || probe.eyes_now() == ["web-b"]).unwrap();
    let after = probe.mark();
    wait_until("the last questions to be judged", SECOND, || {
        probe.snapshot().client.last().is_some_and(|sample| sample.sent >= after)
    })
    .unwrap();

    let history = probe.finish();
    let gap = history.gap(before, after);
    // At least the time it was nowhere, at most from before the removal to the first answer asked for later.
    assert!(gap.milliseconds() >= milliseconds(removed, added), "{gap}");
    assert!(gap.milliseconds() <= milliseconds(before, served), "{gap}");
    assert!(gap.lost >= 40, "{gap}");
    assert_eq!(history.longest_gap(before, after).to_bits(), gap.milliseconds().to_bits());
    assert_eq!(history.two_answering(), Duration::ZERO, "{:?}", history.two_answering_at());
    assert_eq!(history.answering_at(gap.from), ["web-a"]);
    assert_eq!(history.answering_at(added), [""; 0]);
    let servers: Vec<String> = history.tenures().into_iter().map(|(node, ..)| node).collect();
    assert_eq!(servers, ["web-a", "web-b"]);
    assert_eq!(history.first_answer("web-b", before), Some(gap.to));
    assert!(history.last_served("web-a", after).unwrap() <= removed);
}

#[test]
fn it_sees_the_gap_when_an_ipv4_address_moves() {
    sees_the_gap_of_a_move(&Stage::new("gap4", "10.77.0.100"));
}

#[test]
fn it_sees_the_gap_when_an_ipv6_address_moves() {
    sees_the_gap_of_a_move(&Stage::new("gap6", "fd77::100"));
}

#[test]
fn a_client_that_goes_by_the_name_follows_the_record_and_the_eyes_see_every_node() {
    let stage = Stage::new("name", "10.77.0.100");
    let knot = NameServer::start(Software::Knot, &stage.network.host_numbered("dns", 53).unwrap()).unwrap();
    let point_to = |address: &str| {
        let key = format!("{KEY_ALGORITHM}:{KEY_NAME}:{KEY_SECRET}");
        let lines = format!(
            "server {}\nzone {ZONE}\ndel web.{ZONE} A\nadd web.{ZONE} 1 A {address}\nsend\n",
            knot.address().ip()
        );
        stage.client.run_with_input("knsupdate", ["-y", &key], &lines).unwrap();
    };
    let nodes = [&stage.nodes[0], &stage.nodes[1]];
    let name = format!("web.{ZONE}");
    let probe =
        Probe::start_by_name(&stage.network, &stage.client, &nodes, PORT, knot.address(), &name).unwrap();
    // Nothing guards the nodes here: both answer at their own addresses, whomever the record names.
    wait_until("both watchers to be answered", SOON, || probe.eyes_now() == ["web-a", "web-b"]).unwrap();
    assert_eq!(probe.serving_now(), None, "there is no record yet");
    point_to("10.77.0.11");
    probe.wait_served_by("web-a", SOON).unwrap();
    let before = probe.mark();
    point_to("10.77.0.12");
    let served = probe.wait_served_by("web-b", SOON).unwrap();
    wait_until("that question to be judged", SOON, || {
        probe.snapshot().first_answer("web-b", before).is_some()
    })
    .unwrap();
    let history = probe.finish();
    assert!(!history.two_answering_at().is_empty());
    let gap = history.gap(before, served);
    assert!(gap.milliseconds() < 50.0 + gap.pause.as_secs_f64() * 1e3, "both served all the time: {gap}");
    let servers: Vec<String> = history.tenures().into_iter().map(|(node, ..)| node).collect();
    assert_eq!(servers, ["web-a", "web-b"]);
}

#[test]
fn it_sees_two_nodes_that_answer_at_a_time() {
    let stage = Stage::new("dual", "10.77.0.100");
    stage.add(0);
    let probe = stage.probe();
    probe.wait_served_by("web-a", SECOND).unwrap();
    let begin = probe.mark();
    stage.add(1);
    wait_until("both watchers to be answered", SECOND, || probe.eyes_now() == ["web-a", "web-b"]).unwrap();
    stage.remove(0);
    let end = probe.mark();
    // Whoever answers now, the client sees one node only at any time: two are seen by the eyes alone.
    wait_until("the eyes to see one", SECOND, || probe.eyes_now() == ["web-b"]).unwrap();

    let history = probe.finish();
    let both = history.two_answering();
    assert!(both > Duration::ZERO && both <= end.since(begin) + Duration::from_millis(1), "{both:?}");
    let (at, nodes) = &history.two_answering_at()[0];
    assert_eq!(nodes[..], ["web-a", "web-b"]);
    assert!(*at >= begin && *at <= end);
}

#[test]
fn it_sees_behind_an_isolation() {
    let stage = Stage::new("behind", "10.77.0.100");
    stage.add(0);
    let probe = stage.probe();
    probe.wait_served_by("web-a", SECOND).unwrap();
    stage.network.isolate("web-a").unwrap();
    wait_until("the client to lose it", SECOND, || probe.serving_now().is_none()).unwrap();
    assert_eq!(probe.eyes_now(), ["web-a"]);
}

#[test]
fn questions_that_waited_for_a_neighbour_do_not_hide_the_gap() {
    let stage = Stage::new("queue", "10.77.0.100");
    stage.add(0);
    let probe = stage.probe();
    probe.wait_served_by("web-a", SECOND).unwrap();
    // No ARP reply: the kernel keeps the last questions until one comes, then sends them all at once.
    let before = probe.mark();
    stage.network.cut_traffic(&["web-a"], &["client"], &[understudy_lab::Traffic::Arp]).unwrap();
    stage.client.run("ip", ["neigh", "flush", "10.77.0.100"]).unwrap();
    let flushed = probe.mark();
    wait_until("the client to lose it", SECOND, || probe.serving_now().is_none()).unwrap();
    stage.network.heal_all().unwrap();
    let healed = probe.mark();
    probe.wait_served_by("web-a", 5 * SECOND).unwrap();
    let after = probe.mark();
    let gap = probe.finish().gap(before, after);
    let limit = understudy_lab::ANSWER_LIMIT.as_secs_f64() * 1e3;
    assert!(gap.milliseconds() >= milliseconds(flushed, healed) - limit, "{gap}");
}

#[test]
fn in_calm_it_sees_a_gap_of_about_its_own_interval() {
    let stage = Stage::new("calm", "10.77.0.100");
    stage.add(0);
    let probe = stage.probe();
    let begin = probe.wait_served_by("web-a", SECOND).unwrap();
    let history = wait_until("half a second of questions", 5 * SECOND, || {
        let history = probe.snapshot();
        (history.client.last()?.sent.since(begin) > SECOND / 2).then_some(history)
    })
    .unwrap();
    let end = history.client.last().unwrap().sent;
    let gap = history.gap(begin, end);
    // What the probe's own pauses do not explain must be small: 20 ms is far above it on a busy machine.
    assert!(gap.milliseconds() < 20.0 + gap.pause.as_secs_f64() * 1e3, "{gap}");
    assert!(gap.milliseconds() >= 0.5, "{gap}");
    let answered =
        history.client.iter().filter(|sample| sample.sent >= begin && sample.node().is_some()).count();
    assert!(answered > 400, "{answered} of 500 questions answered");
    println!("calm: {gap}, {answered} answered");
}
