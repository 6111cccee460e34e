//! The publisher's end.

use std::{
    fs, future, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use futures_util::{Stream, StreamExt as _};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use understudy_wire::{
    MAX_MESSAGE,
    v1::{ExecutorState, PublisherState},
};

use super::{EVENTS, peer, stream::LinkStream};
use crate::{
    accept::paced,
    grpc::node_link_server::{NodeLink, NodeLinkServer as Service},
    quiet::Quiet,
};

/// Owner and group may attach.
const MODE: u32 = 0o660;

/// Why the socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Something else lies where the socket belongs.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// Another publisher serves it. Two of one node would outbid each other's heartbeats.
    #[error("{0}: another publisher serves it")]
    InUse(PathBuf),
    /// A step on the file system failed.
    #[error("{step} {path}")]
    File {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// What the executor's end of the link did.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// An executor attached.
    Attached,
    /// Its state, as it sent it.
    State(Box<ExecutorState>),
    /// The socket is closed: the executor has ended, or left.
    Lost,
}

/// The socket of the executor that is attached.
type Attached = Option<Arc<UnixStream>>;

/// Serves `node.sock` until it is dropped; then the file is removed.
pub struct NodeLinkServer {
    state: watch::Sender<PublisherState>,
    attached: watch::Sender<Attached>,
    path: PathBuf,
    /// Of the file: device and inode.
    own: Option<(u64, u64)>,
    _stop: DropGuard,
}

impl Drop for NodeLinkServer {
    fn drop(&mut self) {
        // A file that somebody else has put there meanwhile is his.
        if self.own.is_some() && self.own == inode(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn listen(path: &Path) -> Result<UnixListener, LinkError> {
    let failed = |step| move |cause| LinkError::File { step, path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(LinkError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(LinkError::InUse(path.to_owned())),
            // Left behind by an earlier process: the kernel never removes it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("removing the old socket"))?;
            }
            Err(error) => return Err(failed("asking who serves")(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking at")(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("listening on"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed("setting the mode of"))?;
    Ok(listener)
}

impl NodeLinkServer {
    /// Listens on `path` for one executor at a time; what it does comes out of the receiver. An executor whose
    /// states are not read is slowed down, nothing is dropped: it sends only the newest. The socket answers the gRPC
    /// health protocol too.
    pub fn serve(path: &Path) -> Result<(Self, mpsc::Receiver<LinkEvent>), LinkError> {
        let listener = listen(path)?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let state = watch::Sender::new(PublisherState::default());
        let stop = CancellationToken::new();
        let attached = watch::Sender::new(None);
        let (state_too, attached_too) = (state.clone(), attached.clone());
        let attach = Attach { events, state: state_too, attached: attached_too, stop: stop.clone() };
        let service = Service::new(attach)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let (reporter, health) = tonic_health::server::health_reporter();
        let quiet = Quiet::default();
        let known = paced(UnixListenerStream::new(listener)).filter(move |accepted| {
            let refused = accepted.as_ref().ok().and_then(|stream| peer::check(stream).err());
            if let (Some(error), Some(before)) = (&refused, refused.as_ref().and_then(|_| quiet.pass())) {
                tracing::warn!(%error, before, "node.sock: caller refused");
            }
            future::ready(refused.is_none())
        });
        let known = known.map(|accepted| accepted.and_then(LinkStream::new));
        let serving = Server::builder()
            .add_service(health)
            .add_service(service)
            .serve_with_incoming_shutdown(known, stop.clone().cancelled_owned());
        tokio::spawn(async move {
            reporter.set_serving::<Service<Attach>>().await;
            if let Err(error) = serving.await {
                tracing::error!(%error, "node.sock: server ended");
            }
        });
        let own = inode(path);
        Ok((Self { state, attached, path: path.to_owned(), own, _stop: stop.drop_guard() }, receiver))
    }

    /// The socket of the executor that is attached, to wait for what it says.
    pub fn socket(&self) -> Option<Arc<UnixStream>> {
        self.attached.borrow().clone()
    }

    /// Sends the publisher's state; one that was not sent yet is replaced.
    pub fn send(&self, state: PublisherState) {
        self.state.send_replace(state);
    }
}

struct Attach {
    events: mpsc::Sender<LinkEvent>,
    state: watch::Sender<PublisherState>,
    attached: watch::Sender<Attached>,
    stop: CancellationToken,
}

/// Frees the place for the next executor.
struct Place(watch::Sender<Attached>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

#[tonic::async_trait]
impl NodeLink for Attach {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<PublisherState, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<ExecutorState>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let Some(socket) = request.extensions().get::<Arc<UnixStream>>() else {
            return Err(Status::internal("the request came over no socket"));
        };
        let took_place = self.attached.send_if_modified(|attached| {
            let free = attached.is_none();
            attached.get_or_insert_with(|| Arc::clone(socket));
            free
        });
        if !took_place {
            return Err(Status::already_exists("another executor is attached to this node"));
        }
        let place = Place(self.attached.clone());
        let (events, stop) = (self.events.clone(), self.stop.clone());
        let mut states = request.into_inner();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        tokio::spawn(async move {
            let reading = async {
                events.send(LinkEvent::Attached).await.ok()?;
                while let Ok(Some(state)) = states.message().await {
                    events.send(LinkEvent::State(Box::new(state))).await.ok()?;
                }
                Some(())
            };
            stop.run_until_cancelled(reading).await;
            // Lost comes before the next Attached: only then the place is free.
            let _ = events.send(LinkEvent::Lost).await;
            drop((place, end));
        });
        let answers = WatchStream::new(self.state.subscribe()).map(Ok).take_until(ended.cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }
}
