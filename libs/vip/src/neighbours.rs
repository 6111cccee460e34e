//! Who the segment sees behind an address: the kernel's neighbour table, watched.
//!
//! The proof of takeover: members of the segment report which hardware address answers for
//! a VIP, and its holder announces until enough of them agree.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// `RTNLGRP_NEIGH`.
const GROUP_NEIGHBOURS: u32 = 3;

/// Sightings that wait to be read. They are few (a change of holder each); if nobody reads,
/// the watch waits, the kernel's queue overflows, and the watch lists the table anew.
const SIGHTINGS: usize = 64;

/// The kernel writes dumps in pieces of at most 32 KiB.
const RECEIVE_BYTES: usize = 32 * 1024;

/// Why neighbours could not be watched or asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NeighbourError {
    /// The interface is not there, or there is no netlink socket.
    #[error("watching the neighbours on {interface}")]
    Watch {
        /// Name of the interface.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel would not look for the address.
    #[error("soliciting {vip} on {interface}")]
    Solicit {
        /// The address in question.
        vip: IpAddr,
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Which hardware address this host sees behind a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address.
    pub vip: IpAddr,
    /// The hardware address behind it; `None` if nobody is seen (none asked, none answered).
    pub lladdr: Option<[u8; 6]>,
}

/// Watches the neighbour table of an interface, in the network namespace of the calling
/// thread (which must be in a tokio runtime), for some addresses.
///
/// The receiver first yields one sighting per VIP as the table stands, then one per change.
/// It ends when the [`Watcher`] is dropped or its socket fails.
///
/// # Errors
///
/// [`NeighbourError::Watch`].
pub fn watch(
    interface: &str,
    vips: Vec<IpAddr>,
) -> Result<(mpsc::Receiver<Sighting>, Watcher), NeighbourError> {
    let failed = |source| NeighbourError::Watch { interface: interface.to_owned(), source };
    let index = if_nametoindex(interface).map_err(|error| failed(error.into()))?;
    let socket = notifications().map_err(failed)?;
    let (sender, receiver) = mpsc::channel(SIGHTINGS);
    let table = Table::new(index, vips);
    let name = interface.to_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = follow(socket, table, sender).await {
            tracing::error!(interface = name, %error, "watching the neighbours has ended");
        }
    });
    Ok((receiver, Watcher { interface: interface.to_owned(), index, task }))
}

/// Keeps a watch going; dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    interface: String,
    index: u32,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Makes the kernel look for an address as if there were a packet for it (NTF_USE).
    ///
    /// So a member that never talks to the VIP still has an entry; announcements change
    /// entries, they do not make any. Returns at once, what is found arrives as a sighting.
    ///
    /// # Errors
    ///
    /// [`NeighbourError::Solicit`].
    pub fn solicit(&self, vip: IpAddr) -> Result<(), NeighbourError> {
        solicit(self.index, vip).map_err(|source| NeighbourError::Solicit {
            vip,
            interface: self.interface.clone(),
            source,
        })
    }
}

fn route_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A socket that hears of every change, and will hear the table as it stands.
fn notifications() -> io::Result<TokioSocket> {
    let mut socket = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(GROUP_NEIGHBOURS)?;
    request_dump(socket.socket_ref())?;
    Ok(socket)
}

fn send(socket: &Socket, flags: u16, message: RouteNetlinkMessage) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(|_| ())
}

fn request_dump(socket: &Socket) -> io::Result<()> {
    send(socket, NLM_F_DUMP, RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))
}

fn solicit(index: u32, vip: IpAddr) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Use;
    let (family, destination) = match vip {
        IpAddr::V4(vip) => (AddressFamily::Inet, NeighbourAddress::Inet(vip)),
        IpAddr::V6(vip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(vip)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let socket = route_socket()?;
    let flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK;
    send(&socket, flags, RouteNetlinkMessage::NewNeighbour(message))?;
    // The kernel has answered by the time send() returns.
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT)?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length]) {
        Ok(NetlinkMessage { payload: NetlinkPayload::Error(error), .. }) => match error.code {
            None => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
        },
        _ => Err(io::Error::other("no acknowledgement")),
    }
}

async fn follow(socket: TokioSocket, mut table: Table, sender: mpsc::Sender<Sighting>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        buffer.clear();
        let sightings = match socket.recv(&mut buffer).await {
            Ok(()) => table.take(&buffer),
            // Notifications were lost: only the whole table tells what they said.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                table.stale = true;
                Vec::new()
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if table.stale && !table.dumping {
            request_dump(socket.socket_ref())?;
            table.begin_dump();
        }
        for sighting in sightings {
            if sender.send(sighting).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What has been reported of the addresses that matter.
pub(crate) struct Table {
    index: u32,
    /// What was last reported; `None` if nothing yet.
    seen: BTreeMap<IpAddr, Option<Option<[u8; 6]>>>,
    /// Addresses that the dump under way has not come across.
    missing: BTreeSet<IpAddr>,
    dumping: bool,
    /// Whether notifications were lost since the last dump began.
    pub(crate) stale: bool,
}

impl Table {
    /// A table whose first dump has just been asked for.
    pub(crate) fn new(index: u32, vips: Vec<IpAddr>) -> Table {
        let missing: BTreeSet<IpAddr> = vips.into_iter().collect();
        let seen = missing.iter().map(|vip| (*vip, None)).collect();
        Table { index, seen, missing, dumping: true, stale: false }
    }

    fn begin_dump(&mut self) {
        self.missing = self.seen.keys().copied().collect();
        self.dumping = true;
        self.stale = false;
    }

    /// Takes one datagram from the kernel, returns what it changes.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        while let Some(length) = message_length(bytes) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length]) {
                Ok(message) => self.take_message(message.payload, &mut sightings),
                Err(error) => tracing::debug!(%error, "a neighbour message that cannot be read"),
            }
            bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        }
        sightings
    }

    fn take_message(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>, sightings: &mut Vec<Sighting>) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                self.take_neighbour(&message, lladdr(&message), sightings);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                self.take_neighbour(&message, None, sightings);
            }
            NetlinkPayload::Done(_) => {
                self.dumping = false;
                for vip in std::mem::take(&mut self.missing) {
                    self.report(vip, None, sightings);
                }
            }
            NetlinkPayload::Error(_) => {
                // The dump failed: ask again, with the next message from the kernel.
                self.dumping = false;
                self.stale = true;
            }
            _ => {}
        }
    }

    fn take_neighbour(
        &mut self,
        message: &NeighbourMessage,
        lladdr: Option<[u8; 6]>,
        sightings: &mut Vec<Sighting>,
    ) {
        let Some(vip) = destination(message) else { return };
        if message.header.ifindex == self.index && self.seen.contains_key(&vip) {
            self.missing.remove(&vip);
            self.report(vip, lladdr, sightings);
        }
    }

    fn report(&mut self, vip: IpAddr, lladdr: Option<[u8; 6]>, sightings: &mut Vec<Sighting>) {
        if self.seen.insert(vip, Some(lladdr)) != Some(Some(lladdr)) {
            sightings.push(Sighting { vip, lladdr });
        }
    }
}

/// Length of the first message, `None` if there is no whole one.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let field = bytes.first_chunk::<4>()?;
    let length = u32::from_ne_bytes(*field) as usize;
    (16..=bytes.len()).contains(&length).then_some(length)
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// The hardware address, if the entry is good for sending.
fn lladdr(message: &NeighbourMessage) -> Option<[u8; 6]> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    if !matches!(message.header.state, Reachable | Stale | Delay | Probe | Permanent) {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })
}
