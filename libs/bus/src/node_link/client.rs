//! The executor's end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Endpoint};
use tower::service_fn;
use understudy_wire::{
    MAX_MESSAGE,
    v1::{ExecutorState, PublisherState},
};

use super::{EVENTS, peer, stream::LinkStream};
use crate::{
    causes::causes, grpc::node_link_client::NodeLinkClient as Client, jetstream::Task, quiet::Quiet,
};

/// Between two attempts; the socket is local, an attempt costs microseconds.
const PAUSE: Duration = Duration::from_millis(20);
/// The publisher answers at once; one that is stopped must not hold an attempt for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the publisher's end of the link did.
#[derive(Debug, Clone, PartialEq)]
pub enum PublisherEvent {
    /// The publisher took us.
    Attached,
    /// Its state.
    State(Box<PublisherState>),
    /// The socket is closed: the publisher has ended. Comes once per `Attached`.
    Lost,
    /// Another executor is attached; told once until that changes, we try on.
    Refused(String),
}

/// Stays attached to `node.sock` until it is dropped.
pub struct NodeLinkClient {
    _task: Task,
}

impl NodeLinkClient {
    /// Attaches, again after every loss. `state` is sent at once and at every change; only the newest counts.
    pub fn start(
        path: &Path,
        state: watch::Receiver<ExecutorState>,
    ) -> (Self, mpsc::Receiver<PublisherEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let link = Link { path: path.to_owned(), state, events };
        (Self { _task: Task(tokio::spawn(link.run()).abort_handle()) }, receiver)
    }
}

struct Link {
    path: PathBuf,
    state: watch::Receiver<ExecutorState>,
    events: mpsc::Sender<PublisherEvent>,
}

impl Link {
    async fn run(self) {
        let (quiet, mut refused) = (Quiet::default(), false);
        while !self.events.is_closed() {
            let Err(status) = self.once(&mut refused).await else { return };
            if status.code() == Code::AlreadyExists && !refused {
                refused = true;
                let _ = self.events.send(PublisherEvent::Refused(status.message().to_owned())).await;
            }
            if let Some(before) = quiet.pass() {
                let reason = status.message();
                tracing::info!(socket = %self.path.display(), reason, before, "not attached to the publisher");
            }
            sleep(PAUSE).await;
        }
    }

    /// One attachment, from the first byte to its end. `Ok`: nobody listens to us any more.
    async fn once(&self, refused: &mut bool) -> Result<(), Status> {
        let path = self.path.clone();
        let connect = service_fn(move |_| {
            let path = path.clone();
            async move {
                let stream = UnixStream::connect(path).await?;
                peer::check(&stream)?;
                LinkStream::new(stream).map(TokioIo::new)
            }
        });
        // The address is not used: the connector goes to the socket.
        let endpoint = Endpoint::from_static("http://node.sock");
        let connecting = endpoint.connect_with_connector(connect);
        let late = |_elapsed| Status::deadline_exceeded(format!("no answer within {ANSWER_TIMEOUT:?}"));
        let channel = timeout(ANSWER_TIMEOUT, connecting)
            .await
            .map_err(late)?
            .map_err(|error| Status::unavailable(causes(&error)))?;
        let mut client = Client::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        let states = WatchStream::new(self.state.clone()).take_until(ended.cancelled_owned());
        let mut answers = timeout(ANSWER_TIMEOUT, client.attach(states)).await.map_err(late)??.into_inner();

        *refused = false;
        if self.events.send(PublisherEvent::Attached).await.is_err() {
            return Ok(());
        }
        let end = loop {
            match answers.message().await {
                Ok(Some(state)) => {
                    if self.events.send(PublisherEvent::State(Box::new(state))).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => break Status::unavailable("the publisher closed the link"),
                Err(status) => break status,
            }
        };
        if self.events.send(PublisherEvent::Lost).await.is_err() {
            return Ok(());
        }
        Err(end)
    }
}
