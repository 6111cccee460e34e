//! A workload that costs something: each request burns the processor for a while, and is answered with the host's name.
//! `/metrics` has how many are under way, `/healthz` says ok. Ended by SIGTERM at once.
//!
//!     understudy-burn 0.0.0.0:8080 20ms

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// A client that says nothing holds a thread no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest head of a request that is read; those of the tests have a line.
const HEAD: usize = 1024;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().context("where to listen")?;
    let cost = arguments.next().and_then(|cost| cost.strip_suffix("ms")?.parse().ok());
    let cost = Duration::from_millis(cost.context("what a request costs, such as 20ms")?);
    let listener = TcpListener::bind(&listen).with_context(|| format!("listening on {listen}"))?;
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let under_way = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let (Ok(stream), host, under_way) = (stream, host.clone(), Arc::clone(&under_way)) else { continue };
        std::thread::spawn(move || answer(stream, &host, cost, &under_way));
    }
    Ok(())
}

/// A client that goes away is not this program's concern.
fn answer(mut stream: TcpStream, host: &str, cost: Duration, under_way: &AtomicUsize) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head = [0; HEAD];
    let length = stream.read(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head[..length]);
    let body = match head.split(' ').nth(1)? {
        "/healthz" => "ok\n".to_owned(),
        "/metrics" => format!("requests_in_flight {}\n", under_way.load(Ordering::Relaxed)),
        _ => {
            under_way.fetch_add(1, Ordering::Relaxed);
            burn(cost);
            under_way.fetch_sub(1, Ordering::Relaxed);
            format!("{host}\n")
        }
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").ok()
}

/// Uses so much of the processor, however long that takes.
fn burn(cost: Duration) {
    let used =
        || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or(Duration::MAX);
    let end = used().saturating_add(cost);
    while used() < end {
        std::hint::spin_loop();
    }
}
