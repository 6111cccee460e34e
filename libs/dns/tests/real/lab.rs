//! Real name servers on loopback addresses of their own, an independent reader (`kdig`), and a forwarder that loses
//! or holds datagrams.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use understudy_dns::{Algorithm, Desired, Family, TsigKey, Zone, resolve};
pub(crate) use understudy_lab::Software;
use understudy_lab::{Invocation, KEY_ALGORITHM, KEY_NAME, KEY_SECRET, wait_until_async};

/// Longest wait for a state that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const NAME: &str = "web.ha.test.";
const PORT: u16 = 5300;

/// A name server with zone `ha.test.`, on its own loopback address. Ends when dropped, also on panic.
pub(crate) struct Server {
    software: Software,
    folder: TempDir,
    pub(crate) address: SocketAddr,
    invocation: Invocation,
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
        let invocation = software.prepare(folder.path(), &[address], records).unwrap();
        Self { software, folder, address, invocation, process: None }
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
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.invocation.program);
        command.args(&self.invocation.arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let answers = async || {
            let limit = Duration::from_millis(100);
            let found = resolve(self.address, "ns.ha.test.", Family::Ipv4, limit).await;
            found.is_ok_and(|found| !found.is_empty())
        };
        if let Err(error) = wait_until_async("an answer", PATIENCE, answers).await {
            panic!("{:?}: {error}: {}", self.software, self.log());
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
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
        }
        self.invocation = self.software.prepare(self.folder.path(), &[self.address], "").unwrap();
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
            .args(["-y", &format!("{KEY_ALGORITHM}:{KEY_NAME}:{KEY_SECRET}")])
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

pub(crate) fn key() -> TsigKey {
    TsigKey::new(KEY_NAME, Algorithm::HmacSha256, KEY_SECRET).unwrap()
}

pub(crate) fn zone(servers: &[SocketAddr]) -> Zone {
    Zone {
        servers: servers.iter().map(SocketAddr::to_string).collect(),
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
