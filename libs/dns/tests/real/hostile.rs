//! Networks that lose and hold datagrams, and servers that answer nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use understudy_dns::{Answer, DnsError, Family, Zone, apply, resolve};

use crate::lab::{Fate, Forwarder, NAME, Server, Software, Way, desired, own_address, zone};

/// Drops, holds or passes the first UPDATE that goes `way`; all else passes.
fn first_update(way: Way, fate: Fate) -> impl FnMut(Way, bool) -> Fate + Send + 'static {
    let mut done = false;
    move |this, update| {
        if update && this == way && !std::mem::replace(&mut done, true) { fate } else { Fate::Pass }
    }
}

#[tokio::test]
async fn lost_reply_is_found_out_by_reading_back() {
    let server = Server::running(Software::Knot, "").await;
    let path = Forwarder::start(server.address, first_update(Way::Reply, Fate::Drop)).await;
    let answer = apply(&server.zone(), path.address, &desired(0, 1, &["10.0.0.1"])).await.unwrap();
    assert_eq!(answer, Answer::Applied);
    assert_eq!(server.serial(), 2, "exactly one change");
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.1"]);
}

#[tokio::test]
async fn lost_update_is_sent_again() {
    let server = Server::running(Software::Knot, "").await;
    let path = Forwarder::start(server.address, first_update(Way::Request, Fate::Drop)).await;
    let answer = apply(&server.zone(), path.address, &desired(0, 1, &["10.0.0.1"])).await.unwrap();
    assert_eq!(answer, Answer::Applied);
    assert_eq!(server.serial(), 2);
}

#[tokio::test]
async fn lost_read_is_asked_again() {
    let server = Server::running(Software::Knot, "").await;
    let count = AtomicU32::new(0);
    let lossy = move |way, _| {
        let first = way == Way::Request && count.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Fate::Drop } else { Fate::Pass }
    };
    let path = Forwarder::start(server.address, lossy).await;
    let answer = apply(&server.zone(), path.address, &desired(0, 1, &["10.0.0.1"])).await.unwrap();
    assert_eq!(answer, Answer::Applied);
}

/// The stale executor has read the zone and decided; its UPDATE arrives after the newer tenure's.
async fn late_stale_update(software: Software, first: Option<u64>) {
    let server = Server::running(software, "").await;
    if let Some(epoch) = first {
        apply(&server.zone(), server.address, &desired(0, epoch, &["10.0.0.1"])).await.unwrap();
    }
    let path = Forwarder::start(server.address, first_update(Way::Request, Fate::Hold)).await;
    // Long enough that the stale update is not given up while it is held.
    let patient = Zone { timeout: Duration::from_secs(60), ..server.zone() };
    let late = path.address;
    let stale = tokio::spawn(async move { apply(&patient, late, &desired(0, 5, &["10.0.0.5"])).await });
    path.wait_held().await;
    let newer = apply(&server.zone(), server.address, &desired(0, 6, &["10.0.0.6"])).await.unwrap();
    assert_eq!(newer, Answer::Applied);
    let before = server.serial();
    path.release();
    assert_eq!(stale.await.unwrap().unwrap(), Answer::NewerKnown { epoch: 6 });
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.6"]);
    assert_eq!(server.serial(), before);
}

#[tokio::test]
async fn late_stale_update_is_refused_by_knot() {
    late_stale_update(Software::Knot, Some(4)).await;
}

#[tokio::test]
async fn late_stale_first_update_is_refused_by_knot() {
    late_stale_update(Software::Knot, None).await;
}

#[tokio::test]
async fn late_stale_update_is_refused_by_bind() {
    late_stale_update(Software::Bind, Some(4)).await;
}

/// A server that answers every request with `answer(request)`.
async fn nonsense(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> std::net::SocketAddr {
    let socket = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&answer(&buffer[..length]), client).await;
        }
    });
    address
}

#[tokio::test]
async fn nonsense_is_an_error_and_no_panic() {
    type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;
    let response = |request: &[u8]| {
        let mut bytes = request.to_vec();
        bytes[2] |= 0x80;
        bytes
    };
    let kinds: Vec<(&str, Answer)> = vec![
        ("echo", Box::new(<[u8]>::to_vec)),
        ("nothing", Box::new(|_| Vec::new())),
        ("one byte", Box::new(|_| vec![0])),
        ("header cut", Box::new(|request| request[..11].to_vec())),
        ("noise", Box::new(|_| (0..=255).collect())),
        ("right id, noise", Box::new(|request| [&request[..2], &[0xff; 200]].concat())),
        ("response cut", Box::new(move |request| response(request)[..request.len() - 3].to_vec())),
        (
            "counts that lie",
            Box::new(move |request| {
                let mut bytes = response(request);
                bytes[6..12].fill(0xff);
                bytes
            }),
        ),
        ("not authoritative, empty", Box::new(response)),
    ];
    for (kind, answer) in kinds {
        let address = nonsense(answer).await;
        let zone = Zone { timeout: Duration::from_millis(400), ..zone(&[address]) };
        let error = apply(&zone, address, &desired(0, 1, &["10.0.0.1"])).await.expect_err(kind);
        let expected = match kind {
            "not authoritative, empty" => matches!(error, DnsError::NotAuthoritative { .. }),
            _ => matches!(error, DnsError::Garbled { .. }),
        };
        assert!(expected, "{kind}: {error}");
    }
}

/// Every cut and many single changes of real answers, to reads and to a signed update: an error or the answer, no panic.
#[tokio::test]
async fn mangled_real_answers_do_no_harm() {
    let server = Server::running(Software::Knot, "web A 192.0.2.1\nweb TXT \"a text\"").await;
    let upstream = server.address;
    let count = Arc::new(AtomicU32::new(0));
    let socket = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let turn = count.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let real = UdpSocket::bind("0.0.0.0:0").await.unwrap();
            real.send_to(&buffer[..length], upstream).await.unwrap();
            let mut reply = vec![0; 4096];
            let (length, _) = real.recv_from(&mut reply).await.unwrap();
            reply.truncate(length);
            let n = turn.fetch_add(1, Ordering::Relaxed) as usize;
            // The id stays, so that the rest is looked at.
            if n.is_multiple_of(2) {
                reply.truncate(n / 2 % length);
            } else {
                reply[2 + n / 2 % (length - 2)] ^= 1 << (n / 2 % 8);
            }
            let _ = socket.send_to(&reply, client).await;
        }
    });
    let limit = Duration::from_millis(20);
    let zone = Zone { timeout: limit * 4, ..zone(&[address]) };
    for epoch in 1.. {
        if count.load(Ordering::Relaxed) > 400 {
            break;
        }
        // The answers read are not signed, so any result may come of them; only a panic is wrong.
        let _ = apply(&zone, address, &desired(0, epoch, &["10.0.0.1"])).await;
        if let Ok(found) = resolve(address, NAME, Family::Ipv4, limit).await {
            assert!(found.len() <= 1, "{found:?}");
        }
    }
}
