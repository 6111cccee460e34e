//! Both paths: each alone, both at once, one of them hung.

use std::time::{Duration, Instant};

use prost::Message as _;
use understudy_bus::{
    Nats, NatsOptions,
    direct::FromNode,
    nats::Subscription,
    paths::{FromSeat, NodeSender, own_heartbeat},
    queue::Receiver,
};
use understudy_wire::{Heartbeat, MAX_MESSAGE, Revoke, Slot, v1};

use crate::support::*;

/// Sends `count` heartbeats and waits for each: how long each took, shortest first.
async fn latencies(
    sender: &NodeSender,
    inbound: &mut Receiver<FromNode>,
    from: u64,
    count: u64,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for seq in from..from + count {
        let sent = Instant::now();
        sender.send_heartbeat(&heartbeat("web-a", seq));
        heard(inbound, seq).await;
        took.push(sent.elapsed());
    }
    took.sort();
    took
}

/// The bound of a path that nothing holds up; by the median, so that one pause of a busy machine is no failure.
fn assert_quick(took: &[Duration]) {
    let median = took[took.len() / 2];
    assert!(median < Duration::from_millis(20), "held up: median {median:?}, longest {:?}", took.last());
    eprintln!("median {median:?}, longest {:?}", took.last().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_both_paths_comes_once() {
    let cluster = Cluster::start(1);
    let (seat_nats, node_nats) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let mut detector = detector(&seat_nats, false).await;
    let (sender, mut from_seats) = member(&node_nats, "web-a", &[&detector.address]).await;
    subscribed(&node_nats).await;
    subscribed(&seat_nats).await;
    eventually("stream", async || (detector.sender.streams() == 1).then_some(())).await;
    let duplicates = &seat_nats.counters().duplicates;
    for seq in 1..=50 {
        sender.send_heartbeat(&heartbeat("web-a", seq));
        let FromNode::Heartbeat(first) = soon("heartbeat", detector.inbound.recv()).await.unwrap() else {
            panic!("not a heartbeat")
        };
        assert_eq!(first.seq, seq, "a duplicate or a stranger");
        // Both copies arrived: the second one was dropped.
        eventually("duplicate", async || (duplicates.value() == seq).then_some(())).await;
    }
    assert!(detector.inbound.is_empty());

    sender.send_release(&release("web-a", 5));
    let got = soon("release", detector.inbound.recv()).await.unwrap();
    assert_eq!(got, FromNode::Release(release("web-a", 5)));
    let revoke = Revoke {
        cluster: demo(),
        group: web(),
        seat: grant("web-a", 1).seat,
        detector: 9,
        slot: Slot(0),
        holder: holder("web-a"),
        echo: grant("web-a", 1).echo,
        reason: "unhealthy".into(),
    };
    detector.sender.revoke(&revoke);
    eventually("revoke", async || {
        (from_seats.recv().await.unwrap() == FromSeat::Revoke(revoke.clone())).then_some(())
    })
    .await;
}

/// Sends heartbeats whose details are around the limit, where what the path adds decides, and far above it. A lease
/// must not end because a node has too much to say of itself: each arrives, without its details if they are too large.
async fn assert_all_sizes_arrive(sender: &NodeSender, inbound: &mut Receiver<FromNode>) {
    let mut next = settle(sender, "web-a", inbound, 0).await;
    let mut cut = 0;
    for length in (MAX_MESSAGE - 100..MAX_MESSAGE + 8).step_by(3).chain([10 * MAX_MESSAGE]) {
        next += 1;
        let details = v1::Details { reason: "x".repeat(length), ..Default::default() }.encode_to_vec();
        sender.send_heartbeat(&Heartbeat { details, ..heartbeat("web-a", next) });
        let got = heard(inbound, next).await;
        let reason = got.details().reason;
        let whole = reason.len() == length;
        assert!(whole || reason.starts_with("details left out"), "{length}");
        cut += usize::from(!whole);
    }
    assert!((1..30).contains(&cut), "{cut} were cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_is_too_large_goes_without_its_details() {
    let mut cluster = Cluster::start(1);
    let (seat_nats, node_nats) = (client(cluster.urls()).await, client(cluster.urls()).await);
    connected(&node_nats).await;
    let mut over_nats = detector(&seat_nats, false).await;
    let (sender, _from_seats) = member(&node_nats, "web-a", &["127.0.0.1:1"]).await;
    assert_all_sizes_arrive(&sender, &mut over_nats.inbound).await;

    cluster.servers[0].kill();
    let mut direct = detector(&seat_nats, false).await;
    let (sender, _from_seats) = member(&node_nats, "web-a", &[&direct.address]).await;
    assert_all_sizes_arrive(&sender, &mut direct.inbound).await;
    assert_eq!(seat_nats.counters().too_large.value(), 0, "a seat refused one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nats_down_both_directions_go_direct() {
    let mut cluster = Cluster::start(1);
    let (seat_nats, node_nats) = (client(cluster.urls()).await, client(cluster.urls()).await);
    cluster.servers[0].kill();
    let mut detector = detector(&seat_nats, false).await;
    let (sender, mut from_seats) = member(&node_nats, "web-a", &[&detector.address]).await;
    let next = settle(&sender, "web-a", &mut detector.inbound, 0).await;
    assert_quick(&latencies(&sender, &mut detector.inbound, next, 50).await);
    detector.sender.grant(&grant("web-a", 77));
    granted(&mut from_seats, 77).await;
    assert_eq!(seat_nats.counters().nats_received.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_direct_path_down_both_directions_go_over_nats() {
    let cluster = Cluster::start(1);
    let (seat_nats, node_nats) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let mut detector = detector(&seat_nats, false).await;
    let (sender, mut from_seats) = member(&node_nats, "web-a", &["127.0.0.1:1"]).await;
    connected(&node_nats).await;
    let next = settle(&sender, "web-a", &mut detector.inbound, 0).await;
    assert_quick(&latencies(&sender, &mut detector.inbound, next, 50).await);
    detector.sender.grant(&grant("web-a", 77));
    granted(&mut from_seats, 77).await;
    assert_eq!(detector.sender.streams(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_nats_server_does_not_delay_the_direct_path() {
    let cluster = Cluster::start(1);
    // So slow to notice that the server hangs through the whole test.
    let options = NatsOptions {
        ping_interval: Duration::from_secs(60),
        ..NatsOptions::new(demo(), "test", cluster.urls())
    };
    let (seat_nats, node_nats) = (client_with(options.clone()).await, client_with(options).await);
    let mut detector = detector(&seat_nats, false).await;
    let (sender, mut from_seats) = member(&node_nats, "web-a", &[&detector.address]).await;
    connected(&node_nats).await;
    connected(&seat_nats).await;
    eventually("stream", async || (detector.sender.streams() == 1).then_some(())).await;
    let next = settle(&sender, "web-a", &mut detector.inbound, 0).await;
    cluster.servers[0].stop();
    assert_quick(&latencies(&sender, &mut detector.inbound, next, 200).await);
    for echo in 100..400 {
        detector.sender.grant(&grant("web-a", echo));
        granted(&mut from_seats, echo).await;
    }
}

/// Sends heartbeats until one has come back; what sends the next one.
async fn until_echoed(nats: &Nats, sender: &NodeSender) -> impl FnMut() {
    let mut seq = 0;
    let mut beat = move || {
        seq += 1;
        sender.send_heartbeat(&heartbeat("web-a", seq));
    };
    eventually("echo", async || {
        beat();
        (nats.counters().nats_received.value() > 0).then_some(())
    })
    .await;
    beat
}

/// Without a ping: heartbeats that do not come back tell of a server that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_leaves_a_server_that_does_not_pass_its_heartbeats_on() {
    let cluster = Cluster::start(2);
    let options = NatsOptions {
        ping_interval: Duration::from_secs(60),
        ..NatsOptions::new(demo(), "test", vec![cluster.url(0), cluster.url(1)])
    };
    let nats = client_with(options).await;
    let sender = publisher(&nats, "web-a", Duration::from_millis(200)).await;
    connected(&nats).await;
    let mut beat = until_echoed(&nats, &sender).await;
    let left = nats.server().unwrap();
    cluster.servers[usize::from(left == "n1")].stop();
    eventually("another server", async || {
        beat();
        (nats.server() != Some(left.clone())).then_some(())
    })
    .await;
    assert_eq!(nats.counters().nats_disconnects.value(), 1);
}

/// What came meanwhile lies in the socket, and is read before the server is judged by it.
#[tokio::test]
async fn a_publisher_that_stood_still_itself_leaves_no_server() {
    let cluster = Cluster::start(2);
    let nats = client(vec![cluster.url(0), cluster.url(1)]).await;
    let limit = Duration::from_millis(50);
    let sender = publisher(&nats, "web-a", limit).await;
    connected(&nats).await;
    let echoes = || nats.counters().nats_received.value();
    let mut beat = until_echoed(&nats, &sender).await;
    for _ in 0..10 {
        let before = echoes();
        beat();
        // It leaves, and nothing is read for as long as the thread, the only one, stands still.
        eventually("the heartbeat has left", async || nats.flush(Duration::from_secs(1)).await.then_some(()))
            .await;
        stand_still(limit);
        beat();
        // The server is under suspicion; its answers have come by the time that it is looked at again.
        tokio::task::yield_now().await;
        stand_still(limit);
        eventually("both echoes", async || (echoes() >= before + 2).then_some(())).await;
    }
    assert_eq!(nats.counters().nats_disconnects.value(), 0);
}

fn stand_still(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_that_accepts_and_never_answers_delays_no_other() {
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = (hung.local_addr().unwrap().to_string(), hung);
    let nats = client(vec!["127.0.0.1:1".into()]).await;
    let mut detector = detector(&nats, false).await;
    let (sender, mut from_seats) = member(&nats, "web-a", &[&hung.0, &detector.address]).await;
    let next = settle(&sender, "web-a", &mut detector.inbound, 0).await;
    assert_quick(&latencies(&sender, &mut detector.inbound, next, 100).await);
    detector.sender.grant(&grant("web-a", 77));
    granted(&mut from_seats, 77).await;
    // What waited for the hung one was replaced by newer heartbeats, not collected.
    assert!(nats.counters().superseded.value() > 0);
    assert_eq!(nats.counters().direct_full.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_nobody_configured_is_learned_from_its_presence() {
    let cluster = Cluster::start(1);
    let (seat_nats, node_nats) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let (_sender, mut from_seats) = member(&node_nats, "web-a", &[]).await;
    subscribed(&node_nats).await;
    let detector = detector(&seat_nats, true).await;
    eventually("stream", async || (detector.sender.streams() == 1).then_some(())).await;
    // What it says of itself now reaches the node without NATS, too.
    detector.presence.send_modify(|presence| presence.state = "granting".into());
    soon("presence", async {
        while !matches!(from_seats.recv().await, Some(FromSeat::Presence(presence)) if presence.state == "granting")
        {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_impostors_on_nats_are_refused_and_counted() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let mut detector = detector(&nats, false).await;
    let (_sender, mut from_seats) = member(&nats, "web-a", &[]).await;
    subscribed(&nats).await;
    let raw = raw(cluster.url(0)).await;
    let publish = async |subject: &str, message: Vec<u8>| {
        raw.publish(format!("understudy.demo.{subject}"), message.into()).await.unwrap();
    };
    let own = v1::Heartbeat::from(&heartbeat("web-a", 1));
    let foreign = v1::Heartbeat { cluster: "other".into(), ..own.clone() };
    let wild = v1::Heartbeat { node: "web.*".into(), ..own.clone() };
    let encode = |message: &v1::Heartbeat| prost::Message::encode_to_vec(message);
    publish("heartbeat.web.web-a", encode(&foreign)).await;
    publish("heartbeat.web.web-b", encode(&own)).await;
    publish("heartbeat.web.web-a", encode(&wild)).await;
    publish("heartbeat.web.web-a", vec![0; 10 * 1024 * 1024]).await;
    publish("heartbeat.web.web-a", vec![0xff; 10]).await;
    publish("release.web.web-b", prost::Message::encode_to_vec(&v1::Release::from(&release("web-a", 1))))
        .await;
    // A grant to somebody else, from a seat that cannot be, of another cluster, and of no kind.
    let to = |grant: v1::Grant| {
        let message = Some(v1::seat_message::Message::Grant(grant));
        prost::Message::encode_to_vec(&v1::SeatMessage { message })
    };
    let good = v1::Grant::from(&grant("web-a", 1));
    publish("grant.web.web-a", to(v1::Grant::from(&grant("web-b", 1)))).await;
    publish("grant.web.web-a", to(v1::Grant { seat: 300, ..good.clone() })).await;
    publish("grant.web.web-a", to(v1::Grant { cluster: "other".into(), ..good.clone() })).await;
    publish("grant.web.web-a", vec![]).await;
    publish("grant.web.web-a", to(v1::Grant { echo: 2, ..good })).await;
    // A seat's presence, from where an observer may speak.
    let presence = v1::Presence { cluster: "demo".into(), seat: 1, incarnation: 9, ..Default::default() };
    publish("detector.0", prost::Message::encode_to_vec(&presence)).await;
    publish("heartbeat.web.web-a", encode(&own)).await;

    heard(&mut detector.inbound, 1).await;
    granted(&mut from_seats, 2).await;
    let counters = nats.counters();
    eventually("all counted", async || {
        let counted =
            [&counters.other_cluster, &counters.wrong_name, &counters.malformed, &counters.too_large];
        (counted.map(|counter| counter.value()) == [2, 4, 4, 1]).then_some(())
    })
    .await;
    assert!(detector.inbound.is_empty());
}

/// As an executor hears its peers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_in_anothers_name_is_nobodys() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let mut heartbeats: Subscription<v1::Heartbeat> = nats.subscribe("heartbeat.web.*").await.unwrap();
    subscribed(&nats).await;
    let raw = raw(cluster.url(0)).await;
    let own = v1::Heartbeat::from(&heartbeat("web-a", 1));
    let foreign = v1::Heartbeat { cluster: "other".into(), ..own.clone() };
    for (node, message) in [("web-b", &own), ("web-a", &foreign), ("web-a", &own)] {
        let bytes = prost::Message::encode_to_vec(message);
        raw.publish(format!("understudy.demo.heartbeat.web.{node}"), bytes.into()).await.unwrap();
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        let received = soon("heartbeat", heartbeats.next()).await.unwrap();
        taken.push(own_heartbeat(&nats, received).map(|heartbeat| heartbeat.node));
    }
    assert_eq!(taken, [None, None, Some(node("web-a"))]);
    let counters = nats.counters();
    assert_eq!((counters.wrong_name.value(), counters.other_cluster.value()), (1, 1));
}
