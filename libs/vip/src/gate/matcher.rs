//! What belongs to a guard: which packets, and under which key in which set.
//!
//! In: towards the guard. Out: from it. So a standby whose gate is shut still reaches the
//! address on the node that holds it, as any client does: its own packets go *to* the
//! address when they leave and come *from* it when they arrive.

use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{MetaKey, Register};

use super::expression::{
    Base, Expression, accept, constant, contained_in, equals, has_bit, load, load_meta, missing_in,
    reject_with_port_unreachable, reject_with_reset,
};
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

/// A rule, or its beginning, and the set whose keys it looks for.
type Rule = (&'static Set, Vec<Expression>);

/// The rules that look for keys of these guards. Others could match nothing, and every packet of the host, guarded or not,
/// would pass them all.
fn needed(rules: Vec<Rule>, guards: &[Guard]) -> impl Iterator<Item = Vec<Expression>> {
    rules.into_iter().filter(|(set, _)| has_keys(set, guards)).map(|(_, rule)| rule)
}

fn has_keys(set: &Set, guards: &[Guard]) -> bool {
    guards.iter().any(|guard| set_of(guard).id == set.id)
}

/// A rule that ends a chain for what most packets of a host are: IPv4, to or from an address that is not guarded. They
/// would go through all the others otherwise. `None` where one of those could match such a packet.
pub(super) fn shortcut(
    family: NetfilterProtoFamily,
    direction: Direction,
    guards: &[Guard],
) -> Option<Vec<Expression>> {
    let addresses_alone = has_keys(VIP4, guards) && !has_keys(SERVICE4, guards);
    if family != NetfilterProtoFamily::Inet || !addresses_alone {
        return None;
    }
    let side = match direction {
        Direction::In => Ipv4::Destination,
        Direction::Out => Ipv4::Source,
    };
    let mut rule = Vec::from(is_ipv4());
    rule.extend([load(Base::Network, side as u32, 4, Register::Reg32_00), missing_in(VIP4.name), accept()]);
    Some(rule)
}

/// The beginnings of the rules that match traffic of these guards in the sets; one list per rule.
pub(super) fn matchers(
    family: NetfilterProtoFamily,
    direction: Direction,
    guards: &[Guard],
) -> impl Iterator<Item = Vec<Expression>> {
    let rules = match (family, direction) {
        (NetfilterProtoFamily::ARP, Direction::In) => vec![(VIP4, arp(ARP_TARGET))],
        (NetfilterProtoFamily::ARP, Direction::Out) => vec![(VIP4, arp(ARP_SENDER))],
        (_, Direction::In) => vec![
            (VIP4, address4(Ipv4::Destination)),
            (VIP6, address6(Ipv6::Destination)),
            (SERVICE4, service4(Ipv4::Destination)),
            (SERVICE6, service6(Ipv6::Destination)),
            (VIP6, neighbour_discovery(SOLICITATION, false)),
        ],
        (_, Direction::Out) => vec![
            (VIP4, address4(Ipv4::Source)),
            (VIP6, address6(Ipv6::Source)),
            (SERVICE4, service4(Ipv4::Source)),
            (SERVICE6, service6(Ipv6::Source)),
            (VIP6, neighbour_discovery(ADVERTISEMENT, false)),
            // Duplicate address detection, should somebody add the address without NODAD.
            (VIP6, neighbour_discovery(SOLICITATION, true)),
            (SERVICE4, question4(TCP)),
            (SERVICE4, question4(UDP)),
            (SERVICE6, question6(TCP)),
            (SERVICE6, question6(UDP)),
        ],
    };
    needed(rules, guards)
}

/// Rules for packets that the fence does not simply drop although they match: whole ones, with their verdict.
pub(super) fn exceptions(
    family: NetfilterProtoFamily,
    direction: Direction,
    guards: &[Guard],
) -> impl Iterator<Item = Vec<Expression>> {
    let ending = |mut rule: Vec<Expression>, verdict: Expression| {
        rule.push(verdict);
        rule
    };
    let rules = match (family, direction) {
        // A packet *from* a managed address is how a gratuitous ARP looks (sender and target are the same,
        // RFC 5227 section 3), and every closed member must learn from it where the address went. An answer that
        // this host might give to it is dropped on its way out.
        (NetfilterProtoFamily::ARP, Direction::In) => vec![(VIP4, ending(arp(ARP_SENDER), accept()))],
        (NetfilterProtoFamily::ARP, Direction::Out) => Vec::new(),
        // Who asks here has an old record, and must look for the new one now and not after a timeout: a shut
        // service answers as a closed port does.
        (_, Direction::In) => vec![
            (SERVICE4, ending(of_protocol(TCP, service4(Ipv4::Destination)), reject_with_reset())),
            (SERVICE6, ending(of_protocol(TCP, service6(Ipv6::Destination)), reject_with_reset())),
            (SERVICE4, ending(of_protocol(UDP, service4(Ipv4::Destination)), reject_with_port_unreachable())),
            (SERVICE6, ending(of_protocol(UDP, service6(Ipv6::Destination)), reject_with_port_unreachable())),
        ],
        // The resets just made, and no others that could do harm: a reset carries nothing to serve anybody with.
        (_, Direction::Out) => vec![
            (SERVICE4, ending(reset(service4(Ipv4::Source)), accept())),
            (SERVICE6, ending(reset(service6(Ipv6::Source)), accept())),
        ],
    };
    needed(rules, guards)
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

fn of_protocol(number: u8, rest: Vec<Expression>) -> Vec<Expression> {
    let mut rule = vec![load_meta(MetaKey::L4Proto, Register::Reg32_00), equals(&[number])];
    rule.extend(rest);
    rule
}

/// Offset of the flags in the TCP header, and the reset among them (RFC 9293 section 3.1).
const TCP_FLAGS: u32 = 13;
const TCP_RESET: u8 = 0x04;

fn reset(rest: Vec<Expression>) -> Vec<Expression> {
    let mut rule = vec![load(Base::Transport, TCP_FLAGS, 1, Register::Reg32_00)];
    rule.extend(has_bit(TCP_RESET));
    rule.extend(rest);
    of_protocol(TCP, rule)
}

/// Offset of the length in the UDP header, and that of an empty datagram: the header's own (RFC 768).
const UDP_LENGTH: u32 = 4;
const EMPTY_UDP: [u8; 2] = [0, 8];

/// What a witness asks (`crate::proof`): an empty datagram to the port of a guarded service of this host, whether
/// that service speaks TCP or UDP. It is judged by the very set element that the service's own packets are judged by.
fn question(is_family: [Expression; 2], key: Vec<Expression>) -> Vec<Expression> {
    let mut rule = Vec::from(is_family);
    rule.extend([load(Base::Transport, UDP_LENGTH, 2, Register::Reg32_00), equals(&EMPTY_UDP)]);
    rule.extend(key);
    of_protocol(UDP, rule)
}

fn question4(service: u8) -> Vec<Expression> {
    let key = vec![
        load(Base::Network, Ipv4::Destination as u32, 4, Register::Reg32_00),
        constant(&[service, 0, 0, 0], Register::Reg32_01),
        load(Base::Transport, port_offset(true), 2, Register::Reg32_02),
        contained_in(SERVICE4.name),
    ];
    question(is_ipv4(), key)
}

fn question6(service: u8) -> Vec<Expression> {
    let key = vec![
        load(Base::Network, Ipv6::Destination as u32, 16, Register::Reg32_00),
        constant(&[service, 0, 0, 0], Register::Reg32_04),
        load(Base::Transport, port_offset(true), 2, Register::Reg32_05),
        contained_in(SERVICE6.name),
    ];
    question(is_ipv6(), key)
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
