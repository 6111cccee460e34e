//! Newtypes for everything that could be mixed up.

use std::{
    fmt,
    num::{NonZeroU8, NonZeroU64},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {name:?}: {why}")]
pub struct InvalidName {
    /// `cluster`, `group` or `node`.
    pub what: &'static str,
    /// The name, cut to 64 characters.
    pub name: String,
    /// What is wrong with it and what would be right.
    pub why: &'static str,
}

/// Longest name: a DNS label (RFC 1035 section 2.3.4), since names become subjects, table names and host names.
const MAX_NAME: usize = 63;

fn check_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let refuse = |why| Err(InvalidName { what, name: name.chars().take(64).collect(), why });
    if name.is_empty() {
        return refuse("must not be empty");
    }
    if name.len() > MAX_NAME {
        return refuse("must have at most 63 characters");
    }
    // A dot, `*` or `>` would change the meaning of a NATS subject.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return refuse("may hold letters, digits, '-' and '_' only");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps a name: 1 to 63 letters, digits, `-` or `_`.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check_name($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(&name)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                Self::try_from(String::deserialize(input)?).map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                output.serialize_str(&self.0)
            }
        }
    };
}

name!(
    /// One deployment of Understudy; messages of another cluster are refused.
    ClusterId,
    "cluster"
);
name!(
    /// One redundancy group.
    GroupId,
    "group"
);
name!(
    /// One member of a group.
    NodeId,
    "node"
);

/// The kernel's boot id: tells a node from the same node before its reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u128);

/// One executor process of one boot. Rises with every start, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub NonZeroU64);

impl Incarnation {
    /// `None` for 0, which stands for "no executor" on the wire.
    pub fn new(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// The number as it travels.
    pub fn raw(self) -> u64 {
        self.0.get()
    }
}

/// A detector's vote, 1..=S.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(NonZeroU8);

impl Seat {
    /// `None` for 0, which stands for an observer.
    pub fn new(raw: u8) -> Option<Self> {
        NonZeroU8::new(raw).map(Self)
    }

    /// The number, from 1.
    pub fn raw(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One active role of a group, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fencing token of one tenure of a slot; strictly increasing per slot, not consecutive. 0: none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An epoch from outside, from a network or a store: `None` from 2^62 on, for a forged one must not bring the
    /// counter near its end.
    pub fn new(raw: u64) -> Option<Self> {
        (raw < 1 << 62).then_some(Self(raw))
    }

    /// The epoch after this one.
    ///
    /// # Panics
    /// At 2^64 epochs, which no deployment reaches; wrapping would break invariant 2.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("epochs never run out"))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds of one host's CLOCK_BOOTTIME. Only times of the same host may be compared; the sole thing done with
/// another host's is to echo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Later by `span`; saturates, so a hostile time cannot overflow.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Earlier by `span`, not before 0.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// Time from `earlier` to this, zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds of a span, capped at 2^64 - 1 (584 years).
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_a_subject_are_refused() {
        for bad in ["", "a.b", "*", ">", "web a", "web\n", "ä", &"x".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(NodeId::new("web-a_1").unwrap().as_str(), "web-a_1");
        let error = GroupId::new("a.b").unwrap_err().to_string();
        assert_eq!(error, "group name \"a.b\": may hold letters, digits, '-' and '_' only");
    }

    #[test]
    fn boot_time_saturates() {
        let end = BootTime(u64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(BootTime(5).before(Duration::from_secs(1)), BootTime(0));
        assert_eq!(BootTime(5).since(BootTime(9)), Duration::ZERO);
    }
}
