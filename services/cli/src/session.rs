//! The way to a deployment: configuration, connection, time limit.

use std::{error::Error, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};
use understudy_bus::{Identity, Nats, NatsState};
use understudy_service::{
    config::{Config, environment},
    nats::connect_with,
};
use understudy_wire::ClusterId;

use crate::{
    args::Global,
    failure::{Refused, Usage},
};

const SERVERS: &str = "UNDERSTUDY_NATS__SERVERS";
const CLUSTER: &str = "UNDERSTUDY_CLUSTER";
const SEATS: &str = "UNDERSTUDY_DETECTOR__SEATS";

/// A person may sit far from the servers: what services take for a hung server may be a slow line here.
const PING: Duration = Duration::from_secs(1);

/// A stream that elects its leader loses what it is asked meanwhile, for 4 to 9 s (design section 2): after a restart of
/// the NATS servers, for one. On top of the time limit.
const ELECTION: Duration = Duration::from_secs(10);
/// Pause before JetStream is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Which seats there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// S.
    pub(crate) seats: u8,
    /// Nobody said so: it is the default, and a higher seat that answers raises it.
    pub(crate) assumed: bool,
    /// I: a seat later than this calls itself late (rule R13).
    pub(crate) interval: Duration,
}

/// One run of the CLI, connected.
pub(crate) struct Session {
    pub(crate) nats: Nats,
    pub(crate) expected: Expected,
    /// For one answer.
    pub(crate) timeout: Duration,
}

/// The configuration, with the flags over the environment over the file.
fn configuration(global: &Global) -> anyhow::Result<(Config, Expected)> {
    // An empty value counts as not set, as it does in the services.
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let file = global.config.as_ref().filter(|file| !file.is_empty()).map(Path::new);
    let (servers, cluster, seats) = (given(&global.nats), given(&global.cluster), given(&global.seats));
    if file.is_none() && (servers.is_none() || cluster.is_none()) {
        let missing = "say where the deployment is: --config FILE, or --nats URL and --cluster NAME";
        return Err(Usage(missing.to_owned()).into());
    }
    if let Some(Err(error)) = cluster.as_deref().map(ClusterId::new) {
        return Err(Usage(format!("--cluster: {error}")).into());
    }
    let flags = [(SERVERS, servers), (CLUSTER, cluster), (SEATS, seats.clone())];
    let over = environment().filter(|(name, _)| ![SERVERS, CLUSTER, SEATS].contains(&name.as_str()));
    let over = over.chain(flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let (config, report) = Config::examine(file, over);
    let config = config.ok_or(Refused(report))?;
    let expected = Expected {
        seats: config.detector.seats,
        assumed: file.is_none() && seats.is_none(),
        interval: config.lease.interval,
    };
    Ok((config, expected))
}

impl Session {
    /// Reads the configuration and waits for a NATS server, for the time limit at most. Comes with the credential of
    /// `role` where the configuration leaves its file open.
    pub(crate) async fn open(global: &Global, role: &Identity) -> anyhow::Result<Self> {
        let (mut config, expected) = configuration(global)?;
        config.own(role);
        let host = understudy_service::seat::hostname();
        let limit = global.timeout;
        let nats = connect_with(&config, &format!("cli/{host}"), |options| {
            options.ping_interval = options.ping_interval.max(PING);
            // Each server once, and the first one again.
            let share = limit / u32::try_from(options.servers.len() + 1).unwrap_or(u32::MAX);
            options.connection_timeout = options.connection_timeout.max(share);
        })
        .await?;
        let mut state = nats.state();
        let connected = state.wait_for(|state| *state == NatsState::Connected);
        timeout(limit, connected).await.ok().and_then(Result::ok).with_context(|| {
            let servers: Vec<_> =
                config.nats.servers.iter().map(|server| without_credentials(server)).collect();
            format!("no NATS server lets us in within {limit:?}: tried {}", servers.join(", "))
        })?;
        Ok(Self { nats, expected, timeout: limit })
    }

    /// Reads from JetStream, again until an election would be over; says so once the time limit has passed.
    pub(crate) async fn stored<T, E: Error + Send + Sync + 'static>(
        &self,
        read: impl AsyncFn() -> Result<T, E>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let error = match read().await {
                Ok(value) => return Ok(value),
                Err(error) if began.elapsed() >= self.timeout + ELECTION => return Err(error.into()),
                Err(error) => error,
            };
            if began.elapsed() >= self.timeout && !told {
                told = true;
                let error = anyhow::Error::new(error);
                eprintln!("note: {error:#}; asking again for {ELECTION:?}: an election may be going on");
            }
            sleep(PAUSE).await;
        }
    }
}

/// `nats://user:password@host` without the middle part.
fn without_credentials(server: &str) -> String {
    match server.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        },
        None => server.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(without_credentials("nats://ops:se@cret@a:4222"), "nats://a:4222");
        assert_eq!(without_credentials("ops:secret@a:4222"), "a:4222");
        assert_eq!(without_credentials("nats://a:4222"), "nats://a:4222");
    }
}
