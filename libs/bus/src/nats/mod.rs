//! The NATS client: connects for ever, publishes without waiting, subscribes with types.

mod connect;
mod echo;
mod publish;
mod request;
mod subscribe;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use understudy_wire::{ClusterId, Subjects};

use crate::{Counters, queue};

pub(crate) use echo::Echo;
pub use request::RequestError;
pub(crate) use subscribe::count;
#[cfg(test)]
pub(crate) use subscribe::covers;
pub use subscribe::{Received, SubscribeError, Subscription};

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Deployment; every subject is below `understudy.<cluster>.`
    pub cluster: ClusterId,
    /// Name of the connection, shown by the server: `detector/2`.
    pub name: String,
    /// `nats://host:port` or `host:port`, every server of the cluster: those that servers advertise are not used,
    /// since an address inside a container network often leads nowhere.
    pub servers: Vec<String>,
    /// A server that is silent for 2 to 3 of these is taken for hung.
    pub ping_interval: Duration,
    /// For one connection attempt, handshake included; what a hung server costs.
    pub connection_timeout: Duration,
    /// Who we are, if the servers ask.
    pub auth: Option<Auth>,
    /// PEM file of the authority that signs the servers' certificates; `None`: no TLS demanded.
    pub ca: Option<PathBuf>,
}

impl NatsOptions {
    /// Pings every 50 ms (a hung server is noticed after 103 to 149 ms), 200 ms for an attempt, no credentials.
    pub fn new(cluster: ClusterId, name: impl Into<String>, servers: Vec<String>) -> Self {
        Self {
            cluster,
            name: name.into(),
            servers,
            ping_interval: Duration::from_millis(50),
            connection_timeout: Duration::from_millis(200),
            auth: None,
            ca: None,
        }
    }
}

/// Credentials for NATS. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// User and password.
    Password {
        /// Name.
        user: String,
        /// Secret.
        password: String,
    },
    /// Seed of a user nkey (`SU...`).
    Nkey {
        /// Secret.
        seed: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?} }}"),
            Self::Nkey { .. } => f.write_str("Nkey"),
        }
    }
}

/// Whether there is a server right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsState {
    /// Not connected, trying one server after the other.
    Disconnected,
    /// Connected.
    Connected,
}

/// Why no client could be made. Servers that are down are no reason.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server named.
    #[error("NATS: the list of servers is empty")]
    NoServers,
    /// A zero interval or timeout.
    #[error("NATS: {0} must be longer than 0")]
    ZeroDuration(&'static str),
    /// An address that cannot be read.
    #[error("NATS server {server:?}: not an address such as nats://host:4222")]
    Address {
        /// As configured.
        server: String,
        /// What the parser said.
        #[source]
        cause: std::io::Error,
    },
    /// A seed that is none.
    #[error("NATS: not the seed of an nkey")]
    Seed(#[source] nkeys::error::Error),
    /// The client refused its options.
    #[error("NATS: client not started")]
    Client(#[source] async_nats::ConnectError),
}

/// A connection to one of the servers; clones share it.
#[derive(Clone)]
pub struct Nats {
    client: async_nats::Client,
    cluster: ClusterId,
    subjects: Arc<Subjects>,
    servers: usize,
    state: watch::Receiver<NatsState>,
    /// What a server last said that it does not allow us.
    denied: watch::Receiver<String>,
    outgoing: queue::Sender<publish::Outgoing>,
    counters: Arc<Counters>,
}

impl Nats {
    /// Deployment of this connection.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Subjects of the deployment.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Connected or not, now and at every change.
    pub fn state(&self) -> watch::Receiver<NatsState> {
        self.state.clone()
    }

    /// Name of the server that we were connected to last; `None` before the first.
    pub fn server(&self) -> Option<String> {
        self.client.try_server_info().map(|info| info.server_name)
    }

    /// What this process's bus counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Drops the connection, for another server if there is one, and says why.
    pub(crate) async fn leave_server(&self, why: &str) {
        tracing::info!(why, "leaving the NATS server");
        // An error says that the client has ended.
        drop(self.client.force_reconnect().await);
    }

    /// How many servers are configured.
    pub(crate) fn servers(&self) -> usize {
        self.servers
    }

    /// The client below, for JetStream.
    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }
}
