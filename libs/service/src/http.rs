//! `/metrics`, `/healthz` and `/readyz`.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;
use understudy_wire::BootTime;

use crate::clock;

/// A main loop that did not tick for so long hangs: fifty of the default intervals, far beyond what scheduling does.
pub const TICK_LIMIT: Duration = Duration::from_secs(5);

/// Media type of OpenMetrics text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a service; every name begins with `understudy_`.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("understudy"))))
    }
}

impl Metrics {
    /// Registers metrics; at start, since it waits for a page that is being written.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// How the service is: its main loop ticks, and it says whether it is ready.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tick: AtomicU64,
    limit: Duration,
    ready: RwLock<(bool, String)>,
}

impl Health {
    /// Alive now, not ready; `limit` is how long the main loop may take between two ticks.
    pub fn new(limit: Duration) -> Self {
        let ready = RwLock::new((false, "starting".to_owned()));
        Self(Arc::new(Inner { tick: AtomicU64::new(clock::now().0), limit, ready }))
    }

    /// The main loop came round.
    pub fn tick(&self) {
        self.0.tick.store(clock::now().0, Ordering::Relaxed);
    }

    /// Whether the service does its work, and why (not).
    pub fn ready(&self, ready: bool, reason: impl Into<String>) {
        *self.0.ready.write().unwrap_or_else(PoisonError::into_inner) = (ready, reason.into());
    }

    /// Readiness and its reason as last told.
    pub fn readiness(&self) -> (bool, String) {
        self.0.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `Err` with the time since the last tick when the main loop hangs.
    pub fn live(&self) -> Result<(), Duration> {
        let silent = clock::now().since(BootTime(self.0.tick.load(Ordering::Relaxed)));
        if silent <= self.0.limit { Ok(()) } else { Err(silent) }
    }
}

/// The pages could not be served.
#[derive(Debug, thiserror::Error)]
#[error("listening on http.listen = {address}")]
pub struct ListenError {
    /// What was configured.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Serves the pages on `address` until `shutdown`; returns the address that is bound (of interest with port 0).
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<SocketAddr, ListenError> {
    let refused = |source| ListenError { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let router = Router::new()
        .route("/metrics", get(metrics_page).with_state(metrics))
        .route("/healthz", get(live_page).with_state(health.clone()))
        .route("/readyz", get(ready_page).with_state(health));
    tokio::spawn(async move {
        // Not graceful: a scraper that keeps its connection open must not hold up the end.
        tokio::select! {
            result = axum::serve(listener, router) => {
                if let Err(error) = result {
                    tracing::error!(%error, "http server ended");
                }
            }
            () = shutdown.cancelled() => {}
        }
    });
    tracing::info!(address = %bound, "serving /metrics, /healthz and /readyz");
    Ok(bound)
}

async fn metrics_page(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n").into_response(),
    }
}

async fn live_page(State(health): State<Health>) -> (StatusCode, String) {
    match health.live() {
        Ok(()) => (StatusCode::OK, "live\n".into()),
        Err(silent) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("main loop silent for {} ms\n", silent.as_millis()))
        }
    }
}

async fn ready_page(State(health): State<Health>) -> (StatusCode, String) {
    let (ready, reason) = health.readiness();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{reason}\n"))
}
