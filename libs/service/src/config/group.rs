//! `[group.<name>]`: what one redundancy group holds.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;
use understudy_wire::NodeId;

use super::{
    scaling::Scaling,
    types::{self, DnsName, Endpoint, Port},
};

/// One redundancy group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// N: nodes that serve at a time, which is the number of slots.
    pub active: u16,
    /// M: nodes that wait.
    pub standby: u16,
    /// Nodes that get credentials of this group. Nothing else looks at it: a node with a credential may come and go.
    pub members: BTreeSet<NodeId>,
    /// How many other nodes must see the holder behind a VIP before a takeover counts as proved; without it half
    /// of the others that are heard, rounded up.
    pub witnesses: Option<u16>,
    /// How long the preferred node must have been fit before it gets its slot back; `None`: never.
    #[serde(deserialize_with = "types::failback")]
    pub failback: Option<Duration>,
    /// Service ports on the node's own address, which the gate guards where a slot has no VIP.
    pub ports: Vec<Port>,
    /// One entry a slot; after loading exactly `active` of them.
    #[serde(rename = "slot")]
    pub slots: Vec<SlotConfig>,
    /// Checks of the workload.
    #[serde(rename = "check")]
    pub checks: Vec<Check>,
    /// Load signals of its own, for the autoscaler.
    #[serde(rename = "signal")]
    pub signals: Vec<SignalConfig>,
    /// Commands that move the workload between its states.
    pub hooks: Hooks,
    /// Flap damping.
    pub flap: Flap,
    /// What the autoscaler keeps it at; `None`: nothing starts or stops its nodes.
    pub scaling: Option<Scaling>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            active: 1,
            standby: 1,
            members: BTreeSet::new(),
            witnesses: None,
            failback: None,
            ports: Vec::new(),
            slots: Vec::new(),
            checks: Vec::new(),
            signals: Vec::new(),
            hooks: Hooks::default(),
            flap: Flap::default(),
            scaling: None,
        }
    }
}

/// `[[group.<name>.slot]]`, slot 0 first.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlotConfig {
    /// Virtual addresses, with the segment's prefix.
    #[serde(deserialize_with = "types::vips")]
    pub vips: Vec<IpNet>,
    /// DNS names that follow the slot.
    pub names: Vec<DnsName>,
    /// What the records carry; after loading always set: the VIPs where there are any, else the node's address.
    pub address: Option<RecordAddress>,
}

impl SlotConfig {
    /// What the records carry.
    pub fn record_address(&self) -> RecordAddress {
        let natural = if self.vips.is_empty() { RecordAddress::Node } else { RecordAddress::Vip };
        self.address.unwrap_or(natural)
    }
}

/// The two modes of DNS failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordAddress {
    /// The record holds the slot's VIPs.
    Vip,
    /// The record holds the holder's own address.
    Node,
}

/// `[[group.<name>.signal]]`: a load signal that its nodes read and put into their heartbeats.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawSignal")]
pub struct SignalConfig {
    /// What targets call it.
    pub name: String,
    /// Where it comes from.
    pub source: SignalSource,
    /// Time between two readings.
    pub interval: Duration,
    /// How long one reading may take.
    pub timeout: Duration,
}

/// Where a load signal comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalSource {
    /// A metric on a page in Prometheus's text format, summed over its labels.
    Metric {
        /// `http://host[:port]/path`
        url: String,
        /// Its name.
        metric: String,
    },
    /// What a command prints: program and arguments, no shell.
    Command(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignal {
    name: String,
    url: Option<String>,
    metric: Option<String>,
    command: Option<Vec<String>>,
    #[serde(default = "RawSignal::second", with = "humantime_serde")]
    interval: Duration,
    #[serde(default = "RawSignal::second", with = "humantime_serde")]
    timeout: Duration,
}

impl RawSignal {
    /// As often as the load of the host is read.
    fn second() -> Duration {
        Duration::from_secs(1)
    }
}

impl TryFrom<RawSignal> for SignalConfig {
    type Error = String;

    fn try_from(raw: RawSignal) -> Result<Self, String> {
        let RawSignal { name, url, metric, command, interval, timeout } = raw;
        let source = match (url, metric, command) {
            (Some(url), Some(metric), None) => SignalSource::Metric { url, metric },
            (None, None, Some(command)) => SignalSource::Command(command),
            _ => return Err(format!("signal {name:?}: needs url and metric, or command, and not both")),
        };
        Ok(Self { name, source, interval, timeout })
    }
}

/// `[[group.<name>.check]]`: one check of the workload.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawCheck")]
pub struct Check {
    /// Unique in the group; the kind when left out.
    pub name: String,
    /// Time between two runs.
    pub interval: Duration,
    /// How long one run may take, at most `interval`.
    pub timeout: Duration,
    /// So many successes in a row make it healthy again.
    pub rise: u32,
    /// So many failures in a row make it unhealthy.
    pub fall: u32,
    /// What is done.
    pub kind: CheckKind,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection can be made.
    Tcp {
        /// Where to.
        address: Endpoint,
    },
    /// A GET answers 2xx or 3xx.
    Http {
        /// `http://host[:port]/path`
        url: String,
    },
    /// The gRPC health protocol answers SERVING.
    Grpc {
        /// Where to.
        address: Endpoint,
        /// Name of the service; empty: the server as a whole.
        service: String,
    },
    /// The command exits with 0.
    Exec {
        /// Program and arguments, no shell.
        command: Vec<String>,
    },
    /// The process exists.
    Process {
        /// How it is found.
        process: ProcessRef,
    },
}

/// How a process is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessRef {
    /// A file that holds its id.
    PidFile(PathBuf),
    /// Its name as in `/proc/<pid>/comm`.
    Name(String),
}

/// Kinds of checks and the keys that belong to each, besides the common ones.
pub(super) const CHECK_KINDS: &[(&str, &[&str])] = &[
    ("tcp", &["address"]),
    ("http", &["url"]),
    ("grpc", &["address", "service"]),
    ("exec", &["command"]),
    ("process", &["pid_file", "process_name"]),
];

/// Keys of every check.
pub(super) const CHECK_KEYS: &[&str] = &["name", "kind", "interval", "timeout", "rise", "fall"];

/// A check as written: all keys of all kinds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    name: Option<String>,
    kind: String,
    #[serde(default = "RawCheck::interval", with = "humantime_serde")]
    interval: Duration,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    address: Option<Endpoint>,
    url: Option<String>,
    service: Option<String>,
    command: Option<Vec<String>>,
    pid_file: Option<PathBuf>,
    process_name: Option<String>,
}

impl RawCheck {
    fn interval() -> Duration {
        Duration::from_millis(100)
    }
}

impl TryFrom<RawCheck> for Check {
    type Error = String;

    fn try_from(raw: RawCheck) -> Result<Self, String> {
        let missing =
            |key, example| format!("a check of kind {:?} needs {key}, such as {key} = {example}", raw.kind);
        let kind = match raw.kind.as_str() {
            "tcp" => CheckKind::Tcp {
                address: raw.address.ok_or_else(|| missing("address", "\"127.0.0.1:5432\""))?,
            },
            "http" => CheckKind::Http {
                url: raw.url.ok_or_else(|| missing("url", "\"http://127.0.0.1:80/healthz\""))?,
            },
            "grpc" => CheckKind::Grpc {
                address: raw.address.ok_or_else(|| missing("address", "\"127.0.0.1:50051\""))?,
                service: raw.service.unwrap_or_default(),
            },
            "exec" => CheckKind::Exec {
                command: raw.command.ok_or_else(|| missing("command", "[\"/usr/bin/pg_isready\"]"))?,
            },
            "process" => CheckKind::Process {
                process: match (raw.pid_file, raw.process_name) {
                    (Some(file), None) => ProcessRef::PidFile(file),
                    (None, Some(name)) => ProcessRef::Name(name),
                    _ => {
                        return Err(
                            "a check of kind \"process\" needs either pid_file or process_name".into()
                        );
                    }
                },
            },
            other => return Err(format!("unknown kind of check {other:?}")),
        };
        Ok(Self {
            name: raw.name.unwrap_or(raw.kind),
            interval: raw.interval,
            timeout: raw.timeout.unwrap_or(raw.interval),
            rise: raw.rise.unwrap_or(2),
            fall: raw.fall.unwrap_or(2),
            kind,
        })
    }
}

/// `[group.<name>.hooks]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Starts the workload of a cold standby.
    pub start: Option<Hook>,
    /// Stops the workload of a cold standby.
    pub stop: Option<Hook>,
    /// Makes the workload the active one, before the address is there.
    pub promote: Option<Hook>,
    /// Makes the workload a standby again, after the address is gone.
    pub demote: Option<Hook>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments, no shell.
    pub command: Vec<String>,
    /// After this it is killed and counts as failed.
    #[serde(default = "Hook::default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
}

impl Hook {
    fn default_timeout() -> Duration {
        Duration::from_secs(10)
    }
}

/// `[group.<name>.flap]`: damping after RFC 2439. Every failure adds a penalty of 1000, which halves in `half_life`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flap {
    /// Time in which the penalty halves.
    #[serde(with = "humantime_serde")]
    pub half_life: Duration,
    /// Above this a node is chosen last.
    pub suppress: f64,
    /// Below this it is chosen as usual again.
    pub reuse: f64,
}

impl Default for Flap {
    fn default() -> Self {
        Self { half_life: Duration::from_secs(60), suppress: 2000.0, reuse: 750.0 }
    }
}
