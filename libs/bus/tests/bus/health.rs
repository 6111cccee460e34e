//! Whatever speaks gRPC answers the gRPC health protocol, as the detectors' port and `node.sock` do.

use tempfile::TempDir;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use understudy_bus::node_link::NodeLinkServer;

use crate::support::*;

/// The whole server (no name) and the service serve; one that is not there is not known.
async fn serves(address: String, service: &str) {
    let channel = soon("connection", Endpoint::from_shared(address).unwrap().connect()).await.unwrap();
    let mut client = HealthClient::new(channel);
    for name in ["", service] {
        let answer = client.check(HealthCheckRequest { service: name.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{name:?}");
    }
    let unknown = client.check(HealthCheckRequest { service: "understudy.v1.Nothing".into() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn node_sock_answers_the_health_protocol() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("node.sock");
    let (_server, _events) = NodeLinkServer::serve(&socket).unwrap();
    serves(format!("unix://{}", socket.display()), "understudy.v1.NodeLink").await;
}

#[tokio::test]
async fn the_direct_path_answers_the_health_protocol() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let detector = detector(&nats, true).await;
    serves(format!("http://{}", detector.address), "understudy.v1.Direct").await;
}
