use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::net::Host;

/// Longest answer that is read: monitoring pages are some kilobytes.
const LONGEST_RESPONSE: u64 = 1 << 20;

/// Answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// `GET http://address/path` as seen from `host`. Each network step may take `patience`.
///
/// # Errors
/// Naming address and step: refused, timed out, not HTTP.
pub fn fetch(host: &Host, address: SocketAddr, path: &str, patience: Duration) -> Result<Response> {
    host.enter(|| request(address, path, patience))?
        .with_context(|| format!("asking http://{address}{path} from {}", host.name()))
}

/// As [`fetch`], from where the calling thread is.
pub(crate) fn request(address: SocketAddr, path: &str, patience: Duration) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, patience).context("connecting")?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0: the answer comes whole and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("sending")?;
    let mut bytes = Vec::new();
    stream.take(LONGEST_RESPONSE).read_to_end(&mut bytes).context("reading")?;
    parse(&String::from_utf8_lossy(&bytes)).context("answer is not HTTP")
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, body: body.to_owned() })
}
