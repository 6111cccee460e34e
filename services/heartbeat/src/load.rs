//! Load of the host, from `/proc`.

use std::fmt::Display;
use std::time::Duration;

use procfs::prelude::*;
use procfs::{CpuPressure, CpuTime, IoPressure, KernelStats, Meminfo, MemoryPressure};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::blocking::Blocking;

/// How often the load is read. The averages of the kernel's pressure figures move every two seconds, and a reading
/// costs a fraction of a millisecond.
const EVERY: Duration = Duration::from_secs(1);

/// Load of the host; what could not be read is `None`. All figures are ratios from 0 to 1.
///
/// In a container these are the figures of the host: `/proc` is not divided by control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Share of processor time not spent idle, since the previous sample; `None` in the first one.
    pub cpu: Option<f64>,
    /// Share of memory that is not available to a new process (`MemAvailable`).
    pub memory: Option<f64>,
    /// Pressure stall information; all `None` where the kernel has none (`CONFIG_PSI`, `psi=0`).
    pub pressure: Pressure,
}

/// Share of the last ten seconds in which some task waited for a resource (`some avg10`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Option<f64>,
    /// For memory.
    pub memory: Option<f64>,
    /// For a disk.
    pub io: Option<f64>,
}

/// Samples the load once a second until it is dropped.
#[derive(Debug)]
pub struct LoadSampler {
    latest: watch::Receiver<Load>,
    task: JoinHandle<()>,
}

impl LoadSampler {
    /// Starts sampling, with the first sample now. Must be called in a tokio runtime.
    pub fn start() -> Self {
        let (sender, latest) = watch::channel(Load::default());
        Self { latest, task: tokio::spawn(sample(sender)) }
    }

    /// The latest load; everything `None` before the first sample.
    pub fn subscribe(&self) -> watch::Receiver<Load> {
        self.latest.clone()
    }
}

impl Drop for LoadSampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sample(sender: watch::Sender<Load>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reading = Blocking::new();
    let mut sampler = Some(Sampler::default());
    loop {
        ticks.tick().await;
        let mut taken = sampler.take().unwrap_or_default();
        let read = reading.run(move || {
            let load = taken.read();
            (taken, load)
        });
        match read.await {
            Ok((returned, load)) => {
                sampler = Some(returned);
                sender.send_replace(load);
            }
            Err(error) => tracing::warn!(%error, "reading the load"),
        }
    }
}

/// What has to be remembered between samples.
#[derive(Debug, Default)]
struct Sampler {
    before: Option<Times>,
    /// Sources found unreadable: said once each.
    told: Vec<&'static str>,
}

impl Sampler {
    fn read(&mut self) -> Load {
        let times = self.note("/proc/stat", KernelStats::current()).map(|stats| Times::from(&stats.total));
        let cpu = self.before.zip(times).and_then(|(before, now)| now.busy_since(before));
        self.before = times;
        Load {
            cpu,
            memory: self.note("/proc/meminfo", Meminfo::current()).and_then(|memory| used(&memory)),
            pressure: Pressure {
                cpu: self.note("/proc/pressure/cpu", CpuPressure::current()).map(|p| ratio(p.some.avg10)),
                memory: self
                    .note("/proc/pressure/memory", MemoryPressure::current())
                    .map(|p| ratio(p.some.avg10)),
                io: self.note("/proc/pressure/io", IoPressure::current()).map(|p| ratio(p.some.avg10)),
            },
        }
    }

    /// The value, or `None` and the reason told once.
    fn note<T, E: Display>(&mut self, source: &'static str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                if !self.told.contains(&source) {
                    self.told.push(source);
                    tracing::warn!(source, %error, "no load figures from here");
                }
                None
            }
        }
    }
}

/// Processor time since boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    idle: u64,
    total: u64,
}

impl From<&CpuTime> for Times {
    /// Time of guests is already in `user` and `nice`; waiting for a disk is idle time.
    fn from(time: &CpuTime) -> Self {
        let idle = time.idle + time.iowait.unwrap_or(0);
        let busy = time.user + time.nice + time.system;
        let interrupts = time.irq.unwrap_or(0) + time.softirq.unwrap_or(0) + time.steal.unwrap_or(0);
        Self { idle, total: idle + busy + interrupts }
    }
}

impl Times {
    /// `None` if no tick has passed. The kernel's `iowait` may run backwards, hence the saturation.
    fn busy_since(self, before: Self) -> Option<f64> {
        let total = self.total.saturating_sub(before.total);
        let idle = self.idle.saturating_sub(before.idle).min(total);
        (total > 0).then(|| (total - idle) as f64 / total as f64)
    }
}

fn used(memory: &Meminfo) -> Option<f64> {
    let available = memory.mem_available?.min(memory.mem_total);
    (memory.mem_total > 0).then(|| 1.0 - available as f64 / memory.mem_total as f64)
}

fn ratio(percent: f32) -> f64 {
    (f64::from(percent) / 100.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use procfs::{FromBufRead, ProcError};

    use super::*;

    #[test]
    fn busy_is_what_was_not_idle_since_the_last_sample() {
        let before = Times { idle: 1_000, total: 4_000 };
        assert_eq!(Times { idle: 1_025, total: 4_100 }.busy_since(before), Some(0.75));
        assert_eq!(before.busy_since(before), None, "no tick has passed");
        assert_eq!(Times { idle: 990, total: 4_100 }.busy_since(before), Some(1.0), "iowait ran backwards");
        assert_eq!(Times { idle: 2_000, total: 4_100 }.busy_since(before), Some(0.0));
    }

    #[test]
    fn memory_used_is_what_is_not_available() {
        let mut memory = Meminfo::current().unwrap();
        memory.mem_total = 8_000;
        memory.mem_available = Some(2_000);
        assert_eq!(used(&memory), Some(0.75));
        memory.mem_available = None;
        assert_eq!(used(&memory), None);
    }

    #[test]
    fn pressure_is_the_short_average_as_a_ratio() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.50 total=9\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n";
        let pressure = CpuPressure::from_buf_read(Cursor::new(text)).unwrap();
        assert_eq!(ratio(pressure.some.avg10), 0.125);
    }

    /// A kernel without pressure figures: `None`, and remembered as told.
    #[test]
    fn a_missing_source_is_none_and_told_once() {
        let mut sampler = Sampler::default();
        for _ in 0..3 {
            let missing = Err::<(), _>(ProcError::NotFound(None));
            assert_eq!(sampler.note("/proc/pressure/cpu", missing), None);
        }
        assert_eq!(sampler.told, ["/proc/pressure/cpu"]);
        assert_eq!(sampler.note("/proc/stat", Ok::<_, ProcError>(7)), Some(7));
    }

    #[tokio::test]
    async fn the_sampler_reads_this_host() {
        let sampler = LoadSampler::start();
        let mut latest = sampler.subscribe();
        let full = latest.wait_for(|load| load.cpu.is_some());
        let load = *tokio::time::timeout(Duration::from_secs(10), full).await.expect("no sample").unwrap();
        for figure in [load.cpu, load.memory] {
            assert!((0.0..=1.0).contains(&figure.unwrap()), "{load:?}");
        }
        let has_pressure = std::path::Path::new("/proc/pressure/io").exists();
        assert_eq!(load.pressure.io.is_some(), has_pressure);
    }
}
