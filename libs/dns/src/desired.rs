//! What one slot wants published, and the checks before anything is sent.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::error::DnsError;
use crate::zone::Zone;

/// Most addresses one slot may contribute to one name: far above any real slot, small enough that a whole RRset fits a message.
///
/// Servers have bounds of their own on all slots of a name together: BIND refuses more than 100 records of a type.
pub const MAX_ADDRESSES: usize = 32;

/// First label of the TXT RRset beside a managed name.
const MARK_LABEL: &str = "_understudy";

/// Most characters of a managed name, its final dot not counted: with [`MARK_LABEL`] and a dot before it, it must still
/// be a name (253 characters, RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 253 - MARK_LABEL.len() - 1;

/// What slot `slot` contributes to the address records of `name`, as of tenure `epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The name, fully qualified (a missing final dot is taken as given), inside the zone.
    pub name: String,
    /// The slot that contributes.
    pub slot: u32,
    /// The tenure's epoch: the fencing token (`R7`).
    pub epoch: u64,
    /// The addresses to publish, IPv4 and IPv6, in any order. None: the slot withdraws what it contributed.
    pub addresses: Vec<IpAddr>,
}

/// A [`Desired`] that has passed every check, in the form that goes into messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) origin: Name,
    pub(crate) name: Name,
    /// Owner of the TXT RRset.
    pub(crate) mark: Name,
    pub(crate) slot: u32,
    pub(crate) epoch: u64,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Zone {
    /// Checks `desired` against this zone.
    pub(crate) fn target(&self, desired: &Desired) -> Result<Target, DnsError> {
        let (origin, name, mark) = self.owners(&desired.name)?;
        let mut addresses = BTreeSet::new();
        for address in &desired.addresses {
            check_address(&desired.name, *address)?;
            addresses.insert(*address);
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(DnsError::TooMany {
                name: desired.name.clone(),
                what: "addresses",
                count: addresses.len(),
                limit: MAX_ADDRESSES,
            });
        }
        Ok(Target { origin, name, mark, slot: desired.slot, epoch: desired.epoch, addresses })
    }

    /// The zone's origin, the name and the owner of its TXT RRset.
    pub(crate) fn owners(&self, text: &str) -> Result<(Name, Name, Name), DnsError> {
        let origin = parse_name(&self.origin)?;
        let name = parse_name(text)?;
        if !origin.zone_of(&name) {
            return Err(DnsError::OutsideZone { name: text.to_owned(), origin: self.origin.clone() });
        }
        let mark = name.prepend_label(MARK_LABEL).map_err(|_| DnsError::BadName {
            name: text.to_owned(),
            reason: format!(
                "too long to have {MARK_LABEL} before it: at most {MAX_NAME} characters (RFC 1035 section 2.3.4)"
            ),
        })?;
        Ok((origin, name, mark))
    }
}

/// Parses a domain name of letters, digits, hyphens and underscores: what a host can be called, nothing that needs escaping, no wildcard.
pub(crate) fn parse_name(text: &str) -> Result<Name, DnsError> {
    let bad = |reason: String| DnsError::BadName { name: text.to_owned(), reason };
    let labels = text.strip_suffix('.').unwrap_or(text);
    if labels.is_empty() {
        return Err(bad("empty".to_owned()));
    }
    for label in labels.split('.') {
        if label.is_empty() {
            return Err(bad("has an empty label".to_owned()));
        }
        if label == "*" {
            return Err(bad("a wildcard cannot be managed".to_owned()));
        }
        if let Some(c) = label.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_')) {
            return Err(bad(format!("character {c:?}; a host name has letters, digits, '-' and '_'")));
        }
    }
    let mut name = Name::from_ascii(labels).map_err(|error| bad(error.to_string()))?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

fn check_address(name: &str, address: IpAddr) -> Result<(), DnsError> {
    let reason = match address {
        _ if address.is_unspecified() => "unspecified",
        _ if address.is_multicast() => "multicast",
        IpAddr::V4(v4) if v4.is_broadcast() => "broadcast",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "link-local, it means nothing without an interface",
        _ => return Ok(()),
    };
    Err(DnsError::BadAddress { name: name.to_owned(), address, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn zone() -> Zone {
        Zone {
            servers: Vec::new(),
            origin: "ha.test".to_owned(),
            key: None,
            ttl: 5,
            timeout: Duration::from_secs(1),
        }
    }

    fn desired(name: &str, addresses: &[&str]) -> Desired {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Desired { name: name.to_owned(), slot: 0, epoch: 1, addresses }
    }

    #[test]
    fn names_are_checked_and_lowered() {
        let target = zone().target(&desired("Web.HA.test", &["10.0.0.1", "10.0.0.1"])).unwrap();
        assert_eq!(target.name.to_ascii(), "web.ha.test.");
        assert_eq!(target.mark.to_ascii(), "_understudy.web.ha.test.");
        assert_eq!(target.addresses.len(), 1);
        assert!(zone().target(&desired("ha.test.", &[])).is_ok(), "the origin itself may be managed");
    }

    #[test]
    fn a_name_may_be_so_long_that_the_mark_before_it_still_fits() {
        let longest = format!("{}ha.test", "abcdefgh.".repeat(26));
        assert_eq!(longest.len(), MAX_NAME);
        assert!(zone().target(&desired(&longest, &[])).is_ok());
        let longer = format!("a{longest}");
        assert!(matches!(zone().target(&desired(&longer, &[])), Err(DnsError::BadName { .. })));
    }

    #[test]
    fn bad_names_and_addresses_are_refused() {
        let long_label = format!("{}.ha.test.", "a".repeat(64));
        let long_name = format!("{}ha.test.", "abcdefghi.".repeat(25));
        // 252 bytes: a name by itself, but no longer one with the TXT's label before it.
        let no_room = format!("{}ha.test.", "abcdefgh.".repeat(27));
        for name in [
            "",
            ".",
            "*.ha.test.",
            "a.*.ha.test.",
            "a..ha.test.",
            "a b.ha.test.",
            "ä.ha.test.",
            "a\\000.ha.test.",
        ]
        .into_iter()
        .chain([long_label.as_str(), long_name.as_str(), no_room.as_str()])
        {
            assert!(matches!(zone().target(&desired(name, &[])), Err(DnsError::BadName { .. })), "{name:?}");
        }
        for name in ["web.example.", "test.", "xha.test.", "web.ha.test.evil."] {
            assert!(
                matches!(zone().target(&desired(name, &[])), Err(DnsError::OutsideZone { .. })),
                "{name:?}"
            );
        }
        for address in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1"] {
            let answer = zone().target(&desired("web.ha.test.", &[address]));
            assert!(matches!(answer, Err(DnsError::BadAddress { .. })), "{address}");
        }
    }
}
