//! Measures the way to the detectors before the first bid: a lease of less than four round trips would be lost to the
//! network alone (design section 4, timing relations).

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use understudy_bus::{Tls, direct};

/// Round trips per detector: their longest stands for the 99.9th percentile.
const SAMPLES: usize = 32;
/// For a connection and for one answer.
const LIMIT: Duration = Duration::from_secs(1);

/// The longest of [`SAMPLES`] round trips to the slowest of the detectors that answer; `None` when none does.
pub async fn measure(detectors: &[String], tls: Option<&Tls>) -> Option<Duration> {
    let mut longest = None;
    for detector in detectors {
        match sample(detector, tls).await {
            Some(found) => longest = longest.max(Some(found)),
            None => tracing::info!(detector, "the round trip to this detector cannot be measured"),
        }
    }
    longest
}

async fn sample(detector: &str, tls: Option<&Tls>) -> Option<Duration> {
    let endpoint = direct::endpoint(detector, tls).ok()?.connect_timeout(LIMIT).tcp_nodelay(true);
    let channel = timeout(LIMIT, endpoint.connect()).await.ok()?.ok()?;
    let mut client = HealthClient::new(channel);
    let mut longest = Duration::ZERO;
    for _ in 0..SAMPLES {
        let asked = Instant::now();
        let request = HealthCheckRequest { service: "understudy.v1.Direct".into() };
        timeout(LIMIT, client.check(request)).await.ok()?.ok()?;
        longest = longest.max(asked.elapsed());
    }
    Some(longest)
}
