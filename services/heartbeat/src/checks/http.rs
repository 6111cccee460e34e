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
use tokio::net::TcpStream;

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

impl HttpProbe {
    pub(super) fn new(
        url: &str,
        host: Option<&str>,
        expected: RangeInclusive<u16>,
    ) -> Result<Self, HttpConfigError> {
        let uri: Uri = url.parse().map_err(|_| HttpConfigError::Url)?;
        let authority = uri.authority().ok_or(HttpConfigError::Url)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(HttpConfigError::Url);
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(HttpConfigError::Url),
        };
        let address = format!("{}:{port}", authority.host());
        let target = Target::parse(&address).ok_or(HttpConfigError::Url)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|_| HttpConfigError::Url)?;
        let host = HeaderValue::from_str(host.unwrap_or(authority.as_str()));
        Ok(Self { target, path, host: host.map_err(|_| HttpConfigError::Host)?, expected })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let stream = self.target.connect().await?;
        let response =
            self.ask(stream).await.map_err(|cause| Failure::step("asking", self.target.name(), cause))?;
        let status = response.status().as_u16();
        if self.expected.contains(&status) {
            Ok(())
        } else {
            Err(Failure::Status { status, expected: self.expected.clone() })
        }
    }

    async fn ask(&self, stream: TcpStream) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
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
