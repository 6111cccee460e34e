//! Watches the interface that the node's traffic goes over.
//!
//! A container that joined another one's network namespace is left in an empty one when that container is started
//! anew: everything runs, and nothing will ever reach it again. So a service whose interface has gone ends, and
//! whoever supervises it starts it again, where the interface is. So does one that was started where there is none.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipnet::IpNet;
use nix::{errno::Errno, ifaddrs::getifaddrs, net::if_::if_nametoindex};
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks: one system call.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that must find it gone. A driver that is loaded anew takes a moment, and an engine that starts the
/// other container anew must be given the time to: it cannot start us before that one runs.
const GONE: u32 = 3;

/// The interface that has an address in the network of one of the VIPs; none when several have, since a guess could be
/// wrong. VIPs themselves do not count: an earlier run may have left one behind.
pub(crate) fn facing(vips: &[IpNet]) -> Option<String> {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let address = v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
        // An address may have a label, `eth0:1`.
        let name = interface.interface_name.split(':').next()?.to_owned();
        Some((name, address))
    });
    let faces = |address: &IpAddr| {
        vips.iter().any(|vip| vip.contains(address)) && vips.iter().all(|vip| vip.addr() != *address)
    };
    let names: BTreeSet<_> = addresses.filter(|(_, address)| faces(address)).map(|(name, _)| name).collect();
    if names.len() > 1 {
        tracing::error!(?names, "several interfaces have an address in the network of the VIPs");
        return None;
    }
    names.into_iter().next()
}

/// An interface, from the moment that it was there.
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// `None`: it was not there yet.
    index: Option<u32>,
}

impl Interface {
    /// The interface of this name, which may not be there.
    pub(crate) fn find(name: &str) -> Self {
        Self { name: name.to_owned(), index: if_nametoindex(name).ok() }
    }

    /// Whether it was there.
    pub(crate) fn is_there(&self) -> bool {
        self.index.is_some()
    }

    /// What the kernel's answer says. An answer that it could not give, for want of file descriptors say, says nothing.
    fn is_gone(&mut self, found: Result<u32, Errno>) -> Result<bool, Errno> {
        match found {
            Ok(index) => Ok(index != *self.index.get_or_insert(index)),
            Err(Errno::ENODEV | Errno::ENXIO) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns when it has not been there, or has been replaced by another of its name, for [`GONE`] looks.
    pub(crate) async fn lost(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gone = 0;
        while gone < GONE {
            looks.tick().await;
            match self.is_gone(if_nametoindex(self.name.as_str())) {
                Ok(is_gone) => gone = if is_gone { gone + 1 } else { 0 },
                Err(error) => tracing::warn!(interface = self.name, %error, "looking whether it is there"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_stays_is_not_lost() {
        let mut loopback = Interface::find("lo");
        let watched = tokio::time::timeout(Duration::from_secs(3600), loopback.lost()).await;
        assert!(watched.is_err());
    }

    #[test]
    fn the_interface_of_the_vips_network_is_found_and_a_vip_is_not_taken_for_it() {
        let found = |vips: &[&str]| facing(&vips.iter().map(|vip| vip.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(found(&["127.0.0.100/8"]).as_deref(), Some("lo"));
        // Class E: no interface of any host has such an address (RFC 1112 section 4).
        assert_eq!(found(&["240.0.0.1/24", "127.0.0.100/8"]).as_deref(), Some("lo"));
        assert_eq!(found(&["240.0.0.1/24"]), None);
        assert_eq!(found(&["127.0.0.1/8"]), None);
        assert_eq!(found(&[]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_was_never_there_is_lost_and_one_that_comes_late_is_not() {
        let mut none = Interface::find("understudy-none");
        assert!(!none.is_there());
        tokio::time::timeout(LOOK * GONE, none.lost()).await.expect("it is missed");
        // As if it had not been there at the start.
        let mut late = Interface { name: "lo".to_owned(), index: None };
        assert!(tokio::time::timeout(Duration::from_secs(3600), late.lost()).await.is_err());
        assert!(late.is_there());
    }

    #[test]
    fn only_the_kernels_word_makes_an_interface_gone() {
        let mut loopback = Interface::find("lo");
        let index = loopback.index.unwrap();
        assert_eq!(loopback.is_gone(Ok(index)), Ok(false));
        assert_eq!(loopback.is_gone(Ok(index + 1)), Ok(true), "another of its name");
        assert_eq!(loopback.is_gone(if_nametoindex("understudy-none")), Ok(true));
        for error in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EPERM] {
            assert_eq!(loopback.is_gone(Err(error)), Err(error));
        }
    }
}
