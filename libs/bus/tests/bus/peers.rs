//! The direct path alone: who may come in, and peers that misbehave.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Code, Status, Streaming, transport::Endpoint};
use understudy_bus::{
    direct::{DirectClient, DirectServer, FromNode},
    grpc::direct_client::DirectClient as Raw,
};
use understudy_lab::Network;
use understudy_wire::v1::{self, node_message, seat_message};

use crate::support::*;

fn hello(cluster: &str, name: &str) -> v1::Hello {
    v1::Hello { cluster: cluster.into(), group: "web".into(), node: name.into(), grants: true }
}

fn says(message: node_message::Message) -> v1::NodeMessage {
    v1::NodeMessage { message: Some(message) }
}

/// Opens a stream with these messages and keeps it open.
async fn exchange(
    address: &str,
    messages: Vec<v1::NodeMessage>,
) -> Result<Streaming<v1::SeatMessage>, Status> {
    exchange_over(Raw::connect(format!("http://{address}")).await.unwrap(), messages).await
}

async fn exchange_over(
    mut client: Raw<tonic::transport::Channel>,
    messages: Vec<v1::NodeMessage>,
) -> Result<Streaming<v1::SeatMessage>, Status> {
    let body = stream::iter(messages).chain(stream::pending());
    soon("answer", client.exchange(body)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn only_a_member_of_this_cluster_gets_a_stream() {
    let server = direct_server(None).await;
    let refused = async |message| exchange(&server.address, vec![message]).await.unwrap_err();
    let other = refused(says(node_message::Message::Hello(hello("other", "web-a")))).await;
    assert_eq!(
        (other.code(), other.message()),
        (Code::FailedPrecondition, "this is cluster demo, not other")
    );
    let wild = refused(says(node_message::Message::Hello(hello("demo", "web.*")))).await;
    assert_eq!(wild.code(), Code::InvalidArgument);
    let first = refused(says(node_message::Message::Heartbeat(v1::Heartbeat::default()))).await;
    assert_eq!(first.message(), "the first message must be a hello");
    let counters = &server.counters;
    assert_eq!((counters.other_cluster.value(), counters.malformed.value()), (1, 2));
    assert_eq!(server.server.streams(), 0);
}

#[tokio::test]
async fn a_stream_speaks_for_its_own_node_only() {
    let mut server = direct_server(None).await;
    let beat = |heartbeat: v1::Heartbeat| says(node_message::Message::Heartbeat(heartbeat));
    let own = v1::Heartbeat::from(&heartbeat("web-a", 1));
    let messages = vec![
        says(node_message::Message::Hello(hello("demo", "web-a"))),
        beat(v1::Heartbeat::from(&heartbeat("web-b", 1))),
        beat(v1::Heartbeat { cluster: "other".into(), ..own.clone() }),
        beat(v1::Heartbeat { boot: vec![1], ..own.clone() }),
        says(node_message::Message::Release(v1::Release::from(&release("web-b", 1)))),
        v1::NodeMessage::default(),
        beat(own),
    ];
    let _stream = exchange(&server.address, messages).await.unwrap();
    let first = soon("heartbeat", server.inbound.recv()).await.unwrap();
    assert_eq!(first, FromNode::Heartbeat(Box::new(heartbeat("web-a", 1))));
    let counters = &server.counters;
    assert_eq!(counters.wrong_name.value(), 2);
    assert_eq!((counters.other_cluster.value(), counters.malformed.value()), (1, 2));
}

#[tokio::test]
async fn ten_megabytes_end_the_stream_and_nothing_else() {
    let mut server = direct_server(None).await;
    let mut huge = v1::Heartbeat::from(&heartbeat("web-a", 1));
    huge.details = vec![0; 10 * 1024 * 1024];
    let hello = says(node_message::Message::Hello(hello("demo", "web-a")));
    let _bad = exchange(&server.address, vec![hello.clone(), says(node_message::Message::Heartbeat(huge))])
        .await
        .unwrap();
    eventually("counted", async || (server.counters.too_large.value() == 1).then_some(())).await;
    eventually("stream gone", async || (server.server.streams() == 0).then_some(())).await;
    let good = says(node_message::Message::Heartbeat(v1::Heartbeat::from(&heartbeat("web-a", 2))));
    let _good = exchange(&server.address, vec![hello, good]).await.unwrap();
    heard(&mut server.inbound, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_read_delays_no_other() {
    let server = direct_server(None).await;
    let hello = |name| vec![says(node_message::Message::Hello(hello("demo", name)))];
    let _stuck = exchange(&server.address, hello("web-a")).await.unwrap();
    let mut reading = exchange(&server.address, hello("web-b")).await.unwrap();
    eventually("streams", async || (server.server.streams() == 2).then_some(())).await;
    let message = |name, echo| {
        let mut grant = v1::Grant::from(&grant(name, echo));
        grant.cluster = "c".repeat(1_000);
        v1::SeatMessage { message: Some(seat_message::Message::Grant(grant)) }
    };
    // More than every buffer on the way to the stuck one can hold.
    for echo in 0..20_000 {
        assert_eq!(server.server.send(&web(), &node("web-a"), &message("web-a", echo)), 1);
        if echo % 100 == 0 {
            server.server.send(&web(), &node("web-b"), &message("web-b", echo));
            loop {
                let read = soon("grant", reading.message()).await.unwrap().unwrap();
                match read.message {
                    Some(seat_message::Message::Grant(grant)) if grant.echo == echo => break,
                    _ => {}
                }
            }
        }
    }
    assert!(server.counters.direct_full.value() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_that_comes_back_gets_its_stream_back() {
    let first = direct_server(None).await;
    let (_addresses, following) = watch::channel(BTreeSet::from([first.address.clone()]));
    let (client, mut messages) = DirectClient::start(hello("demo", "web-a"), None, following, Arc::default());
    eventually("stream", async || (first.server.streams() == 1).then_some(())).await;
    let told = soon("presence", messages.recv()).await.unwrap();
    assert!(matches!(told.message, Some(seat_message::Message::Presence(_))));
    let address = first.address.clone();
    drop(first);

    let listener = eventually("port free again", async || TcpListener::bind(&address).await.ok()).await;
    let (_presence, receiver) = watch::channel(v1::Presence::default());
    let (second, mut inbound) = DirectServer::serve(listener, demo(), receiver, None, Arc::default());
    eventually("stream again", async || (second.streams() == 1).then_some(())).await;
    // The last message before the process ends is read before close() returns.
    client.send_release(&v1::Release::from(&release("web-a", 3)));
    assert!(client.close(DEADLINE).await);
    assert_eq!(inbound.try_recv(), Some(FromNode::Release(release("web-a", 3))));
}

#[tokio::test]
async fn closing_gives_up_on_a_hung_detector_in_time() {
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hung.local_addr().unwrap().to_string();
    let (_addresses, following) = watch::channel(BTreeSet::from([address]));
    let (client, _messages) = DirectClient::start(hello("demo", "web-a"), None, following, Arc::default());
    client.send_release(&v1::Release::from(&release("web-a", 3)));
    let started = std::time::Instant::now();
    client.close(Duration::from_millis(100)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// One that is silent, and one to which something was sent that nobody acknowledges.
#[tokio::test]
async fn nodes_that_vanish_are_forgotten() {
    let network = Network::create("vanish").unwrap();
    let detector = network.host_numbered("detector-1", 21).unwrap();
    let node = network.host_numbered("web-a", 31).unwrap();
    let listener = detector.enter(|| std::net::TcpListener::bind(detector.socket(0))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = direct_server_on(TcpListener::from_std(listener).unwrap(), None);
    let mut streams = Vec::new();
    for name in ["web-a", "web-b"] {
        let address = server.address.clone();
        let stream = node.enter(move || std::net::TcpStream::connect(address)).unwrap().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = Some(TokioIo::new(TcpStream::from_std(stream).unwrap()));
        let connected =
            tower::service_fn(move |_| std::future::ready(stream.take().ok_or(Status::aborted("once"))));
        let channel = Endpoint::from_static("http://node").connect_with_connector(connected).await.unwrap();
        let messages = vec![says(node_message::Message::Hello(hello("demo", name)))];
        streams.push(exchange_over(Raw::new(channel), messages).await.unwrap());
    }
    eventually("streams", async || (server.server.streams() == 2).then_some(())).await;
    network.isolate("web-a").unwrap();
    let message =
        v1::SeatMessage { message: Some(seat_message::Message::Grant(v1::Grant::from(&grant("web-b", 1)))) };
    assert_eq!(server.server.send(&web(), &crate::support::node("web-b"), &message), 1);
    eventually("nobody", async || (server.server.streams() == 0).then_some(())).await;
    assert_eq!(server.counters.direct_disconnects.value(), 2);
}
