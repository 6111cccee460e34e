//! What is refused: by us before anything is sent, by the server afterwards. The zone stays as it was.

use std::time::{Duration, Instant};

use understudy_dns::{Algorithm, Answer, DnsError, KeyProblem, TsigKey, Zone, apply};

use crate::lab::{NAME, Server, Software, desired, own_address, zone};

async fn refused(server: &Server, zone: &Zone) -> DnsError {
    let before = server.serial();
    let error = apply(zone, server.address, &desired(0, 9, &["10.0.0.9"])).await.unwrap_err();
    assert_eq!(server.serial(), before, "{error}");
    let text = error.to_string();
    assert!(text.contains(NAME) && text.contains(&server.address.to_string()), "{text}");
    error
}

async fn keys_are_checked(software: Software) {
    let server = Server::running(software, "").await;
    let with = |key| Zone { key, ..server.zone() };
    let secret = "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3I=";

    let error = refused(&server, &with(None)).await;
    assert!(
        matches!(&error, DnsError::Refused { rcode, .. } if rcode == "NOTAUTH" || rcode == "REFUSED"),
        "{error}"
    );

    let wrong = TsigKey::new("ha-key", Algorithm::HmacSha256, secret).unwrap();
    let error = refused(&server, &with(Some(wrong))).await;
    assert!(matches!(error, DnsError::KeyRefused { problem: KeyProblem::WrongSecret, .. }), "{error}");

    let unknown = TsigKey::new("other-key", Algorithm::HmacSha256, secret).unwrap();
    let error = refused(&server, &with(Some(unknown))).await;
    assert!(matches!(error, DnsError::KeyRefused { problem: KeyProblem::Unknown, .. }), "{error}");
    assert!(error.to_string().contains("other-key"), "{error}");
}

#[tokio::test]
async fn knot_checks_keys() {
    keys_are_checked(Software::Knot).await;
}

#[tokio::test]
async fn bind_checks_keys() {
    keys_are_checked(Software::Bind).await;
}

#[tokio::test]
async fn zone_that_the_server_does_not_have_is_refused() {
    let server = Server::running(Software::Knot, "").await;
    let zone = Zone { origin: "other.test.".to_owned(), ..server.zone() };
    let mut desired = desired(0, 1, &["10.0.0.1"]);
    desired.name = "web.other.test.".to_owned();
    let error = apply(&zone, server.address, &desired).await.unwrap_err();
    assert!(matches!(error, DnsError::Refused { .. } | DnsError::NotAuthoritative { .. }), "{error}");
}

#[tokio::test]
async fn unreadable_mark_is_never_overwritten() {
    let mark = "_understudy.web TXT \"understudy=2 slot=0 epoch=900 addresses=10.0.0.1\"";
    let server = Server::running(Software::Knot, mark).await;
    let error = refused(&server, &server.zone()).await;
    assert!(matches!(error, DnsError::UnreadableMark { .. }), "{error}");
}

#[tokio::test]
async fn mark_out_of_a_wildcard_ends_in_an_error() {
    let server = Server::running(Software::Knot, "*.web TXT \"not ours\"").await;
    let error = refused(&server, &server.zone()).await;
    assert!(matches!(error, DnsError::Contended { .. }), "{error}");
}

#[tokio::test]
async fn bad_requests_are_refused_before_sending() {
    // A socket that must stay silent: nothing may be sent to it.
    let silent = tokio::net::UdpSocket::bind((own_address(), 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let zone = zone(&[address]);
    let long = format!("{}ha.test.", "abcdefgh.".repeat(28));
    for name in ["web.example.", "*.ha.test.", "", "a..ha.test.", "w b.ha.test.", long.as_str()] {
        let mut desired = desired(0, 1, &["10.0.0.1"]);
        desired.name = name.to_owned();
        let error = apply(&zone, address, &desired).await.unwrap_err();
        assert!(
            matches!(error, DnsError::OutsideZone { .. } | DnsError::BadName { .. }),
            "{name:?}: {error}"
        );
    }
    let many: Vec<_> = (0..33).map(|i| format!("10.0.0.{i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let error = apply(&zone, address, &desired(0, 1, &many)).await.unwrap_err();
    assert!(matches!(error, DnsError::TooMany { count: 33, .. }), "{error}");
    let error = apply(&zone, address, &desired(0, 1, &["0.0.0.0"])).await.unwrap_err();
    assert!(matches!(error, DnsError::BadAddress { .. }), "{error}");
    let nothing = silent.try_recv(&mut [0; 16]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn silent_server_costs_the_timeout_and_no_more() {
    let silent = tokio::net::UdpSocket::bind((own_address(), 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let zone = Zone { timeout: Duration::from_millis(400), ..zone(&[address]) };
    let start = Instant::now();
    let error = apply(&zone, address, &desired(0, 1, &["10.0.0.1"])).await.unwrap_err();
    assert!(matches!(error, DnsError::Timeout { .. }), "{error}");
    let waited = start.elapsed();
    assert!(waited >= zone.timeout && waited < zone.timeout * 2, "{waited:?}");
}

#[tokio::test]
async fn closed_port_is_noticed_at_once() {
    let server = Server::prepared(Software::Knot, "");
    let start = Instant::now();
    let error = apply(&server.zone(), server.address, &desired(0, 1, &["10.0.0.1"])).await.unwrap_err();
    assert!(matches!(error, DnsError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < server.zone().timeout / 2);
}

/// A wrong clock on either side must not keep DNS from following a failover.
#[tokio::test]
async fn clock_an_hour_off_is_bridged() {
    for shift in ["-3600s", "+3600s"] {
        let mut server = Server::prepared(Software::Knot, "");
        let library = "/usr/$LIB/faketime/libfaketime.so.1";
        let clock = [("LD_PRELOAD", library), ("FAKETIME", shift), ("DONT_FAKE_MONOTONIC", "1")];
        server.start_with(&clock).await;
        let refused = !server.change_by_hand("add other.ha.test. 5 A 192.0.2.1");
        assert!(refused, "the server's clock is not off (is faketime installed?)");
        let answer = apply(&server.zone(), server.address, &desired(0, 1, &["10.0.0.1"])).await.unwrap();
        assert_eq!(answer, Answer::Applied);
        assert_eq!(server.dig(NAME, "A"), ["10.0.0.1"]);
        assert!(server.serial() > 1, "{}", server.log());
    }
}
