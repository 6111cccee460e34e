//! Traffic to tell by whether a gate is open.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use understudy_vip::boottime_ns;

use crate::segment::{Namespace, VIP4, own4};

pub(crate) const PORT: u16 = 7007;

/// A deadline for what takes milliseconds when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How often a closed way is tried; each try is followed by one on an open way, so that the
/// silence is the gate's and not the network's.
const TRIES: usize = 20;

/// Asks without a pause until the condition holds: callers judge by the time at which it did.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Sends from the IPv4 VIP until that is refused, which must be soon after `until`; when the last datagram went out.
pub(crate) fn last_sent_until_refused(until: u64) -> u64 {
    let mut last_sent = 0;
    loop {
        let before = boottime_ns();
        if refused(VIP4, own4(0)) {
            return last_sent;
        }
        last_sent = before;
        assert!(before < until + 1_000_000_000, "still open");
    }
}

/// A thread that works until dropped, in a namespace.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Calls `step` again and again; it returns by how much to raise the count.
    pub(crate) fn start<S: FnMut() -> u64>(
        namespace: &Namespace,
        make: impl FnOnce() -> S + Send + 'static,
    ) -> Background {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let namespace = Namespace { name: namespace.name.clone() };
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            namespace.enter();
            // Not ours to remove.
            std::mem::forget(namespace);
            let mut step = make();
            ready.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                counted.fetch_add(step(), Ordering::Relaxed);
            }
        });
        started.recv().unwrap();
        Background { stop, count, thread: Some(thread) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the thread, and fails if it has.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.count()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers datagrams from the very address they were sent to, whether or not it is there yet.
pub(crate) fn echo(namespace: &Namespace, address: IpAddr, port: u16) -> Background {
    Background::start(namespace, move || {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
        if address.is_ipv4() {
            socket.set_freebind_v4(true).unwrap();
        } else {
            socket.set_freebind_v6(true).unwrap();
        }
        socket.bind(&SocketAddr::new(address, port).into()).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buffer = [0; 64];
        move || match socket.recv_from(&mut buffer) {
            Ok((length, from)) => u64::from(socket.send_to(&buffer[..length], from).is_ok()),
            Err(_) => 0,
        }
    })
}

/// A client of echo servers.
pub(crate) struct Client {
    socket: UdpSocket,
    number: u64,
}

impl Client {
    /// Binds in the calling thread's namespace.
    pub(crate) fn new(like: IpAddr) -> Client {
        let any: IpAddr = if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        Client::from(any)
    }

    /// Speaks from this address.
    pub(crate) fn from(address: IpAddr) -> Client {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        Client { socket, number: 0 }
    }

    fn send(&mut self, to: SocketAddr) -> io::Result<u64> {
        self.number += 1;
        self.socket.send_to(&self.number.to_be_bytes(), to)?;
        Ok(self.number)
    }

    /// Asks once; whether *this* question is answered in time.
    pub(crate) fn ask(&mut self, to: SocketAddr, patience: Duration) -> bool {
        let Ok(number) = self.send(to) else { return false };
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 64];
        while Instant::now() < deadline {
            match self.socket.recv_from(&mut buffer) {
                Ok((8, from)) if from == to && buffer[..8] == number.to_be_bytes() => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Whether the address answers, within the usual patience.
pub(crate) fn answers(address: IpAddr, port: u16) -> bool {
    let mut client = Client::new(address);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if client.ask((address, port).into(), Duration::from_millis(50)) {
            return true;
        }
    }
    false
}

/// Whether `closed` gives no answer in a series of tries although `open`, on the same way
/// and asked after each of them, answers every time.
pub(crate) fn silent(closed: SocketAddr, open: SocketAddr) -> bool {
    assert!(answers(open.ip(), open.port()), "{open} does not answer");
    let mut asking = Client::new(closed.ip());
    let mut control = Client::new(open.ip());
    asking.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    for _ in 0..TRIES {
        // A local refusal is silence, too.
        let _ = asking.send(closed);
        assert!(control.ask(open, PATIENCE), "{open} stopped answering");
        if asking.socket.recv_from(&mut buffer).is_ok() {
            return false;
        }
    }
    true
}

/// Sends one datagram from an address of this host to nobody in particular nearby.
pub(crate) fn send_from(address: IpAddr, to: IpAddr) -> io::Result<()> {
    UdpSocket::bind((address, 0))?.send_to(&[], (to, 9)).map(|_| ())
}

/// Whether sending from the address is refused by the gate; any other error fails the test.
pub(crate) fn refused(address: IpAddr, to: IpAddr) -> bool {
    match send_from(address, to) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => true,
        Err(error) => panic!("sending from {address}: {error}"),
    }
}
