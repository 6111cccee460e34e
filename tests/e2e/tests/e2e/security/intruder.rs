//! What somebody with a credential, a wrong one or none can do: real clients on the client's host.

use std::{net::SocketAddr, path::PathBuf, sync::mpsc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{ConnectOptions, Event};
use futures_util::{StreamExt as _, stream};
use nkeys::KeyPair;
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use understudy_bus::{Tls, direct, grpc::direct_client::DirectClient, permissions::inbox};
use understudy_e2e::SOON;
use understudy_lab::{CLIENT_PORT, Host};
use understudy_wire::v1::{self, node_message};

/// One connection attempt and one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A reader of the history, as whoever may look may have one.
const CREATE_READER: &str = "$JS.API.CONSUMER.CREATE.EVENTS_lab.thief.understudy.lab.event.>";
const READER: &str = r#"{"stream_name":"EVENTS_lab","config":{"name":"thief","filter_subject":"understudy.lab.event.>",
    "ack_policy":"none","deliver_policy":"all","replay_policy":"instant"}}"#;
/// Asks it for the next event; it goes where the answer is wanted.
const NEXT_OF_READER: &str = "$JS.API.CONSUMER.MSG.NEXT.EVENTS_lab.thief";

/// How somebody comes to a NATS server.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    /// Seed of an nkey.
    pub(crate) seed: Option<String>,
    /// User and password.
    pub(crate) login: Option<(String, String)>,
    /// Authority that is trusted.
    pub(crate) ca: Option<PathBuf>,
}

/// What is done on NATS.
pub(crate) enum Act {
    /// Nothing but to connect.
    Connect,
    /// A message.
    Publish(String, Vec<u8>),
    /// A subscription.
    Subscribe(String),
    /// One of a queue group, which takes messages away from the others.
    Join(String, &'static str),
    /// A question whose answer is to go to another subject.
    Redirect(String, String),
    /// History is read, and is to come to another subject.
    Deliver(String),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection was refused.
    Out(String),
    /// The server refused the act.
    Refused(String),
    /// The server took it.
    Taken,
}

/// Runs `work` on the network of `host`.
pub(crate) fn on<R: Send>(host: &Host, work: impl AsyncFnOnce() -> Result<R> + Send) -> Result<R> {
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })?
}

/// Does `act` as `caller`. A server tells a refusal and nothing else, so a refusal is waited for where `refused` says that
/// one must come.
pub(crate) fn nats(host: &Host, server: &Host, caller: &Caller, act: &Act, refused: bool) -> Result<Outcome> {
    let url = format!("nats://{}", server.socket(CLIENT_PORT));
    on(host, async || {
        // Only the first error is asked for: it says what became of the act.
        let (told, mut errors) = tokio::sync::mpsc::channel(1);
        let options = options(caller).event_callback(move |event| {
            if let Event::ServerError(error) = event {
                // A second one has no room, and nobody listens any more when the attempt is over.
                drop(told.try_send(error.to_string()));
            }
            async {}
        });
        let client = match options.connect(&url).await {
            Ok(client) => client,
            Err(error) => return Ok(Outcome::Out(format!("{:#}", anyhow::Error::new(error)))),
        };
        match act {
            Act::Connect => {}
            Act::Publish(subject, payload) => client.publish(subject.clone(), payload.clone().into()).await?,
            Act::Subscribe(subject) => drop(client.subscribe(subject.clone()).await?),
            Act::Join(subject, group) => {
                drop(client.queue_subscribe(subject.clone(), (*group).to_owned()).await?);
            }
            Act::Redirect(subject, to) => {
                client.publish_with_reply(subject.clone(), to.clone(), Vec::new().into()).await?;
            }
            Act::Deliver(to) => {
                let answer = client.request(CREATE_READER, READER.into()).await?;
                let answer = String::from_utf8_lossy(&answer.payload).into_owned();
                ensure!(answer.contains("\"name\":\"thief\""), "no reader was made: {answer}");
                client.publish_with_reply(NEXT_OF_READER, to.clone(), Vec::new().into()).await?;
            }
        }
        client.flush().await?;
        let patience = if refused { PATIENCE } else { Duration::ZERO };
        Ok(match tokio::time::timeout(patience, errors.recv()).await {
            Ok(Some(error)) => Outcome::Refused(error),
            _ => Outcome::Taken,
        })
    })
}

fn options(caller: &Caller) -> ConnectOptions {
    let mut options = ConnectOptions::new().connection_timeout(PATIENCE).require_tls(true);
    if let Some(ca) = &caller.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((user, password)) = &caller.login {
        options = options.user_and_password(user.clone(), password.clone());
    }
    match &caller.seed {
        Some(seed) => {
            let key = KeyPair::from_seed(seed).expect("a seed that was made by the program").public_key();
            options.custom_inbox_prefix(inbox(&key)).nkey(seed.clone())
        }
        None => options,
    }
}

/// Listens on `subject` as `caller`, calls `act`, and returns the first message that comes.
pub(crate) fn overhear(
    host: &Host,
    server: &Host,
    caller: &Caller,
    subject: &str,
    act: impl FnOnce() -> Result<()>,
) -> Result<Vec<u8>> {
    let (url, caller, subject) =
        (format!("nats://{}", server.socket(CLIENT_PORT)), caller.clone(), subject.to_owned());
    let (ready, listening) = mpsc::sync_channel(1);
    let (found, message) = mpsc::sync_channel(1);
    let listener = host.thread("listener", move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = options(&caller).connect(&url).await?;
            let mut messages = client.subscribe(subject).await?;
            client.flush().await?;
            ready.send(())?;
            let message = tokio::time::timeout(SOON, messages.next()).await?.context("the client ended")?;
            Ok(found.send(message.payload.to_vec())?)
        })
    })?;
    listening.recv_timeout(SOON).context("listening")?;
    act()?;
    let message = message.recv_timeout(SOON).context("nothing was overheard");
    match listener.join() {
        Ok(result) => result?,
        Err(_panic) => bail!("the listener panicked"),
    }
    message
}

/// Opens a direct stream to `detector`, says `messages` and waits until they are read; the refusal, if there is one.
pub(crate) fn direct(
    host: &Host,
    detector: SocketAddr,
    tls: Option<&Tls>,
    messages: Vec<node_message::Message>,
) -> Result<Result<(), Status>> {
    let endpoint = direct::endpoint(&detector.to_string(), tls)?;
    on(host, async || Ok(say(endpoint, messages).await))
}

/// As [`direct`], without a certificate of our own: only the detector shows one.
pub(crate) fn direct_unknown(
    host: &Host,
    detector: SocketAddr,
    ca: &str,
    messages: Vec<node_message::Message>,
) -> Result<Result<(), Status>> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("detector.understudy.internal");
    let endpoint = Endpoint::from_shared(format!("https://{detector}"))?.tls_config(tls)?;
    on(host, async || Ok(say(endpoint, messages).await))
}

async fn say(endpoint: Endpoint, messages: Vec<node_message::Message>) -> Result<(), Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let channel = endpoint.connect_timeout(PATIENCE).connect().await.map_err(unavailable)?;
    let messages = messages.into_iter().map(|message| v1::NodeMessage { message: Some(message) });
    // The stream ends after the last message, and the detector's end of it once that has been read.
    let answer = DirectClient::new(channel).exchange(stream::iter(messages.collect::<Vec<_>>())).await?;
    let mut answers = answer.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}
