//! The pages, asked over a real socket.

use std::{net::SocketAddr, time::Duration};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use understudy_lab::wait_until_async;
use understudy_service::{
    Health, Metrics,
    access::Door,
    http::{PLACES, TICK_LIMIT, serve},
};

/// Nothing here takes longer unless it is broken.
const DEADLINE: Duration = Duration::from_secs(10);
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    get_as(address, path, "*/*").await
}

async fn get_as(address: SocketAddr, path: &str, accept: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn metrics_have_our_prefix_in_either_format() {
    let metrics = Metrics::default();
    let takeovers: Counter = Counter::default();
    metrics.register(|registry| registry.register("takeovers", "Slots taken over", takeovers.clone()));
    takeovers.inc_by(3);
    let address =
        serve(LOCAL, Door::Open, metrics, Health::new(TICK_LIMIT), CancellationToken::new()).await.unwrap();
    // As Prometheus asks, its other formats left out.
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4";
    let (status, page) = get_as(address, "/metrics", prometheus).await;
    assert_eq!(status, 200);
    assert!(
        page.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{page}"
    );
    assert!(page.contains("\nunderstudy_takeovers_total 3\n") && page.ends_with("# EOF\n"), "{page}");
    let (status, page) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{page}");
    assert!(
        page.contains("\n# TYPE understudy_takeovers_total counter\nunderstudy_takeovers_total 3\n"),
        "{page}"
    );
    assert!(!page.contains("# EOF"), "{page}");
    assert_eq!(get(address, "/other").await.0, 404);
}

#[tokio::test]
async fn readiness_tells_its_reason() {
    let health = Health::new(TICK_LIMIT);
    let address =
        serve(LOCAL, Door::Open, Metrics::default(), health.clone(), CancellationToken::new()).await.unwrap();
    let (status, page) = get(address, "/readyz").await;
    assert!(status == 503 && page.ends_with("\r\n\r\nstarting\n"), "{page}");
    health.ready(true, "seat 2 grants");
    let (status, page) = get(address, "/readyz").await;
    assert!(status == 200 && page.ends_with("seat 2 grants\n"), "{page}");
    health.ready(false, "two live detectors on seat 2");
    let (status, page) = get(address, "/readyz").await;
    assert!(status == 503 && page.ends_with("two live detectors on seat 2\n"), "{page}");
    // What it has to do without is told beside it and changes nothing.
    health.limited("no realtime scheduling");
    health.ready(true, "seat 2 grants");
    let (status, page) = get(address, "/readyz").await;
    assert!(status == 200 && page.ends_with("seat 2 grants\nlimited: no realtime scheduling\n"), "{page}");
}

#[tokio::test]
async fn a_main_loop_without_ticks_is_not_live_until_it_ticks_again() {
    let health = Health::new(Duration::from_millis(1));
    let address =
        serve(LOCAL, Door::Open, Metrics::default(), health.clone(), CancellationToken::new()).await.unwrap();
    wait_until_async("too long a silence", DEADLINE, async || health.live().is_err()).await.unwrap();
    let (status, page) = get(address, "/healthz").await;
    assert!(status == 503 && page.contains("main loop silent for "), "{page}");
    let patient = Health::new(Duration::from_secs(60));
    patient.tick();
    let address =
        serve(LOCAL, Door::Open, Metrics::default(), patient, CancellationToken::new()).await.unwrap();
    assert_eq!(get(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn idle_connections_take_no_more_descriptors_than_there_are_places() {
    let health = Health::new(TICK_LIMIT);
    let address =
        serve(LOCAL, Door::Open, Metrics::default(), health, CancellationToken::new()).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..PLACES {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut asking = Box::pin(get(address, "/healthz"));
    let answer = tokio::time::timeout(Duration::from_millis(200), &mut asking).await;
    assert!(answer.is_err(), "there was a place for one more");
    drop(idle.pop());
    assert_eq!(asking.await.0, 200);
}

/// On a clock that is moved on: a minute passes.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_loses_its_place() {
    let health = Health::new(TICK_LIMIT);
    let address =
        serve(LOCAL, Door::Open, Metrics::default(), health, CancellationToken::new()).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_address_in_use_is_named_and_the_token_frees_it() {
    let shutdown = CancellationToken::new();
    let address = serve(LOCAL, Door::Open, Metrics::default(), Health::new(TICK_LIMIT), shutdown.clone())
        .await
        .unwrap();
    let refused = serve(address, Door::Open, Metrics::default(), Health::new(TICK_LIMIT), shutdown.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), format!("listening on http.listen = {address}"));
    assert_eq!(refused.source.kind(), std::io::ErrorKind::AddrInUse);
    // A scraper that keeps its connection open does not hold the listener.
    let _idle = TcpStream::connect(address).await.unwrap();
    shutdown.cancel();
    let is_free = async || TcpStream::connect(address).await.is_err();
    wait_until_async("the listener to close", DEADLINE, is_free).await.unwrap();
}
