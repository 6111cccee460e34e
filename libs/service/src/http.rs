//! `/metrics`, `/healthz` and `/readyz`.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, metrics::counter::Counter, registry::Registry};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use understudy_bus::{
    quiet::Quiet,
    tls::{Accepted, TlsStream},
};
use understudy_wire::BootTime;

pub use crate::places::PLACES;
use crate::{
    access::{Door, Tokens},
    clock, exposition,
    places::Bounded,
};

/// A main loop that did not tick for so long hangs: fifty of the default intervals, far beyond what scheduling does.
pub const TICK_LIMIT: Duration = Duration::from_secs(5);

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
    began: AtomicBool,
    limit: Duration,
    ready: RwLock<(bool, String)>,
    limits: RwLock<Vec<String>>,
}

impl Health {
    /// Alive now, not ready; `limit` is how long the main loop may take between two ticks.
    pub fn new(limit: Duration) -> Self {
        let ready = RwLock::new((false, "starting".to_owned()));
        let limits = RwLock::default();
        let (tick, began) = (AtomicU64::new(clock::now().0), AtomicBool::new(false));
        Self(Arc::new(Inner { tick, began, limit, ready, limits }))
    }

    /// The main loop came round.
    pub fn tick(&self) {
        self.0.tick.store(clock::now().0, Ordering::Relaxed);
        self.0.began.store(true, Ordering::Relaxed);
    }

    /// Whether the main loop has come round at all. Before that the service starts, which takes as long as the network
    /// makes it, and ends with its reason where that is hopeless.
    pub fn began(&self) -> bool {
        self.0.began.load(Ordering::Relaxed)
    }

    /// Whether the service does its work, and why (not).
    pub fn ready(&self, ready: bool, reason: impl Into<String>) {
        *self.0.ready.write().unwrap_or_else(PoisonError::into_inner) = (ready, reason.into());
    }

    /// What the service has to do without for as long as it runs: shown beside its readiness, which it does not end.
    pub fn limited(&self, by: impl Into<String>) {
        self.0.limits.write().unwrap_or_else(PoisonError::into_inner).push(by.into());
    }

    /// All that was told to [`Health::limited`].
    pub fn limits(&self) -> Vec<String> {
        self.0.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
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
    door: Door,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<SocketAddr, ListenError> {
    let refused = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let refused = Refused::new(&metrics);
    let router = Router::new()
        .route("/metrics", get(metrics_page).with_state(metrics))
        .route("/healthz", get(live_page).with_state(health.clone()))
        .route("/readyz", get(ready_page).with_state(health));
    tokio::spawn(async move {
        let serving = async {
            match door {
                Door::Open => axum::serve(Bounded::new(listener), router).await,
                Door::Guarded(tls, tokens) => {
                    let strangers = refused.clone();
                    let accepted = tls.accept_any(listener, move |peer, error| {
                        strangers.count(&format_args!("{peer}: {error}"));
                    });
                    let guard = Arc::new(Guard { tokens, refused });
                    let router = router.layer(middleware::from_fn_with_state(guard, admit));
                    axum::serve(Bounded::new(Encrypted { accepted, bound }), router).await
                }
            }
        };
        // Not graceful: a scraper that keeps its connection open must not hold up the end.
        if let Some(Err(error)) = shutdown.run_until_cancelled(serving).await {
            tracing::error!(%error, "http server ended");
        }
    });
    tracing::info!(address = %bound, "serving /metrics, /healthz and /readyz");
    Ok(bound)
}

/// Callers that were not let in.
#[derive(Clone)]
struct Refused {
    counter: Counter,
    quiet: Arc<Quiet>,
}

impl Refused {
    fn new(metrics: &Metrics) -> Self {
        let counter = Counter::default();
        let count = counter.clone();
        metrics.register(|registry| registry.register("http_refused", "Callers of the pages refused", count));
        Self { counter, quiet: Arc::default() }
    }

    fn count(&self, why: &dyn std::fmt::Display) {
        self.counter.inc();
        if let Some(before) = self.quiet.pass() {
            tracing::warn!(before, "pages: caller refused: {why}");
        }
    }
}

/// Who may read the pages.
struct Guard {
    tokens: Tokens,
    refused: Refused,
}

/// Lets bearers of a token pass, whatever their role: the pages only show.
async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if guard.tokens.role(shown).is_some() {
        return next.run(request).await;
    }
    guard.refused.count(&"no valid token");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a token is needed\n").into_response()
}

/// Connections with TLS, for the server.
struct Encrypted {
    accepted: Accepted,
    bound: SocketAddr,
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.next().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.bound)
    }
}

/// In OpenMetrics for who asks for it, else in the older text format.
async fn metrics_page(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.any(exposition::takes_open_metrics);
    match metrics.text() {
        Ok(text) if open => ([(header::CONTENT_TYPE, exposition::OPEN_METRICS)], text).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, exposition::TEXT)], exposition::text(&text)).into_response(),
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
    let limits: String = health.limits().iter().map(|limit| format!("limited: {limit}\n")).collect();
    (status, format!("{reason}\n{limits}"))
}
