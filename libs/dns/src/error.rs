//! What can go wrong, with the server and the name it went wrong on.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The step of an update that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asking the server for the records as they are.
    Read,
    /// Sending the UPDATE.
    Update,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Update => "updating",
        })
    }
}

/// What a server holds against our key (RFC 8945 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProblem {
    /// BADKEY: the server knows no key of this name and algorithm.
    Unknown,
    /// BADSIG: the key is known there, with another secret.
    WrongSecret,
    /// BADTIME: the clocks differ by more than [`Zone`](crate::Zone) signatures allow, also after the server's time was taken.
    Clock,
    /// Any other TSIG error, by its number.
    Other(u16),
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such key there (BADKEY)"),
            Self::WrongSecret => f.write_str("the secret or algorithm differs (BADSIG)"),
            Self::Clock => f.write_str("the clocks differ too much (BADTIME)"),
            Self::Other(code) => write!(f, "TSIG error {code}"),
        }
    }
}

/// Why a record could not be read or updated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The name is not one that can be managed. Nothing was sent.
    #[error("name {name:?}: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name does not lie in the zone. Nothing was sent.
    #[error("name {name}: not inside zone {origin}")]
    OutsideZone {
        /// The name.
        name: String,
        /// The zone's origin.
        origin: String,
    },
    /// An address that no client could reach (unspecified, multicast, broadcast). Nothing was sent.
    #[error("name {name}: address {address} cannot be published: {reason}")]
    BadAddress {
        /// The name.
        name: String,
        /// The address.
        address: IpAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More addresses for one slot and name, or more names and slots, than the bound. Nothing was sent.
    #[error("name {name}: {count} {what}, more than the {limit} that are taken")]
    TooMany {
        /// The name.
        name: String,
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The key cannot be used (its name, its algorithm or its base64 text).
    #[error("TSIG key {key:?}: {reason}")]
    BadKey {
        /// Name of the key.
        key: String,
        /// What is wrong with it; never contains the secret.
        reason: String,
    },
    /// The server's name could not be looked up yet. Nothing was sent.
    #[error("looking {server} up")]
    Unknown {
        /// The server as it was named.
        server: String,
        /// Why not.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The server did not answer in time.
    #[error("{step} {name} at {server}: no answer within {waited:?}")]
    Timeout {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The step that had no answer.
        step: Step,
        /// The time waited for it.
        waited: Duration,
    },
    /// The server could not be reached.
    #[error("{step} {name} at {server}")]
    Unreachable {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The step that failed.
        step: Step,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What came back within the time was no answer to what was asked.
    #[error("{step} {name} at {server}: unusable answer: {reason}")]
    Garbled {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The step that failed.
        step: Step,
        /// What was wrong with the last answer.
        reason: String,
    },
    /// The server does not take our signature.
    #[error("updating {name} at {server}: key {key} refused: {problem}")]
    KeyRefused {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// Name of the key.
        key: String,
        /// What the server said about it.
        problem: KeyProblem,
    },
    /// The server refused, with this response code (RFC 1035 section 4.1.1, RFC 2136 section 2.2).
    #[error("{step} {name} at {server}: refused with {rcode}")]
    Refused {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The step that was refused.
        step: Step,
        /// The response code, as "REFUSED" or "NOTAUTH".
        rcode: String,
    },
    /// The server answered for the zone without authority (RFC 1035, bit AA): it cannot be the one to update.
    #[error("reading {name} at {server}: not authoritative for {origin}")]
    NotAuthoritative {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The zone's origin.
        origin: String,
    },
    /// The name is an alias: an address added beside a CNAME would silently be dropped (RFC 2136 section 3.4.2.2).
    #[error("reading {name} at {server}: the name is an alias (CNAME or DNAME)")]
    Alias {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
    },
    /// A TXT of ours that cannot be read: it may hold a newer epoch, so nothing is overwritten.
    #[error("reading {name} at {server}: TXT {text:?} is ours but unreadable: {reason}")]
    UnreadableMark {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// The TXT found.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The TXT RRset changed under every attempt, or the server answers TXT from a wildcard that no prerequisite can match.
    #[error("updating {name} at {server}: prerequisite failed {rounds} times")]
    Contended {
        /// The server asked.
        server: SocketAddr,
        /// The name.
        name: String,
        /// How many times it was tried.
        rounds: u32,
    },
}

/// The server and name that an exchange is about: turns what went wrong into a [`DnsError`].
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    pub(crate) fn timeout(&self, step: Step, waited: Duration) -> DnsError {
        DnsError::Timeout { server: self.server, name: self.name.to_owned(), step, waited }
    }

    pub(crate) fn refused(&self, step: Step, rcode: &str) -> DnsError {
        DnsError::Refused { server: self.server, name: self.name.to_owned(), step, rcode: rcode.to_owned() }
    }
}
