//! Proof, without privileges, that an address is off the air on this node (rule R8).
//!
//! A witness that outlives the executor publishes a release only with a proof. It sends one
//! datagram *from* the address; a shut gate refuses that in the output hook with EPERM. The
//! datagram goes to the very socket it comes from: a local route, so no other route need
//! exist and nothing leaves the host whatever the answer is.
//!
//! A [`Guard::Service`](crate::gate::Guard::Service) cannot be proved shut this way: the
//! port belongs to the workload. There the lease has to run out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// What one attempt to send from an address showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The kernel refused the datagram (EPERM): the gate is shut.
    Refused,
    /// The node does not have the address (EADDRNOTAVAIL).
    Absent,
    /// The datagram was sent, or failed for a reason that proves nothing: assume open.
    Open,
}

impl Proof {
    /// Whether the address is proved to be off the air on this node.
    #[must_use]
    pub fn is_shut(self) -> bool {
        matches!(self, Proof::Refused | Proof::Absent)
    }
}

/// Tries to send from the address, in the network namespace of the calling thread. Needs no
/// privileges, does not block.
///
/// EPERM counts only if the same datagram from the loopback address is *not* refused: a
/// firewall that forbids all UDP says nothing about the gate.
#[must_use]
pub fn prove_shut(vip: IpAddr) -> Proof {
    match send_to_self(vip) {
        Ok(()) => Proof::Open,
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => Proof::Absent,
            Some(libc::EPERM) if send_to_self(loopback(vip)).is_ok() => Proof::Refused,
            _ => {
                tracing::debug!(%vip, %error, "sending from the address proves nothing");
                Proof::Open
            }
        },
    }
}

fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn send_to_self(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&[], socket.local_addr()?).map(|_| ())
}
