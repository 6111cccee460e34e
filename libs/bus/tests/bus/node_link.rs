//! `node.sock`, with peers that are processes of their own and are really killed.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use understudy_bus::node_link::{LinkError, LinkEvent, NodeLinkClient, NodeLinkServer, PublisherEvent};
use understudy_wire::v1::{ExecutorState, Health, PublisherState};

use crate::support::*;

const ROLE: &str = "UNDERSTUDY_TEST_ROLE";
const SOCKET: &str = "UNDERSTUDY_TEST_SOCKET";

/// The end of a process is noticed within this, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Not a test: the other end of the link, run as a process of its own by the tests below.
#[tokio::test]
async fn peer() {
    let (Ok(role), Some(socket)) = (env::var(ROLE), env::var_os(SOCKET)) else { return };
    let socket = Path::new(&socket);
    if role == "publisher" {
        let (server, _events) = NodeLinkServer::serve(socket).unwrap();
        server.send(publisher_state());
        return std::future::pending().await;
    }
    let (_state, watched) = watch::channel(ExecutorState { incarnation: 7, ..Default::default() });
    let (_client, _events) = NodeLinkClient::start(socket, watched);
    std::future::pending::<()>().await;
}

fn publisher_state() -> PublisherState {
    PublisherState { health: Health::Healthy.into(), ..Default::default() }
}

fn spawn(role: &str, socket: &Path) -> Process {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "node_link::peer"])
        .env(ROLE, role)
        .env(SOCKET, socket)
        .stdout(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

async fn next<T>(events: &mut mpsc::Receiver<T>) -> T {
    soon("event of the link", events.recv()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_is_noticed_at_once_and_its_successor_is_taken() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("node.sock");
    let (_server, mut events) = NodeLinkServer::serve(&socket).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    for _ in 0..2 {
        let mut executor = spawn("executor", &socket);
        assert_eq!(next(&mut events).await, LinkEvent::Attached);
        let state = ExecutorState { incarnation: 7, ..Default::default() };
        assert_eq!(next(&mut events).await, LinkEvent::State(Box::new(state)));
        let killed = Instant::now();
        executor.kill();
        assert_eq!(next(&mut events).await, LinkEvent::Lost);
        assert!(killed.elapsed() < AT_ONCE, "noticed after {:?}", killed.elapsed());
        eprintln!("executor's end noticed after {:?}", killed.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_publisher_is_noticed_at_once_and_its_successor_is_found() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("node.sock");
    let (_state, watched) = watch::channel(ExecutorState::default());
    let (_client, mut events) = NodeLinkClient::start(&socket, watched);
    for _ in 0..2 {
        // The socket file of the killed one is still there the second time.
        let mut publisher = spawn("publisher", &socket);
        assert_eq!(next(&mut events).await, PublisherEvent::Attached);
        let wanted = publisher_state();
        while next(&mut events).await != PublisherEvent::State(Box::new(wanted.clone())) {}
        let killed = Instant::now();
        publisher.kill();
        assert_eq!(next(&mut events).await, PublisherEvent::Lost);
        assert!(killed.elapsed() < AT_ONCE, "noticed after {:?}", killed.elapsed());
        eprintln!("publisher's end noticed after {:?}", killed.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_executor_is_refused_while_the_first_lives() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("node.sock");
    let (server, mut events) = NodeLinkServer::serve(&socket).unwrap();
    let (state, watched) = watch::channel(ExecutorState { incarnation: 1, ..Default::default() });
    let (first, mut first_events) = NodeLinkClient::start(&socket, watched);
    assert_eq!(next(&mut first_events).await, PublisherEvent::Attached);
    let (_other, watched) = watch::channel(ExecutorState { incarnation: 2, ..Default::default() });
    let (_second, mut second_events) = NodeLinkClient::start(&socket, watched);
    let PublisherEvent::Refused(reason) = next(&mut second_events).await else { panic!("not refused") };
    assert_eq!(reason, "another executor is attached to this node");

    // The first one is not disturbed: both directions go on.
    state.send_modify(|state| state.ready = true);
    loop {
        match next(&mut events).await {
            LinkEvent::State(state) if state.ready => break,
            LinkEvent::State(state) => assert_eq!(state.incarnation, 1),
            LinkEvent::Attached => {}
            LinkEvent::Lost => panic!("the first one was thrown out"),
        }
    }
    server.send(publisher_state());
    let wanted = publisher_state();
    while next(&mut first_events).await != PublisherEvent::State(Box::new(wanted.clone())) {}

    drop(first);
    assert_eq!(next(&mut events).await, LinkEvent::Lost);
    assert_eq!(next(&mut second_events).await, PublisherEvent::Attached);
    assert_eq!(next(&mut events).await, LinkEvent::Attached);
}

#[tokio::test]
async fn a_second_publisher_is_refused_while_the_first_lives() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    let (first, _events) = NodeLinkServer::serve(&path).unwrap();
    let Err(LinkError::InUse(refused)) = NodeLinkServer::serve(&path) else { panic!("not refused") };
    assert_eq!(refused, path);
    assert!(path.exists(), "the first one's socket is left alone");

    // Somebody else's file stays when the first one ends.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_removed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(NodeLinkServer::serve(&path), Err(LinkError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// Needs root, to become another user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_not_let_in_even_where_the_file_says_so() {
    const NOBODY: u32 = 65_534;
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("node.sock");
    let (_server, mut events) = NodeLinkServer::serve(&socket).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect({socket:?}); print(len(s.recv(64)))"
    );
    let stranger = tokio::task::spawn_blocking(move || {
        Command::new("python3").args(["-c", &script]).uid(NOBODY).gid(NOBODY).output().unwrap()
    });
    let stranger = soon("the stranger's end", stranger).await.unwrap();
    let (said, told) = (String::from_utf8_lossy(&stranger.stdout), String::from_utf8_lossy(&stranger.stderr));
    // A server that let it in would have begun with its settings.
    assert!(said.trim() == "0" || told.contains("ConnectionResetError"), "{said}{told}");
    assert!(events.try_recv().is_err(), "nobody has attached");
    let _executor = spawn("executor", &socket);
    assert_eq!(next(&mut events).await, LinkEvent::Attached);
}
