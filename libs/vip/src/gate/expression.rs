//! Building blocks of nftables rules. A rule is a list of them; the first that does not
//! match ends the rule.

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

/// Goes on only if the packet carries the bit in its mark.
pub(super) fn marked(bit: u32) -> [Expression; 3] {
    [
        load_meta(MetaKey::Mark, Register::Reg32_00),
        mask_and_flip(bit, 0),
        compare(Operator::NotEqual, &[0; 4]),
    ]
}

/// Sets the bit in the packet's mark, leaves the others.
pub(super) fn set_mark(bit: u32) -> [Expression; 3] {
    [load_meta(MetaKey::Mark, Register::Reg32_00), mask_and_flip(!bit, bit), store_mark()]
}

/// Clears the bit in the packet's mark, leaves the others.
pub(super) fn clear_mark(bit: u32) -> [Expression; 3] {
    [load_meta(MetaKey::Mark, Register::Reg32_00), mask_and_flip(!bit, 0), store_mark()]
}

fn store_mark() -> Expression {
    Expressions::Meta(vec![Meta::SourceRegister(Register::Reg32_00), Meta::Key(MetaKey::Mark)]).into()
}

/// `register = (register & mask) ^ flip`; the mark is in the byte order of the host.
fn mask_and_flip(mask: u32, flip: u32) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg32_00),
        Bitwise::DestinationRegister(Register::Reg32_00),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_ne_bytes().to_vec())),
        Bitwise::Xor(DataAttribute::Value(flip.to_ne_bytes().to_vec())),
    ])
    .into()
}
