//! Addresses on interfaces, over rtnetlink.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, new_connection};
use thiserror::Error;
use tokio::task::JoinHandle;

/// Why an address could not be changed or looked up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No rtnetlink socket.
    #[error("opening a route netlink socket")]
    Connect(#[source] io::Error),
    /// Asked to touch an address that is not one of ours.
    #[error("{address} is not a managed address")]
    Unmanaged {
        /// The address in question.
        address: IpAddr,
    },
    /// There is no such interface.
    #[error("no interface {interface}")]
    NoInterface {
        /// Name of the interface.
        interface: String,
    },
    /// The interface has no six-byte hardware address.
    #[error("interface {interface} is not Ethernet")]
    NotEthernet {
        /// Name of the interface.
        interface: String,
    },
    /// The kernel refused a step.
    #[error("{step} {subject}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// To what.
        subject: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// The connection to the kernel has ended.
    #[error("the route netlink connection has ended")]
    Disconnected,
}

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Whether it is up and has a carrier.
    pub up: bool,
}

/// Adds and removes managed addresses, and no others.
#[derive(Debug)]
pub struct Addresses {
    handle: Handle,
    managed: BTreeSet<IpAddr>,
    connection: JoinHandle<()>,
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Addresses {
    /// Connects in the network namespace of the calling thread, which must be in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`AddressError::Connect`].
    pub fn connect(managed: impl IntoIterator<Item = IpAddr>) -> Result<Addresses, AddressError> {
        let (connection, handle, _) = new_connection().map_err(AddressError::Connect)?;
        let connection = tokio::spawn(connection);
        Ok(Addresses { handle, managed: managed.into_iter().collect(), connection })
    }

    /// Puts an address on an interface, or renews it there.
    ///
    /// The kernel removes it by itself when `valid_for`, rounded up to whole seconds, has
    /// passed without another call (the second line behind the gate). IPv6 addresses skip
    /// duplicate address detection, which the lease makes needless, and are deprecated from
    /// the start, so that the node does not choose them as source for its own connections.
    /// One that somebody else put there and that failed that detection (`dadfailed`), or is
    /// still in it, answers nobody and would stay so: it is taken off first.
    ///
    /// # Errors
    ///
    /// [`AddressError::Unmanaged`], [`AddressError::NoInterface`], or what the kernel says.
    pub async fn add(
        &self,
        interface: &str,
        address: IpNet,
        valid_for: Duration,
    ) -> Result<(), AddressError> {
        self.check_managed(address.addr())?;
        let index = self.index(interface).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = whole_seconds(valid_for);
        let attributes = &mut request.message_mut().attributes;
        if address.addr().is_ipv4() {
            lifetime.ifa_preferred = lifetime.ifa_valid;
        } else {
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            self.take_off_unusable(interface, index, address.addr()).await?;
        }
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(lifetime));
        let done = request.execute().await;
        self.outcome("adding", || format!("{address} to {interface}"), done)
    }

    /// Renews the lifetime of an address; puts it back if it has gone. The same as [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add).
    pub async fn renew(
        &self,
        interface: &str,
        address: IpNet,
        valid_for: Duration,
    ) -> Result<(), AddressError> {
        self.add(interface, address, valid_for).await
    }

    /// Takes an address off an interface, with whatever prefix length it is there. Returns
    /// whether it was there.
    ///
    /// # Errors
    ///
    /// [`AddressError::Unmanaged`], [`AddressError::NoInterface`], or what the kernel says.
    pub async fn remove(&self, interface: &str, address: IpAddr) -> Result<bool, AddressError> {
        self.check_managed(address)?;
        let index = self.index(interface).await?;
        let mut removed = false;
        for message in self.messages(address).await? {
            if message.header.index != index {
                continue;
            }
            removed |= self.delete(interface, address, message).await?;
        }
        Ok(removed)
    }

    /// Returns whether it was still there.
    async fn delete(
        &self,
        interface: &str,
        address: IpAddr,
        message: AddressMessage,
    ) -> Result<bool, AddressError> {
        let done = self.handle.address().del(message).execute().await;
        if refusal(&done) == Some(libc::EADDRNOTAVAIL) {
            // Its lifetime ended, or somebody else was faster.
            return Ok(false);
        }
        self.outcome("removing", || format!("{address} from {interface}"), done)?;
        Ok(true)
    }

    /// Name of the interface that has the address, managed or not; `None` if none has it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn present(&self, address: IpAddr) -> Result<Option<String>, AddressError> {
        let Some(message) = self.messages(address).await?.into_iter().next() else { return Ok(None) };
        let mut links = self.handle.link().get().match_index(message.header.index).execute();
        let done = links.try_next().await;
        let subject = || format!("interface {}", message.header.index);
        let link = self.outcome("looking up", subject, done)?;
        Ok(link.and_then(|link| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        }))
    }

    /// Looks an interface up.
    ///
    /// # Errors
    ///
    /// [`AddressError::NoInterface`], [`AddressError::NotEthernet`], or what the kernel says.
    pub async fn link(&self, interface: &str) -> Result<Link, AddressError> {
        let message = self.link_message(interface).await?;
        let mac =
            mac(&message).ok_or_else(|| AddressError::NotEthernet { interface: interface.to_owned() })?;
        let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        Ok(Link { index: message.header.index, mac, up })
    }

    /// Takes the address off where the kernel has it but does not answer for it.
    async fn take_off_unusable(
        &self,
        interface: &str,
        index: u32,
        address: IpAddr,
    ) -> Result<(), AddressError> {
        let dead = AddressFlags::Dadfailed | AddressFlags::Tentative;
        let here = self.messages(address).await?.into_iter().filter(|message| message.header.index == index);
        for message in here.filter(|message| flags(message).intersects(dead)) {
            tracing::warn!(%address, interface, flags = ?flags(&message), "the address was not usable: putting it back");
            self.delete(interface, address, message).await?;
        }
        Ok(())
    }

    async fn index(&self, interface: &str) -> Result<u32, AddressError> {
        Ok(self.link_message(interface).await?.header.index)
    }

    async fn link_message(&self, interface: &str) -> Result<LinkMessage, AddressError> {
        let missing = || AddressError::NoInterface { interface: interface.to_owned() };
        let mut links = self.handle.link().get().match_name(interface.to_owned()).execute();
        let done = links.try_next().await;
        if refusal(&done) == Some(libc::ENODEV) {
            return Err(missing());
        }
        self.outcome("looking up", || format!("interface {interface}"), done)?.ok_or_else(missing)
    }

    /// Every place where the address is.
    async fn messages(&self, address: IpAddr) -> Result<Vec<AddressMessage>, AddressError> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family =
            if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let all: Result<Vec<AddressMessage>, _> = request.execute().try_collect().await;
        let mut all = self.outcome("listing", || "addresses".to_owned(), all)?;
        all.retain(|message| local(message) == Some(address));
        Ok(all)
    }

    fn check_managed(&self, address: IpAddr) -> Result<(), AddressError> {
        if self.managed.contains(&address) { Ok(()) } else { Err(AddressError::Unmanaged { address }) }
    }

    fn outcome<T>(
        &self,
        step: &'static str,
        subject: impl FnOnce() -> String,
        done: Result<T, rtnetlink::Error>,
    ) -> Result<T, AddressError> {
        // An ended connection ends every answer, which alone would look like success.
        if self.connection.is_finished() {
            return Err(AddressError::Disconnected);
        }
        done.map_err(|source| AddressError::Refused { step, subject: subject(), source })
    }
}

/// The hardware address, if it has six bytes.
pub(crate) fn mac(message: &LinkMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })
}

/// The address itself; on point-to-point links `Address` is the peer's.
pub(crate) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn flags(message: &AddressMessage) -> AddressFlags {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or(AddressFlags::empty())
}

/// The error number with which the kernel refused.
fn refusal<T>(done: &Result<T, rtnetlink::Error>) -> Option<i32> {
    match done {
        Err(rtnetlink::Error::NetlinkError(message)) => message.code.map(|code| code.get().saturating_neg()),
        _ => None,
    }
}

/// Rounded up, at least one: the kernel refuses a lifetime of zero. `u32::MAX` means for ever.
fn whole_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(300)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
    }
}
