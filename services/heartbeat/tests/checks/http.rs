//! `http`, against a server that answers whatever bytes it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use understudy_heartbeat::checks::{CheckConfig, CheckKind};

use crate::{Single, check, eventually, hasty, verdict};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Closes after it.
    Answer(&'static str),
    /// Waits for the next request on the same connection.
    Keep(&'static str),
    /// Reads the request and never answers.
    Hang,
    /// Closes without an answer.
    Close,
    /// Sends header lines for ever.
    Flood,
}

struct Server {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    /// The last request's head.
    request: Arc<Mutex<String>>,
    /// How many requests each connection brought, oldest first.
    requests: Arc<Mutex<Vec<u32>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let request = Arc::new(Mutex::new(String::new()));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, wanted, count) = (Arc::clone(&request), Arc::clone(&behaviour), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = count.lock().unwrap().len();
                count.lock().unwrap().push(0);
                let (wanted, seen, count) = (Arc::clone(&wanted), Arc::clone(&seen), Arc::clone(&count));
                let served = move |head| {
                    count.lock().unwrap()[connection] += 1;
                    *seen.lock().unwrap() = head;
                    *wanted.lock().unwrap()
                };
                tokio::spawn(serve(stream, served));
            }
        });
        Self { address, behaviour, request, requests, task }
    }

    fn becomes(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn url(&self) -> String {
        format!("http://{}/health?deep=1", self.address)
    }
}

async fn serve(mut stream: tokio::net::TcpStream, served: impl Fn(String) -> Behaviour) {
    loop {
        let mut head = vec![0; 4_096];
        let length = stream.read(&mut head).await.unwrap_or(0);
        if length == 0 {
            return;
        }
        head.truncate(length);
        match served(String::from_utf8(head).unwrap()) {
            Behaviour::Keep(text) => drop(stream.write_all(text.as_bytes()).await),
            Behaviour::Answer(text) => return drop(stream.write_all(text.as_bytes()).await),
            Behaviour::Hang => return drop(stream.read(&mut [0]).await),
            Behaviour::Close => return,
            Behaviour::Flood => {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n").await);
                while stream.write_all(b"x-more: and more and more and more\r\n").await.is_ok() {}
                return;
            }
        }
    }
}

const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const OK: Behaviour = Behaviour::Answer(YES);

fn http(server: &Server) -> CheckConfig {
    check("http", CheckKind::Http { url: server.url(), expect_status: CheckKind::DEFAULT_STATUS, host: None })
}

async fn verdict_on(behaviour: Behaviour) -> String {
    let server = Server::start(behaviour).await;
    let reason = verdict(http(&server)).await;
    reason.replace(&server.address.to_string(), "SERVER")
}

#[tokio::test]
async fn asks_for_path_and_query_with_the_host_of_the_url() {
    let server = Server::start(OK).await;
    assert_eq!(verdict(http(&server)).await, "up");
    let request = server.request.lock().unwrap().to_lowercase();
    assert!(request.starts_with("get /health?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", server.address)), "{request}");
    assert!(!request.contains("\r\nconnection:"), "{request}");
}

#[tokio::test]
async fn the_host_header_can_be_another() {
    let server = Server::start(OK).await;
    let host = Some("shop.example".to_owned());
    let kind = CheckKind::Http { url: server.url(), expect_status: 200..=200, host };
    assert_eq!(verdict(check("http", kind)).await, "up");
    assert!(server.request.lock().unwrap().to_lowercase().contains("\r\nhost: shop.example\r\n"));
}

#[tokio::test]
async fn a_server_error_is_down_and_a_redirect_is_up() {
    let error = Behaviour::Answer("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(verdict_on(error).await, "status 500, expected 200 to 399");
    let moved = Behaviour::Answer("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(verdict_on(moved).await, "up");
}

#[tokio::test]
async fn an_expected_status_is_up_although_it_is_an_error() {
    let answer = Behaviour::Answer("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
    let server = Server::start(answer).await;
    let kind = CheckKind::Http { url: server.url(), expect_status: 401..=401, host: None };
    assert_eq!(verdict(check("http", kind)).await, "up");
}

#[tokio::test]
async fn garbage_and_a_closed_connection_are_down_with_the_reason() {
    assert_eq!(
        verdict_on(Behaviour::Answer("220 mail.example ESMTP\r\n")).await,
        "asking SERVER: invalid HTTP version parsed"
    );
    assert_eq!(
        verdict_on(Behaviour::Close).await,
        "asking SERVER: connection closed before message completed"
    );
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    assert_eq!(verdict_on(Behaviour::Flood).await, "asking SERVER: message head is too large");
}

/// The body is not waited for: the head says whether the server is well.
#[tokio::test]
async fn a_body_that_never_comes_does_not_matter() {
    let head = Behaviour::Answer("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
    assert_eq!(verdict_on(head).await, "up");
}

#[tokio::test]
async fn a_workload_that_hangs_goes_down_and_comes_back() {
    let server = Server::start(OK).await;
    let mut single = Single::start(hasty(http(&server).kind));
    single.up().await;
    server.becomes(Behaviour::Hang);
    assert_eq!(single.down().await, "no answer within 300ms");
    server.becomes(OK);
    assert!(single.up().await.latency.unwrap() < std::time::Duration::from_millis(300));
}

#[tokio::test]
async fn ten_runs_share_a_connection_and_the_last_one_says_so() {
    let server = Server::start(Behaviour::Keep(YES)).await;
    let mut single = Single::start(check("http", http(&server).kind));
    single.up().await;
    let requests = || server.requests.lock().unwrap().clone();
    let first = eventually("a third connection", || Some(requests()).filter(|all| all.len() == 3)).await;
    assert_eq!(first[..2], [10, 10]);
    assert!(!single.report.has_changed().unwrap(), "a run failed");
}

/// Every run is well, on a connection of its own.
async fn shares_none(behaviour: Behaviour) {
    let server = Server::start(behaviour).await;
    let mut single = Single::start(check("http", http(&server).kind));
    single.up().await;
    let requests = || server.requests.lock().unwrap().clone();
    eventually("many connections", || (requests().len() >= 10).then_some(())).await;
    assert!(requests().iter().all(|count| *count <= 1));
    assert!(!single.report.has_changed().unwrap(), "a run failed");
}

/// It may do so at any time.
#[tokio::test]
async fn a_server_that_closes_an_idle_connection_is_well() {
    shares_none(OK).await;
}

#[tokio::test]
async fn a_connection_whose_answer_goes_on_is_not_used_again() {
    shares_none(Behaviour::Keep("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")).await;
}

#[tokio::test]
async fn a_server_that_only_serves_its_old_connections_goes_down() {
    let server = Server::start(Behaviour::Keep(YES)).await;
    let mut single = Single::start(check("http", http(&server).kind));
    single.up().await;
    // It closes the listener; the connections are tasks of their own.
    server.task.abort();
    let reason = single.down().await.replace(&server.address.to_string(), "SERVER");
    assert!(reason.starts_with("connecting to SERVER: "), "{reason}");
}

/// The connection that was there before it hung is no better.
#[tokio::test]
async fn a_workload_that_hangs_on_an_old_connection_goes_down_and_comes_back() {
    let server = Server::start(Behaviour::Keep(YES)).await;
    let mut single = Single::start(hasty(http(&server).kind));
    single.up().await;
    server.becomes(Behaviour::Hang);
    assert_eq!(single.down().await, "no answer within 300ms");
    server.becomes(Behaviour::Keep(YES));
    single.up().await;
}
