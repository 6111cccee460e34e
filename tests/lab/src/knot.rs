use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::dns::query;
use crate::net::Host;
use crate::process::{Launch, Process};
use crate::tools::tool;

/// The zone that the server holds.
pub const ZONE: &str = "ha.test.";
/// Name of the TSIG key that may update and transfer the zone.
pub const KEY_NAME: &str = "ha-key";
/// Algorithm of that key (RFC 8945, section 6).
pub const KEY_ALGORITHM: &str = "hmac-sha256";
/// Its secret, base64.
pub const KEY_SECRET: &str = "dW5kZXJzdHVkeS1sYWItdHNpZy1zZWNyZXQtMzJieXQ=";

const PORT: u16 = 53;
/// knotd is up within a second; a busy machine takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// One question.
const PATIENCE: Duration = Duration::from_millis(500);

/// A Knot DNS server with the dynamic zone [`ZONE`].
#[derive(Debug)]
pub struct Knot {
    process: Process,
}

impl Knot {
    /// Starts knotd in the host and waits until it answers for its zone.
    ///
    /// # Errors
    /// No knotd, or no answer within 15 s.
    pub fn start(host: &Host) -> Result<Self> {
        let folder = host.folder().join(format!("{}-knot", host.name()));
        let storage = folder.display();
        fs::create_dir_all(&folder).with_context(|| format!("making {storage}"))?;
        let file = folder.join("knot.conf");
        fs::write(&file, configuration(host, &storage.to_string()))
            .with_context(|| format!("writing {}", file.display()))?;
        fs::write(folder.join("ha.test.zone"), zone(host)).context("writing the zone file")?;
        let process = Launch::new(host, host.name(), tool("knotd")?)
            .arguments(["-c".as_ref(), file.as_os_str()])
            .spawn()?;
        let knot = Self { process };
        knot.wait_ready()?;
        Ok(knot)
    }

    fn wait_ready(&self) -> Result<()> {
        self.process
            .wait_ready(READY_DEADLINE, || self.records(ZONE, "SOA").is_ok_and(|records| !records.is_empty()))
    }

    /// The running server: kill it, stop it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Address that answers questions and takes updates, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.process.host().socket(PORT)
    }

    /// Records of a name (with the dot at its end) as text, sorted, asked on the server's own host: faults in
    /// the switch do not hide them.
    ///
    /// # Errors
    /// No answer, or an answer that is an error.
    pub fn records(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        query(self.process.host(), self.address(), name, kind, PATIENCE)
    }

    /// Starts it again after a kill (or kills it first); what was updated is still there.
    ///
    /// # Errors
    /// No answer within 15 s.
    pub fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.wait_ready()
    }
}

/// Updates are kept in the journal, so that they outlive a kill; the zone file is only where it began.
fn configuration(host: &Host, storage: &str) -> String {
    format!(
        "server:\n    rundir: \"{storage}\"\n    listen: [ {ipv4}@{PORT}, {ipv6}@{PORT} ]\n\
         \x20   udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stdout\n    any: info\n\
         database:\n    storage: \"{storage}\"\n\
         key:\n  - id: {KEY_NAME}\n    algorithm: {KEY_ALGORITHM}\n    secret: {KEY_SECRET}\n\
         acl:\n  - id: lab\n    key: {KEY_NAME}\n    action: [ update, transfer ]\n\
         zone:\n  - domain: {ZONE}\n    storage: \"{storage}\"\n    file: ha.test.zone\n    acl: lab\n\
         \x20   zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: changes\n",
        ipv4 = host.ipv4(),
        ipv6 = host.ipv6(),
    )
}

fn zone(host: &Host) -> String {
    format!(
        "$ORIGIN {ZONE}\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A {}\nns AAAA {}\n",
        host.ipv4(),
        host.ipv6()
    )
}
