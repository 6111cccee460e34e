//! What an update does to the zone, on both servers.

use understudy_dns::{Answer, DnsError, Family, apply, contributions, resolve};

use crate::lab::{NAME, Server, Software, desired};

/// Runs a scenario against each server software as a test of its own.
macro_rules! on_both {
    ($($scenario:ident($records:expr);)*) => {
        mod knot { $(
            #[tokio::test]
            async fn $scenario() {
                super::$scenario(crate::lab::Server::running(super::Software::Knot, $records).await).await;
            }
        )* }
        mod bind { $(
            #[tokio::test]
            async fn $scenario() {
                super::$scenario(crate::lab::Server::running(super::Software::Bind, $records).await).await;
            }
        )* }
    };
}

on_both! {
    first_update_takes_the_name_over("web A 192.0.2.1\nweb A 192.0.2.2\nweb AAAA 2001:db8::bad\nweb MX 10 ns");
    next_epoch_moves_the_name("");
    stale_epoch_is_refused("");
    same_again_changes_nothing("");
    slots_share_a_name("");
    foreign_records_stay_after_adoption("_understudy.web TXT \"hands off\"");
    withdrawing_keeps_the_epoch("");
    ipv6_and_ipv4_beside_each_other("");
    lost_address_record_is_put_back("");
    large_sets_go_over_tcp("");
    ttl_follows_the_config("");
    slots_race_for_one_name("");
    alias_is_refused("web CNAME ns");
}

async fn change(server: &Server, slot: u32, epoch: u64, addresses: &[&str]) -> Answer {
    apply(&server.zone(), server.address, &desired(slot, epoch, addresses)).await.unwrap()
}

async fn first_update_takes_the_name_over(server: Server) {
    assert_eq!(change(&server, 0, 1, &["10.77.0.100"]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.77.0.100"]);
    assert_eq!(server.dig(NAME, "AAAA"), [""; 0]);
    assert_eq!(server.dig(NAME, "MX"), ["10 ns.ha.test."], "other types are not ours");
    let text = "\"understudy=1 slot=0 epoch=1 addresses=10.77.0.100\"";
    assert_eq!(server.dig("_understudy.web.ha.test.", "TXT"), [text]);
}

async fn next_epoch_moves_the_name(server: Server) {
    change(&server, 0, 1, &["10.0.0.1", "10.0.0.2"]).await;
    let before = server.serial();
    assert_eq!(change(&server, 0, 5, &["10.0.0.2", "10.0.0.3"]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(server.serial(), before + 1, "one message, one change");
    let found = contributions(&server.zone(), server.address, NAME).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].slot, found[0].epoch), (0, 5));
}

async fn stale_epoch_is_refused(server: Server) {
    change(&server, 0, 7, &["10.0.0.7"]).await;
    let before = server.serial();
    assert_eq!(change(&server, 0, 6, &["10.0.0.6"]).await, Answer::NewerKnown { epoch: 7 });
    assert_eq!(change(&server, 0, 0, &[]).await, Answer::NewerKnown { epoch: 7 });
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.7"]);
    assert_eq!(server.serial(), before);
}

async fn same_again_changes_nothing(server: Server) {
    change(&server, 0, 3, &["10.0.0.1", "2001:db8::1"]).await;
    let before = server.serial();
    assert_eq!(change(&server, 0, 3, &["2001:db8::1", "10.0.0.1"]).await, Answer::AlreadyThere);
    assert_eq!(server.serial(), before);
}

async fn slots_share_a_name(server: Server) {
    change(&server, 0, 1, &["10.0.0.1", "10.0.0.9"]).await;
    change(&server, 1, 1, &["10.0.0.2", "10.0.0.9"]).await;
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.1", "10.0.0.2", "10.0.0.9"]);
    // Slot 0 moves: slot 1's address stays, and so does the one that both contributed.
    change(&server, 0, 2, &["10.0.0.3"]).await;
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.2", "10.0.0.3", "10.0.0.9"]);
    // Slot 1's epoch is its own.
    assert_eq!(change(&server, 1, 1, &["10.0.0.2", "10.0.0.9"]).await, Answer::AlreadyThere);
    assert_eq!(change(&server, 1, 2, &[]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.3"]);
    let found = contributions(&server.zone(), server.address, NAME).await.unwrap();
    assert_eq!(found.iter().map(|c| (c.slot, c.epoch)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
}

async fn foreign_records_stay_after_adoption(server: Server) {
    change(&server, 0, 1, &["10.0.0.1"]).await;
    assert!(server.change_by_hand("add web.ha.test. 5 A 192.0.2.9"));
    change(&server, 0, 2, &["10.0.0.2"]).await;
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.2", "192.0.2.9"]);
    let marks = server.dig("_understudy.web.ha.test.", "TXT");
    assert!(marks.contains(&"\"hands off\"".to_owned()), "{marks:?}");
    assert_eq!(marks.len(), 2);
}

async fn withdrawing_keeps_the_epoch(server: Server) {
    change(&server, 0, 4, &["10.0.0.1", "2001:db8::1"]).await;
    assert_eq!(change(&server, 0, 4, &[]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), [""; 0]);
    assert_eq!(server.dig(NAME, "AAAA"), [""; 0]);
    assert_eq!(change(&server, 0, 4, &[]).await, Answer::AlreadyThere);
    assert_eq!(change(&server, 0, 3, &["10.0.0.3"]).await, Answer::NewerKnown { epoch: 4 });
    assert_eq!(change(&server, 0, 5, &["10.0.0.5"]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.5"]);
}

async fn ipv6_and_ipv4_beside_each_other(server: Server) {
    change(&server, 0, 1, &["10.0.0.1", "2001:db8::1"]).await;
    change(&server, 0, 2, &["2001:db8::2"]).await;
    assert_eq!(server.dig(NAME, "A"), [""; 0]);
    assert_eq!(server.dig(NAME, "AAAA"), ["2001:db8::2"]);
    let limit = std::time::Duration::from_secs(2);
    let found = resolve(server.address, NAME, Family::Ipv6, limit).await.unwrap();
    assert_eq!(found, ["2001:db8::2".parse().unwrap()].into());
    assert!(resolve(server.address, NAME, Family::Ipv4, limit).await.unwrap().is_empty());
    assert!(resolve(server.address, "nobody.ha.test.", Family::Ipv4, limit).await.unwrap().is_empty());
}

async fn lost_address_record_is_put_back(server: Server) {
    change(&server, 0, 1, &["10.0.0.1", "10.0.0.2"]).await;
    assert!(server.change_by_hand("del web.ha.test. A 10.0.0.1"));
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.2"]);
    assert_eq!(change(&server, 0, 1, &["10.0.0.1", "10.0.0.2"]).await, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.1", "10.0.0.2"]);
}

async fn large_sets_go_over_tcp(server: Server) {
    // 96 records: BIND refuses an RRset of more than 100 (max-records-per-type).
    for slot in 0..3 {
        let addresses: Vec<_> =
            (0..32).map(|i| format!("2001:db8:1111:2222:3333:4444:{slot}:{i:x}")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        // From the second slot on, the answer to the read exceeds a datagram, and the update does too.
        assert_eq!(change(&server, slot, 1, &addresses).await, Answer::Applied, "slot {slot}");
        assert_eq!(change(&server, slot, 1, &addresses).await, Answer::AlreadyThere, "slot {slot}");
    }
    assert_eq!(change(&server, 2, 2, &["10.0.0.1"]).await, Answer::Applied);
    let limit = std::time::Duration::from_secs(2);
    assert_eq!(resolve(server.address, NAME, Family::Ipv6, limit).await.unwrap().len(), 64);
}

async fn ttl_follows_the_config(server: Server) {
    change(&server, 0, 1, &["10.0.0.1"]).await;
    let mut zone = server.zone();
    zone.ttl = 60;
    let answer = apply(&zone, server.address, &desired(0, 2, &["10.0.0.1", "10.0.0.2"])).await.unwrap();
    assert_eq!(answer, Answer::Applied);
    assert_eq!(server.dig(NAME, "A"), ["10.0.0.1", "10.0.0.2"]);
}

async fn slots_race_for_one_name(server: Server) {
    let zone = server.zone();
    let race = (0..6).map(|slot| {
        let (zone, address) = (zone.clone(), server.address);
        let own = format!("10.0.0.{slot}");
        tokio::spawn(async move { apply(&zone, address, &desired(slot, 1, &[&own])).await })
    });
    for racer in race.collect::<Vec<_>>() {
        assert_eq!(racer.await.unwrap().unwrap(), Answer::Applied);
    }
    assert_eq!(server.dig(NAME, "A").len(), 6);
    assert_eq!(contributions(&zone, server.address, NAME).await.unwrap().len(), 6);
    assert_eq!(server.serial(), 1 + 6);
}

async fn alias_is_refused(server: Server) {
    let before = server.serial();
    let answer = apply(&server.zone(), server.address, &desired(0, 1, &["10.0.0.1"])).await;
    assert!(matches!(answer, Err(DnsError::Alias { .. })), "{answer:?}");
    assert_eq!(server.serial(), before);
}
