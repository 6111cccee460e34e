//! Connects a service to NATS as the configuration says.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use understudy_bus::{Counters, Nats, NatsOptions, nats::Auth};

use crate::{config::Config, http::Metrics};

/// Starts the connection of a service; `name` is shown by the servers, such as `detector/2`. Servers that are down are
/// no error.
///
/// # Errors
/// When credentials cannot be read, or the client refuses an address.
pub async fn connect(config: &Config, name: &str) -> anyhow::Result<Nats> {
    connect_with(config, name, |_options| ()).await
}

/// As [`connect`], with times of its own.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    config: &Config,
    name: &str,
    adjust: impl FnOnce(&mut NatsOptions),
) -> anyhow::Result<Nats> {
    let nats = &config.nats;
    let auth = auth(config)?;
    if auth.is_none() {
        tracing::warn!("NATS without a credential: whoever reaches its servers can grant, release and steer");
    }
    let mut options = NatsOptions {
        ping_interval: nats.ping_interval,
        auth,
        ca: nats.ca_file.clone(),
        ..NatsOptions::new(config.cluster.clone(), name, nats.servers.clone())
    };
    adjust(&mut options);
    Ok(Nats::connect(options, Arc::default()).await?)
}

/// As [`connect`], for a process of a node; and how long nothing may come over NATS while the node's heartbeats leave,
/// for [`NodeOptions`](understudy_bus::paths::NodeOptions).
///
/// # Errors
/// As [`connect`].
pub async fn connect_member(config: &Config, name: &str) -> anyhow::Result<(Nats, Option<Duration>)> {
    let Watch { pings, echo } = Watch::of(config.lease.interval, config.nats.ping_interval);
    let nats = connect_with(config, name, |options| options.ping_interval = pings).await?;
    Ok((nats, echo))
}

/// How a process of a node finds that its NATS server hangs.
///
/// It hears little over NATS but the heartbeats of its group, so pings would be half of what it is woken for. Where
/// heartbeats go out often enough, such a server is found by those that do not come back, and pings are for one that has
/// never passed any on.
struct Watch {
    /// Between two pings.
    pings: Duration,
    /// Longest silence while heartbeats leave; `None`: pings alone.
    echo: Option<Duration>,
}

impl Watch {
    /// A server is left at most four `ping_interval` after it hung: at the first heartbeat that leaves one and a third of
    /// them after another that nothing has followed (`libs/bus/src/nats/echo.rs`). With any more, intervals just below it
    /// would need two of them to get there, and the bound would be passed.
    fn of(interval: Duration, ping_interval: Duration) -> Self {
        if interval <= 2 * ping_interval {
            Self { pings: 10 * ping_interval, echo: Some(ping_interval * 4 / 3) }
        } else {
            Self { pings: ping_interval, echo: None }
        }
    }
}

fn auth(config: &Config) -> anyhow::Result<Option<Auth>> {
    let nats = &config.nats;
    if let Some(seed) = nats.seed()? {
        return Ok(Some(Auth::Nkey { seed: seed.expose().to_owned() }));
    }
    let login = nats.login()?;
    Ok(login.map(|(user, password)| Auth::Password {
        user: user.to_owned(),
        password: password.expose().to_owned(),
    }))
}

/// Shows the counters of the bus on `/metrics`.
pub fn export(metrics: &Metrics, counters: &Arc<Counters>) {
    let counters = BusCounters(Arc::clone(counters));
    metrics.register(|registry| registry.register_collector(Box::new(counters)));
}

#[derive(Debug)]
struct BusCounters(Arc<Counters>);

impl Collector for BusCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.0.samples();
        for family in samples.chunk_by(|one, next| one.name == next.name) {
            // The registry adds the prefix, the encoder the suffix.
            let name = family[0].name.trim_start_matches("understudy_").trim_end_matches("_total");
            let mut encoder = encoder.encode_descriptor(name, family[0].help, None, MetricType::Counter)?;
            for sample in family {
                let counter = ConstCounter::new(sample.value);
                match sample.label {
                    Some(label) => counter.encode(encoder.encode_family(&[label])?)?,
                    None => counter.encode(encoder.encode_family::<[(&str, &str); 0]>(&[])?)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Lease, Nats as Servers, check_round_trip};

    #[test]
    fn no_round_trip_that_the_lease_allows_makes_a_node_leave_its_server() {
        let (lease, servers) = (Lease::default(), Servers::default());
        let watch = Watch::of(lease.interval, servers.ping_interval);
        let limit = watch.echo.expect("heartbeats go out often enough by default");
        // Looked at when a heartbeat leaves.
        let beats = |interval: Duration| limit.as_micros().div_ceil(interval.as_micros());
        let looked = |interval: Duration| interval * u32::try_from(beats(interval)).unwrap();
        let refused = check_round_trip(lease.duration, looked(lease.interval));
        assert!(refused.is_err(), "a way of {limit:?}, on which T may be used");
        for millis in 1..=100 {
            let interval = Duration::from_millis(millis);
            assert!(
                looked(interval) + interval <= 4 * servers.ping_interval,
                "{interval:?}: the documented bound"
            );
        }
        let rare = Watch::of(Duration::from_secs(1), servers.ping_interval);
        assert_eq!((rare.pings, rare.echo), (servers.ping_interval, None));
    }
}
