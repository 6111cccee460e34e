//! The background updater: never in the way, never giving up, never going back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use understudy_dns::{Answer, DnsError, Outcome, Timing, Updater, Zone, apply};
use understudy_lab::wait_until_async;

use crate::lab::{Fate, Forwarder, NAME, PATIENCE, Server, Software, Way, desired, own_address, zone};

const TIMING: Timing = Timing {
    retry_min: Duration::from_millis(20),
    retry_max: Duration::from_millis(200),
    recheck: Duration::from_secs(3600),
};

async fn next(outcomes: &mut Receiver<Outcome>) -> Outcome {
    tokio::time::timeout(PATIENCE, outcomes.recv())
        .await
        .expect("an outcome comes")
        .expect("the updater lives")
}

/// The next outcome of that server.
async fn next_of(outcomes: &mut Receiver<Outcome>, server: SocketAddr) -> Outcome {
    loop {
        let outcome = next(outcomes).await;
        if outcome.server == server.to_string() {
            return outcome;
        }
    }
}

#[tokio::test]
async fn server_that_is_down_is_caught_up_and_delays_no_other() {
    let mut down = Server::prepared(Software::Knot, "");
    let up = Server::running(Software::Knot, "").await;
    let (updater, mut outcomes) = Updater::start(zone(&[down.address, up.address]), TIMING);
    let start = Instant::now();
    assert!(updater.set(desired(0, 7, &["10.0.0.7"])).unwrap());
    assert!(start.elapsed() < Duration::from_millis(50), "set never waits");

    let applied = next_of(&mut outcomes, up.address).await;
    assert_eq!(applied.result.unwrap(), Answer::Applied);
    assert_eq!((applied.slot, applied.epoch, applied.attempts), (0, 7, 1));
    assert_eq!(up.dig(NAME, "A"), ["10.0.0.7"]);

    // The first failure is reported, the later ones are not: the next word of that server is its success.
    updater.set(desired(0, 8, &["10.0.0.8"])).unwrap();
    let failed = loop {
        let outcome = next_of(&mut outcomes, down.address).await;
        if outcome.epoch == 8 {
            break outcome;
        }
    };
    assert!(matches!(failed.result, Err(DnsError::Unreachable { .. })));
    down.start().await;
    let caught_up = next_of(&mut outcomes, down.address).await;
    assert_eq!(caught_up.result.unwrap(), Answer::Applied);
    assert!(caught_up.attempts > 1);
    assert_eq!(down.dig(NAME, "A"), ["10.0.0.8"]);
}

#[tokio::test]
async fn silent_server_delays_no_other() {
    let silent = tokio::net::UdpSocket::bind((own_address(), 0)).await.unwrap();
    let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
    let up = Server::running(Software::Knot, "").await;
    let zone = Zone { timeout: Duration::from_secs(30), ..zone(&[silent.1, up.address]) };
    let (updater, mut outcomes) = Updater::start(zone, TIMING);
    let start = Instant::now();
    for epoch in 1..=5 {
        updater.set(desired(0, epoch, &["10.0.0.7"])).unwrap();
        let outcome = next(&mut outcomes).await;
        assert_eq!((outcome.server, outcome.epoch), (up.address.to_string(), epoch));
        assert_eq!(outcome.result.unwrap(), Answer::Applied);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn server_that_is_behind_is_brought_up_to_date() {
    let ahead = Server::running(Software::Knot, "").await;
    let behind = Server::running(Software::Bind, "web A 192.0.2.1").await;
    for epoch in [3, 4] {
        apply(&ahead.zone(), ahead.address, &desired(0, epoch, &["10.0.0.1"])).await.unwrap();
    }
    apply(&behind.zone(), behind.address, &desired(0, 3, &["10.0.0.3"])).await.unwrap();
    let (updater, mut outcomes) = Updater::start(zone(&[ahead.address, behind.address]), TIMING);
    updater.set(desired(0, 4, &["10.0.0.1"])).unwrap();
    for _ in 0..2 {
        let outcome = next(&mut outcomes).await;
        let expected =
            if outcome.server == ahead.address.to_string() { Answer::AlreadyThere } else { Answer::Applied };
        assert_eq!(outcome.result.unwrap(), expected);
    }
    assert_eq!(behind.dig(NAME, "A"), ["10.0.0.1"]);
}

#[tokio::test]
async fn server_restored_from_old_data_is_brought_up_to_date() {
    let mut server = Server::running(Software::Knot, "").await;
    let timing = Timing { recheck: Duration::from_millis(50), ..TIMING };
    let (updater, mut outcomes) = Updater::start(server.zone(), timing);
    updater.set(desired(0, 4, &["10.0.0.4"])).unwrap();
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    server.forget();
    server.start().await;
    let is_back = async || server.dig(NAME, "A") == ["10.0.0.4"];
    wait_until_async("the record to be back", PATIENCE, is_back).await.unwrap();
    loop {
        // The failures while it was away come first.
        let outcome = next(&mut outcomes).await;
        if let Ok(answer) = outcome.result {
            assert_eq!(answer, Answer::Applied);
            break;
        }
    }
}

/// Elsewhere a record that looks other than expected is deleted and made anew in every cycle, and every cycle is a burst.
#[tokio::test]
async fn looking_again_writes_nothing() {
    let server = Server::running(Software::Knot, "").await;
    let (looks, updates) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (looked, updated) = (looks.clone(), updates.clone());
    let count = move |way, update| {
        if way == Way::Request {
            let counter = if update { &updated } else { &looked };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Pass
    };
    let path = Forwarder::start(server.address, count).await;
    let timing = Timing { recheck: Duration::from_millis(10), ..TIMING };
    let (updater, mut outcomes) = Updater::start(zone(&[path.address]), timing);
    updater.set(desired(0, 4, &["10.0.0.4"])).unwrap();
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    let serial = server.serial();
    // Three questions a look.
    let has_looked = async || looks.load(Ordering::Relaxed) >= 90;
    wait_until_async("it to look thirty times", PATIENCE, has_looked).await.unwrap();
    assert_eq!((updates.load(Ordering::Relaxed), server.serial()), (1, serial));
    assert!(outcomes.try_recv().is_err(), "no news is reported as news");
}

#[tokio::test]
async fn newer_tenure_elsewhere_ends_the_care() {
    let server = Server::running(Software::Knot, "").await;
    let timing = Timing { recheck: Duration::from_millis(20), ..TIMING };
    let (updater, mut outcomes) = Updater::start(server.zone(), timing);
    updater.set(desired(0, 4, &["10.0.0.4"])).unwrap();
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    apply(&server.zone(), server.address, &desired(0, 5, &["10.0.0.5"])).await.unwrap();
    let outcome = next(&mut outcomes).await;
    assert_eq!(outcome.result.unwrap(), Answer::NewerKnown { epoch: 5 });
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.5"]);
    // The next tenure of this process is taken up again.
    assert!(updater.set(desired(0, 6, &["10.0.0.6"])).unwrap());
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.6"]);
}

#[tokio::test]
async fn older_epochs_and_repetitions_are_no_news() {
    let server = Server::running(Software::Knot, "").await;
    let (updater, mut outcomes) = Updater::start(server.zone(), TIMING);
    assert!(updater.set(desired(0, 4, &["10.0.0.4"])).unwrap());
    assert!(!updater.set(desired(0, 4, &["10.0.0.4"])).unwrap());
    assert!(!updater.set(desired(0, 3, &["10.0.0.3"])).unwrap());
    assert!(updater.set(desired(1, 1, &["10.0.0.1"])).unwrap(), "another slot, another epoch");
    for _ in 0..2 {
        assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    }
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.1", "10.0.0.4"]);
    let mut outside = desired(0, 9, &["10.0.0.9"]);
    outside.name = "web.example.".to_owned();
    assert!(matches!(updater.set(outside), Err(DnsError::OutsideZone { .. })));
}

#[tokio::test]
async fn cleared_contribution_is_no_longer_cared_for() {
    let mut server = Server::prepared(Software::Knot, "");
    let (updater, mut outcomes) = Updater::start(server.zone(), TIMING);
    updater.set(desired(0, 4, &["10.0.0.4"])).unwrap();
    updater.set(desired(1, 4, &["10.0.0.5"])).unwrap();
    for _ in 0..2 {
        assert!(next(&mut outcomes).await.result.is_err());
    }
    assert!(updater.clear("WEB.ha.test", 0));
    assert!(!updater.clear(NAME, 0));
    server.start().await;
    let outcome = next(&mut outcomes).await;
    assert_eq!((outcome.slot, outcome.result.unwrap()), (1, Answer::Applied));
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.5"]);
    // Dropping the updater ends every task, and with the last one the channel.
    drop(updater);
    let rest = tokio::time::timeout(PATIENCE, outcomes.recv()).await.expect("the tasks end");
    assert!(rest.is_none(), "{rest:?}");
}

/// A slot is drained and closed while the server is down: nobody follows who would put it right.
#[tokio::test]
async fn withdrawal_is_cared_for_until_it_is_answered_though_the_slot_is_lost() {
    let mut server = Server::running(Software::Knot, "").await;
    let (updater, mut outcomes) = Updater::start(server.zone(), TIMING);
    for (slot, address) in [(0, "10.0.0.4"), (1, "10.0.0.5")] {
        updater.set(desired(slot, 4, &[address])).unwrap();
        assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    }
    server.stop();
    updater.set(desired(1, 4, &[])).unwrap();
    assert!(!updater.clear(NAME, 1), "a withdrawal is not given up");
    assert!(updater.clear(NAME, 0));
    assert!(next(&mut outcomes).await.result.is_err());
    server.start().await;
    let withdrawn = async || server.dig(NAME, "A") == ["10.0.0.4"];
    wait_until_async("the withdrawal", PATIENCE, withdrawn).await.unwrap();
    // It is taken up here again with the next tenure.
    assert!(updater.set(desired(1, 5, &["10.0.0.6"])).unwrap());
    let moved = async || server.dig(NAME, "A") == ["10.0.0.4", "10.0.0.6"];
    wait_until_async("the next tenure", PATIENCE, moved).await.unwrap();
}

/// The successor was first: a late withdrawal of the tenure before takes nothing away.
#[tokio::test]
async fn withdrawal_that_is_late_leaves_the_next_tenure_alone() {
    let mut server = Server::running(Software::Knot, "").await;
    let (updater, mut outcomes) = Updater::start(server.zone(), TIMING);
    updater.set(desired(1, 4, &["10.0.0.5"])).unwrap();
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::Applied);
    apply(&server.zone(), server.address, &desired(1, 5, &["10.0.0.6"])).await.unwrap();
    server.stop();
    updater.set(desired(1, 4, &[])).unwrap();
    updater.clear(NAME, 1);
    assert!(next(&mut outcomes).await.result.is_err());
    server.start().await;
    assert_eq!(next(&mut outcomes).await.result.unwrap(), Answer::NewerKnown { epoch: 5 });
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.6"]);
}
