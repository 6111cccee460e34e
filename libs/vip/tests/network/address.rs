//! Addresses on a real interface.

use std::net::UdpSocket;
use std::time::Duration;

use ipnet::IpNet;
use understudy_vip::address::{AddressError, Addresses};

use crate::segment::{INTERFACE, Namespace, Segment, VIP4, VIP6, VIPS, own4};
use crate::traffic::wait_until;

fn nets() -> [IpNet; 2] {
    [IpNet::new(VIP4, 24).unwrap(), IpNet::new(VIP6, 64).unwrap()]
}

/// Seconds that the address is still valid, as `ip` tells; `None` if it is not there.
fn valid_seconds(node: &Namespace, net: IpNet) -> Option<u32> {
    let shown = node.ip(&format!("address show dev {INTERFACE} to {}", net.addr()));
    let (_, rest) = shown.split_once("valid_lft ")?;
    Some(rest.split_once("sec").map_or(u32::MAX, |(seconds, _)| seconds.parse().unwrap()))
}

#[test]
fn an_address_comes_with_a_lifetime_and_is_renewed() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        for net in nets() {
            assert_eq!(addresses.present(net.addr()).await.unwrap(), None);
            addresses.add(INTERFACE, net, Duration::from_millis(20_300)).await.unwrap();
            assert!(matches!(valid_seconds(node, net), Some(19..=21)), "rounded up");
            addresses.add(INTERFACE, net, Duration::from_secs(60)).await.unwrap();
            assert!(matches!(valid_seconds(node, net), Some(58..=60)));
            addresses.renew(INTERFACE, net, Duration::from_secs(40)).await.unwrap();
            assert!(matches!(valid_seconds(node, net), Some(38..=40)));
            assert_eq!(addresses.present(net.addr()).await.unwrap().as_deref(), Some(INTERFACE));
        }
    });
    let shown = node.ip(&format!("-6 address show dev {INTERFACE} to {VIP6}"));
    assert!(shown.contains("nodad") && shown.contains("deprecated"), "{shown}");
}

#[test]
fn an_address_is_usable_as_soon_as_it_is_added() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        for net in nets() {
            addresses.add(INTERFACE, net, Duration::from_secs(5)).await.unwrap();
            UdpSocket::bind((net.addr(), 0)).unwrap();
        }
    });
}

/// Users of other products report: the address stays in dadfailed after a move, and nobody notices.
#[test]
fn an_address_that_failed_duplicate_detection_is_made_usable() {
    let segment = Segment::new(2);
    let [node, other] = &segment.members[..] else { panic!("two members") };
    other.ip(&format!("address add {VIP6}/64 dev {INTERFACE} nodad"));
    node.ip(&format!("address add {VIP6}/64 dev {INTERFACE}"));
    let shown = || node.ip(&format!("-6 address show dev {INTERFACE} to {VIP6}"));
    wait_until("the kernel finds the other one", || shown().contains("dadfailed"));
    node.run(|| async {
        assert!(UdpSocket::bind((VIP6, 0)).is_err(), "the address is not usable");
        let addresses = Addresses::connect(VIPS).unwrap();
        addresses.add(INTERFACE, nets()[1], Duration::from_secs(5)).await.unwrap();
        UdpSocket::bind((VIP6, 0)).unwrap();
    });
    assert!(!shown().contains("dadfailed"), "{}", shown());
}

#[test]
fn an_address_that_nobody_renews_goes_by_itself() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        for net in nets() {
            addresses.add(INTERFACE, net, Duration::from_millis(300)).await.unwrap();
        }
    });
    for net in nets() {
        wait_until("gone", || valid_seconds(node, net).is_none());
    }
}

#[test]
fn removing_twice_is_fine_and_prefix_lengths_do_not_matter() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.ip(&format!("address add {VIP4}/32 dev {INTERFACE}"));
    node.ip(&format!("address add {VIP4}/32 dev lo"));
    node.run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        for net in nets() {
            addresses.add(INTERFACE, net, Duration::from_secs(60)).await.unwrap();
            assert!(addresses.remove(INTERFACE, net.addr()).await.unwrap());
            assert!(!addresses.remove(INTERFACE, net.addr()).await.unwrap());
            assert_eq!(valid_seconds(node, net), None);
        }
        assert_eq!(addresses.present(VIP4).await.unwrap().as_deref(), Some("lo"), "not asked for");
    });
}

#[test]
fn addresses_of_others_are_not_touched() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        let removed = addresses.remove(INTERFACE, own4(0)).await;
        assert!(matches!(removed, Err(AddressError::Unmanaged { .. })), "{removed:?}");
        let net = IpNet::new(own4(0), 24).unwrap();
        let added = addresses.add(INTERFACE, net, Duration::from_secs(1)).await;
        assert!(matches!(added, Err(AddressError::Unmanaged { .. })), "{added:?}");
        assert_eq!(addresses.present(own4(0)).await.unwrap().as_deref(), Some(INTERFACE));
    });
}

#[test]
fn links_are_found_or_missed_by_name() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let addresses = Addresses::connect(VIPS).unwrap();
        let link = addresses.link(INTERFACE).await.unwrap();
        let mac = link.mac.map(|byte| format!("{byte:02x}")).join(":");
        let shown = node.ip(&format!("link show dev {INTERFACE}"));
        assert!(shown.contains(&mac) && shown.starts_with(&format!("{}:", link.index)), "{shown}");
        node.ip(&format!("link set {INTERFACE} down"));
        assert!(!addresses.link(INTERFACE).await.unwrap().up);
        let missing = addresses.link("eth9").await;
        assert!(matches!(missing, Err(AddressError::NoInterface { .. })), "{missing:?}");
        let missing = addresses.add("eth9", nets()[0], Duration::from_secs(1)).await;
        assert!(matches!(missing, Err(AddressError::NoInterface { .. })), "{missing:?}");
    });
}
