//! The gate: nothing serves an address but through it, and it shuts by itself (rule R5).
//!
//! Two kinds of nftables tables. The *fence* lists the managed guards and drops their
//! traffic; it stays when the process ends, however it ends. The *pass* marks the traffic of
//! live guards so that the fence lets it through; each live guard is an element with a
//! timeout, and the tables belong to the gate's netlink socket. So a guard goes dark when
//! its time is over, although the process may be stopped, and when the process ends.
//!
//! Dropped while shut, for [`Guard::Address`]: IPv4 and IPv6 packets to the address as they
//! arrive (before any DNAT) and from it as they leave (also after SNAT), ARP and neighbour
//! solicitations that ask for it, ARP and neighbour advertisements that speak for it. For
//! [`Guard::Service`]: TCP or UDP packets to and from that port of the address. Who asks for a
//! shut service is refused at once, as by a closed port: a TCP reset (the only thing that
//! leaves), or ICMP "port unreachable".
//!
//! What passes although the gate is shut: this host as a *client* of the address on another
//! node. What does not: this host as a *router* between the address and others.

mod expression;
mod matcher;
mod netlink;
mod pass;
mod ruleset;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::clock::boottime_ns;
pub(crate) use netlink::acknowledgement;
use netlink::{Channel, Rejected};
use pass::Pass;
use ruleset::Tables;

/// No lease is anywhere near an hour long: whoever asks for more has a bug in its arithmetic.
pub const AHEAD_MAX_NS: u64 = 3600 * 1_000_000_000;

/// Guards of one gate. All of them fit into one netlink attribute (64 KiB) many times over.
pub const GUARDS_MAX: usize = 256;

/// The longest name of a gate; with its prefix it stays well below nftables' 255.
const NAME_BYTES_MAX: usize = 64;

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a gate guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// All traffic of an address that moves between nodes, ARP and neighbour discovery too.
    Address(IpAddr),
    /// One port of an address that stays with the node (groups that move by DNS alone).
    Service {
        /// The node's own address.
        address: IpAddr,
        /// Transport protocol of the service.
        protocol: Protocol,
        /// Port of the service.
        port: u16,
    },
}

impl Guard {
    /// The guarded address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Guard::Address(address) | Guard::Service { address, .. } => *address,
        }
    }
}

/// How to set up a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Tells the tables of several gates in one network namespace apart: 1 to 64 characters
    /// `a-z A-Z 0-9 _ -`. One gate per name at a time.
    pub name: String,
    /// The pass mark: exactly one bit of the packet mark, which nothing else may use.
    pub mark: u32,
}

/// Why a gate did not do what it was asked. Unless said otherwise, nothing has changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GateError {
    /// The configuration or the list of guards makes no sense.
    #[error("gate {name}: {reason}")]
    Invalid {
        /// Name of the gate.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The kernel has no nftables, or lacks a part of it that the gate needs.
    #[error("nftables is missing or incomplete")]
    Unavailable(#[source] io::Error),
    /// The process may not change nftables (CAP_NET_ADMIN).
    #[error("changing nftables needs CAP_NET_ADMIN")]
    NotPermitted(#[source] io::Error),
    /// Another running process (or this one) holds the gate of this name.
    #[error("gate {name} is held by another process")]
    Held {
        /// Name of the gate.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A guard was named that the fence does not list.
    #[error("{guard:?} is not managed by this gate")]
    Unmanaged {
        /// The guard in question.
        guard: Guard,
    },
    /// Asked to open for longer than [`AHEAD_MAX_NS`].
    #[error("refused to open until {until_ns} ns, now is {now_ns} ns: more than an hour ahead")]
    TooFarAhead {
        /// Asked for, nanoseconds of CLOCK_BOOTTIME.
        until_ns: u64,
        /// When it was asked, nanoseconds of CLOCK_BOOTTIME.
        now_ns: u64,
    },
    /// The time to open until has passed, or is nearer than the kernel can time. The guards are shut.
    #[error("too late to open until {until_ns} ns, now is {now_ns} ns")]
    TooLate {
        /// Asked for, nanoseconds of CLOCK_BOOTTIME.
        until_ns: u64,
        /// When it was noticed, nanoseconds of CLOCK_BOOTTIME.
        now_ns: u64,
    },
    /// The kernel refused a step.
    #[error("{step} of gate {name}: refused by nftables")]
    Refused {
        /// Name of the gate.
        name: String,
        /// `install`, `open`, `renew`, `shut`, `retire` or `uninstall`.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Tries whether a gate could be installed here, without leaving anything behind.
///
/// # Errors
///
/// [`GateError::Unavailable`] without nftables, [`GateError::NotPermitted`] without CAP_NET_ADMIN.
pub fn available() -> Result<(), GateError> {
    let name = format!("probe_{}", std::process::id());
    let tables = Tables::new(&name, 1);
    let mut channel = Channel::open().map_err(GateError::Unavailable)?;
    channel.execute(tables.rehearsal()).map_err(|rejected| match rejected {
        Rejected::Batch(source) if source.raw_os_error() == Some(libc::EPERM) => {
            GateError::NotPermitted(source)
        }
        Rejected::Socket(source) | Rejected::Batch(source) | Rejected::Message(source) => {
            GateError::Unavailable(source)
        }
    })
}

/// An installed gate. When it is dropped the guards are shut and the fence stays.
///
/// Each call is done when it returns: the kernel works while it is asked, for about 100 microseconds, longer only while
/// another process changes nftables in this network namespace.
#[derive(Debug)]
pub struct Gate {
    managed: BTreeSet<Guard>,
    pass: Mutex<Pass>,
}

impl Gate {
    /// Installs the fence for these guards (all shut), replacing at once whatever an earlier
    /// gate of this name left behind.
    ///
    /// Works in the network namespace of the calling thread. Takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// See [`GateError`]; on any error the fence of an earlier run is as it was.
    pub fn install(config: GateConfig, guards: &[Guard]) -> Result<Gate, GateError> {
        check(&config, guards)?;
        let managed: BTreeSet<Guard> = guards.iter().copied().collect();
        let guards: Vec<Guard> = managed.iter().copied().collect();
        let pass = Pass::install(config.name, config.mark, &guards)?;
        Ok(Gate { managed, pass: Mutex::new(pass) })
    }

    /// The guards that the fence lists.
    #[must_use]
    pub fn guards(&self) -> &BTreeSet<Guard> {
        &self.managed
    }

    /// Opens guards until a time of CLOCK_BOOTTIME in nanoseconds, or renews them in place.
    ///
    /// The kernel shuts them up to three ticks (12 ms at HZ=250) before that time, never
    /// later. A later call replaces the time of an earlier one, also by a shorter one.
    ///
    /// # Errors
    ///
    /// [`GateError::TooLate`] (the guards are shut), [`GateError::Unmanaged`],
    /// [`GateError::TooFarAhead`], or what the kernel says; then an earlier time stands.
    pub fn open(&self, guards: &[Guard], until_boottime_ns: u64) -> Result<(), GateError> {
        self.check_managed(guards)?;
        if guards.is_empty() {
            return Ok(());
        }
        let now_ns = boottime_ns();
        if until_boottime_ns > now_ns.saturating_add(AHEAD_MAX_NS) {
            return Err(GateError::TooFarAhead { until_ns: until_boottime_ns, now_ns });
        }
        self.pass().open(guards, until_boottime_ns)
    }

    /// Shuts guards; when it returns the kernel lets nothing more through. Shutting what is
    /// shut is fine.
    ///
    /// # Errors
    ///
    /// [`GateError::Unmanaged`], or what the kernel says; then the guards shut at their time.
    pub fn shut(&self, guards: &[Guard]) -> Result<(), GateError> {
        self.check_managed(guards)?;
        if guards.is_empty() {
            return Ok(());
        }
        self.pass().shut(guards)
    }

    /// Removes the gate *and the fence*: afterwards nothing holds the addresses' traffic back.
    ///
    /// # Errors
    ///
    /// What the kernel says; then the fence stands.
    pub fn uninstall(self) -> Result<(), GateError> {
        self.pass.into_inner().unwrap_or_else(PoisonError::into_inner).uninstall()
    }

    fn pass(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_managed(&self, guards: &[Guard]) -> Result<(), GateError> {
        match guards.iter().find(|guard| !self.managed.contains(guard)) {
            Some(guard) => Err(GateError::Unmanaged { guard: *guard }),
            None => Ok(()),
        }
    }
}

fn check(config: &GateConfig, guards: &[Guard]) -> Result<(), GateError> {
    let invalid = |reason: String| GateError::Invalid { name: config.name.clone(), reason };
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if config.name.is_empty() || config.name.len() > NAME_BYTES_MAX || !config.name.bytes().all(allowed) {
        let rule = format!("a name has 1 to {NAME_BYTES_MAX} characters a-z A-Z 0-9 _ -");
        return Err(invalid(rule));
    }
    if config.mark.count_ones() != 1 {
        return Err(invalid(format!("mark {:#x} is not exactly one bit", config.mark)));
    }
    if guards.len() > GUARDS_MAX {
        return Err(invalid(format!("{} guards, at most {GUARDS_MAX}", guards.len())));
    }
    let whole = |address: IpAddr| guards.contains(&Guard::Address(address));
    for guard in guards {
        let address = guard.address();
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(invalid(format!("{address} is not an address of a node")));
        }
        // Live for one of the two, such a packet would pass although the other is shut.
        if matches!(guard, Guard::Service { .. }) && whole(address) {
            return Err(invalid(format!("{address} is guarded both as a whole and by service")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, mark: u32) -> GateConfig {
        GateConfig { name: name.to_owned(), mark }
    }

    #[test]
    fn nonsense_is_refused_before_the_kernel_sees_it() {
        let vip = Guard::Address("192.0.2.1".parse().unwrap());
        let service = |address: &str| Guard::Service {
            address: address.parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        assert!(check(&config("web", 0x100), &[vip, service("192.0.2.2")]).is_ok());
        assert!(check(&config("", 1), &[vip]).is_err());
        assert!(check(&config("a b", 1), &[vip]).is_err());
        assert!(check(&config(&"a".repeat(NAME_BYTES_MAX + 1), 1), &[vip]).is_err());
        assert!(check(&config("web", 0), &[vip]).is_err());
        assert!(check(&config("web", 3), &[vip]).is_err());
        assert!(check(&config("web", 1), &[vip, service("192.0.2.1")]).is_err());
        assert!(check(&config("web", 1), &[Guard::Address("127.0.0.1".parse().unwrap())]).is_err());
        assert!(check(&config("web", 1), &[vip; GUARDS_MAX + 1]).is_err());
    }
}
