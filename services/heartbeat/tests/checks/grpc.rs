//! `grpc`, against the health service of tonic.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use understudy_heartbeat::checks::{CheckConfig, CheckKind};

use crate::{Single, check, hasty, verdict};

struct HealthServer {
    address: SocketAddr,
    reporter: HealthReporter,
    task: JoinHandle<()>,
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, service) = health_reporter();
        let serving =
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, reporter, task }
    }

    async fn set(&self, service: &str, status: ServingStatus) {
        self.reporter.set_service_status(service, status).await;
    }
}

fn grpc(address: SocketAddr, service: &str) -> CheckConfig {
    check("grpc", CheckKind::Grpc { address: address.to_string(), service: service.to_owned() })
}

#[tokio::test]
async fn follows_the_status_of_the_service() {
    let server = HealthServer::start().await;
    server.set("shop.Cart", ServingStatus::Serving).await;
    let mut single = Single::start(grpc(server.address, "shop.Cart"));
    single.up().await;
    server.set("shop.Cart", ServingStatus::NotServing).await;
    assert_eq!(single.down().await, "service \"shop.Cart\" is NOT_SERVING");
    server.set("shop.Cart", ServingStatus::Serving).await;
    single.up().await;
}

#[tokio::test]
async fn the_empty_service_is_the_server_itself() {
    let server = HealthServer::start().await;
    server.set("", ServingStatus::Serving).await;
    assert_eq!(verdict(grpc(server.address, "")).await, "up");
}

#[tokio::test]
async fn an_unknown_service_is_down() {
    let server = HealthServer::start().await;
    let reason = verdict(grpc(server.address, "shop.Nothing")).await;
    assert!(reason.starts_with(&format!("asking {}: ", server.address)), "{reason}");
    assert!(reason.contains("service not registered"), "{reason}");
}

#[tokio::test]
async fn a_stopped_server_is_down() {
    let server = HealthServer::start().await;
    server.set("", ServingStatus::Serving).await;
    let mut single = Single::start(grpc(server.address, ""));
    single.up().await;
    let address = server.address;
    drop(server);
    assert!(single.down().await.contains(&address.to_string()));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_down_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let kind = CheckKind::Grpc { address, service: String::new() };
    assert_eq!(verdict(hasty(kind)).await, "no answer within 300ms");
}

/// An HTTP/1 server in its place.
#[tokio::test]
async fn a_server_that_speaks_no_http_2_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.writable().await.unwrap();
            let _ = stream.try_write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let reason = verdict(grpc(address, "")).await;
    answering.abort();
    assert!(reason.starts_with(&format!("asking {address}")), "{reason}");
}
