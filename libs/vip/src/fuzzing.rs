//! What is made of the kernel's bytes, without the kernel.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::neighbours::{Sighting, Table};
use crate::{address, gate};

/// Sequence number and error in an answer to a batch of the gate; `None` for any other message.
pub fn acknowledgement(bytes: &[u8]) -> Option<(u32, Option<io::Error>)> {
    gate::acknowledgement(bytes)
}

/// What a watch of interface `index` reports of `vips`, datagram by datagram, and whether it wants another dump.
pub fn neighbours<'a>(
    index: u32,
    vips: &[IpAddr],
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Vec<Sighting>>, bool) {
    let mut table = Table::new(index, vips.to_vec());
    let reported = datagrams.map(|datagram| table.take(datagram)).collect();
    (reported, table.stale)
}

/// The address in one message of an address dump.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => address::local(&message),
        _ => None,
    }
}

/// Hardware address of the interface in one message of a link dump.
pub fn hardware_address(bytes: &[u8]) -> Option<[u8; 6]> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => address::mac(&message),
        _ => None,
    }
}
