//! JetStream streams that are there when they are needed, on as many servers as can be had.

use std::{
    error::Error as StdError,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self, Context, ErrorCode,
    context::{ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind},
    stream::Config,
};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{Nats, NatsState, backoff::Backoff, quiet::Quiet};

/// One question to JetStream. An election takes up to 9 s, so a caller asks again rather than wait.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(2);
/// Copies wanted where the cluster has three servers: survives one.
const REPLICAS: usize = 3;
/// While a cluster elects its leaders it answers with errors of many kinds, for 4 to 9 s (design section 2). A stream that
/// cannot be had for longer lacks something that a person must give: storage, mostly.
const ELECTION: Duration = Duration::from_secs(10);
/// Pause between attempts to create a stream or to raise its number of copies.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream in good order is looked at again after this, in case somebody deleted it.
const RECHECK: Duration = Duration::from_secs(60);

/// A step on JetStream that failed.
#[derive(Debug, thiserror::Error)]
#[error("JetStream: {step}")]
pub struct JetStreamError {
    /// What was being done, to what.
    step: String,
    #[source]
    cause: Box<dyn StdError + Send + Sync>,
}

impl JetStreamError {
    pub(crate) fn new(step: impl Into<String>, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { step: step.into(), cause: cause.into() }
    }
}

/// Runs one step with a deadline, also where the client itself would wait for a server.
pub(crate) async fn within<T, E: Into<Box<dyn StdError + Send + Sync>>>(
    limit: Duration,
    step: impl Fn() -> String,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, JetStreamError> {
    match timeout(limit, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(JetStreamError::new(step(), error)),
        Err(_elapsed) => Err(JetStreamError::new(step(), format!("no answer within {limit:?}"))),
    }
}

/// A context whose questions and acknowledgements have a deadline.
pub(crate) fn context(nats: &Nats) -> Context {
    ContextBuilder::new().timeout(API_TIMEOUT).ack_timeout(API_TIMEOUT).build(nats.client().clone())
}

/// Copies to ask for.
pub(crate) fn replicas(nats: &Nats) -> usize {
    if nats.servers() >= REPLICAS { REPLICAS } else { 1 }
}

/// Finds or creates the stream; the number of copies it has now. Where the servers cannot hold as many copies as
/// wanted the stream is created with one: events and ceilings must not wait for a third server.
async fn ensure(context: &Context, wanted: &Config) -> Result<usize, JetStreamError> {
    let name = &wanted.name;
    match context.get_stream(name).await {
        Ok(stream) => {
            let found = &stream.cached_info().config;
            if found.num_replicas >= wanted.num_replicas {
                return Ok(found.num_replicas);
            }
            let raised = Config { num_replicas: wanted.num_replicas, ..found.clone() };
            match context.update_stream(raised).await {
                Ok(info) => Ok(info.config.num_replicas),
                Err(error) => {
                    tracing::debug!(stream = name, %error, "copies not raised yet");
                    Ok(found.num_replicas)
                }
            }
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                create(context, wanted).await
            }
            _ => Err(JetStreamError::new(format!("looking for stream {name}"), error)),
        },
    }
}

async fn create(context: &Context, wanted: &Config) -> Result<usize, JetStreamError> {
    const TOO_FEW: [ErrorCode; 3] = [
        ErrorCode::CLUSTER_NO_PEERS,
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        ErrorCode::INSUFFICIENT_RESOURCES,
    ];
    let failed = |error| JetStreamError::new(format!("creating stream {}", wanted.name), error);
    let error = match context.create_stream(wanted.clone()).await {
        Ok(stream) => return Ok(stream.cached_info().config.num_replicas),
        Err(error) => error,
    };
    match error.kind() {
        CreateStreamErrorKind::JetStream(cause)
            if wanted.num_replicas > 1 && TOO_FEW.contains(&cause.error_code()) =>
        {
            let one = Config { num_replicas: 1, ..wanted.clone() };
            let stream = context.create_stream(one).await.map_err(failed)?;
            Ok(stream.cached_info().config.num_replicas)
        }
        _ => Err(failed(error)),
    }
}

/// Ends its task when dropped.
#[derive(Debug)]
pub(crate) struct Task(pub(crate) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps the stream there with as many copies as wanted, for as long as the returned task lives.
pub(crate) fn keep(nats: &Nats, wanted: Config) -> Task {
    Task(tokio::spawn(run(nats.clone(), wanted)).abort_handle())
}

async fn run(nats: Nats, wanted: Config) {
    let (context, name) = (context(&nats), wanted.name.clone());
    let mut state = nats.state();
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    let (mut had, mut missing_since, quiet) = (0, None, Quiet::default());
    loop {
        if state.wait_for(|state| *state == NatsState::Connected).await.is_err() {
            return;
        }
        match timeout(API_TIMEOUT * 2, ensure(&context, &wanted)).await {
            Ok(Ok(replicas)) => {
                missing_since = None;
                if replicas != had {
                    tracing::info!(stream = name, replicas, wanted = wanted.num_replicas, "stream is there");
                    had = replicas;
                    backoff.reset();
                }
                if replicas >= wanted.num_replicas {
                    let _ = timeout(RECHECK, state.wait_for(|state| *state == NatsState::Disconnected)).await;
                    continue;
                }
            }
            Ok(Err(error)) => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= ELECTION && quiet.pass().is_some() {
                    tracing::warn!(
                        stream = name,
                        error = &error as &dyn StdError,
                        "stream is still not there"
                    );
                }
                tracing::debug!(stream = name, error = &error as &dyn StdError, "stream not there yet");
            }
            Err(_elapsed) => tracing::debug!(stream = name, "stream not there yet: no answer"),
        }
        sleep(backoff.pause()).await;
    }
}

/// Stream configuration with what every stream here has in common.
pub(crate) fn stream(name: String, subjects: Vec<String>, num_replicas: usize) -> Config {
    Config {
        name,
        subjects,
        num_replicas,
        storage: jetstream::stream::StorageType::File,
        ..Config::default()
    }
}
