//! Requests to the API server: each bounded, its failure told with verb, object and cause.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::ConfigExt as _,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use tokio::{sync::OnceCell, time::timeout};
use tower::{BoxError, ServiceBuilder};

/// Bytes of one answer: a page of pods, each with a specification as long as any is.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Characters that are kept of what the server says of a failure.
const MAX_REASON: usize = 512;
/// Longest that one request may take. The server ends a slow one only after a minute; half of what a call may take
/// leaves the other half for a second one.
const REQUEST: Duration = Duration::from_secs(10);
/// Times that a request is sent which the server has no room for. It names the pause itself.
const BUSY: u32 = 5;
/// Pause where it names none: what its fairness queues say.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub(super) struct Failure {
    /// Verb and object.
    what: String,
    why: String,
    status: Option<StatusCode>,
}

impl Failure {
    /// The object is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.status == Some(StatusCode::NOT_FOUND)
    }

    /// The object is another one than the request was made for.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == Some(StatusCode::CONFLICT)
    }
}

/// An answer before it is read.
struct Answer {
    status: StatusCode,
    pause: Option<Duration>,
    body: Vec<u8>,
}

/// The API server of one group's cluster.
pub(super) struct Api {
    /// Made when it is first needed: what a cluster hands to a pod may come later than the process.
    client: OnceCell<Client>,
    /// `None`: the service account of the pod that this runs in.
    kubeconfig: Option<PathBuf>,
    /// How long one call of the driver may take.
    limit: Duration,
}

impl Api {
    /// A server that is not asked yet.
    pub(super) fn new(kubeconfig: &str, limit: Duration) -> Self {
        let kubeconfig = (!kubeconfig.is_empty()).then(|| PathBuf::from(kubeconfig));
        Self { client: OnceCell::new(), kubeconfig, limit }
    }

    /// When a call that begins now is given up by its caller.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// Sends a request, again where the server has no room for it and there is time; what it answers with. `what` is
    /// verb and object, for errors.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        deadline: Instant,
        what: &str,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Failure> {
        let failed = |why: String| Failure { what: what.to_owned(), why, status: None };
        let request = request.map_err(|error| failed(error.to_string()))?;
        for sent in 1.. {
            let patience = REQUEST.min(self.limit / 2);
            let answer = timeout(patience, self.once(request.clone())).await;
            let answer = answer.map_err(|_elapsed| failed(format!("no answer within {patience:?}")))?;
            let Answer { status, pause, body } = answer.map_err(|error| failed(cause(&*error)))?;
            if status.is_success() {
                return serde_json::from_slice(&body)
                    .map_err(|error| failed(format!("the answer cannot be read: {error}")));
            }
            let mut why = format!("{status}{}", said(&body));
            if status == StatusCode::TOO_MANY_REQUESTS {
                let pause = pause.unwrap_or(PAUSE);
                if sent < BUSY && Instant::now() + pause < deadline {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                why = format!("{why}; sent {sent} times, the server wants a pause of {} s", pause.as_secs());
            }
            return Err(Failure { status: Some(status), ..failed(why) });
        }
        unreachable!("it ends by what is answered")
    }

    async fn once(&self, request: Request<Vec<u8>>) -> Result<Answer, BoxError> {
        let client = self.client.get_or_try_init(|| self.connect()).await?;
        let response = client.send(request.map(Into::into)).await?;
        let (status, pause) = (response.status(), pause(response.headers()));
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        Ok(Answer { status, pause, body: body.to_vec() })
    }

    /// The layers of kube without those that repeat requests and log: both are done here.
    async fn connect(&self) -> Result<Client, BoxError> {
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            None => Config::incluster()?,
        };
        let connector = config.rustls_https_connector()?;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
        Ok(Client::new(service, config.default_namespace))
    }
}

/// Seconds of `Retry-After`; the server never names a date.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `: reason` of a `Status`, else of a text; or nothing.
fn said(body: &[u8]) -> String {
    let status = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = status.as_ref().and_then(|status| status["message"].as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    if text.is_empty() { text } else { format!(": {}", super::short(&text, MAX_REASON)) }
}

/// The innermost of nested errors: those of HTTP libraries repeat it in other words.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
