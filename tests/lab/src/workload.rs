//! The workload of tests and demo: HTTP and a UDP echo on one port, both saying which node they are.
//!
//! `GET /` answers the name, `GET /work` too, but takes its time; `GET /metrics` says how many of those are in flight.
//! `GET /healthz` answers 200, a datagram is answered by `<name> <datagram>`. SIGUSR1 makes it hang (connections are
//! accepted and never answered, nor are datagrams), SIGUSR2 brings it back.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Moment;
use crate::http::fetch;
use crate::net::Host;
use crate::probe::realtime_below_services;
use crate::process::{Launch, Process};
use crate::tools::binary;

/// Connections served, or held while hanging, at one time; a probe and a few checks need less than ten.
const MOST_CONNECTIONS: usize = 128;
/// A client that says nothing is let go.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// It opens two sockets and is there.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// What `/work` takes, as a request that waits for a database: so much longer than everything around it that what is in
/// flight is the number of clients.
const WORK: Duration = Duration::from_millis(100);
/// Requests of `/work` in flight, as `/metrics` calls them.
pub const IN_FLIGHT: &str = "http_requests_in_flight";
/// Waiting connections.
const BACKLOG: i32 = 128;
/// A request is one short line and a few headers.
const LARGEST_REQUEST: u64 = 8192;
/// A datagram of the probe is some 20 bytes.
const LARGEST_DATAGRAM: usize = 1500;

/// Starts the workload in a host, named after it, and waits until it answers there.
///
/// # Errors
/// When `understudy-lab` is not built, or does not answer within five seconds.
pub fn start(host: &Host, port: u16) -> Result<Process> {
    let process = Launch::new(host, &format!("{}-workload", host.name()), binary("understudy-lab")?)
        .arguments(["workload", "--name", host.name(), "--listen", &port.to_string()])
        .spawn()?;
    let healthz = || fetch(host, host.socket(port), "/healthz", REQUEST_PATIENCE);
    process.wait_ready(START_DEADLINE, || healthz().is_ok_and(|response| response.status == 200))?;
    Ok(process)
}

#[derive(Debug)]
struct Workload {
    name: String,
    hangs: AtomicBool,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
}

/// Serves until the process is ended. Call it first thing in `main`: the signals are masked for threads to come.
///
/// # Errors
/// When the port is taken or a thread cannot be had.
pub fn run(name: &str, port: u16) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.add(Signal::SIGUSR2);
    signals.thread_block().context("masking SIGUSR1 and SIGUSR2")?;
    let workload = Arc::new(Workload {
        name: name.to_owned(),
        hangs: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        in_flight: AtomicUsize::new(0),
    });
    let datagrams = udp_socket(port).with_context(|| format!("opening UDP port {port}"))?;
    let listener = tcp_listener(port).with_context(|| format!("opening TCP port {port}"))?;
    let echo = Arc::clone(&workload);
    std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
        // The instrument's far end: how late the scheduler is must not show as a gap. Where it is not
        // permitted the echo is merely less exact.
        let _ = realtime_below_services();
        echo.answer_datagrams(&datagrams);
    })?;
    let modes = Arc::clone(&workload);
    std::thread::Builder::new().name("modes".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            modes.hangs.store(signal == Signal::SIGUSR1, Ordering::SeqCst);
        }
    })?;
    workload.serve(&listener);
    Ok(())
}

fn wildcard(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)
}

fn tcp_listener(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // Started again while connections of the earlier run are still closing.
    socket.set_reuse_address(true)?;
    socket.bind(&wildcard(port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn udp_socket(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&wildcard(port).into())?;
    Ok(socket)
}

impl Workload {
    fn answer_datagrams(&self, socket: &Socket) {
        let mut buffer = [0; LARGEST_DATAGRAM];
        let prefix = format!("{} ", self.name);
        loop {
            // Errors are of one datagram: the port unreachable of an earlier answer, or an answer that the
            // gate refuses (EPERM).
            let Ok((length, from, asked)) = receive(socket.as_raw_fd(), &mut buffer) else { continue };
            if !self.hangs.load(Ordering::SeqCst) {
                let _ = answer(socket.as_raw_fd(), &[prefix.as_bytes(), &buffer[..length]], &from, asked);
            }
        }
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept() else { continue };
            let slot = Slot::take(self);
            let Some(slot) = slot else { continue };
            let thread = std::thread::Builder::new().name("connection".to_owned());
            // Without a thread the connection is dropped, as a full server does.
            let _ = thread.spawn(move || {
                let _ = slot.0.answer_requests(stream);
            });
        }
    }

    /// One request after the other, as long as the client wants.
    fn answer_requests(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
        stream.set_write_timeout(Some(REQUEST_PATIENCE))?;
        while let Some(request) = Request::read(&mut stream)? {
            if self.hangs.load(Ordering::SeqCst) {
                // Hold it until the client gives up; what hung once is not answered later.
                stream.set_read_timeout(None)?;
                std::io::copy(&mut stream, &mut std::io::sink())?;
                return Ok(());
            }
            self.answer(&mut stream, &request)?;
            if request.last {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, stream: &mut TcpStream, request: &Request) -> std::io::Result<()> {
        let page;
        let (status, body) = match request.path.as_str() {
            "/" => ("200 OK", self.name.as_str()),
            "/work" => return self.work(stream, request.last),
            "/healthz" => ("200 OK", "ok"),
            "/metrics" => {
                let in_flight = self.in_flight.load(Ordering::SeqCst);
                page = format!("# TYPE {IN_FLIGHT} gauge\n{IN_FLIGHT} {in_flight}");
                ("200 OK", page.as_str())
            }
            _ => ("404 Not Found", "not found"),
        };
        answer_with(stream, status, body, request.last)
    }

    /// A request that takes as long as work does. It is in flight until its answer is on its way: one that counted no
    /// more could be cut off by a drain that waits for it.
    fn work(&self, stream: &mut TcpStream, last: bool) -> std::io::Result<()> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        (Moment::now() + WORK).reach();
        let answered = answer_with(stream, "200 OK", &self.name, last);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answered
    }
}

fn answer_with(stream: &mut TcpStream, status: &str, body: &str, last: bool) -> std::io::Result<()> {
    // In one piece, as servers do: each piece would be a packet, and wake who asks once more.
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{}\r\n{body}\n",
        body.len() + 1,
        if last { "Connection: close\r\n" } else { "" }
    );
    stream.write_all(answer.as_bytes())
}

/// One of the connections that may be open.
struct Slot(Arc<Workload>);

impl Slot {
    fn take(workload: &Arc<Workload>) -> Option<Self> {
        let slot = Self(Arc::clone(workload));
        (workload.connections.fetch_add(1, Ordering::SeqCst) < MOST_CONNECTIONS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Request {
    path: String,
    /// The client wants no other one on this connection.
    last: bool,
}

impl Request {
    /// Reads to the end of the headers; none when it is no GET request or the client has closed.
    fn read(stream: &mut TcpStream) -> std::io::Result<Option<Self>> {
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let length = stream.read(&mut chunk)?;
            if length == 0 || request.len() as u64 > LARGEST_REQUEST {
                return Ok(None);
            }
            request.extend_from_slice(&chunk[..length]);
        }
        let text = String::from_utf8_lossy(&request);
        let last =
            !text.contains(" HTTP/1.1\r\n") || text.to_lowercase().contains("\r\nconnection: close\r\n");
        let mut words = text.split_whitespace();
        let path = words.next().filter(|method| *method == "GET").and_then(|_| words.next());
        Ok(path.map(|path| Self { path: path.to_owned(), last }))
    }
}

/// One datagram: its length, its sender, and the address that it was sent to.
fn receive(socket: RawFd, buffer: &mut [u8]) -> nix::Result<(usize, SockaddrIn6, libc::in6_pktinfo)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn6>(socket, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let asked = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    match (message.address, asked) {
        (Some(from), Some(asked)) => Ok((message.bytes, from, asked)),
        _ => Err(Errno::EPROTO),
    }
}

/// A wildcard socket would answer from the host's first address; the client asked another one, and takes an
/// answer from that one only. IPv4 comes and goes mapped into IPv6.
fn answer(socket: RawFd, parts: &[&[u8]], to: &SockaddrIn6, mut from: libc::in6_pktinfo) -> nix::Result<()> {
    if !Ipv6Addr::from(from.ipi6_addr.s6_addr).is_unicast_link_local() {
        // The way back is the routing table's choice.
        from.ipi6_ifindex = 0;
    }
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    sendmsg(socket, &parts, &[ControlMessage::Ipv6PacketInfo(&from)], MsgFlags::empty(), Some(to)).map(drop)
}
