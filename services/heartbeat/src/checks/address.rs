//! Where a check connects to.

use std::net::{SocketAddr, ToSocketAddrs};

use tokio::net::TcpStream;

use crate::blocking::Blocking;

use super::failure::Failure;

/// A host and a port, looked up anew for every connection unless the host is an address already.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    literal: Option<SocketAddr>,
    lookup: Blocking<std::io::Result<Vec<SocketAddr>>>,
}

impl Target {
    /// From `host:port`; `None` if it is not that.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        let literal = address.parse().ok();
        if literal.is_none() {
            let (host, port) = address.rsplit_once(':')?;
            port.parse::<u16>().ok()?;
            if host.is_empty() || host.contains([':', '/', ' ']) {
                return None;
            }
        }
        Some(Self { name: address.to_owned(), literal, lookup: Blocking::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Connects to the first of its addresses that accepts.
    pub(crate) async fn connect(&mut self) -> Result<TcpStream, Failure> {
        let addresses = self.resolve().await?;
        TcpStream::connect(&addresses[..])
            .await
            .map_err(|cause| Failure::step("connecting to", &self.name, cause))
    }

    async fn resolve(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if let Some(address) = self.literal {
            return Ok(vec![address]);
        }
        let name = self.name.clone();
        let found = self.lookup.run(move || name.to_socket_addrs().map(Iterator::collect)).await;
        let addresses: Vec<_> = found
            .map_err(|cause| Failure::step("looking up", &self.name, cause))?
            .map_err(|cause| Failure::step("looking up", &self.name, cause))?;
        if addresses.is_empty() {
            return Err(Failure::NoAddress { host: self.name.clone() });
        }
        Ok(addresses)
    }
}
