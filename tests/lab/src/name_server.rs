//! Name servers with a dynamic zone, of two makes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
/// Either is up within a second; a busy machine takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// One question.
const PATIENCE: Duration = Duration::from_millis(500);

/// Which server software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Knot DNS.
    Knot,
    /// BIND 9.
    Bind,
}

/// The program of a name server and its arguments; it stays in the foreground and logs to its standard error.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Where it is installed.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

impl Software {
    /// Writes configuration and zone into `folder`, which is made where it is missing. The server will listen on these
    /// addresses, UDP and TCP, and hold [`ZONE`] with `records` (zone file lines) beside its own name `ns`. What is
    /// updated lies in journals in that folder and outlives a kill; the zone file is only where it began.
    ///
    /// # Errors
    /// When the program is not installed, or a file cannot be written.
    pub fn prepare(self, folder: &Path, listen: &[SocketAddr], records: &str) -> Result<Invocation> {
        // Knot refuses every update (SERVFAIL) when the folder of its databases is missing.
        let databases = folder.join("databases");
        fs::create_dir_all(&databases).with_context(|| format!("making {}", databases.display()))?;
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            anyhow::Ok(file)
        };
        write("zone", zone(listen, records))?;
        let (program, text, options) = match self {
            Self::Knot => ("knotd", knot(folder, listen), &["-c"][..]),
            Self::Bind => ("named", bind(folder, listen), &["-g", "-n", "1", "-c"][..]),
        };
        let configuration = write("configuration", text)?;
        let arguments = options.iter().map(OsString::from).chain([configuration.into()]).collect();
        Ok(Invocation { program: tool(program)?, arguments })
    }
}

fn zone(listen: &[SocketAddr], records: &str) -> String {
    let mut text = format!("$ORIGIN {ZONE}\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\n");
    for address in listen {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        let _ = writeln!(text, "ns {kind} {}", address.ip());
    }
    text + records + "\n"
}

fn knot(folder: &Path, listen: &[SocketAddr]) -> String {
    let listen: Vec<_> =
        listen.iter().map(|address| format!("{}@{}", address.ip(), address.port())).collect();
    format!(
        "server:\n    rundir: \"{folder}\"\n    listen: [ {listen} ]\n\
         \x20   udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stderr\n    server: info\n    zone: debug\n\
         database:\n    storage: \"{folder}/databases\"\n    journal-db-max-size: 16M\n\
         \x20   kasp-db-max-size: 8M\n    timer-db-max-size: 8M\n\
         key:\n  - id: {KEY_NAME}\n    algorithm: {KEY_ALGORITHM}\n    secret: {KEY_SECRET}\n\
         acl:\n  - id: lab\n    key: {KEY_NAME}\n    action: [ update, transfer ]\n\
         zone:\n  - domain: {ZONE}\n    storage: \"{folder}\"\n    file: zone\n    acl: lab\n\
         \x20   zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: changes\n",
        folder = folder.display(),
        listen = listen.join(", "),
    )
}

fn bind(folder: &Path, listen: &[SocketAddr]) -> String {
    let listen_on = |option: &str, ipv6: bool| -> String {
        let chosen = listen.iter().filter(|address| address.is_ipv6() == ipv6);
        let lines: Vec<_> = chosen
            .map(|address| format!("  {option} port {} {{ {}; }};\n", address.port(), address.ip()))
            .collect();
        if lines.is_empty() { format!("  {option} {{ none; }};\n") } else { lines.concat() }
    };
    format!(
        "options {{\n  directory \"{folder}\";\n  pid-file \"{folder}/pid\";\n  session-keyfile \"{folder}/session\";\n\
         {ipv4}{ipv6}  recursion no;\n  dnssec-validation no;\n}};\ncontrols {{ }};\n\
         key {KEY_NAME} {{ algorithm {KEY_ALGORITHM}; secret \"{KEY_SECRET}\"; }};\n\
         zone {ZONE} {{\n  type primary;\n  file \"zone\";\n  allow-transfer {{ key {KEY_NAME}; }};\n\
         \x20 update-policy {{ grant {KEY_NAME} zonesub ANY; }};\n}};\n",
        folder = folder.display(),
        ipv4 = listen_on("listen-on", false),
        ipv6 = listen_on("listen-on-v6", true),
    )
}

/// A name server with the dynamic zone [`ZONE`] that runs in a host.
#[derive(Debug)]
pub struct NameServer {
    process: Process,
}

impl NameServer {
    /// Starts it in the host and waits until it answers for its zone.
    ///
    /// # Errors
    /// When it is not installed, or gives no answer within 15 s.
    pub fn start(software: Software, host: &Host) -> Result<Self> {
        let folder = host.folder().join(format!("{}-data", host.name()));
        let listen = [host.socket(PORT), SocketAddr::new(host.ipv6().into(), PORT)];
        let Invocation { program, arguments } = software.prepare(&folder, &listen, "")?;
        let server = Self { process: Launch::new(host, host.name(), program).arguments(arguments).spawn()? };
        server.wait_ready()?;
        Ok(server)
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
