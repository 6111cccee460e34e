//! When the machine itself stood still: a virtual machine whose processors are taken away for tens of milliseconds
//! cannot show gaps of ten. What a hypervisor takes is measured here and shown beside
//! a gap, to explain it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{Moment, probe::realtime_above_all};

/// One look at the clock per processor and interval.
const INTERVAL: Duration = Duration::from_millis(1);
/// A processor that comes this much too late stood still. Nothing in the machine goes before the thread that looks.
const LATE: Duration = Duration::from_millis(2);
/// Stalls remembered: a stall per millisecond for longer than any test.
const MOST: usize = 200_000;

/// Watches every processor with a thread of the highest priority until it is dropped.
#[derive(Debug)]
pub struct Stalls {
    seen: Arc<Mutex<Vec<(Moment, Moment)>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stalls {
    /// Starts to watch.
    ///
    /// # Errors
    /// When a thread cannot be had, or may not have the priority that makes its lateness the machine's.
    pub fn watch() -> Result<Self> {
        let processors = std::thread::available_parallelism().context("counting processors")?.get();
        let mut stalls = Self { seen: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for processor in 0..processors {
            let (seen, stop) = (Arc::clone(&stalls.seen), Arc::clone(&stalls.stop));
            let (ready, started) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name(format!("stalls-{processor}")).spawn(move || {
                let prepared = prepare(processor);
                let works = prepared.is_ok();
                // Whoever started it waits for this.
                let _ = ready.send(prepared);
                if works {
                    look(&seen, &stop);
                }
            });
            stalls.threads.push(thread.context("starting a thread")?);
            started.recv().context("a watching thread ended")??;
        }
        Ok(stalls)
    }

    /// For how long between `from` and `to` at least one processor stood still.
    pub fn between(&self, from: Moment, to: Moment) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        union(&seen, from, to)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn prepare(processor: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(processor).context("naming a processor")?;
    sched_setaffinity(Pid::from_raw(0), &only).context("staying on a processor")?;
    realtime_above_all()
}

fn look(seen: &Mutex<Vec<(Moment, Moment)>>, stop: &AtomicBool) {
    let mut due = Moment::now() + INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        due.reach();
        let now = Moment::now();
        if now.since(due) > LATE {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < MOST {
                seen.push((due, now));
            }
        }
        due = now + INTERVAL;
    }
}

/// Length of the union of `spans` within `from..to`; the spans may overlap and come in any order.
fn union(spans: &[(Moment, Moment)], from: Moment, to: Moment) -> Duration {
    let within = spans.iter().map(|(begin, end)| ((*begin).max(from), (*end).min(to)));
    let mut within: Vec<_> = within.filter(|(begin, end)| begin < end).collect();
    within.sort_unstable();
    let mut total = Duration::ZERO;
    let mut reached = from;
    for (begin, end) in within {
        let begin = begin.max(reached);
        total += end.since(begin);
        reached = reached.max(end);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn overlapping_stalls_count_once_and_only_within_the_span() {
        let spans = [(at(30), at(40)), (at(0), at(12)), (at(35), at(45)), (at(90), at(99))];
        assert_eq!(union(&spans, at(10), at(50)), Duration::from_millis(2 + 15));
        assert_eq!(union(&spans, at(50), at(80)), Duration::ZERO);
        assert_eq!(union(&[], at(0), at(100)), Duration::ZERO);
    }
}
