//! The direct path with TLS: nobody speaks for another, and nobody but a detector is listened to.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::watch};
use tonic::{Code, Status, Streaming};
use understudy_bus::{
    Identity, Tls,
    direct::{DirectClient, FromNode, endpoint},
    grpc::direct_client::DirectClient as Raw,
};
use understudy_wire::v1::{self, node_message::Message, seat_message};

use crate::support::*;

/// An authority, and the folder for what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let (dir, key) = (TempDir::new().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn issue(&self, owner: &Identity) -> Tls {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.subject_alt_names = vec![
            SanType::URI(owner.uri(&demo()).try_into().unwrap()),
            SanType::DnsName(owner.server_name().try_into().unwrap()),
        ];
        let file = |kind: &str| self.dir.path().join(format!("{owner}.{kind}"));
        fs::write(file("pem"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        Tls::load(&self.dir.path().join("ca.pem"), &file("pem"), &file("key")).unwrap()
    }
}

fn executor(name: &str) -> Identity {
    Identity::Executor(web(), node(name))
}

fn publisher(name: &str) -> Identity {
    Identity::Heartbeat(web(), node(name))
}

fn hello(name: &str, grants: bool) -> v1::Hello {
    v1::Hello { cluster: "demo".into(), group: "web".into(), node: name.into(), grants }
}

/// Opens a stream with the certificate of `tls` and keeps it open.
async fn exchange(
    address: &str,
    tls: &Tls,
    messages: Vec<Message>,
) -> Result<Streaming<v1::SeatMessage>, Status> {
    let channel = soon("connection", endpoint(address, Some(tls)).unwrap().connect()).await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let messages = messages.into_iter().map(|message| v1::NodeMessage { message: Some(message) });
    let body = stream::iter(messages.collect::<Vec<_>>()).chain(stream::pending());
    soon("answer", Raw::new(channel).exchange(body)).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_with_its_own_certificate_and_hears_its_grants() {
    let authority = Authority::new();
    let mut server = direct_server(Some(authority.issue(&Identity::Detector(1)))).await;
    let start = |owner: &Identity, grants: bool| {
        let (addresses, following) = watch::channel(BTreeSet::from([server.address.clone()]));
        let client = DirectClient::start(
            hello("web-a", grants),
            Some(authority.issue(owner)),
            following,
            Arc::default(),
        );
        (client, addresses)
    };
    let ((publisher, _grants), _held) = start(&publisher("web-a"), false);
    let ((_executor, mut grants), _too) = start(&executor("web-a"), true);
    eventually("two streams", async || (server.server.streams() == 2).then_some(())).await;
    publisher.send_heartbeat(&v1::Heartbeat::from(&heartbeat("web-a", 1)));
    heard(&mut server.inbound, 1).await;
    let presence = seat_message::Message::Presence(v1::Presence { seat: 3, ..Default::default() });
    let told =
        server.server.send(&web(), &node("web-a"), &v1::SeatMessage { message: Some(presence.clone()) });
    assert_eq!(told, 1, "the executor alone is told");
    soon("grant", async { while grants.recv().await.unwrap().message != Some(presence.clone()) {} }).await;
    assert_eq!(server.counters.not_allowed.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_binds_node_and_role() {
    let authority = Authority::new();
    let mut server = direct_server(Some(authority.issue(&Identity::Detector(1)))).await;
    for (owner, name, grants) in [
        (executor("web-b"), "web-a", true),
        (publisher("web-b"), "web-a", false),
        // A publisher gets no grants, not even its own node's.
        (publisher("web-a"), "web-a", true),
        (executor("WEB-A"), "web-a", true),
        (Identity::Detector(2), "web-a", true),
    ] {
        let before = server.counters.not_allowed.value();
        let own = authority.issue(&owner);
        let refused = exchange(&server.address, &own, vec![Message::Hello(hello(name, grants))]).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied, "{owner} as {name}");
        assert_eq!(server.counters.not_allowed.value(), before + 1, "{owner} as {name}");
    }
    // An executor bids with nobody's heartbeat, and releases for nobody else.
    let before = server.counters.not_allowed.value();
    let says = vec![
        Message::Hello(hello("web-b", true)),
        Message::Heartbeat(v1::Heartbeat::from(&heartbeat("web-b", 1))),
        Message::Release(v1::Release::from(&release("web-a", 2))),
        Message::Release(v1::Release::from(&release("web-b", 3))),
    ];
    let _stream = exchange(&server.address, &authority.issue(&executor("web-b")), says).await.unwrap();
    let first = soon("the one message that is allowed", server.inbound.recv()).await;
    assert_eq!(first, Some(FromNode::Release(release("web-b", 3))));
    assert_eq!(server.counters.not_allowed.value(), before + 1);
    assert_eq!(server.counters.wrong_name.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_silent_ones_hold_up_nobody() {
    let authority = Authority::new();
    let server = direct_server(Some(authority.issue(&Identity::Detector(1)))).await;
    // More of them than handshakes may be under way would make others wait for at most one timeout.
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    let stranger = Authority::new().issue(&executor("web-a"));
    let says = || vec![Message::Hello(hello("web-a", true))];
    // One more or several: a client may connect again by itself when its connection is closed.
    let counters = &server.counters;
    let counted = async |what: &str, before: u64| {
        eventually(what, async || (counters.not_allowed.value() > before).then_some(())).await;
        counters.not_allowed.value()
    };
    assert!(exchange(&server.address, &stranger, says()).await.is_err());
    let refused = counted("the stranger to be counted", 0).await;
    let plain = Raw::connect(format!("http://{}", server.address));
    assert!(soon("refusal", async { plain.await.unwrap().exchange(stream::pending()).await }).await.is_err());
    let refused = counted("the plain one to be counted", refused).await;
    let own = authority.issue(&executor("web-a"));
    let _stream = exchange(&server.address, &own, says()).await.unwrap();
    assert_eq!(soon("end of the silent one", silent.read(&mut [0; 16])).await.unwrap_or(0), 0);
    counted("the silent one to be counted", refused).await;
    // Nodes give up after 250 ms: whoever is silent must not keep a place of theirs for longer.
    let begin = Instant::now();
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    assert_eq!(soon("end of the next silent one", silent.read(&mut [0; 16])).await.unwrap_or(0), 0);
    let kept = begin.elapsed();
    assert!(kept < Duration::from_secs(1), "kept for {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_nobodys_word_but_a_detectors() {
    let authority = Authority::new();
    // A node that listens where a detector is looked for, with a certificate of the same authority.
    let impostor = direct_server(Some(authority.issue(&executor("web-b")))).await;
    let says = vec![Message::Hello(hello("web-a", true))];
    let own = authority.issue(&executor("web-a"));
    assert_eq!(exchange(&impostor.address, &own, says).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(impostor.server.streams(), 0);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    authority.issue(&executor("web-a"));
    authority.issue(&executor("web-b"));
    let file = |name: &str| authority.dir.path().join(name);
    let refused =
        |ca: &Path, certificate: &Path, key: &Path| Tls::load(ca, certificate, key).unwrap_err().to_string();
    let (ca, certificate, key) =
        (file("ca.pem"), file("executor.web.web-a.pem"), file("executor.web.web-a.key"));
    let told = refused(&file("none.pem"), &certificate, &key);
    assert!(told.starts_with("TLS: reading the authority from ") && told.ends_with("none.pem"), "{told}");
    assert!(refused(&key, &certificate, &key).contains("reading the authority from"));
    assert!(refused(&ca, &certificate, &ca).contains("reading the key from"));
    let told = refused(&ca, &certificate, &file("executor.web.web-b.key"));
    assert!(told.contains("using the key with ") && told.ends_with("executor.web.web-a.pem"), "{told}");
}
