//! Announcements: telling the segment behind which hardware address a VIP now lives.
//!
//! Gratuitous ARP leaves through an AF_PACKET socket, which no netfilter hook sees: the gate
//! cannot hold it back. So every announcement names the time until which it is true, and is
//! refused after that, should the process have been stopped in between. Neighbour
//! advertisements leave *from* the VIP and pass the gate like all its traffic.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;

use crate::clock::boottime_ns;

/// Why an announcement was not sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The interface is not there, or the process may not (CAP_NET_RAW).
    #[error("opening an announcer on {interface}")]
    Open {
        /// Name of the interface.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The interface has no six-byte hardware address.
    #[error("interface {interface} is not Ethernet")]
    NotEthernet {
        /// Name of the interface.
        interface: String,
    },
    /// The announcement is not true any more.
    #[error("too late to announce {vip}: true until {until_ns} ns, now is {now_ns} ns")]
    TooLate {
        /// The address in question.
        vip: IpAddr,
        /// Nanoseconds of CLOCK_BOOTTIME.
        until_ns: u64,
        /// Nanoseconds of CLOCK_BOOTTIME.
        now_ns: u64,
    },
    /// The kernel did not send it. EPERM for IPv6: the gate is shut.
    #[error("announcing {vip} on {interface}")]
    Send {
        /// The address in question.
        vip: IpAddr,
        /// Name of the interface.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Announces addresses on one interface. Keeps its packet socket open: sending costs
/// microseconds, closing such a socket about 15 ms.
#[derive(Debug)]
pub struct Announcer {
    interface: String,
    index: u32,
    packet: Socket,
}

impl Announcer {
    /// Opens an announcer in the network namespace of the calling thread. An interface that
    /// is deleted and made anew needs a new announcer.
    ///
    /// # Errors
    ///
    /// [`AnnounceError::Open`], [`AnnounceError::NotEthernet`].
    pub fn open(interface: &str) -> Result<Announcer, AnnounceError> {
        let failed = |source| AnnounceError::Open { interface: interface.to_owned(), source };
        let index = if_nametoindex(interface).map_err(|error| failed(error.into()))?;
        // Protocol 0: this socket receives nothing.
        let packet =
            Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0))).map_err(failed)?;
        packet.bind(&packet_address(index)).map_err(failed)?;
        let announcer = Announcer { interface: interface.to_owned(), index, packet };
        announcer
            .mac()
            .map_err(failed)?
            .ok_or(AnnounceError::NotEthernet { interface: interface.to_owned() })?;
        Ok(announcer)
    }

    /// Announces once that the VIP is behind this interface: gratuitous ARP in both forms
    /// (RFC 5227 section 3, RFC 826), or an unsolicited neighbour advertisement with the
    /// override flag (RFC 4861 section 7.2.6). Does not block. Call it only while the gate
    /// is open until (at least) the given time of CLOCK_BOOTTIME in nanoseconds.
    ///
    /// # Errors
    ///
    /// [`AnnounceError::TooLate`] and nothing is sent; or what the system says.
    pub fn announce(&self, vip: IpAddr, until_boottime_ns: u64) -> Result<(), AnnounceError> {
        let failed = |source| AnnounceError::Send { vip, interface: self.interface.clone(), source };
        let mac = self.mac().map_err(failed)?;
        let mac = mac.ok_or_else(|| AnnounceError::NotEthernet { interface: self.interface.clone() })?;
        let in_time = || {
            let now_ns = boottime_ns();
            let late = AnnounceError::TooLate { vip, until_ns: until_boottime_ns, now_ns };
            if now_ns < until_boottime_ns { Ok(()) } else { Err(late) }
        };
        match vip {
            IpAddr::V4(vip) => {
                for form in [ArpForm::Request, ArpForm::Reply] {
                    let frame = gratuitous_arp(vip, mac, form);
                    in_time()?;
                    self.packet.send(&frame).map_err(failed)?;
                }
                Ok(())
            }
            IpAddr::V6(vip) => {
                in_time()?;
                self.advertise(vip, mac).map_err(failed)
            }
        }
    }

    /// The interface's hardware address now (it can change, as when a bond fails over).
    fn mac(&self) -> io::Result<Option<[u8; 6]>> {
        let address = self.packet.local_addr()?;
        #[allow(unsafe_code)]
        // SAFETY: `SockAddr` holds a whole, aligned `sockaddr_storage`, which is larger than
        // `sockaddr_ll`; every bit pattern is a valid `sockaddr_ll`, and it is copied out
        // while `address` lives.
        let link = unsafe { address.as_ptr().cast::<libc::sockaddr_ll>().read() };
        let [mac @ .., _, _] = link.sll_addr;
        Ok((link.sll_halen == 6).then_some(mac))
    }

    fn advertise(&self, vip: Ipv6Addr, mac: [u8; 6]) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
        socket.set_multicast_if_v6(self.index)?;
        // RFC 4861 section 7.1.2: receivers discard anything else, it could come from elsewhere.
        socket.set_multicast_hops_v6(255)?;
        socket.bind(&SocketAddrV6::new(vip, 0, 0, self.scope(vip)).into())?;
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let message = neighbour_advertisement(vip, mac, self.is_router());
        // The kernel fills in the ICMPv6 checksum.
        socket.send_to(&message, &SocketAddrV6::new(all_nodes, 0, 0, self.index).into()).map(|_| ())
    }

    fn scope(&self, vip: Ipv6Addr) -> u32 {
        if vip.is_unicast_link_local() { self.index } else { 0 }
    }

    /// Whether this host routes IPv6 here. A router that forgot to say so would be dropped
    /// from its neighbours' lists of default routers (RFC 4861 section 7.2.5).
    fn is_router(&self) -> bool {
        let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", self.interface);
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    }
}

fn packet_address(index: u32) -> SockAddr {
    #[allow(unsafe_code)]
    // SAFETY: the closure writes a whole `sockaddr_ll` into the zeroed `sockaddr_storage`,
    // which is larger and suitably aligned, and sets the length to what was written.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut link: libc::sockaddr_ll = std::mem::zeroed();
            link.sll_family = libc::AF_PACKET as libc::sa_family_t;
            link.sll_ifindex = index.cast_signed();
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    made.expect("the closure cannot fail").1
}

#[derive(Clone, Copy)]
enum ArpForm {
    Request = 1,
    Reply = 2,
}

const ARP_FRAME_BYTES: usize = 42;

/// An Ethernet frame, sent to everybody, in which the VIP asks for, or answers, itself.
fn gratuitous_arp(vip: Ipv4Addr, mac: [u8; 6], form: ArpForm) -> [u8; ARP_FRAME_BYTES] {
    let mut frame = [0; ARP_FRAME_BYTES];
    frame[0..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // EtherType ARP; hardware Ethernet, protocol IPv4, addresses of 6 and 4 bytes.
    frame[12..21].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0]);
    frame[21] = form as u8;
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&vip.octets());
    if matches!(form, ArpForm::Reply) {
        // Linux takes a reply for gratuitous only if it is also addressed to its sender.
        frame[32..38].copy_from_slice(&mac);
    }
    frame[38..42].copy_from_slice(&vip.octets());
    frame
}

const ADVERTISEMENT_BYTES: usize = 32;

/// RFC 4861 section 4.4 with the option of section 4.6.1.
fn neighbour_advertisement(vip: Ipv6Addr, mac: [u8; 6], router: bool) -> [u8; ADVERTISEMENT_BYTES] {
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    let mut message = [0; ADVERTISEMENT_BYTES];
    message[0] = 136;
    message[4] = OVERRIDE | if router { ROUTER } else { 0 };
    message[8..24].copy_from_slice(&vip.octets());
    message[24..26].copy_from_slice(&TARGET_LINK_LAYER_ADDRESS);
    message[26..32].copy_from_slice(&mac);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn gratuitous_arp_as_in_rfc_5227() {
        let frame = gratuitous_arp(Ipv4Addr::new(10, 0, 0, 9), MAC, ArpForm::Request);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // request
            2, 0, 0, 0, 0, 9, 10, 0, 0, 9, // sender
            0, 0, 0, 0, 0, 0, 10, 0, 0, 9, // target
        ];
        assert_eq!(frame, expected);
        let reply = gratuitous_arp(Ipv4Addr::new(10, 0, 0, 9), MAC, ArpForm::Reply);
        assert_eq!(reply[21], 2);
        assert_eq!(reply[32..38], MAC);
    }

    #[test]
    fn unsolicited_advertisement_overrides() {
        let message = neighbour_advertisement("fd00::9".parse().unwrap(), MAC, false);
        assert_eq!(message[0], 136);
        assert_eq!(message[4], 0x20, "override, neither solicited nor router");
        assert_eq!(message[24..], [2, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(neighbour_advertisement("fd00::9".parse().unwrap(), MAC, true)[4], 0xa0);
    }
}
