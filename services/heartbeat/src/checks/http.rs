//! `GET` over HTTP/1.1 answers with an expected status.
//!
//! A connection serves ten runs, since making one is what a run costs most for; then a new one is made, so that a server
//! that still serves its old connections but accepts no new ones shows. Only the head of the answer is waited for.

use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Empty;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::address::Target;
use super::failure::Failure;

/// Largest head of an answer; hyper accepts no smaller limit than 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// Runs over one connection. A server that accepts no more is found a second late at the usual ten runs a second.
const RUNS: u32 = 10;
/// Pieces of an answer that are taken in at once; a connection whose answer has more is not used again.
const PIECES: usize = 4;

const AGENT: &str = concat!("understudy-heartbeat/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) struct HttpProbe {
    target: Target,
    path: Uri,
    host: HeaderValue,
    expected: RangeInclusive<u16>,
    /// From the run before.
    open: Option<Box<Open<TcpStream>>>,
}

/// What is wrong with the settings of an HTTP check.
pub(super) enum HttpConfigError {
    Url,
    Host,
}

/// Where an `http://` URL leads, and what is asked there.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) target: Target,
    pub(crate) path: Uri,
    pub(crate) host: HeaderValue,
}

impl Page {
    /// `None` if it is not one that can be asked.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return None;
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return None,
        };
        let target = Target::parse(&format!("{}:{port}", authority.host()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // A query without a path: RFC 9112 section 3.2.1.
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{path}").parse().ok()?;
        Some(Self { target, path, host: HeaderValue::from_str(authority.as_str()).ok()? })
    }
}

impl HttpProbe {
    pub(super) fn new(
        url: &str,
        host: Option<&str>,
        expected: RangeInclusive<u16>,
    ) -> Result<Self, HttpConfigError> {
        let Page { target, path, host: own } = Page::parse(url).ok_or(HttpConfigError::Url)?;
        let host = host.map(HeaderValue::from_str).transpose().map_err(|_| HttpConfigError::Host)?;
        Ok(Self { target, path, host: host.unwrap_or(own), expected, open: None })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        // Taken: a run that is given up leaves none behind.
        if let Some(mut open) = self.open.take() {
            // The server may close it whenever it is idle, also while the question is on its way (RFC 9112 section 9.5).
            if let Ok(response) = open.ask(self.request(open.is_last())).await {
                return self.judge(open, response).await;
            }
        }
        let stream = self.target.connect().await?;
        let (open, response) = self.ask_over(stream).await?;
        self.judge(Box::new(open), response).await
    }

    /// The first run on a connection that is there.
    pub(super) async fn run_over<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<(), Failure> {
        let (_, response) = self.ask_over(stream).await?;
        self.verdict(&response)
    }

    async fn judge(
        &mut self,
        mut open: Box<Open<TcpStream>>,
        response: Response<Incoming>,
    ) -> Result<(), Failure> {
        let verdict = self.verdict(&response);
        // A server that is not well may be so on this connection alone.
        if verdict.is_ok() && open.has_answered(response.into_body()).await {
            self.open = Some(open);
        }
        verdict
    }

    fn verdict(&self, response: &Response<Incoming>) -> Result<(), Failure> {
        let status = response.status().as_u16();
        if self.expected.contains(&status) {
            Ok(())
        } else {
            Err(Failure::Status { status, expected: self.expected.clone() })
        }
    }

    async fn ask_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Open<S>, Response<Incoming>), Failure> {
        let asking = async {
            let mut open = Open::new(stream).await?;
            let response = open.ask(self.request(open.is_last())).await?;
            Ok((open, response))
        };
        asking.await.map_err(|cause: hyper::Error| Failure::step("asking", self.target.name(), cause))
    }

    fn request(&self, last: bool) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }
}

/// A connection. Driven by who asks, not in a task of its own: when the timeout drops a run, nothing is left behind.
#[derive(Debug)]
struct Open<S: AsyncRead + AsyncWrite> {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: http1::Connection<TokioIo<S>, Empty<Bytes>>,
    /// Runs that it is good for.
    left: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Open<S> {
    async fn new(stream: S) -> Result<Self, hyper::Error> {
        let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await?;
        Ok(Self { sender, connection, left: RUNS })
    }

    fn is_last(&self) -> bool {
        self.left <= 1
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        self.left = self.left.saturating_sub(1);
        let answer = self.sender.send_request(request);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            response = &mut answer => response,
            ended = &mut self.connection => {
                ended?;
                answer.await
            }
        }
    }

    /// Whether all of the answer has come by now and another question can be asked. It is not waited for.
    async fn has_answered(&mut self, mut body: Incoming) -> bool {
        self.left > 0 && poll_fn(|context| Poll::Ready(self.takes_in(context, &mut body))).await
    }

    fn takes_in(&mut self, context: &mut Context<'_>, body: &mut Incoming) -> bool {
        let mut ended = false;
        for _ in 0..PIECES {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Err(_))) => return false,
                Poll::Ready(None) => ended = true,
                Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
            }
            if Pin::new(&mut self.connection).poll(context).is_ready() {
                return false;
            }
            if ended {
                break;
            }
        }
        ended && self.sender.is_ready()
    }
}
