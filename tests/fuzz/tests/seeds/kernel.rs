//! Netlink messages.

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use crate::{Seed, piece};

fn message(payload: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// An `NLMSG_ERROR` (netlink(7)): header, error number, header of the request.
fn error(sequence: u32, number: i32) -> Vec<u8> {
    const LENGTH: u32 = 36;
    const ERROR: u16 = 2;
    let header = [LENGTH.to_ne_bytes(), [ERROR.to_ne_bytes(), [0, 1]].concat().try_into().unwrap()].concat();
    let sequence = [sequence.to_ne_bytes(), [0; 4]].concat();
    [header, sequence, number.to_ne_bytes().to_vec(), vec![20, 0, 0, 0], vec![0; 12]].concat()
}

pub(crate) fn gate_answers() -> Vec<Seed> {
    const NOT_PERMITTED: i32 = -1;
    const NO_SUCH_TABLE: i32 = -2;
    vec![("done", error(5, 0)), ("refused", error(5, NOT_PERMITTED)), ("missing", error(6, NO_SUCH_TABLE))]
}

fn neighbour(state: NeighbourState, vip: NeighbourAddress, lladdr: &[u8]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = 2;
    message.header.state = state;
    message.header.family = match vip {
        NeighbourAddress::Inet(_) => AddressFamily::Inet,
        _ => AddressFamily::Inet6,
    };
    message.attributes.push(NeighbourAttribute::Destination(vip));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(lladdr.to_vec()));
    message
}

pub(crate) fn neighbours() -> Vec<Seed> {
    let v4 = || NeighbourAddress::Inet("10.77.0.100".parse().unwrap());
    let v6 = || NeighbourAddress::Inet6("fd77::100".parse().unwrap());
    let new = |state, vip, last| {
        message(RouteNetlinkMessage::NewNeighbour(neighbour(state, vip, &[2, 0, 0, 0, 0, last])))
    };
    let mut done = vec![20, 0, 0, 0, 3, 0, 2, 0];
    done.resize(20, 0);
    let dump = [new(NeighbourState::Reachable, v4(), 1), new(NeighbourState::Stale, v6(), 1), done].concat();
    let gone = message(RouteNetlinkMessage::DelNeighbour(neighbour(NeighbourState::Failed, v4(), &[])));
    let moved = new(NeighbourState::Reachable, v4(), 2);
    vec![
        ("dump", piece(&dump)),
        ("changes", [piece(&dump), piece(&moved), piece(&gone)].concat()),
        ("failed-dump", piece(&error(0, -16))),
    ]
}

pub(crate) fn addresses() -> Vec<Seed> {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.index = 2;
    address.attributes.push(AddressAttribute::Local("10.77.0.100".parse().unwrap()));
    let mut peer = AddressMessage::default();
    peer.header.family = AddressFamily::Inet6;
    peer.attributes.push(AddressAttribute::Address("fd77::100".parse().unwrap()));
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName("eth0".into()));
    link.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]));
    vec![
        ("v4", message(RouteNetlinkMessage::NewAddress(address))),
        ("v6", message(RouteNetlinkMessage::NewAddress(peer))),
        ("link", message(RouteNetlinkMessage::NewLink(link))),
    ]
}
