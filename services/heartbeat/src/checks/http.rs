//! `GET` over HTTP/1.1 answers with an expected status.
//!
//! A new connection for every run, so that a server that still serves its old connections but accepts no new
//! ones shows. Only the head of the answer is read.

use std::ops::RangeInclusive;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::address::Target;
use super::failure::Failure;

/// Largest head of an answer; hyper accepts no smaller limit than 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

const AGENT: &str = concat!("understudy-heartbeat/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) struct HttpProbe {
    target: Target,
    path: Uri,
    host: HeaderValue,
    expected: RangeInclusive<u16>,
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
        Ok(Self { target, path, host: host.unwrap_or(own), expected })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let stream = self.target.connect().await?;
        self.run_over(stream).await
    }

    /// The run on a connection that is there.
    pub(super) async fn run_over<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<(), Failure> {
        let response =
            self.ask(stream).await.map_err(|cause| Failure::step("asking", self.target.name(), cause))?;
        let status = response.status().as_u16();
        if self.expected.contains(&status) {
            Ok(())
        } else {
            Err(Failure::Status { status, expected: self.expected.clone() })
        }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        let answer = sender.send_request(self.request());
        tokio::pin!(answer, connection);
        // Driven here, not in a task of its own: when the timeout drops this, nothing is left behind.
        tokio::select! {
            biased;
            response = &mut answer => response,
            ended = &mut connection => {
                ended?;
                answer.await
            }
        }
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        request
    }
}
