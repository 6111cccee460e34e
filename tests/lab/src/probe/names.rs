use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::Moment;
use crate::dns::{ask, connect, question};
use crate::net::Host;
use crate::wait::wait_until;

/// One question per interval.
const INTERVAL: Duration = Duration::from_millis(20);
/// An answer takes a millisecond; a server that is stopped must not hold up the next question for long.
const PATIENCE: Duration = Duration::from_millis(100);
/// What is recorded at most: as long as the other probe does.
const MOST_SAMPLES: usize = (super::Probe::LONGEST.as_millis() / INTERVAL.as_millis()) as usize;

/// What a name server said at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSample {
    /// When it was asked.
    pub at: Moment,
    /// Addresses in order; empty when the name has none; none when there was no (good) answer.
    pub addresses: Option<Vec<IpAddr>>,
}

/// Asks a name server for a name's addresses every 20 ms, past every cache. Dropping it ends it.
#[derive(Debug)]
pub struct DnsProbe {
    name: String,
    samples: Arc<Mutex<Vec<DnsSample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsProbe {
    /// Asks `server` from `client`; `kind` is `A` or `AAAA`.
    ///
    /// # Errors
    /// When name or type do not parse, or socket or thread cannot be made.
    pub fn start(client: &Host, server: SocketAddr, name: &str, kind: &str) -> Result<Self> {
        let question = question(name, kind).with_context(|| format!("name {name}, type {kind}"))?;
        let socket = client.enter(|| connect(server))??;
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (record, ended) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = client.thread("probe-dns", move || {
            let mut next = Moment::now();
            while !ended.load(Ordering::SeqCst) {
                let at = Moment::now();
                let addresses = ask(&socket, &question, PATIENCE)
                    .ok()
                    .map(|records| records.iter().filter_map(|record| record.parse().ok()).collect());
                let mut record = lock(&record);
                if record.len() == MOST_SAMPLES {
                    return;
                }
                record.push(DnsSample { at, addresses });
                drop(record);
                // After a long answer go on with the present.
                next = (next + INTERVAL).max(Moment::now());
                next.reach();
            }
        })?;
        Ok(Self { name: name.to_owned(), samples, stop, thread: Some(thread) })
    }

    /// All answers so far.
    pub fn snapshot(&self) -> Vec<DnsSample> {
        lock(&self.samples).clone()
    }

    /// The newest answer's addresses, if the newest question was answered.
    pub fn addresses_now(&self) -> Option<Vec<IpAddr>> {
        lock(&self.samples).last()?.addresses.clone()
    }

    /// Waits for an answer to a question asked after this call that has exactly these addresses, in any order;
    /// returns when it was asked.
    ///
    /// # Errors
    /// When the deadline passes; says what the answer was instead.
    pub fn wait_for(&self, addresses: &[IpAddr], deadline: Duration) -> Result<Moment> {
        let since = Moment::now();
        let mut wanted = addresses.to_vec();
        wanted.sort();
        let what = format!("{} to have the addresses {wanted:?}", self.name);
        wait_until(&what, deadline, || {
            let newest = lock(&self.samples).last().cloned()?;
            let mut found = newest.addresses?;
            found.sort();
            (newest.at >= since && found == wanted).then_some(newest.at)
        })
        .with_context(|| format!("{} has {:?}", self.name, self.addresses_now()))
    }
}

impl Drop for DnsProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

fn lock(samples: &Mutex<Vec<DnsSample>>) -> MutexGuard<'_, Vec<DnsSample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}
