//! Connecting, for ever, and to another server first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{ConnectOptions, Event, ReconnectToServer, Server, ServerAddr};
use nkeys::KeyPair;
use rand::Rng as _;
use tokio::sync::watch;
use understudy_wire::Subjects;

use super::{Auth, ConnectError, Nats, NatsOptions, NatsState, publish};
use crate::{Counters, permissions, quiet::Quiet};

/// Commands the client takes before it makes its caller wait. Small: what waits here while a server hangs comes out
/// stale (our own queue in front of it drops what is too old).
const CLIENT_CAPACITY: usize = 256;
/// Messages of one subscription that wait to be read: a second of heartbeats of 1,600 nodes.
const SUBSCRIPTION_CAPACITY: usize = 16_384;
/// The first attempt after a loss waits at most this long, so that the clients of a dead server do not all arrive at
/// the next one in the same millisecond.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// Most that an attempt waits, however many failed before it.
const LONGEST_DELAY: Duration = Duration::from_millis(250);

/// Picks the server that was tried longest ago: never the one just lost while there is another, and none is starved.
#[derive(Default)]
struct Chooser {
    tried: HashMap<String, u64>,
    clock: u64,
    failures: u32,
}

impl Chooser {
    fn choose(&mut self, servers: &[Server]) -> Option<ReconnectToServer> {
        let mut rng = rand::rng();
        let chosen = servers.iter().min_by_key(|server| {
            let last = self.tried.get(server.addr.as_url_str()).copied().unwrap_or(0);
            (last, rng.random::<u32>())
        })?;
        self.clock += 1;
        self.tried.insert(chosen.addr.as_url_str().to_owned(), self.clock);
        let longest = FIRST_DELAY.saturating_mul(1 << self.failures.min(8)).min(LONGEST_DELAY);
        self.failures = self.failures.saturating_add(1);
        let delay = longest.mul_f64(rng.random::<f64>());
        Some(ReconnectToServer { addr: chosen.addr.clone(), delay: Some(delay) })
    }
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, ConnectError> {
    if servers.is_empty() {
        return Err(ConnectError::NoServers);
    }
    let parse = |server: &String| {
        server.parse().map_err(|cause| ConnectError::Address { server: server.clone(), cause })
    };
    servers.iter().map(parse).collect()
}

fn credentials(options: ConnectOptions, auth: Option<Auth>) -> Result<ConnectOptions, ConnectError> {
    Ok(match auth {
        None => options,
        Some(Auth::Password { user, password }) => options.user_and_password(user, password),
        Some(Auth::Nkey { seed }) => {
            let public_key = KeyPair::from_seed(&seed).map_err(ConnectError::Seed)?.public_key();
            // Replies come where nobody else may listen.
            options.custom_inbox_prefix(permissions::inbox(&public_key)).nkey(seed)
        }
    })
}

impl Nats {
    /// Starts to connect and returns; servers that are down are tried again for ever. Fails on bad options only.
    pub async fn connect(options: NatsOptions, counters: Arc<Counters>) -> Result<Self, ConnectError> {
        for (name, span) in
            [("ping_interval", options.ping_interval), ("connection_timeout", options.connection_timeout)]
        {
            if span.is_zero() {
                return Err(ConnectError::ZeroDuration(name));
            }
        }
        let servers = addresses(&options.servers)?;
        let count = servers.len();
        let chooser = Arc::new(Mutex::new(Chooser::default()));
        let (state_sender, state) = watch::channel(NatsState::Disconnected);
        let (denied_sender, denied) = watch::channel(String::new());
        let mut connect = client_options(&options, &chooser, state_sender, denied_sender, &counters);
        if let Some(ca) = options.ca {
            connect = connect.add_root_certificates(ca).require_tls(true);
        }
        let connect = credentials(connect, options.auth)?;
        let client = connect.connect(servers).await.map_err(ConnectError::Client)?;
        let outgoing = publish::start(client.clone(), state.clone(), &counters);
        let subjects = Arc::new(Subjects::new(&options.cluster));
        let cluster = options.cluster;
        Ok(Self { client, cluster, subjects, servers: count, state, denied, outgoing, counters })
    }
}

fn client_options(
    options: &NatsOptions,
    chooser: &Arc<Mutex<Chooser>>,
    state: watch::Sender<NatsState>,
    denied: watch::Sender<String>,
    counters: &Arc<Counters>,
) -> ConnectOptions {
    let (reset, counters) = (Arc::clone(chooser), Arc::clone(counters));
    let (chooser, quiet) = (Arc::clone(chooser), Quiet::default());
    ConnectOptions::new()
        .name(&options.name)
        .ping_interval(options.ping_interval)
        .connection_timeout(options.connection_timeout)
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .reconnect_to_server_callback(move |servers, _info| {
            let choice = chooser.lock().unwrap_or_else(PoisonError::into_inner).choose(&servers);
            async move { choice }
        })
        .event_callback(move |event| {
            match &event {
                Event::Connected => {
                    counters.nats_connects.add(1);
                    reset.lock().unwrap_or_else(PoisonError::into_inner).failures = 0;
                    state.send_replace(NatsState::Connected);
                }
                Event::Disconnected | Event::Closed => {
                    counters.nats_disconnects.add(1);
                    state.send_replace(NatsState::Disconnected);
                }
                Event::SlowConsumer(_) => counters.nats_slow.add(1),
                Event::ServerError(error) => {
                    counters.nats_errors.add(1);
                    // The servers have no code for it, only these words.
                    let said = error.to_string();
                    if said.to_ascii_lowercase().contains("permissions violation") {
                        counters.nats_denied.add(1);
                        denied.send_replace(said);
                    }
                    if let Some(before) = quiet.pass() {
                        tracing::warn!(%error, before, "a NATS server refuses");
                    }
                }
                Event::ClientError(_) => counters.nats_errors.add(1),
                Event::LameDuckMode | Event::Draining => {}
            }
            tracing::debug!(%event, "NATS");
            async {}
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Server {
        Server {
            addr: format!("nats://127.0.0.1:{port}").parse().unwrap(),
            failed_attempts: 0,
            did_connect: false,
            is_discovered: false,
            last_error: None,
        }
    }

    #[test]
    fn the_server_just_lost_comes_last_and_none_is_starved() {
        let servers = [server(1), server(2), server(3)];
        let mut chooser = Chooser::default();
        let picks: Vec<_> = (0..9).map(|_| chooser.choose(&servers).unwrap()).collect();
        for window in picks.windows(3) {
            assert!(window[0].addr != window[1].addr && window[0].addr != window[2].addr);
            assert!(window[1].addr != window[2].addr);
        }
        assert!(picks.iter().all(|pick| pick.delay.unwrap() <= LONGEST_DELAY));
    }

    #[test]
    fn a_single_server_is_tried_again() {
        let mut chooser = Chooser::default();
        assert!(chooser.choose(&[server(1)]).is_some());
        assert!(chooser.choose(&[server(1)]).is_some());
        assert!(chooser.choose(&[]).is_none());
    }
}
