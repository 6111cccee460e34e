//! Connects a service to NATS as the configuration says.

use std::{fmt, sync::Arc};

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
