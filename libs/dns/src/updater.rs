//! Keeps every server of a zone up to date in the background, without ever holding up its caller.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::desired::Desired;
use crate::error::DnsError;
use crate::update::{Answer, apply};
use crate::whereabouts::Whereabouts;
use crate::zone::Zone;

/// Names and slots that one process may care for: a node holds one slot of a group, with a few names.
const MAX_CONTRIBUTIONS: usize = 1024;
/// Updates under way at one server at a time: a burst beyond this would only overrun its socket buffer.
const MAX_CONCURRENT: usize = 32;
/// Outcomes waiting for the caller: enough for every contribution to change on a few servers at once.
const MAX_OUTCOMES: usize = 1024;

/// How often to try.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// First delay after a failure; it doubles from one failure to the next.
    pub retry_min: Duration,
    /// Longest delay between two tries, jitter included.
    pub retry_max: Duration,
    /// How often a server that is up to date is looked at again: it may have been restored from old data.
    pub recheck: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
            recheck: Duration::from_secs(30),
        }
    }
}

impl Timing {
    /// Delays after one failure, after the next and so on.
    pub(crate) fn delays(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        // Jitter adds up to the delay itself, so half of the bound is the longest delay before it.
        let longest = self.retry_max / 2;
        ExponentialBuilder::new()
            .with_min_delay(self.retry_min.min(longest))
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// What became of one contribution at one server: its first failure, and then every final answer.
///
/// A later look (`recheck`) that finds nothing to do is not reported.
#[derive(Debug)]
pub struct Outcome {
    /// The server, as [`Zone::servers`] names it.
    pub server: String,
    /// The name, as given.
    pub name: String,
    /// The slot.
    pub slot: u32,
    /// The epoch that was to be written.
    pub epoch: u64,
    /// The final answer; or the first error, and the tries go on.
    pub result: Result<Answer, DnsError>,
    /// Tries so far, this one included.
    pub attempts: u32,
    /// Time since the contribution was set, or since the server was found to have lost it.
    pub elapsed: Duration,
}

/// Owns what this process contributes to a zone; dropping it stops all work.
#[derive(Debug)]
pub struct Updater {
    zone: Arc<Zone>,
    timing: Timing,
    runtime: Handle,
    servers: Vec<Arc<Server>>,
    wanted: Mutex<BTreeMap<(String, u32), watch::Sender<Desired>>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Server {
    zone: Arc<Zone>,
    place: Whereabouts,
    timing: Timing,
    permits: Semaphore,
    outcomes: mpsc::Sender<Outcome>,
    dropped: Arc<AtomicU64>,
}

impl Updater {
    /// Starts caring for `zone`. Must be called inside a tokio runtime, whose tasks do the work.
    ///
    /// The receiver is bounded: outcomes that nobody takes are dropped and counted ([`Updater::dropped_outcomes`]).
    pub fn start(zone: Zone, timing: Timing) -> (Self, mpsc::Receiver<Outcome>) {
        let (outcomes, receiver) = mpsc::channel(MAX_OUTCOMES);
        let zone = Arc::new(zone);
        let dropped = Arc::new(AtomicU64::new(0));
        let server = |name: &String| {
            Arc::new(Server {
                zone: zone.clone(),
                place: Whereabouts::find(name.clone(), timing),
                timing,
                permits: Semaphore::new(MAX_CONCURRENT),
                outcomes: outcomes.clone(),
                dropped: dropped.clone(),
            })
        };
        let servers = zone.servers.iter().map(server).collect();
        let wanted = Mutex::default();
        (Self { zone, timing, runtime: Handle::current(), servers, wanted, dropped }, receiver)
    }

    /// Wants `desired` at every server, from now until it is replaced or cleared. Never waits.
    ///
    /// Returns whether anything is new: an epoch below the one already wanted for that name and slot is ignored, and
    /// so is a repetition. Errors: what is wrong with `desired`; nothing is sent then.
    pub fn set(&self, desired: Desired) -> Result<bool, DnsError> {
        let target = self.zone.target(&desired)?;
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.name.to_ascii(), target.slot);
        if let Some(sender) = wanted.get(&key) {
            return Ok(sender.send_if_modified(|current| {
                let newer = desired.epoch >= current.epoch && desired != *current;
                if newer {
                    *current = desired;
                }
                newer
            }));
        }
        if wanted.len() >= MAX_CONTRIBUTIONS {
            return Err(DnsError::TooMany {
                name: desired.name,
                what: "names and slots",
                count: wanted.len() + 1,
                limit: MAX_CONTRIBUTIONS,
            });
        }
        let (sender, receiver) = watch::channel(desired);
        wanted.insert(key, sender);
        for server in &self.servers {
            self.runtime.spawn(server.clone().follow(receiver.clone()));
        }
        Ok(true)
    }

    /// Stops caring for what `slot` contributes to `name`, as when the slot is lost: the successor's updates are on
    /// their way. The records stay as they are; to take them back, set no addresses first: a withdrawal stays wanted
    /// until each server has answered it, since a slot that was closed has no successor. Returns whether the care ended.
    pub fn clear(&self, name: &str, slot: u32) -> bool {
        let Ok((_, name, _)) = self.zone.owners(name) else { return false };
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_ascii(), slot);
        let withdraws = wanted.get(&key).is_some_and(|desired| desired.borrow().addresses.is_empty());
        !withdraws && wanted.remove(&key).is_some()
    }

    /// Outcomes that found the channel full.
    pub fn dropped_outcomes(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The timing it works with.
    pub fn timing(&self) -> Timing {
        self.timing
    }
}

impl Server {
    /// Carries out whatever `wanted` holds until its sender is gone. One task per contribution and server, so that
    /// no server waits for another, and a newer tenure takes over from an older one that is still being tried.
    async fn follow(self: Arc<Self>, mut wanted: watch::Receiver<Desired>) {
        loop {
            let desired = wanted.borrow_and_update().clone();
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.maintain(&desired) => {}
            }
        }
    }

    /// Brings `desired` about and looks again from time to time. Ends only by being dropped.
    async fn maintain(&self, desired: &Desired) {
        let mut first = true;
        loop {
            let answer = self.persist(desired, first).await;
            // The slot is another's: nothing here is wanted any more, whatever the server holds later. Nor is anything
            // once it is withdrawn: who writes the name then is somebody else, if only by hand.
            if matches!(answer, Answer::NewerKnown { .. }) || desired.addresses.is_empty() {
                std::future::pending::<()>().await;
            }
            first = false;
            tokio::time::sleep(self.timing.recheck).await;
        }
    }

    /// Tries until there is a final answer. Reports the first failure, and the answer unless it is no news.
    async fn persist(&self, desired: &Desired, first: bool) -> Answer {
        let start = Instant::now();
        let mut delays = self.timing.delays();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(desired).await {
                Ok(answer) => {
                    if first || attempts > 1 || answer != Answer::AlreadyThere {
                        self.report(desired, Ok(answer), attempts, start);
                    }
                    return answer;
                }
                Err(error) if attempts == 1 => self.report(desired, Err(error), attempts, start),
                Err(error) => {
                    let server = self.place.name();
                    tracing::debug!(server, attempts, %error, "DNS update failed again");
                }
            }
            let delay = delays.next().unwrap_or(self.timing.retry_max);
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt(&self, desired: &Desired) -> Result<Answer, DnsError> {
        let address = self.place.address(self.zone.timeout).await?;
        // The semaphore is never closed; were it, going on without a permit would do no harm.
        let _permit = self.permits.acquire().await;
        let answer = apply(&self.zone, address, desired).await;
        if answer.is_err() {
            self.place.doubt();
        }
        answer
    }

    fn report(&self, desired: &Desired, result: Result<Answer, DnsError>, attempts: u32, start: Instant) {
        let elapsed = start.elapsed();
        let Desired { name, slot, epoch, .. } = desired.clone();
        let server = self.place.name().to_owned();
        tracing::debug!(server, name, slot, epoch, attempts, ?result, "DNS update");
        let outcome = Outcome { server, name, slot, epoch, result, attempts, elapsed };
        if let Err(mpsc::error::TrySendError::Full(outcome)) = self.outcomes.try_send(outcome) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // The first and every doubling: a full channel must show, not flood.
            if dropped.is_power_of_two() {
                tracing::warn!(
                    dropped,
                    server = outcome.server,
                    name = outcome.name,
                    "nobody takes DNS outcomes"
                );
            }
        }
    }
}
