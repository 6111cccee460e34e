//! One blocking netlink socket to nftables, and the batches that travel over it.

use std::io;

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// `NFNL_SUBSYS_NFTABLES`: the subsystem that a batch is for.
const SUBSYSTEM_NFTABLES: u16 = 10;

/// Receive buffer for one answer; acknowledgements are capped to a header (NETLINK_CAP_ACK).
const ANSWER_BYTES: usize = 8 * 1024;

/// Messages that the kernel carries out together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<(NetfilterProtoFamily, u16, NfTablesMessage)>,
}

impl Batch {
    /// Appends a message with the `NLM_F_*` flags it needs beyond `NLM_F_REQUEST`.
    pub(super) fn push(&mut self, family: NetfilterProtoFamily, flags: u16, message: NfTablesMessage) {
        self.messages.push((family, flags, message));
    }

    fn bytes(self, first: u32) -> (Vec<u8>, u32) {
        let end = first + 1 + u32::try_from(self.messages.len()).expect("a batch is far below 2^32 messages");
        let mut bytes = Vec::new();
        append(&mut bytes, control(ControlMessage::BatchBegin), 0, first);
        let mut sequence = first;
        for (family, flags, message) in self.messages {
            sequence += 1;
            let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
            let acknowledge = if sequence + 1 == end { NLM_F_ACK } else { 0 };
            append(&mut bytes, message, flags | acknowledge, sequence);
        }
        append(&mut bytes, control(ControlMessage::BatchEnd), 0, end);
        (bytes, sequence)
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, NetfilterMessageInner::None(message))
}

fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    // Netlink messages are aligned to four bytes.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// Why the kernel did not carry out a batch.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The socket itself failed; nothing is known about the batch.
    Socket(io::Error),
    /// Refused as a whole, before any message was looked at.
    Batch(io::Error),
    /// One message was refused, and with it the batch.
    Message(io::Error),
}

/// The socket. Tables flagged `owner` live exactly as long as it is open.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Channel> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Channel { socket, sequence: 0 })
    }

    /// Sends a batch and reads the kernel's answer. Does not block: the kernel works
    /// while `send` runs, so all answers are queued when it returns.
    pub(super) fn execute(&mut self, batch: Batch) -> Result<(), Rejected> {
        let first = self.sequence.wrapping_add(1) & 0x3fff_ffff;
        let (bytes, last) = batch.bytes(first);
        self.sequence = last + 1;
        let sent = self.socket.send(&bytes, 0).map_err(Rejected::Socket)?;
        debug_assert_eq!(sent, bytes.len());
        self.answer(first, last)
    }

    fn answer(&self, first: u32, last: u32) -> Result<(), Rejected> {
        let mut acknowledged = false;
        let mut rejected = None;
        let mut buffer = [0u8; ANSWER_BYTES];
        loop {
            let length = match self.socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Rejected::Socket(error)),
            };
            let Some((sequence, error)) = acknowledgement(&buffer[..length]) else { continue };
            match error {
                None => acknowledged |= sequence == last,
                Some(error) if sequence == first => {
                    rejected.get_or_insert(Rejected::Batch(error));
                }
                Some(error) if sequence > first && sequence <= last => {
                    rejected.get_or_insert(Rejected::Message(error));
                }
                Some(error) => {
                    rejected.get_or_insert(Rejected::Batch(error));
                }
            }
        }
        match rejected {
            Some(rejected) => Err(rejected),
            None if acknowledged => Ok(()),
            None => Err(Rejected::Socket(io::Error::other("no acknowledgement"))),
        }
    }
}

/// Sequence number and error of an `NLMSG_ERROR`; `None` for any other message, whose content nobody looks at.
pub(crate) fn acknowledgement(bytes: &[u8]) -> Option<(u32, Option<io::Error>)> {
    let message =
        NetlinkBuffer::new_checked(bytes).ok().filter(|message| message.message_type() == NLMSG_ERROR)?;
    let code = ErrorBuffer::new_checked(message.payload()).ok()?.code();
    let refused = code.map(|code| io::Error::from_raw_os_error(code.get().saturating_neg()));
    Some((message.sequence_number(), refused))
}
