//! Building blocks of nftables rules. A rule is a list of them; the first that does not
//! match ends the rule.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// One step of a rule, as it is sent.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// Where a payload offset counts from (`enum nft_payload_bases`).
#[derive(Clone, Copy)]
pub(super) enum Base {
    /// Start of the IPv4, IPv6 or ARP header.
    Network = 1,
    /// Start of the TCP, UDP or ICMPv6 header.
    Transport = 2,
}

/// `NF_DROP`.
pub(super) fn drop_packet() -> Expression {
    verdict(0)
}

/// `NF_ACCEPT`: ends this chain, not the packet's way through the others.
pub(super) fn accept() -> Expression {
    verdict(1)
}

fn verdict(code: u32) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(code))])),
    ])
    .into()
}

/// Drops the packet and answers it as a closed port does: TCP with a reset.
pub(super) fn reject_with_reset() -> Expression {
    reject(REJECT_TCP_RESET, None)
}

/// Drops the packet and answers it as a closed port does: UDP with ICMP or ICMPv6 "port unreachable".
pub(super) fn reject_with_port_unreachable() -> Expression {
    reject(REJECT_ICMPX, Some(ICMPX_PORT_UNREACHABLE))
}

/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
const REJECT_TCP_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_PORT_UNREACHABLE: u8 = 1;

/// The library has no type for it: `NFTA_REJECT_TYPE` (1), `NFTA_REJECT_ICMP_CODE` (2).
fn reject(kind: u32, code: Option<u8>) -> Expression {
    let mut attributes = vec![DefaultNla::new(1, kind.to_be_bytes().to_vec())];
    attributes.extend(code.map(|code| DefaultNla::new(2, vec![code])));
    Expressions::Other { expression_type: "reject".to_owned(), attributes }.into()
}

/// Loads a constant into a register and those after it.
pub(super) fn constant(bytes: &[u8], register: Register) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(bytes.to_vec())),
    ])
    .into()
}

/// Loads bytes of the packet into a register and those after it.
pub(super) fn load(base: Base, offset: u32, length: u32, register: Register) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base as u32),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
    .into()
}

/// Loads what the kernel knows about the packet into a register.
pub(super) fn load_meta(key: MetaKey, register: Register) -> Expression {
    Expressions::Meta(vec![Meta::DestinationRegister(register), Meta::Key(key)]).into()
}

/// Goes on only if the first register holds these bytes.
pub(super) fn equals(bytes: &[u8]) -> Expression {
    compare(Operator::Equal, bytes)
}

fn compare(operator: Operator, bytes: &[u8]) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg32_00),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(bytes.to_vec())),
    ])
    .into()
}

/// Goes on only if the set holds the key that starts in the first register.
pub(super) fn contained_in(set: &str) -> Expression {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(Register::Reg32_00)]).into()
}

/// `NFT_LOOKUP_F_INV`.
const NOT_IN_SET: u32 = 1;

/// Goes on only if the set lacks the key that starts in the first register.
pub(super) fn missing_in(set: &str) -> Expression {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg32_00),
        Lookup::Flags(NOT_IN_SET),
    ])
    .into()
}

/// Goes on only if the packet carries the bit in its mark.
pub(super) fn marked(bit: u32) -> [Expression; 3] {
    [
        load_meta(MetaKey::Mark, Register::Reg32_00),
        mask_and_flip(&bit.to_ne_bytes(), &[0; 4]),
        compare(Operator::NotEqual, &[0; 4]),
    ]
}

/// Goes on only if the byte in the first register has the bit.
pub(super) fn has_bit(bit: u8) -> [Expression; 2] {
    [mask_and_flip(&[bit], &[0]), compare(Operator::NotEqual, &[0])]
}

/// Sets the bit in the packet's mark, leaves the others.
pub(super) fn set_mark(bit: u32) -> [Expression; 3] {
    [
        load_meta(MetaKey::Mark, Register::Reg32_00),
        mask_and_flip(&(!bit).to_ne_bytes(), &bit.to_ne_bytes()),
        store_mark(),
    ]
}

/// Clears the bit in the packet's mark, leaves the others.
pub(super) fn clear_mark(bit: u32) -> [Expression; 3] {
    [
        load_meta(MetaKey::Mark, Register::Reg32_00),
        mask_and_flip(&(!bit).to_ne_bytes(), &[0; 4]),
        store_mark(),
    ]
}

fn store_mark() -> Expression {
    Expressions::Meta(vec![Meta::SourceRegister(Register::Reg32_00), Meta::Key(MetaKey::Mark)]).into()
}

/// `register = (register & mask) ^ flip`, for as many bytes as these have; the mark is in the byte order of the host.
fn mask_and_flip(mask: &[u8], flip: &[u8]) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg32_00),
        Bitwise::DestinationRegister(Register::Reg32_00),
        Bitwise::Length(u32::try_from(mask.len()).expect("a register has four bytes")),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(flip.to_vec())),
    ])
    .into()
}
