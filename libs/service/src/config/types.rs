//! Kinds of values that TOML does not know, and how they are read.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};
use understudy_wire::StandbyKind;

/// A password or key. Neither `Debug` nor an error message shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Transport protocol of a guarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A service port that the gate guards, written `tcp/80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 1..=65535.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}/{}", self.number)
    }
}

impl FromStr for Port {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str = "must be a protocol and a port, such as \"tcp/80\" or \"udp/53\"";
        let (protocol, number) = text.split_once('/').ok_or(RIGHT)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(RIGHT),
        };
        match number.parse() {
            Ok(number) if number > 0 => Ok(Self { protocol, number }),
            _ => Err(RIGHT),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(Error::custom)
    }
}

/// `host:port`; the host is a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str =
            "must be host:port, such as \"10.77.0.21:7410\", \"[fd77::21]:7410\" or \"detector-1:7410\"";
        let (host, port) = text.rsplit_once(':').ok_or(RIGHT)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(RIGHT)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            }
        };
        if !valid {
            return Err(RIGHT);
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(Error::custom)
    }
}

/// An absolute DNS name: lower case, with the dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name with its final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is `zone` or lies below it.
    pub fn is_in(&self, zone: &Self) -> bool {
        zone.0 == "."
            || self.0.strip_suffix(&zone.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = &'static str;

    /// Lengths are those of RFC 1035 section 2.3.4.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str = "must be a DNS name such as \"web.ha.test.\": labels of 1 to 63 letters, digits, '-' or '_', \
                             at most 253 characters";
        let bare = text.strip_suffix('.').unwrap_or(text);
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if bare.len() > 253 || !bare.split('.').all(label_fits) {
            return Err(RIGHT);
        }
        Ok(Self(format!("{}.", bare.to_ascii_lowercase())))
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(Error::custom)
    }
}

/// One virtual address with its prefix; the host bits stay, since `addr()` is the VIP.
struct Vip(IpNet);

impl<'de> Deserialize<'de> for Vip {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        if let Ok(net) = text.parse() {
            return Ok(Self(net));
        }
        Err(Error::custom(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => {
                format!("has no prefix length; write \"{text}/24\" (with the segment's own prefix)")
            }
            Ok(IpAddr::V6(_)) => {
                format!("has no prefix length; write \"{text}/64\" (with the segment's own prefix)")
            }
            Err(_) => "must be an address with prefix, such as \"10.77.0.100/24\" or \"fd77::100/64\"".into(),
        }))
    }
}

/// Reads `vips`.
pub(super) fn vips<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNet>, D::Error> {
    Ok(Vec::<Vip>::deserialize(input)?.into_iter().map(|vip| vip.0).collect())
}

/// Reads `hot`, `warm` or `cold`.
pub(super) fn standby_kind<'de, D: Deserializer<'de>>(input: D) -> Result<StandbyKind, D::Error> {
    match String::deserialize(input)?.as_str() {
        "hot" => Ok(StandbyKind::Hot),
        "warm" => Ok(StandbyKind::Warm),
        "cold" => Ok(StandbyKind::Cold),
        _ => Err(Error::custom("must be one of \"hot\", \"warm\", \"cold\"")),
    }
}

/// Reads `never` or a duration.
pub(super) fn failback<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(input)?;
    if text == "never" {
        return Ok(None);
    }
    let span = humantime_serde::re::humantime::parse_duration(&text);
    span.map(Some).map_err(|_| Error::custom("must be \"never\" or a duration such as \"30s\""))
}

/// Reads a number, also one written in hexadecimal as a string.
pub(super) fn mark<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u32),
        Text(String),
    }
    let right = || Error::custom("must be a number with exactly one bit set, such as \"0x00400000\"");
    match Written::deserialize(input).map_err(|_| right())? {
        Written::Number(mark) => Ok(mark),
        Written::Text(text) => match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map_err(|_| right()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_ports_read_back_as_written() {
        for text in ["10.77.0.21:7410", "[fd77::21]:53", "detector_1.net:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in
            ["", "host", "host:", ":7410", "host:0", "host:70000", "fd77::21:53", "[10.0.0.1]:1", "a b:1"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was accepted");
        }
        assert_eq!("udp/53".parse::<Port>().unwrap().to_string(), "udp/53");
        for text in ["80", "tcp/", "tcp/0", "sctp/80", "tcp/65536"] {
            assert!(text.parse::<Port>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_name_lies_in_a_zone_at_a_label_only() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert!(name("WEB.ha.test").is_in(&name("ha.test.")));
        assert!(name("ha.test.").is_in(&name("ha.test.")));
        assert!(!name("webha.test.").is_in(&name("ha.test.")));
        assert!(!name("test.").is_in(&name("ha.test.")));
        for text in ["", ".", "a..b", "*.ha.test.", "a b.test", &"x".repeat(64), &"ab.".repeat(90)] {
            assert!(text.parse::<DnsName>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(hidden)");
    }
}
