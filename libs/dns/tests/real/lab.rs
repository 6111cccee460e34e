//! Real name servers on loopback addresses of their own, an independent reader (`kdig`), and a forwarder that loses
//! or holds datagrams.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use understudy_dns::{Algorithm, Desired, Family, TsigKey, Zone, resolve};

/// Longest wait for a state that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const NAME: &str = "web.ha.test.";
const SECRET: &str = "dW5kZXJzdHVkeS10ZXN0LXNlY3JldC0wMTIzNDU2Nzg=";
const PORT: u16 = 5300;

/// Which server software.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Software {
    Knot,
    Bind,
}

/// A name server with zone `ha.test.`, on its own loopback address. Ends when dropped, also on panic.
pub(crate) struct Server {
    software: Software,
    folder: TempDir,
    pub(crate) address: SocketAddr,
    process: Option<Child>,
}

impl Server {
    /// Makes folder, configuration and zone, without starting it.
    pub(crate) fn prepared(software: Software, records: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("usdns").tempdir().unwrap();
        let address = match software {
            Software::Knot => SocketAddr::from((own_address(), PORT)),
            Software::Bind => own_port(),
        };
        let path = folder.path();
        // Knot refuses every update (SERVFAIL) when its database folder is missing.
        std::fs::create_dir(path.join("db")).unwrap();
        let soa = "@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n";
        let zone = format!("$ORIGIN ha.test.\n$TTL 5\n{soa}{records}\n");
        std::fs::write(path.join("zone"), zone).unwrap();
        let config = match software {
            Software::Knot => knot_config(path, address),
            Software::Bind => bind_config(path, address),
        };
        std::fs::write(path.join("config"), config).unwrap();
        Self { software, folder, address, process: None }
    }

    /// Prepares, starts, and waits until it answers.
    pub(crate) async fn running(software: Software, records: &str) -> Self {
        let mut server = Self::prepared(software, records);
        server.start().await;
        server
    }

    pub(crate) async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// Starts it with more environment, such as what shifts its clock, and waits until it answers.
    pub(crate) async fn start_with(&mut self, environment: &[(&str, &str)]) {
        let config = self.folder.path().join("config");
        let config = config.to_str().unwrap();
        let words: &[&str] = match self.software {
            Software::Knot => &["knotd", "-c", config],
            Software::Bind => &["named", "-g", "-c", config],
        };
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.envs(environment.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("the name server must be installed"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let limit = Duration::from_millis(100);
            if let Ok(found) = resolve(self.address, "ns.ha.test.", Family::Ipv4, limit).await
                && !found.is_empty()
            {
                return;
            }
            assert!(Instant::now() < deadline, "no answer from {:?}: {}", self.software, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Throws away what it has learned since it was prepared, as a restore from an old backup would.
    pub(crate) fn forget(&mut self) {
        self.stop();
        let fresh = Self::prepared(self.software, "");
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
            } else if path.file_name().is_some_and(|name| name != "config") {
                std::fs::remove_file(&path).unwrap();
            }
        }
        std::fs::copy(fresh.folder.path().join("zone"), self.folder.path().join("zone")).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The zone to update it as, with the key it knows.
    pub(crate) fn zone(&self) -> Zone {
        zone(&[self.address])
    }

    /// What an independent reader sees, sorted.
    pub(crate) fn dig(&self, name: &str, record_type: &str) -> Vec<String> {
        let port = self.address.port().to_string();
        let server = format!("@{}", self.address.ip());
        let arguments = [&server, "-p", &port, "+short", "+norec", name, record_type];
        let output = Command::new("kdig").args(arguments).output().expect("kdig must be installed");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// A change by somebody else, signed, with Knot's own client; whether the server took it.
    pub(crate) fn change_by_hand(&self, line: &str) -> bool {
        let (ip, port) = (self.address.ip(), self.address.port());
        let script = format!("server {ip} {port}\nzone ha.test.\n{line}\nsend\nquit\n");
        let mut client = Command::new("knsupdate")
            .args(["-y", &format!("hmac-sha256:ha-key:{SECRET}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("knsupdate must be installed");
        client.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        client.wait().unwrap().success()
    }

    pub(crate) fn serial(&self) -> u32 {
        self.dig("ha.test.", "SOA")[0].split(' ').nth(2).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A loopback address that no other test uses: by process and by count.
pub(crate) fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let count = u8::try_from(COUNT.fetch_add(1, Ordering::Relaxed)).expect("fewer than 256 servers");
    Ipv4Addr::new(127, 64 + (high & 0x3f), low, count)
}

/// A port of 127.0.0.1 that no other test uses: BIND listens on addresses of interfaces alone, and the rest of
/// 127.0.0.0/8 is none.
fn own_port() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id() % 200 * 100 + COUNT.fetch_add(1, Ordering::Relaxed) % 100;
        // Below the ports that the kernel hands out.
        let port = u16::try_from(10_000 + offset).expect("below 30,000");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn knot_config(path: &Path, address: SocketAddr) -> String {
    let path = path.display();
    format!(
        "server:\n    rundir: {path}\n    listen: {ip}@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    \
             background-workers: 1\n\
         control:\n    listen: {path}/control\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n    storage: {path}/db\n    journal-db-max-size: 16M\n    kasp-db-max-size: 8M\n    \
             timer-db-max-size: 8M\n\
         key:\n  - id: ha-key\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         acl:\n  - id: update\n    key: ha-key\n    action: update\n\
         zone:\n  - domain: ha.test\n    file: {path}/zone\n    acl: update\n    zonefile-load: whole\n",
        ip = address.ip(),
        port = address.port(),
    )
}

fn bind_config(path: &Path, address: SocketAddr) -> String {
    let path = path.display();
    format!(
        "options {{ directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile \"{path}/session\";\n\
           listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; }};\n\
         controls {{ }};\n\
         key ha-key {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone ha.test {{ type primary; file \"{path}/zone\"; update-policy {{ grant ha-key zonesub ANY; }}; }};\n",
        ip = address.ip(),
        port = address.port(),
    )
}

pub(crate) fn key() -> TsigKey {
    TsigKey::new("ha-key", Algorithm::HmacSha256, SECRET).unwrap()
}

pub(crate) fn zone(servers: &[SocketAddr]) -> Zone {
    Zone {
        servers: servers.to_vec(),
        origin: "ha.test.".to_owned(),
        key: Some(key()),
        ttl: 5,
        timeout: Duration::from_secs(4),
    }
}

pub(crate) fn desired(slot: u32, epoch: u64, addresses: &[&str]) -> Desired {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Desired { name: NAME.to_owned(), slot, epoch, addresses }
}

/// What the forwarder does with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    /// Kept until [`Forwarder::release`].
    Hold,
}

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Reply,
}

/// A UDP forwarder in front of a server.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Gate {
    held: AtomicU32,
    changed: Notify,
    open: tokio::sync::watch::Sender<bool>,
}

impl Forwarder {
    /// Forwards to `server`; `fate` decides about every datagram, knowing its way and whether it is an UPDATE.
    pub(crate) async fn start(
        server: SocketAddr,
        fate: impl FnMut(Way, bool) -> Fate + Send + 'static,
    ) -> Self {
        let socket = Arc::new(UdpSocket::bind((own_address(), 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let fate = Arc::new(Mutex::new(fate));
        let shared = gate.clone();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                let request = buffer[..length].to_vec();
                let (socket, gate, fate) = (socket.clone(), shared.clone(), fate.clone());
                tokio::spawn(async move {
                    let decide = |way, bytes: &[u8]| (fate.lock().unwrap())(way, is_update(bytes));
                    if !gate.admits(decide(Way::Request, &request)).await {
                        return;
                    }
                    let upstream = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
                    upstream.connect(server).await.unwrap();
                    upstream.send(&request).await.unwrap();
                    let mut reply = vec![0; 65536];
                    let Ok(length) = upstream.recv(&mut reply).await else { return };
                    if gate.admits(decide(Way::Reply, &reply[..length])).await {
                        socket.send_to(&reply[..length], client).await.unwrap();
                    }
                });
            }
        });
        Self { address, gate, task }
    }

    /// Waits until a datagram is held.
    pub(crate) async fn wait_held(&self) {
        tokio::time::timeout(PATIENCE, async {
            while self.gate.held.load(Ordering::SeqCst) == 0 {
                self.gate.changed.notified().await;
            }
        })
        .await
        .expect("a datagram is held");
    }

    /// Lets go of everything held, in order of nothing in particular.
    pub(crate) fn release(&self) {
        self.gate.open.send_replace(true);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    async fn admits(&self, fate: Fate) -> bool {
        if fate == Fate::Hold {
            self.held.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_one();
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        fate != Fate::Drop
    }
}

fn is_update(message: &[u8]) -> bool {
    message.len() > 2 && (message[2] >> 3) & 0xf == 5
}

/// Waits until `check` holds.
pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
