//! The measuring instrument: who serves an address, asked once a millisecond from outside.
//!
//! The *client* asks through the kernel's own ARP or neighbour discovery, so it sees what clients see. The *eyes*,
//! one per node, ask each node for the address at its MAC, so they see who would serve it: two at a time is the
//! thing that must never be. One thread paces and sends, one receives, for all of them.

mod history;
mod names;
mod recorder;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::Moment;
use crate::dns::{ask, connect, question};
use crate::net::{Host, Network};
use crate::wait::wait_until;

pub use history::{Answer, Gap, History, Sample};
pub use names::{DnsProbe, DnsSample};
use recorder::{Recorder, Stream};

/// One question of each asker per interval.
const INTERVAL: Duration = Duration::from_millis(1);
/// An answer that takes longer does not count: questions that waited in the kernel for a neighbour to be found
/// would else hide the very gap that is measured. Ten times what a busy machine needs.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(10);
/// "Now" is the newest answered question of the last so many milliseconds.
const PRESENT: Duration = Duration::from_millis(50);
/// How often the receiver looks whether it is to end.
const STOP_POLL: u16 = 20;
/// How often a client that goes by the name looks it up: adds to a gap at most this and an answer of the name server.
const LOOKUP: Duration = Duration::from_millis(5);
/// How long it waits for that answer.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(100);
/// Of a probe: above ordinary work and the services (10), below the kernel's own real-time threads.
const PRIORITY: i32 = 20;
/// Of what a node serves: above ordinary work, below the services. With one that went before them, the questions that
/// had waited for the first announcement were all answered before the executor could send the second.
const SERVED: i32 = 9;
/// Above everything: the highest that Linux has.
const HIGHEST: i32 = 99;

/// Gives the calling thread the scheduling class SCHED_RR; threads and processes that it starts do not inherit it.
///
/// # Errors
/// When it is not permitted (CAP_SYS_NICE).
pub(crate) fn realtime() -> Result<()> {
    schedule(libc::SCHED_RR, PRIORITY)
}

/// As [`realtime`] for what a node serves, which does not go before the node's own services.
///
/// # Errors
/// When it is not permitted (CAP_SYS_NICE).
pub(crate) fn realtime_below_services() -> Result<()> {
    schedule(libc::SCHED_RR, SERVED)
}

/// Gives the calling thread the highest priority there is: what makes it late is not this machine's work.
///
/// # Errors
/// When it is not permitted (CAP_SYS_NICE).
pub(crate) fn realtime_above_all() -> Result<()> {
    schedule(libc::SCHED_FIFO, HIGHEST)
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: a system call on the calling thread (0) with a valid pointer to what it reads.
    #[allow(unsafe_code)]
    let result =
        unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    nix::errno::Errno::result(result).map(drop).context("setting a real-time scheduling class")
}

/// A running measurement of one address. Dropping it ends it.
#[derive(Debug)]
pub struct Probe {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Probe {
    /// Asks for `vip` from `client` and, node by node, from watchers that it puts on the network. Records at most
    /// [`Probe::LONGEST`].
    ///
    /// # Errors
    /// When watchers, sockets or threads cannot be made.
    pub fn start(network: &Network, client: &Host, nodes: &[&Host], vip: SocketAddr) -> Result<Self> {
        let mut sockets = vec![open(client, vip)?];
        for node in nodes {
            sockets.push(open(&network.watcher(node, vip.ip())?, vip)?);
        }
        Self::run(sockets, nodes).map(|(probe, _)| probe)
    }

    /// As [`Probe::start`] for a group without VIP: each watcher asks its node at the node's own address, and the
    /// client asks the one address that `server` gives for `name`, looked up again and again past every cache.
    ///
    /// # Errors
    /// As [`Probe::start`], or when the name does not parse.
    pub fn start_by_name(
        network: &Network,
        client: &Host,
        nodes: &[&Host],
        port: u16,
        server: SocketAddr,
        name: &str,
    ) -> Result<Self> {
        let asking = client.enter(|| UdpSocket::bind("0.0.0.0:0"))?.context("opening the client's socket")?;
        asking.set_nonblocking(true)?;
        let mut sockets = vec![asking];
        for node in nodes {
            let own = IpAddr::V4(node.ipv4());
            sockets.push(open(&network.watcher(node, own)?, SocketAddr::new(own, port))?);
        }
        let (mut probe, sockets) = Self::run(sockets, nodes)?;
        let question = question(name, "A").with_context(|| format!("name {name}"))?;
        let resolver = client.enter(|| connect(server))??;
        let stop = Arc::clone(&probe.stop);
        let follow = move || {
            let (mut known, mut next) = (None, Moment::now());
            while !stop.load(Ordering::SeqCst) {
                let found = ask(&resolver, &question, LOOKUP_PATIENCE).unwrap_or_default();
                let found: Vec<IpAddr> = found.iter().filter_map(|record| record.parse().ok()).collect();
                // A record of several addresses, or none, would be another test's: the client stays where it is.
                if let [address] = found[..]
                    && known != Some(address)
                    && sockets[0].connect(SocketAddr::new(address, port)).is_ok()
                {
                    known = Some(address);
                }
                next = (next + LOOKUP).max(Moment::now());
                next.reach();
            }
        };
        probe.threads.push(client.thread("probe-resolve", follow)?);
        Ok(probe)
    }

    /// Starts asking: the first socket is the client's, the others are the watchers' in the order of the nodes.
    fn run(sockets: Vec<UdpSocket>, nodes: &[&Host]) -> Result<(Self, Arc<Vec<UdpSocket>>)> {
        let sockets = Arc::new(sockets);
        let nodes = nodes.iter().map(|node| node.name().to_owned()).collect();
        let recorder = Arc::new(Recorder::new(nodes, Moment::now() + INTERVAL));
        let stop = Arc::new(AtomicBool::new(false));
        let mut probe = Self { recorder, stop, threads: Vec::new() };
        probe.spawn("probe-receive", &sockets, receive)?;
        probe.spawn("probe-send", &sockets, send)?;
        Ok((probe, sockets))
    }

    /// What it records at most: two minutes and a half.
    pub const LONGEST: Duration = recorder::LONGEST;

    fn spawn(
        &mut self,
        name: &str,
        sockets: &Arc<Vec<UdpSocket>>,
        work: fn(&[UdpSocket], &Recorder, &AtomicBool),
    ) -> Result<()> {
        let (sockets, recorder, stop) =
            (Arc::clone(sockets), Arc::clone(&self.recorder), Arc::clone(&self.stop));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Not permitted: less exact, and History::longest_pause says how much.
                let _ = realtime();
                work(&sockets, &recorder, &stop);
            })
            .with_context(|| format!("starting thread {name}"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The time now on the probe's clock, to name a part of the history by.
    pub fn mark(&self) -> Moment {
        Moment::now()
    }

    /// Who answers the client now (within the last 50 ms).
    pub fn serving_now(&self) -> Option<String> {
        let (node, _) = self.recorder.client.last_answer(self.present())?;
        Some(self.recorder.name(node))
    }

    /// Which nodes answer their watcher now (within the last 50 ms): more than one only while it moves.
    pub fn eyes_now(&self) -> Vec<String> {
        let since = self.present();
        let answers = self.recorder.eyes.iter().filter(|(_, eye)| eye.last_answer(since).is_some());
        answers.map(|(node, _)| node.clone()).collect()
    }

    fn present(&self) -> Moment {
        Moment::from_nanos(Moment::now().nanos().saturating_sub(PRESENT.as_nanos() as u64))
    }

    /// Waits until the client has an answer of `node` to a question asked after this call; returns when that
    /// question was asked.
    ///
    /// # Errors
    /// When the deadline passes; says who serves instead.
    pub fn wait_served_by(&self, node: &str, deadline: Duration) -> Result<Moment> {
        let since = Moment::now();
        let served = wait_until(&format!("{node} to serve the client"), deadline, || {
            let (server, sent) = self.recorder.client.last_answer(since)?;
            (self.recorder.name(server) == node).then_some(sent)
        });
        served.with_context(|| {
            format!(
                "the client is served by {:?}, nodes answering: {:?}",
                self.serving_now(),
                self.eyes_now()
            )
        })
    }

    /// Waits until no node has answered, neither client nor watcher, for 50 ms.
    ///
    /// # Errors
    /// When the deadline passes; says who still serves.
    pub fn wait_dark(&self, deadline: Duration) -> Result<()> {
        wait_until("nobody to serve", deadline, || self.serving_now().is_none() && self.eyes_now().is_empty())
            .with_context(|| {
                format!("client: {:?}, nodes answering: {:?}", self.serving_now(), self.eyes_now())
            })
    }

    /// What was seen so far; questions younger than [`ANSWER_LIMIT`] are left out, their answers may still come.
    pub fn snapshot(&self) -> History {
        let until = Moment::from_nanos(Moment::now().nanos().saturating_sub(ANSWER_LIMIT.as_nanos() as u64));
        self.recorder.history(until)
    }

    /// Ends the measurement and returns all that was seen.
    pub fn finish(self) -> History {
        self.snapshot()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

fn open(host: &Host, vip: SocketAddr) -> Result<UdpSocket> {
    let socket = host.enter(|| connect(vip))?.with_context(|| format!("probing {vip} from {host}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn send(sockets: &[UdpSocket], recorder: &Recorder, stop: &AtomicBool) {
    let mut tick = 0;
    while !stop.load(Ordering::SeqCst) && tick < recorder::MOST_TICKS {
        recorder.time_of(tick).reach();
        let question = tick.to_string();
        for (socket, stream) in sockets.iter().zip(recorder.streams()) {
            stream.sent(tick, Moment::now());
            // No route, no neighbour, refused by an earlier answer: a question without an answer, which is
            // just what it is recorded as.
            let _ = socket.send(question.as_bytes());
        }
        // After a pause of the machine go on with the present: a burst would measure nothing.
        tick = recorder.tick_at(Moment::now()).max(tick) + 1;
    }
}

fn receive(sockets: &[UdpSocket], recorder: &Recorder, stop: &AtomicBool) {
    let streams: Vec<&Stream> = recorder.streams().collect();
    let mut buffer = [0; 128];
    while !stop.load(Ordering::SeqCst) {
        let mut ready: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // Interrupted: the next round polls again.
        let _ = poll(&mut ready, PollTimeout::from(STOP_POLL));
        for (index, _) in ready.iter().enumerate().filter(|(_, fd)| fd.any() == Some(true)) {
            // Each error of a connected socket (refused, unreachable) is reported once; then it would block.
            while let Some(length) = next(&sockets[index], &mut buffer) {
                let received = Moment::now();
                if let Some((node, tick)) = parse(&buffer[..length]) {
                    streams[index].answered(tick, received, recorder.number(node));
                }
            }
        }
    }
}

/// The next datagram, or none when nothing waits. An error that was waiting is passed over.
fn next(socket: &UdpSocket, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match socket.recv(buffer) {
            Ok(length) => return Some(length),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => {}
        }
    }
}

/// `<node> <tick>`.
fn parse(answer: &[u8]) -> Option<(&str, usize)> {
    let (node, tick) = std::str::from_utf8(answer).ok()?.rsplit_once(' ')?;
    Some((node, tick.parse().ok()?))
}

/// By node, as [`History`] carries them.
type ByNode<T> = BTreeMap<String, T>;
