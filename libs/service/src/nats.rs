//! Connects a service to NATS as the configuration says.

use anyhow::Context as _;
use understudy_bus::{Counters, Nats, NatsOptions, nats::Auth};

use crate::config::Config;

/// Starts the connection of a service; `name` is shown by the servers, such as `detector/2`. Servers that are down are
/// no error.
///
/// # Errors
/// When credentials cannot be read, or the client refuses an address.
pub async fn connect(config: &Config, name: &str) -> anyhow::Result<Nats> {
    let nats = &config.nats;
    let options = NatsOptions {
        ping_interval: nats.ping_interval,
        auth: auth(config)?,
        ca: nats.ca_file.clone(),
        ..NatsOptions::new(config.cluster.clone(), name, nats.servers.clone())
    };
    Ok(Nats::connect(options, std::sync::Arc::new(Counters::default())).await?)
}

fn auth(config: &Config) -> anyhow::Result<Option<Auth>> {
    let nats = &config.nats;
    let read = |key: &str, file: &std::path::Path| {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("nats.{key}: reading {}", file.display()))?;
        anyhow::Ok(text.trim().to_owned())
    };
    if let Some(file) = &nats.nkey_file {
        return Ok(Some(Auth::Nkey { seed: read("nkey_file", file)? }));
    }
    let Some(user) = nats.user.clone() else { return Ok(None) };
    let password = match (&nats.password, &nats.password_file) {
        (Some(password), _) => password.expose().to_owned(),
        (None, Some(file)) => read("password_file", file)?,
        (None, None) => anyhow::bail!("nats.user is set, but neither nats.password nor nats.password_file"),
    };
    Ok(Some(Auth::Password { user, password }))
}
