//! Clients that make requests over and over, and what becomes of each.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use hickory_proto::op::Query;

use crate::{
    Host, Moment,
    dns::{ask, connect, question},
    http,
};

/// For each step of a request: looking up, connecting, the answer. A person would have gone by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// A client that is not wanted looks so often whether it is; one whose request failed waits as long.
const PAUSE: Duration = Duration::from_millis(10);

/// One request, from the question for the address to the answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was begun.
    pub begun: Moment,
    /// When it was over.
    pub ended: Moment,
    /// Node that answered, or why none did.
    pub answer: Result<String, String>,
}

/// Clients of a name: each looks it up before every request, past every cache, and takes its addresses in turn. A
/// failed request is not made again. Dropping it ends them.
#[derive(Debug)]
pub struct Requests {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicUsize,
    stop: AtomicBool,
    done: Mutex<Vec<Request>>,
}

impl Requests {
    /// Puts `most` clients onto a host, of which none makes requests yet. `server` knows the name.
    ///
    /// # Errors
    /// When the name does not parse, or sockets or threads cannot be made.
    pub fn start(host: &Host, server: SocketAddr, name: &str, service: Service, most: usize) -> Result<Self> {
        let question = question(name, "A").with_context(|| format!("name {name}"))?;
        let mut requests = Self { shared: Arc::default(), threads: Vec::new() };
        for number in 0..most {
            let resolver = host.enter(|| connect(server))??;
            let client =
                Client { number, resolver, question: question.clone(), service, shared: requests.shared() };
            requests.threads.push(host.thread(&format!("client-{number}"), move || client.run())?);
        }
        Ok(requests)
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// So many make requests from now on.
    pub fn set_clients(&self, count: usize) {
        self.shared.wanted.store(count, Ordering::SeqCst);
    }

    /// Requests that are over, in the order in which they ended.
    pub fn done(&self) -> Vec<Request> {
        self.shared.done().clone()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn done(&self) -> MutexGuard<'_, Vec<Request>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked of every address.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Port.
    pub port: u16,
    /// Path of the request; the answer is the name of the node.
    pub path: &'static str,
}

/// One client.
struct Client {
    number: usize,
    resolver: UdpSocket,
    question: Query,
    service: Service,
    shared: Arc<Shared>,
}

impl Client {
    fn run(&self) {
        // Not all begin with the same address.
        let mut turn = self.number;
        while !self.shared.stop.load(Ordering::SeqCst) {
            if self.number >= self.shared.wanted.load(Ordering::SeqCst) {
                (Moment::now() + PAUSE).reach();
                continue;
            }
            let begun = Moment::now();
            let answer = self.request(turn).map_err(|error| format!("{error:#}"));
            turn += 1;
            let failed = answer.is_err();
            self.shared.done().push(Request { begun, ended: Moment::now(), answer });
            if failed {
                (Moment::now() + PAUSE).reach();
            }
        }
    }

    fn request(&self, turn: usize) -> Result<String> {
        let addresses = ask(&self.resolver, &self.question, PATIENCE).context("looking the name up")?;
        if addresses.is_empty() {
            bail!("the name has no address");
        }
        let address = addresses[turn % addresses.len()].parse().context("reading the address")?;
        let address = SocketAddr::new(address, self.service.port);
        let response = http::request(address, self.service.path, PATIENCE)
            .with_context(|| format!("asking {address}"))?;
        ensure!(response.status == 200, "{address} answers {}", response.status);
        Ok(response.body.trim().to_owned())
    }
}
