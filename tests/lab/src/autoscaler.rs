//! An autoscaler on a host of its own.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Deployment, Launch, Process, binary, deployment::SCALERS, fetch};

/// Its pages, on its loopback.
const PAGES: u16 = 9103;
/// For a page of its own.
const PATIENCE: Duration = Duration::from_secs(5);
/// Number of the host of the first one.
const FIRST: u8 = 51;

/// A running autoscaler. Dropping it kills it.
#[derive(Debug)]
pub struct Autoscaler {
    /// The process, named like its host.
    pub process: Process,
}

impl Autoscaler {
    /// Starts the first `count` autoscalers of the plan.
    ///
    /// # Errors
    /// When a host or a process cannot be started.
    pub fn start(deployment: &Deployment, count: usize) -> Result<Vec<Self>> {
        let names = deployment.plan.scaling.iter().flat_map(|scaling| &scaling.autoscalers);
        names
            .zip(FIRST..)
            .take(count)
            .map(|(name, number)| Self::launch(deployment, name, number, &[]))
            .collect()
    }

    /// Starts the last autoscaler of the plan as one that only says what it would do.
    ///
    /// # Errors
    /// When the plan has none, or its host or process cannot be started.
    pub fn start_dry(deployment: &Deployment) -> Result<Self> {
        let names = deployment.plan.scaling.iter().flat_map(|scaling| &scaling.autoscalers);
        let (name, number) = names.zip(FIRST..).last().context("the plan has no autoscaler")?;
        Self::launch(deployment, name, number, &["--dry-run"])
    }

    fn launch(deployment: &Deployment, name: &str, number: u8, arguments: &[&str]) -> Result<Self> {
        let host = deployment.network.host_numbered(name, number)?;
        let launch = Launch::new(&host, name, binary("understudy-autoscaler")?).arguments(arguments);
        let process = deployment
            .give(launch, &format!("autoscaler.{SCALERS}.{name}"))
            .environment("UNDERSTUDY_CONFIG", deployment.config())
            .environment("UNDERSTUDY_NODE__NAME", name)
            .environment("UNDERSTUDY_NODE__GROUP", SCALERS)
            .environment("UNDERSTUDY_HTTP__LISTEN", format!("127.0.0.1:{PAGES}"))
            .environments(deployment.plan.environment_of(&host))
            .spawn()?;
        Ok(Self { process })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// Whether it is the one that acts.
    ///
    /// # Errors
    /// When it does not say.
    pub fn leads(&self) -> Result<bool> {
        Ok(self.metric("understudy_leading")? > 0.5)
    }

    /// A metric of it, with its labels as they are written.
    ///
    /// # Errors
    /// When it shows none of this name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let page = self.metrics()?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("{} shows no {name}", self.name()))?.parse().context("a number")
    }

    /// Its page of metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(fetch(self.process.host(), ([127, 0, 0, 1], PAGES).into(), "/metrics", PATIENCE)?.body)
    }
}
