//! NATS servers of a test's own, messages, and waiting on state.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use understudy_bus::{
    Counters, Nats, NatsOptions, NatsState, Tls,
    direct::{DirectServer, FromNode},
    nats::Subscription,
    paths::{FromSeat, NodeOptions, NodePaths, NodeSender, SeatOptions, SeatPaths, SeatSender},
    queue::Receiver,
};
use understudy_lab::{tool, wait_until, wait_until_async};
use understudy_wire::{
    BootId, BootTime, ClusterId, Epoch, Grant, GroupId, Health, Heartbeat, Holder, Incarnation, NodeId,
    Release, Seat, Slot, StandbyKind, Subject, v1,
};

/// Nothing here takes longer unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    wait_until_async(what, DEADLINE, check).await.unwrap()
}

/// Waits for `future`, with the deadline.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// A process that ends with the test, however that ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Stops it and waits until every thread stands still: one that still runs would pass on what is published next.
    pub(crate) fn stop(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid()), stopped).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// Kills with -9 and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A NATS cluster on loopback addresses of its own, so that ports need not be drawn.
pub(crate) struct Cluster {
    dir: TempDir,
    net: (u8, u8),
    first: u8,
    pub(crate) servers: Vec<Process>,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl Cluster {
    pub(crate) fn start(size: u8) -> Self {
        // RUST_LOG=understudy_bus=debug shows what a failing test saw.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let [.., high, low] = std::process::id().to_be_bytes();
        let first = NEXT.fetch_add(size, Ordering::Relaxed);
        let mut cluster = Self { dir: TempDir::new().unwrap(), net: (high, low), first, servers: Vec::new() };
        for index in 0..size {
            cluster.configure(index, size);
            cluster.servers.push(cluster.spawn(index));
        }
        for index in 0..size {
            cluster.wait(index);
        }
        cluster
    }

    fn ip(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.net.0, self.net.1, self.first + index)
    }

    fn configure(&self, index: u8, size: u8) {
        let ip = self.ip(index);
        let routes: Vec<_> = (0..size).map(|other| format!("nats://{}:6222", self.ip(other))).collect();
        let store = self.dir.path().join(format!("store-{index}"));
        let mut text = format!(
            "server_name: n{index}\nlisten: \"{ip}:4222\"\nmax_payload: 16MB\n\
             jetstream {{ store_dir: {store:?}, max_file_store: 1GB, max_memory_store: 64MB }}\n"
        );
        if size > 1 {
            text += &format!("cluster {{ name: test, listen: \"{ip}:6222\", routes: {routes:?} }}\n");
        }
        fs::write(self.dir.path().join(format!("{index}.conf")), text).unwrap();
    }

    fn spawn(&self, index: u8) -> Process {
        let path = self.dir.path();
        let log = fs::File::create(path.join(format!("{index}.log"))).unwrap();
        let child = Command::new(tool("nats-server").unwrap())
            .arg("-c")
            .arg(path.join(format!("{index}.conf")))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Process(child.expect("nats-server starts"))
    }

    fn wait(&self, index: u8) {
        let address = (self.ip(index), 4222);
        let listens = wait_until("it to listen", DEADLINE, || TcpStream::connect(address).is_ok());
        if let Err(error) = listens {
            let log = fs::read_to_string(self.dir.path().join(format!("{index}.log")));
            panic!("nats-server {index}: {error}: {log:?}");
        }
    }

    /// Starts a killed server again, on its old data.
    pub(crate) fn restart(&mut self, index: u8) {
        self.servers[usize::from(index)] = self.spawn(index);
        self.wait(index);
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.servers.len()).map(|index| self.url(index.try_into().unwrap())).collect()
    }

    pub(crate) fn url(&self, index: u8) -> String {
        format!("nats://{}:4222", self.ip(index))
    }
}

pub(crate) fn demo() -> ClusterId {
    ClusterId::new("demo").unwrap()
}

pub(crate) fn web() -> GroupId {
    GroupId::new("web").unwrap()
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) async fn client(urls: Vec<String>) -> Nats {
    client_with(NatsOptions::new(demo(), "test", urls)).await
}

pub(crate) async fn client_with(options: NatsOptions) -> Nats {
    Nats::connect(options, Arc::new(Counters::default())).await.unwrap()
}

pub(crate) async fn connected(nats: &Nats) {
    let mut state = nats.state();
    soon("connected", state.wait_for(|state| *state == NatsState::Connected)).await.unwrap();
}

/// Waits until the server has taken in every subscription of `nats`: it reads what one connection sends in order, so
/// what comes back was sent after them.
pub(crate) async fn subscribed(nats: &Nats) {
    let subject = Subject::Command(web(), "echo".into());
    let mut echo: Subscription<v1::StatusRequest> = nats.subscribe("command.web.echo").await.unwrap();
    nats.publish(&subject, &v1::StatusRequest {});
    soon("echo", echo.next()).await.unwrap();
}

/// A client as anybody could write it.
pub(crate) async fn raw(url: String) -> async_nats::Client {
    async_nats::connect(url).await.unwrap()
}

pub(crate) fn holder(name: &str) -> Holder {
    Holder { node: node(name), boot: BootId(7), incarnation: Incarnation::new(1).unwrap() }
}

pub(crate) fn heartbeat(name: &str, seq: u64) -> Heartbeat {
    Heartbeat {
        cluster: demo(),
        group: web(),
        node: node(name),
        boot: BootId(7),
        incarnation: Incarnation::new(1),
        seq,
        sent_at: BootTime(seq),
        health: Health::Healthy,
        standby: StandbyKind::Hot,
        ready: true,
        priority: 0,
        claims: vec![],
        known: vec![],
        releases: vec![],
        details: Vec::new(),
    }
}

pub(crate) fn grant(name: &str, echo: u64) -> Grant {
    Grant {
        cluster: demo(),
        group: web(),
        seat: Seat::new(1).unwrap(),
        detector: 9,
        slot: Slot(0),
        holder: holder(name),
        echo: BootTime(echo),
        lease: Duration::from_millis(300),
        highest: Epoch(3),
        claimed: None,
        promised: None,
    }
}

pub(crate) fn release(name: &str, at: u64) -> Release {
    Release {
        cluster: demo(),
        group: web(),
        slot: Slot(0),
        holder: holder(name),
        at: BootTime(at),
        successor: None,
    }
}

/// A detector: both paths.
pub(crate) struct Detector {
    pub(crate) sender: SeatSender,
    pub(crate) inbound: Receiver<FromNode>,
    pub(crate) address: String,
    pub(crate) presence: watch::Sender<v1::Presence>,
}

pub(crate) async fn detector(nats: &Nats, advertise: bool) -> Detector {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (presence, receiver) = watch::channel(v1::Presence {
        cluster: nats.cluster().to_string(),
        seat: 1,
        incarnation: 9,
        address: if advertise { address.clone() } else { String::new() },
        ..Default::default()
    });
    let options = SeatOptions { listener, presence: receiver, tls: None };
    let (sender, inbound) = SeatPaths::open(nats, options).await.unwrap();
    Detector { sender, inbound, address, presence }
}

/// A detector's end of the direct path alone.
pub(crate) struct DirectEnd {
    pub(crate) server: DirectServer,
    pub(crate) inbound: Receiver<FromNode>,
    pub(crate) address: String,
    pub(crate) counters: Arc<Counters>,
    _presence: watch::Sender<v1::Presence>,
}

pub(crate) async fn direct_server(tls: Option<Tls>) -> DirectEnd {
    direct_server_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), tls)
}

pub(crate) fn direct_server_on(listener: TcpListener, tls: Option<Tls>) -> DirectEnd {
    let address = listener.local_addr().unwrap().to_string();
    let (presence, receiver) = watch::channel(v1::Presence { cluster: "demo".into(), ..Default::default() });
    let counters = Arc::new(Counters::default());
    let (server, inbound) = DirectServer::serve(listener, demo(), receiver, tls, Arc::clone(&counters));
    DirectEnd { server, inbound, address, counters, _presence: presence }
}

pub(crate) async fn member(nats: &Nats, name: &str, detectors: &[&str]) -> (NodeSender, Receiver<FromSeat>) {
    let detectors: BTreeSet<String> = detectors.iter().map(ToString::to_string).collect();
    let options =
        NodeOptions { group: web(), node: node(name), detectors, grants: true, echo: None, tls: None };
    NodePaths::open(nats, options).await.unwrap()
}

/// A publisher, whose own heartbeats are to come back within `echo`.
pub(crate) async fn publisher(nats: &Nats, name: &str, echo: Duration) -> NodeSender {
    let (group, node) = (web(), node(name));
    let options =
        NodeOptions { group, node, detectors: BTreeSet::new(), grants: false, echo: Some(echo), tls: None };
    NodePaths::open(nats, options).await.unwrap().0
}

/// Waits for the heartbeat `seq` of anybody; what comes before it is dropped.
pub(crate) async fn heard(inbound: &mut Receiver<FromNode>, seq: u64) -> Heartbeat {
    soon("heartbeat", async {
        loop {
            match inbound.recv().await.expect("the detector is open") {
                FromNode::Heartbeat(heartbeat) if heartbeat.seq == seq => return *heartbeat,
                FromNode::Heartbeat(_) | FromNode::Release(_) => {}
            }
        }
    })
    .await
}

/// Waits for the grant that echoes `echo`; what comes before it is dropped.
pub(crate) async fn granted(inbound: &mut Receiver<FromSeat>, echo: u64) {
    soon("grant", async {
        loop {
            match inbound.recv().await.expect("the node is open") {
                FromSeat::Grant(grant) if grant.echo == BootTime(echo) => return,
                FromSeat::Grant(_) | FromSeat::Revoke(_) | FromSeat::Presence(_) => {}
            }
        }
    })
    .await;
}

/// Sends heartbeats until one comes through, so that every path that can be open is in use. The next free `seq`.
pub(crate) async fn settle(
    sender: &NodeSender,
    name: &str,
    inbound: &mut Receiver<FromNode>,
    from: u64,
) -> u64 {
    let mut seq = from;
    eventually("first heartbeat", async || {
        seq += 1;
        sender.send_heartbeat(&heartbeat(name, seq));
        let came = tokio::time::timeout(Duration::from_millis(20), inbound.recv()).await;
        came.is_ok().then_some(())
    })
    .await;
    seq + 1
}
