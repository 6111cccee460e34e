//! What belongs to a guard: which packets, and under which key in which set.
//!
//! In: towards the guard. Out: from it. So a standby whose gate is shut still reaches the
//! address on the node that holds it, as any client does: its own packets go *to* the
//! address when they leave and come *from* it when they arrive.

use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{MetaKey, Register};

use super::expression::{Base, Expression, contained_in, equals, load, load_meta};
use super::{Guard, Protocol};

/// Which way a packet goes, seen from this host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// A set of keys; the same ones are in `fence` (managed) and `pass` (live).
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Number of the set within a batch and table.
    pub(super) id: u32,
    /// Data type as `nft` prints it; the kernel does not look at it. A concatenation is a
    /// list of six-bit numbers (`enum datatypes` of nftables).
    pub(super) key_type: u32,
    /// Each part of a key is padded to four bytes.
    pub(super) key_bytes: u32,
    in_arp: bool,
}

impl Set {
    pub(super) fn exists_in(&self, family: NetfilterProtoFamily) -> bool {
        family == NetfilterProtoFamily::Inet || self.in_arp
    }
}

const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL_PORT: u32 = 12 << 6 | 13;

pub(super) static SETS: [Set; 4] = [
    Set { name: "vip4", id: 1, key_type: TYPE_IPV4, key_bytes: 4, in_arp: true },
    Set { name: "vip6", id: 2, key_type: TYPE_IPV6, key_bytes: 16, in_arp: false },
    Set {
        name: "service4",
        id: 3,
        key_type: TYPE_IPV4 << 12 | TYPE_PROTOCOL_PORT,
        key_bytes: 12,
        in_arp: false,
    },
    Set {
        name: "service6",
        id: 4,
        key_type: TYPE_IPV6 << 12 | TYPE_PROTOCOL_PORT,
        key_bytes: 24,
        in_arp: false,
    },
];

const VIP4: &Set = &SETS[0];
const VIP6: &Set = &SETS[1];
const SERVICE4: &Set = &SETS[2];
const SERVICE6: &Set = &SETS[3];

/// `IPPROTO_ICMPV6`, `IPPROTO_TCP`, `IPPROTO_UDP`.
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Keys of the guards by set, only sets that get any.
pub(super) fn elements(
    family: NetfilterProtoFamily,
    guards: &[Guard],
) -> impl Iterator<Item = (&'static Set, Vec<Vec<u8>>)> {
    SETS.iter().filter(move |set| set.exists_in(family)).filter_map(move |set| {
        let keys: Vec<_> = guards.iter().filter(|guard| set_of(guard).id == set.id).map(key).collect();
        (!keys.is_empty()).then_some((set, keys))
    })
}

fn set_of(guard: &Guard) -> &'static Set {
    match guard {
        Guard::Address(IpAddr::V4(_)) => VIP4,
        Guard::Address(IpAddr::V6(_)) => VIP6,
        Guard::Service { address: IpAddr::V4(_), .. } => SERVICE4,
        Guard::Service { address: IpAddr::V6(_), .. } => SERVICE6,
    }
}

fn key(guard: &Guard) -> Vec<u8> {
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    match guard {
        Guard::Address(address) => octets(address),
        Guard::Service { address, protocol, port } => {
            let mut key = octets(address);
            let number = match protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            };
            key.extend([number, 0, 0, 0]);
            key.extend(port.to_be_bytes());
            key.extend([0, 0]);
            key
        }
    }
}

/// The beginnings of the rules that match traffic of a guard in the sets; one list per rule.
pub(super) fn matchers(family: NetfilterProtoFamily, direction: Direction) -> Vec<Vec<Expression>> {
    match (family, direction) {
        (NetfilterProtoFamily::ARP, Direction::In) => vec![arp(ARP_TARGET)],
        (NetfilterProtoFamily::ARP, Direction::Out) => vec![arp(ARP_SENDER)],
        (_, Direction::In) => vec![
            address4(Ipv4::Destination),
            address6(Ipv6::Destination),
            service4(Ipv4::Destination),
            service6(Ipv6::Destination),
            neighbour_discovery(SOLICITATION, false),
        ],
        (_, Direction::Out) => vec![
            address4(Ipv4::Source),
            address6(Ipv6::Source),
            service4(Ipv4::Source),
            service6(Ipv6::Source),
            neighbour_discovery(ADVERTISEMENT, false),
            // Duplicate address detection, should somebody add the address without NODAD.
            neighbour_discovery(SOLICITATION, true),
        ],
    }
}

/// What the fence must not drop although it matches: an ARP packet *from* a managed address
/// is how a gratuitous one looks (sender and target are the same, RFC 5227 section 3), and
/// every closed member must learn from it where the address went. An answer that this
/// host might give to it is dropped on its way out.
pub(super) fn harmless(family: NetfilterProtoFamily, direction: Direction) -> Option<Vec<Expression>> {
    (family == NetfilterProtoFamily::ARP && direction == Direction::In).then(|| arp(ARP_SENDER))
}

/// Offsets in an ARP packet with hardware addresses of six bytes (RFC 826).
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;

fn arp(offset: u32) -> Vec<Expression> {
    vec![load(Base::Network, offset, 4, Register::Reg32_00), contained_in(VIP4.name)]
}

/// Offset of an address in the IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ipv4 {
    Source = 12,
    Destination = 16,
}

/// Offset of an address in the IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    Source = 8,
    Destination = 24,
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`: one chain of the inet family sees both.
fn is_ipv4() -> [Expression; 2] {
    [load_meta(MetaKey::Nfproto, Register::Reg32_00), equals(&[2])]
}

fn is_ipv6() -> [Expression; 2] {
    [load_meta(MetaKey::Nfproto, Register::Reg32_00), equals(&[10])]
}

fn address4(side: Ipv4) -> Vec<Expression> {
    let mut rule = Vec::from(is_ipv4());
    rule.extend([load(Base::Network, side as u32, 4, Register::Reg32_00), contained_in(VIP4.name)]);
    rule
}

fn address6(side: Ipv6) -> Vec<Expression> {
    let mut rule = Vec::from(is_ipv6());
    rule.extend([load(Base::Network, side as u32, 16, Register::Reg32_00), contained_in(VIP6.name)]);
    rule
}

fn service4(side: Ipv4) -> Vec<Expression> {
    let mut rule = Vec::from(is_ipv4());
    rule.extend([
        load(Base::Network, side as u32, 4, Register::Reg32_00),
        load_meta(MetaKey::L4Proto, Register::Reg32_01),
        load(Base::Transport, port_offset(side == Ipv4::Destination), 2, Register::Reg32_02),
        contained_in(SERVICE4.name),
    ]);
    rule
}

fn service6(side: Ipv6) -> Vec<Expression> {
    let mut rule = Vec::from(is_ipv6());
    rule.extend([
        load(Base::Network, side as u32, 16, Register::Reg32_00),
        load_meta(MetaKey::L4Proto, Register::Reg32_04),
        load(Base::Transport, port_offset(side == Ipv6::Destination), 2, Register::Reg32_05),
        contained_in(SERVICE6.name),
    ]);
    rule
}

/// Source port, then destination port: alike in TCP and UDP.
fn port_offset(destination: bool) -> u32 {
    if destination { 2 } else { 0 }
}

/// ICMPv6 types of RFC 4861 sections 4.3 and 4.4; both have the target address at offset 8.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const TARGET: u32 = 8;

fn neighbour_discovery(kind: u8, from_unspecified: bool) -> Vec<Expression> {
    let mut rule = Vec::from(is_ipv6());
    if from_unspecified {
        rule.extend([load(Base::Network, Ipv6::Source as u32, 16, Register::Reg32_00), equals(&[0; 16])]);
    }
    rule.extend([
        load_meta(MetaKey::L4Proto, Register::Reg32_00),
        equals(&[ICMPV6]),
        load(Base::Transport, 0, 1, Register::Reg32_00),
        equals(&[kind]),
        load(Base::Transport, TARGET, 16, Register::Reg32_00),
        contained_in(VIP6.name),
    ]);
    rule
}
