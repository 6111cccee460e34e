//! Answers of the kernel.

use std::{collections::BTreeMap, net::IpAddr};

use understudy_vip::fuzzing;

use crate::bytes::Bytes;

/// An answer to a batch of the gate.
pub(crate) fn gate_answer(data: &[u8]) {
    let Some((sequence, error)) = fuzzing::acknowledgement(data) else { return };
    // struct nlmsghdr: length, type, flags, sequence number (netlink(7)).
    assert_eq!(sequence.to_ne_bytes(), data[8..12]);
    let refused = error.map_or(0, |error| error.raw_os_error().expect("is the kernel's error"));
    let number = data[16..].first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    assert_eq!(Some(refused), number.map(i32::saturating_neg), "another error than the kernel's");
}

/// Datagrams of a watched neighbour table, one piece each.
pub(crate) fn neighbours(data: &[u8]) {
    let mut input = Bytes(data);
    let mut datagrams = Vec::new();
    while !input.is_empty() {
        datagrams.push(input.piece());
    }
    let vips: Vec<IpAddr> =
        ["10.77.0.100", "10.77.0.101", "fd77::100"].map(|vip| vip.parse().expect("is an address")).into();
    let (reported, _) = fuzzing::neighbours(2, &vips, datagrams.into_iter());
    let mut last = BTreeMap::new();
    for sighting in reported.into_iter().flatten() {
        assert!(vips.contains(&sighting.vip), "{} is not watched", sighting.vip);
        let before = last.insert(sighting.vip, sighting.lladdr);
        assert_ne!(before, Some(sighting.lladdr), "reported twice: {sighting:?}");
    }
}

/// A message of an address dump or of a link dump.
pub(crate) fn address(data: &[u8]) {
    let holds = |octets: &[u8]| data.windows(octets.len()).any(|window| window == octets);
    match fuzzing::address(data) {
        Some(IpAddr::V4(address)) => assert!(holds(&address.octets()), "{address} is not in the message"),
        Some(IpAddr::V6(address)) => assert!(holds(&address.octets()), "{address} is not in the message"),
        None => {}
    }
    if let Some(mac) = fuzzing::hardware_address(data) {
        assert!(holds(&mac), "{mac:?} is not in the message");
    }
}
