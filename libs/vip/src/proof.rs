//! Proof, without privileges, that an address is off the air on this node (rule R8).
//!
//! A witness that outlives the executor publishes a release only with a proof. It sends one
//! datagram *from* the address; a shut gate refuses that in the output hook with EPERM. The
//! datagram goes to the very socket it comes from: a local route, so no other route need
//! exist and nothing leaves the host whatever the answer is.
//!
//! The port of a [`Guard::Service`] belongs to the workload, so nothing can be sent from it.
//! There the datagram goes the other way, empty, from the address to that port: the gate
//! judges such a question in the output hook by the very set element that it judges the
//! service's own packets by, be they TCP or UDP. It never leaves the host either, and when it
//! is refused nobody has received anything.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::gate::Guard;

/// What one attempt to send from an address showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The kernel refused the datagram (EPERM): the gate is shut.
    Refused,
    /// The node does not have the guard's address (EADDRNOTAVAIL).
    Absent,
    /// The datagram was sent, or failed for a reason that proves nothing: assume open.
    Open,
}

impl Proof {
    /// Whether the guard is proved to be off the air on this node.
    #[must_use]
    pub fn is_shut(self) -> bool {
        matches!(self, Proof::Refused | Proof::Absent)
    }
}

/// Tries to send what a shut gate refuses, in the network namespace of the calling thread.
/// Needs no privileges, does not block.
///
/// EPERM counts only if a like datagram, which no gate holds back, is *not* refused: a
/// firewall that forbids all UDP, or all to that port, says nothing about the gate.
#[must_use]
pub fn prove_shut(guard: Guard) -> Proof {
    match question(guard) {
        Ok(()) => Proof::Open,
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => Proof::Absent,
            Some(libc::EPERM) if control(guard).is_ok() => Proof::Refused,
            _ => {
                tracing::debug!(?guard, %error, "sending proves nothing");
                Proof::Open
            }
        },
    }
}

fn question(guard: Guard) -> io::Result<()> {
    match guard {
        Guard::Address(address) => send_to_self(address),
        Guard::Service { address, port, .. } => send(address, port, &[]),
    }
}

/// The same from an address, or with a content, that no gate looks for.
fn control(guard: Guard) -> io::Result<()> {
    match guard {
        Guard::Address(address) => send_to_self(loopback(address)),
        Guard::Service { address, port, .. } => send(address, port, &[0]),
    }
}

fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn send_to_self(address: IpAddr) -> io::Result<()> {
    let socket = bound(address)?;
    socket.send_to(&[], socket.local_addr()?).map(drop)
}

/// From any port of the address to this one.
fn send(address: IpAddr, port: u16, content: &[u8]) -> io::Result<()> {
    bound(address)?.send_to(content, (address, port)).map(drop)
}

fn bound(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
