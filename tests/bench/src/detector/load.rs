//! The load: many nodes' heartbeats over one NATS connection, and the grants that come back.
//!
//! Speaks the client protocol of NATS itself: one thread must send several hundred thousand heartbeats a second on the
//! processor that it shares with the server, and time the answers.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use prost::Message as _;
use understudy_lab::{CLIENT_PORT, Host, Moment};
use understudy_wire::v1;

use crate::usage::pin_thread;

/// Nodes that join in one part: 500 a second. Each is judged and told of, and each pair elects; thousands of those at one
/// instant are no measure of a steady load.
const JOIN: usize = 125;
const JOIN_PART: Duration = Duration::from_millis(250);
/// Heartbeats are sent in bundles this far apart.
const BUNDLE: Duration = Duration::from_millis(1);
/// One read of the answers.
const READ: usize = 1 << 18;
/// Above every epoch that a fresh detector knows of.
const EPOCH: u64 = 5_000;
/// How often the receiver looks whether it is to end.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Name of a group of two.
pub(crate) fn group_name(group: usize) -> String {
    format!("g{group}")
}

/// A connection that speaks for many nodes.
pub(crate) struct Load {
    stream: TcpStream,
    nodes: Vec<v1::Heartbeat>,
    next: usize,
    /// How many of the nodes have joined.
    joined: usize,
    sent: u64,
    latencies: Arc<Mutex<Vec<f64>>>,
    stop: Arc<AtomicBool>,
    receiver: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Speaks for `nodes` nodes, in pairs: the first of each holds slot 0 of its group. The calling thread and the
    /// receiver stay on `processor`.
    pub(crate) fn connect(
        host: &Host,
        server: &Host,
        cluster: &str,
        nodes: usize,
        processor: usize,
    ) -> Result<Self> {
        pin_thread(0, processor)?;
        let address = server.socket(CLIENT_PORT);
        let stream = host.enter(|| TcpStream::connect(address))?.context("connecting to NATS")?;
        stream.set_nodelay(true)?;
        let mut load = Self {
            stream,
            nodes: (0..nodes).map(|index| heartbeat(cluster, index)).collect(),
            next: 0,
            joined: 0,
            sent: 0,
            latencies: Arc::default(),
            stop: Arc::default(),
            receiver: None,
        };
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB understudy.{cluster}.grant.*.* 1\r\nPING\r\n"
        );
        load.stream.write_all(hello.as_bytes())?;
        let stream = load.stream.try_clone()?;
        stream.set_read_timeout(Some(STOP_POLL))?;
        let (latencies, stop) = (Arc::clone(&load.latencies), Arc::clone(&load.stop));
        let receiver = std::thread::Builder::new().name("load-receive".into()).spawn(move || {
            pin_thread(0, processor)?;
            receive(stream, &latencies, &stop)
        })?;
        load.receiver = Some(receiver);
        Ok(load)
    }

    /// Lets the nodes join one part after the other, each beating at `rate` from then on.
    pub(crate) fn join(&mut self, rate: f64) -> Result<()> {
        while self.joined < self.nodes.len() {
            self.joined = (self.joined + JOIN).min(self.nodes.len());
            self.send(rate * self.joined as f64, JOIN_PART)?;
        }
        Ok(())
    }

    /// Heartbeats sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends `rate` heartbeats a second for `span`, node after node in turn.
    pub(crate) fn send(&mut self, rate: f64, span: Duration) -> Result<()> {
        let begin = Moment::now();
        let first = self.sent;
        let mut bundle = Vec::new();
        loop {
            let elapsed = Moment::now().since(begin);
            let due = (elapsed.min(span).as_secs_f64() * rate) as u64;
            while self.sent - first < due {
                self.write_next(&mut bundle);
                self.sent += 1;
                // Written in pieces, or the first of a large bundle would wait for the last to be made.
                if bundle.len() >= READ / 4 {
                    self.stream.write_all(&bundle).context("sending heartbeats")?;
                    bundle.clear();
                }
            }
            self.stream.write_all(&bundle).context("sending heartbeats")?;
            bundle.clear();
            if elapsed >= span {
                return Ok(());
            }
            // Paces the load; there is no state to wait for.
            (Moment::now() + BUNDLE).reach();
        }
    }

    fn write_next(&mut self, bundle: &mut Vec<u8>) {
        let heartbeat = &mut self.nodes[self.next];
        self.next = (self.next + 1) % self.joined;
        heartbeat.seq += 1;
        heartbeat.sent_at = Moment::now().nanos();
        let (cluster, group, node) = (&heartbeat.cluster, &heartbeat.group, &heartbeat.node);
        // A vector takes everything.
        let _ = write!(
            bundle,
            "PUB understudy.{cluster}.heartbeat.{group}.{node} {}\r\n",
            heartbeat.encoded_len()
        );
        let _ = heartbeat.encode(bundle);
        bundle.extend_from_slice(b"\r\n");
    }

    /// From heartbeat to grant, milliseconds, since the last call.
    pub(crate) fn take_latencies(&self) -> Vec<f64> {
        std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.receiver.take().map(JoinHandle::join) {
            eprintln!("the load's receiver: {error:#}");
        }
    }
}

/// As a node of the sample deployment would send it.
fn heartbeat(cluster: &str, index: usize) -> v1::Heartbeat {
    let holds = index.is_multiple_of(2);
    let claim = v1::SlotEpoch { slot: 0, epoch: EPOCH };
    v1::Heartbeat {
        cluster: cluster.to_owned(),
        group: group_name(index / 2),
        node: format!("node-{index}"),
        boot: (index as u128 + 1).to_be_bytes().to_vec(),
        incarnation: 1,
        seq: 1,
        health: v1::Health::Healthy.into(),
        standby: v1::StandbyKind::Hot.into(),
        ready: true,
        priority: 100,
        claims: if holds { vec![claim] } else { Vec::new() },
        known: vec![claim],
        details: details(holds).encode_to_vec(),
        ..v1::Heartbeat::default()
    }
}

fn details(holds: bool) -> v1::Details {
    v1::Details {
        address: "10.77.0.41".into(),
        link_address: vec![2, 0x75, 0x73, 0, 0, 0x29],
        checks: vec![v1::CheckResult {
            name: "http".into(),
            up: true,
            latency_nanos: 412_345,
            ..Default::default()
        }],
        load: Some(v1::Load {
            cpu: 0.21,
            memory: 0.43,
            pressure_cpu: Some(0.4),
            pressure_memory: Some(0.0),
            pressure_io: Some(0.1),
        }),
        sightings: vec![v1::Sighting {
            vip: "10.77.0.100".into(),
            link_address: vec![2, 0x75, 0x73, 0, 0, 0x29],
        }],
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
        interval_nanos: 100_000_000,
        phase: if holds { "serving" } else { "standby" }.into(),
        ..v1::Details::default()
    }
}

/// Reads until told to stop; times every grant by the heartbeat that it echoes.
fn receive(stream: TcpStream, latencies: &Mutex<Vec<f64>>, stop: &AtomicBool) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(READ, stream);
    let (mut line, mut payload) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => anyhow::bail!("NATS closed the connection"),
            Ok(_) => {}
            // Nothing for a while; what was read of a line stays.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("reading from NATS"),
        }
        let text = std::str::from_utf8(&line).context("a line of NATS is no text")?.trim_end();
        if text == "PING" {
            writer.write_all(b"PONG\r\n")?;
        } else if text.starts_with("-ERR") {
            anyhow::bail!("NATS says {text}");
        } else if text.starts_with("MSG ") {
            let length: usize = text.rsplit(' ').next().unwrap_or_default().parse()?;
            payload.resize(length + 2, 0);
            read_whole(&mut reader, &mut payload)?;
            let now = Moment::now();
            let message = v1::SeatMessage::decode(&payload[..length])?;
            if let Some(v1::seat_message::Message::Grant(grant)) = message.message {
                let taken = now.since(Moment::from_nanos(grant.echo)).as_secs_f64() * 1e3;
                latencies.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            }
        }
        line.clear();
    }
    Ok(())
}

/// The rest of a message is on its way: timeouts are passed over.
fn read_whole(reader: &mut BufReader<TcpStream>, mut payload: &mut [u8]) -> Result<()> {
    while !payload.is_empty() {
        match reader.read(payload) {
            Ok(0) => anyhow::bail!("NATS closed the connection"),
            Ok(length) => payload = &mut payload[length..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("reading from NATS"),
        }
    }
    Ok(())
}
