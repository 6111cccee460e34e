//! One connection: types, requests, bad input, hung servers, trace context.

use std::time::{Duration, Instant};

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use understudy_bus::{
    NatsState,
    nats::{RequestError, Subscription},
};
use understudy_wire::{DecodeError, MAX_MESSAGE, Subject, v1};

use crate::support::*;

fn verdict(node_name: &str) -> (Subject, v1::Verdict) {
    (Subject::Verdict(web(), node(node_name)), v1::Verdict { node: node_name.into(), ..Default::default() })
}

#[tokio::test]
async fn what_is_published_before_there_is_a_server_arrives() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let mut verdicts: Subscription<v1::Verdict> = nats.subscribe("verdict.*.*").await.unwrap();
    let (subject, message) = verdict("web-a");
    nats.publish(&subject, &message);
    let received = soon("verdict", verdicts.next()).await.unwrap();
    assert_eq!((received.subject, received.message), (subject, Ok(message)));
    assert!(nats.flush(DEADLINE).await);
}

#[tokio::test]
async fn requests_tell_nobody_there_from_no_answer() {
    let cluster = Cluster::start(1);
    let (asking, answering) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let status = Subject::Command(web(), "status".into());
    connected(&asking).await;
    let ask = async |limit| asking.request::<_, v1::StatusReply>(&status, &v1::StatusRequest {}, limit).await;
    assert!(matches!(ask(DEADLINE).await, Err(RequestError::NoResponders(_))));

    let mut commands: Subscription<v1::StatusRequest> =
        answering.subscribe("command.*.status").await.unwrap();
    subscribed(&answering).await;
    let limit = Duration::from_millis(50);
    assert!(matches!(ask(limit).await, Err(RequestError::Timeout { .. })));
    let asked = soon("request", commands.next()).await.unwrap();
    assert_eq!(asked.subject, status);

    tokio::spawn(async move {
        while let Some(received) = commands.next().await {
            answering.respond(&received.reply.unwrap(), &v1::StatusReply::default());
        }
    });
    assert_eq!(ask(DEADLINE).await.unwrap(), v1::StatusReply::default());
}

#[tokio::test]
async fn a_request_to_many_returns_with_the_expected_number_and_with_fewer() {
    let cluster = Cluster::start(1);
    let asking = client(cluster.urls()).await;
    for seat in 1..=3 {
        let answering = client(cluster.urls()).await;
        let mut commands: Subscription<v1::StatusRequest> =
            answering.subscribe("command.*.status").await.unwrap();
        subscribed(&answering).await;
        tokio::spawn(async move {
            let presence = Some(v1::Presence { seat, ..Default::default() });
            // Larger than a message may be: a status of a large deployment is.
            let groups = vec![v1::GroupStatus { group: "x".repeat(2 * MAX_MESSAGE), ..Default::default() }];
            while let Some(received) = commands.next().await {
                let reply = v1::StatusReply { presence: presence.clone(), groups: groups.clone() };
                answering.respond(&received.reply.unwrap(), &reply);
            }
        });
    }
    let status = Subject::Command(web(), "status".into());
    for (limit, expected) in [(DEADLINE, 3), (Duration::from_secs(2), 5)] {
        let enough = |replies: &[v1::StatusReply]| replies.len() == expected;
        let replies = asking.request_many(&status, &v1::StatusRequest {}, limit, enough).await.unwrap();
        let mut seats: Vec<_> = replies.iter().map(|reply| reply.presence.as_ref()).collect();
        seats.sort_by_key(|presence| presence.unwrap().seat);
        assert_eq!(seats.iter().map(|presence| presence.unwrap().seat).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn bad_bytes_are_handed_out_as_errors_and_counted() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let mut verdicts: Subscription<v1::Verdict> = nats.subscribe("verdict.>").await.unwrap();
    subscribed(&nats).await;
    let raw = raw(cluster.url(0)).await;
    let good = prost::Message::encode_to_vec(&verdict("web-a").1);
    let mut publish = async |subject: &str, payload: Vec<u8>| {
        raw.publish(format!("understudy.demo.verdict.{subject}"), payload.into()).await.unwrap();
        soon("verdict", verdicts.next()).await.unwrap().message
    };
    assert!(matches!(publish("web.a", vec![0xff; 40]).await, Err(DecodeError::Malformed { .. })));
    let cut = good[..good.len() - 1].to_vec();
    assert!(matches!(publish("web.a", cut).await, Err(DecodeError::Malformed { .. })));
    let ten_megabytes = 10 * 1024 * 1024;
    assert_eq!(publish("web.a", vec![0; ten_megabytes]).await, Err(DecodeError::TooLarge(ten_megabytes)));
    // A subject that is none of ours is left out; the next message is a good one.
    raw.publish("understudy.demo.verdict.too.many.tokens", good.clone().into()).await.unwrap();
    assert_eq!(publish("web.a", good).await.unwrap().node, "web-a");
    assert_eq!((nats.counters().malformed.value(), nats.counters().too_large.value()), (3, 1));
}

#[tokio::test]
async fn too_large_a_message_is_not_published() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let (subject, mut message) = verdict("web-a");
    message.reason = "x".repeat(MAX_MESSAGE);
    nats.publish(&subject, &message);
    assert_eq!(nats.counters().too_large.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_is_left_for_another_within_a_second() {
    let cluster = Cluster::start(3);
    let subscriber = client(vec![cluster.url(2)]).await;
    let mut verdicts: Subscription<v1::Verdict> = subscriber.subscribe("verdict.*.*").await.unwrap();
    let (subject, mut message) = verdict("web-a");
    // From either server that will be used, which have routes of their own to the subscriber's.
    for (server, mark) in [(0, -1.0), (1, -2.0)] {
        message.silent_ms = mark;
        let through = client(vec![cluster.url(server)]).await;
        eventually("routes are up", async || {
            through.publish(&subject, &message);
            let received = tokio::time::timeout(Duration::from_millis(10), verdicts.next()).await.ok()??;
            (received.message.unwrap().silent_ms == mark).then_some(())
        })
        .await;
    }
    let publisher = client(vec![cluster.url(0), cluster.url(1)]).await;
    connected(&publisher).await;

    let hung = publisher.server().unwrap();
    let index = usize::from(hung == "n1");
    cluster.servers[index].stop();
    let stopped = Instant::now();
    let mut longest_call = Duration::ZERO;
    loop {
        message.silent_ms = 1.0;
        let call = Instant::now();
        publisher.publish(&subject, &message);
        longest_call = longest_call.max(call.elapsed());
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(10), verdicts.next()).await
            && received.unwrap().message.unwrap().silent_ms > 0.0
        {
            break;
        }
        assert!(stopped.elapsed() < Duration::from_secs(1), "nothing arrives through another server");
    }
    assert_ne!(publisher.server().unwrap(), hung);
    assert!(longest_call < Duration::from_millis(50), "publish() waited {longest_call:?}");
    eprintln!("another server after {:?}, longest publish() {longest_call:?}", stopped.elapsed());
}

#[tokio::test]
async fn publishing_never_waits_and_what_is_stale_is_dropped() {
    let mut cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    connected(&nats).await;
    cluster.servers[0].kill();
    let mut state = nats.state();
    soon("disconnected", state.wait_for(|state| *state == NatsState::Disconnected)).await.unwrap();
    let (subject, message) = verdict("web-a");
    let started = Instant::now();
    for _ in 0..10_000 {
        nats.publish(&subject, &message);
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(nats.counters().nats_full.value() >= 10_000 - 4_097);
    // Old enough to be worth nothing when the server is back.
    tokio::time::sleep_until((started + Duration::from_millis(1_500)).into()).await;
    cluster.restart(0);
    let stale = &nats.counters().nats_stale;
    eventually("stale ones are dropped", async || (stale.value() >= 4_096).then_some(())).await;
}

#[tokio::test]
async fn the_trace_travels_with_everything_but_heartbeats() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let mut verdicts: Subscription<v1::Verdict> = nats.subscribe("verdict.*.*").await.unwrap();
    let mut heartbeats: Subscription<v1::Heartbeat> = nats.subscribe("heartbeat.*.*").await.unwrap();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let span = tracing::info_span!("failover");
    let (subject, message) = verdict("web-a");
    span.in_scope(|| {
        nats.publish(&subject, &message);
        let heartbeat = v1::Heartbeat::from(&heartbeat("web-a", 1));
        nats.publish(&Subject::Heartbeat(web(), node("web-a")), &heartbeat);
    });
    let received = soon("verdict", verdicts.next()).await.unwrap();
    let remote = received.context();
    let (here, there) = (span.context(), remote.span().span_context().clone());
    assert!(there.is_remote());
    assert_eq!(there.trace_id(), here.span().span_context().trace_id());
    assert_eq!(there.span_id(), here.span().span_context().span_id());
    assert!(soon("heartbeat", heartbeats.next()).await.unwrap().headers.is_empty());
}
