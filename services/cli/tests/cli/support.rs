//! A NATS server of the test's own, answering services, and the program itself.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use understudy_bus::{Counters, Nats, NatsOptions};
use understudy_lab::{tool, wait_until};
use understudy_wire::{
    ClusterId, GroupId, NodeId,
    v1::{
        Details, GroupStatus, Health, Holder, Judgement, NodeStatus, Presence, SlotEpoch, SlotStatus,
        StandbyKind, StatusReply, StatusRequest,
    },
};

/// Nothing here takes longer unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A process that ends with the test, however that ends.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One server with JetStream, on a loopback address of its own, so that no port need be drawn.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    _process: Process,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

/// An address that nobody else of this test run uses.
pub(crate) fn own_address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    pub(crate) fn start() -> Self {
        let (dir, ip) = (TempDir::new().unwrap(), own_address());
        let (store, file) = (dir.path().join("store"), dir.path().join("nats.conf"));
        let text = format!(
            "listen: \"{ip}:4222\"\njetstream {{ store_dir: {store:?}, max_file_store: 1GB, max_memory_store: 64MB }}\n"
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(tool("nats-server").unwrap())
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self {
            dir,
            url: format!("nats://{ip}:4222"),
            _process: Process(child.expect("nats-server starts")),
        };
        wait_until("nats-server to listen", DEADLINE, || TcpStream::connect((ip, 4222)).is_ok()).unwrap();
        server
    }

    pub(crate) async fn client(&self) -> Nats {
        let options = NatsOptions::new(ClusterId::new("demo").unwrap(), "test", vec![self.url.clone()]);
        Nats::connect(options, Arc::new(Counters::default())).await.unwrap()
    }

    /// Runs the program to its end, with --nats and --cluster.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run(&[args, &["--nats", &self.url, "--cluster", "demo"]].concat())
    }

    /// Starts the program and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        let mut command = program(&[args, &["--nats", &self.url, "--cluster", "demo"]].concat());
        Process(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap())
    }
}

/// How a run of the program went.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program with an environment of its own.
pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
    command.args(args).env_clear().env("USER", "ops").stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Ended {
    program(args).output().unwrap().into()
}

pub(crate) fn web() -> GroupId {
    GroupId::new("web").unwrap()
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn node_status(name: &str, claim: Option<u64>) -> NodeStatus {
    let phase = if claim.is_some() { "serving" } else { "standby" };
    NodeStatus {
        node: name.into(),
        judgement: Judgement::Alive.into(),
        silent_ms: 12.0,
        health: Health::Healthy.into(),
        ready: true,
        standby: StandbyKind::Hot.into(),
        claims: claim.map(|epoch| SlotEpoch { slot: 0, epoch }).into_iter().collect(),
        details: Some(Details { phase: phase.into(), ..Details::default() }),
        ..NodeStatus::default()
    }
}

/// What a seat says that grants slot 0 of `web` to `holder`, which claims it with `epoch`.
pub(crate) fn answer(seat: u32, holder: Option<&str>, epoch: u64) -> StatusReply {
    let granted = holder.map(|node| Holder { node: node.into(), boot: vec![7; 16], incarnation: 1 });
    let slot = SlotStatus { granted, remaining_ms: 200.0, highest_epoch: epoch, ..SlotStatus::default() };
    let claim = |name: &str| (holder == Some(name)).then_some(epoch);
    let state = if seat == 0 { "observing" } else { "granting" };
    StatusReply {
        presence: Some(Presence {
            cluster: "demo".into(),
            seat,
            incarnation: 40 + u64::from(seat),
            state: state.into(),
            ..Presence::default()
        }),
        groups: vec![GroupStatus {
            group: "web".into(),
            active: 1,
            standby: 1,
            slots: vec![slot],
            nodes: ["web-a", "web-b"].map(|name| node_status(name, claim(name))).into(),
        }],
    }
}

pub(crate) fn calm() -> Vec<StatusReply> {
    (1..=3).map(|seat| answer(seat, Some("web-a"), 1017)).collect()
}

/// What the detectors answer from now on; to be changed by the test.
pub(crate) type Answers = Arc<Mutex<Vec<StatusReply>>>;

/// Answers every status request for all detectors.
pub(crate) async fn detectors(server: &Server, replies: Vec<StatusReply>) -> Answers {
    let nats = server.client().await;
    let mut asked = nats.subscribe::<StatusRequest>("command.*.status").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    let answers = Arc::new(Mutex::new(replies));
    let shared = Arc::clone(&answers);
    tokio::spawn(async move {
        while let Some(received) = asked.next().await {
            let replies = shared.lock().unwrap().clone();
            for reply in replies {
                nats.respond(received.reply.as_ref().unwrap(), &reply);
            }
        }
    });
    answers
}

/// A configuration of three seats.
pub(crate) fn config(server: &Server) -> PathBuf {
    let file = server.dir.path().join("ha.toml");
    let text = format!(
        "cluster = \"demo\"\n[nats]\nservers = [\"{}\"]\n[detector]\nseats = 3\n[[group.web.slot]]\nvips = [\"10.77.0.100/24\"]\n",
        server.url
    );
    fs::write(&file, text).unwrap();
    file
}
