//! Network namespaces, real servers, faults and probes for demo and end-to-end tests.
//!
//! A [`Network`] is a switch with hosts on it, each a network namespace of its own. Real servers
//! ([`NatsCluster`], [`NameServer`]) and any other program ([`Launch`]) run in those hosts, faults are rules in the
//! switch, and a [`Probe`] measures from outside who serves an address. Everything a network made goes with it,
//! also when the test panics; what a killed run left behind goes with [`sweep`].
//!
//! Needs root, and the programs that `scripts/install-tools` installs.

mod autoscaler;
mod cleanup;
mod clock;
mod credentials;
pub mod demo;
pub mod deployment;
mod dns;
pub mod gaps;
mod http;
mod load;
mod name_server;
mod nats;
pub mod nemesis;
mod net;
mod probe;
mod process;
mod requests;
mod softirq;
mod stalls;
mod table;
mod tools;
mod traces;
mod wait;
pub mod workload;
mod yard;

pub use autoscaler::Autoscaler;
pub use cleanup::Cleanup;
pub use clock::Moment;
pub use deployment::Deployment;
pub use dns::query;
pub use http::{Response, fetch};
pub use load::{Load, write_and_sync};
pub use name_server::{Invocation, KEY_ALGORITHM, KEY_NAME, KEY_SECRET, NameServer, Software, ZONE};
pub use nats::{CLIENT_PORT, MONITOR_PORT, NatsCluster, NatsServer, ROUTE_PORT};
pub use net::{Host, Network, Traffic, prefixes, sweep};
pub use probe::{ANSWER_LIMIT, Answer, DnsProbe, DnsSample, Gap, History, Probe, Sample};
pub use process::{Launch, Process};
pub use requests::{Request, Requests, Service};
pub use softirq::Softirqs;
pub use stalls::Stalls;
pub use tools::{binary, check_metrics, faketime, tool};
pub use traces::Traces;
pub use wait::{Progress, wait_until, wait_until_async};
pub use yard::Yard;
