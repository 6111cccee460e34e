//! What the file may hold. Every key has a default except `cluster`, `nats.servers` and what makes a group or a check.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use understudy_wire::{ClusterId, GroupId, NodeId, StandbyKind};

use super::{
    group::Group,
    scaling::Autoscaler,
    types::{self, DnsName, Endpoint, Secret},
};

/// One configuration for all services.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the deployment; messages of others are refused.
    pub cluster: ClusterId,
    /// The message bus.
    #[serde(default)]
    pub nats: Nats,
    /// Timing of the lease.
    #[serde(default)]
    pub lease: Lease,
    /// Seats, direct path, suspicion.
    #[serde(default)]
    pub detector: Detector,
    /// Name servers that take updates; needed once a slot has names.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Redundancy groups, `[group.<name>]`.
    #[serde(default, rename = "group")]
    pub groups: BTreeMap<GroupId, Group>,
    /// The autoscaler.
    #[serde(default)]
    pub autoscaler: Autoscaler,
    /// This node.
    #[serde(default)]
    pub node: Node,
    /// The kernel gate.
    #[serde(default)]
    pub gate: Gate,
    /// Metrics and health pages.
    #[serde(default)]
    pub http: Http,
    /// Certificate of this process.
    #[serde(default)]
    pub tls: Tls,
    /// Who may come in.
    #[serde(default)]
    pub access: Access,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Scheduling class and locked memory.
    #[serde(default)]
    pub realtime: Realtime,
}

/// `[nats]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// `nats://host:port` or `tls://host:port` each, at least one.
    pub servers: Vec<String>,
    /// A hung server is noticed after two to three of these, by a publisher whose heartbeats tell it after two to four.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// User name, with `password` or `password_file`.
    pub user: Option<String>,
    /// Password in the file itself.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// File with an NKey seed, instead of user and password.
    pub nkey_file: Option<PathBuf>,
    /// Certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            ping_interval: Duration::from_millis(50),
            user: None,
            password: None,
            password_file: None,
            nkey_file: None,
            ca_file: None,
        }
    }
}

/// `[lease]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lease {
    /// I: time between two heartbeats.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// T: how long a grant lasts.
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    /// Upper bound of every T that this cluster ever uses; a seat that starts stays silent this long (R6).
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// rho: bound on the rate error of a host's clock.
    pub drift: f64,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            duration: Duration::from_millis(300),
            max: Duration::from_secs(1),
            drift: 0.01,
        }
    }
}

/// `[detector]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Detector {
    /// S: number of seats, odd.
    pub seats: u8,
    /// Number of this instance from 1; above `seats` it only observes. Without it: the number in its own name.
    pub seat: Option<u8>,
    /// Where the direct path listens.
    pub listen: SocketAddr,
    /// Address of the direct path that others are told; without it the one they are most likely to reach.
    pub advertise: Option<Endpoint>,
    /// Direct paths of the detectors; further ones are learned from their presence messages.
    pub direct: Vec<Endpoint>,
    /// A node is suspected from this phi on.
    pub suspect_phi: f64,
    /// Number of heartbeats in the sliding window.
    pub window: usize,
    /// Least standard deviation that the accrual detector assumes. Without it a fifth of `lease.interval`; after
    /// loading always set.
    #[serde(with = "humantime_serde")]
    pub deviation_floor: Option<Duration>,
}

impl Detector {
    /// The floor of the standard deviation: as configured, else a fifth of `interval` (20 ms at 100 ms).
    pub fn deviation_floor(&self, interval: Duration) -> Duration {
        self.deviation_floor.unwrap_or(interval / 5)
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            seats: 3,
            seat: None,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7410)),
            advertise: None,
            direct: Vec::new(),
            // With a deviation of a fifth of the interval, phi passes 8 at 2.12 intervals: just beyond the gap that one
            // lost heartbeat leaves.
            suspect_phi: 8.0,
            window: 200,
            deviation_floor: None,
        }
    }
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// `host:port` of each server that takes updates.
    pub servers: Vec<Endpoint>,
    /// The zone that holds every managed name.
    pub zone: DnsName,
    /// Time to live of the records, whole seconds.
    #[serde(default = "Dns::default_ttl", with = "humantime_serde")]
    pub ttl: Duration,
    /// How long one server may take to answer.
    #[serde(default = "Dns::default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// How often the holder compares the zone with what it should hold.
    #[serde(default = "Dns::default_recheck", with = "humantime_serde")]
    pub recheck: Duration,
    /// Key that signs the updates.
    #[serde(default)]
    pub key: Option<TsigKey>,
}

impl Dns {
    fn default_ttl() -> Duration {
        Duration::from_secs(1)
    }

    fn default_timeout() -> Duration {
        Duration::from_secs(1)
    }

    fn default_recheck() -> Duration {
        Duration::from_secs(30)
    }
}

/// `dns.key`: a TSIG key (RFC 8945).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TsigKey {
    /// Name of the key, the same on the server.
    pub name: DnsName,
    /// MAC algorithm.
    #[serde(default)]
    pub algorithm: TsigAlgorithm,
    /// The secret in base64.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// File that holds the secret in base64.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// MAC of a TSIG key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TsigAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

/// `[node]`: this node; mostly from the environment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Name, unique in the group.
    pub name: Option<NodeId>,
    /// The group it belongs to; may be left out where the file has only one.
    pub group: Option<GroupId>,
    /// Interface that carries the VIPs.
    pub interface: Option<String>,
    /// The node's own address, for `address = "node"`.
    pub address: Option<IpAddr>,
    /// Higher is preferred.
    pub priority: i32,
    /// How far the workload is up while the node waits.
    #[serde(deserialize_with = "types::standby_kind")]
    pub standby: StandbyKind,
    /// Failure domains, such as `rack = "r1"`.
    pub labels: BTreeMap<String, String>,
    /// Unix socket between heartbeat and executor.
    pub socket: PathBuf,
    /// What must survive a restart.
    pub state_dir: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: None,
            group: None,
            interface: None,
            address: None,
            priority: 100,
            standby: StandbyKind::Hot,
            labels: BTreeMap::new(),
            socket: "/run/understudy/node.sock".into(),
            state_dir: "/var/lib/understudy".into(),
        }
    }
}

/// `[gate]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// The bit of the packet mark that lets VIP traffic pass.
    #[serde(deserialize_with = "types::mark")]
    pub mark: u32,
}

impl Default for Gate {
    fn default() -> Self {
        Self { mark: 0x0040_0000 }
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere when left out.
    pub listen: Option<SocketAddr>,
}

/// `[tls]`: for the direct path, where both ends show a certificate, and for the pages.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authority that signs those of all services.
    pub ca_file: Option<PathBuf>,
    /// Certificate of this process; it says for which node it may speak.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// File whose first line is the token of those who may look.
    pub viewer_token_file: Option<PathBuf>,
    /// File whose first line is the token of those who may steer.
    pub operator_token_file: Option<PathBuf>,
    /// Listen in the open, without TLS and tokens. For development.
    pub insecure: bool,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Filter such as `info` or `info,understudy_lease=debug`.
    pub log: String,
    /// One JSON object a line instead of text for people.
    pub json: bool,
    /// OTLP/gRPC endpoint of a collector, such as `http://127.0.0.1:4317`.
    pub otlp: Option<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".into(), json: false, otlp: None }
    }
}

/// `[realtime]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Realtime {
    /// Ask for SCHED_RR and locked memory.
    pub enabled: bool,
    /// SCHED_RR priority, 1..=99.
    pub priority: u8,
}

impl Default for Realtime {
    fn default() -> Self {
        Self { enabled: true, priority: 10 }
    }
}
