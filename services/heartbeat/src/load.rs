//! Load of the host, from `/proc`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

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

/// The files of proc(5) that are read.
const SOURCES: [&str; 5] =
    ["/proc/stat", "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io"];

/// What is read of each source, bytes: the figures are in its first lines, and `/proc/stat` goes on for each interrupt.
const HEAD: usize = 4096;

/// The load of two samples that are given as the text of `/proc/stat` and then the texts of all five files.
#[doc(hidden)]
pub fn of_texts(before: &str, texts: [&str; SOURCES.len()]) -> Load {
    let mut sampler = Sampler { before: Times::parse(before), ..Sampler::default() };
    sampler.take(texts.map(|text| Ok(text.to_owned())))
}

/// What has to be remembered between samples.
#[derive(Debug, Default)]
struct Sampler {
    /// Those of [`SOURCES`] that could be opened. They stay open: reading one anew is a single system call then, where
    /// opening and reading all of it took nine.
    files: [Option<File>; SOURCES.len()],
    before: Option<Times>,
    /// Sources found unreadable: said once each.
    told: Vec<&'static str>,
}

impl Sampler {
    fn read(&mut self) -> Load {
        let texts = std::array::from_fn(|source| head(SOURCES[source], &mut self.files[source]));
        self.take(texts)
    }

    /// The load that the texts of [`SOURCES`] tell.
    fn take(&mut self, texts: [io::Result<String>; SOURCES.len()]) -> Load {
        let [stat, memory, cpu, mem, disk] = texts;
        let times = self.note(SOURCES[0], stat, Times::parse);
        let busy = self.before.zip(times).and_then(|(before, now)| now.busy_since(before));
        self.before = times;
        Load {
            cpu: busy,
            memory: self.note(SOURCES[1], memory, used),
            pressure: Pressure {
                cpu: self.note(SOURCES[2], cpu, waiting),
                memory: self.note(SOURCES[3], mem, waiting),
                io: self.note(SOURCES[4], disk, waiting),
            },
        }
    }

    /// What `parse` reads in the text, or `None` and the reason told once.
    fn note<T>(
        &mut self,
        source: &'static str,
        text: io::Result<String>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "the figure is not there");
        match text.and_then(|text| parse(&text).ok_or_else(unknown)) {
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

/// The first lines of a file of proc(5), which stays open.
fn head(path: &str, file: &mut Option<File>) -> io::Result<String> {
    let file = match file {
        Some(file) => file,
        closed => closed.insert(File::open(path)?),
    };
    let mut bytes = [0; HEAD];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// Processor time since boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    idle: u64,
    total: u64,
}

impl Times {
    /// From `/proc/stat`. Waiting for a disk is idle time.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let sum = |ticks: &[u64]| ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        // user, nice, system, idle, iowait, irq, softirq, steal; time of guests follows and is in user and nice already.
        let total = sum(&ticks[..ticks.len().min(8)]);
        Some(Self { idle: sum(ticks.get(3..5)?), total })
    }

    /// `None` if no tick has passed. The kernel's `iowait` may run backwards, hence the saturation.
    fn busy_since(self, before: Self) -> Option<f64> {
        let total = self.total.saturating_sub(before.total);
        let idle = self.idle.saturating_sub(before.idle).min(total);
        (total > 0).then(|| (total - idle) as f64 / total as f64)
    }
}

/// Share of memory that `/proc/meminfo` says is in use.
fn used(text: &str) -> Option<f64> {
    let kibibytes = |name| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let total = kibibytes("MemTotal:").filter(|total| *total > 0)?;
    let available = kibibytes("MemAvailable:")?.min(total);
    Some(1.0 - available as f64 / total as f64)
}

/// `some avg10` of a pressure file as a ratio.
fn waiting(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (!percent.is_nan()).then(|| (percent / 100.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn ticks_are_those_of_all_processors_without_guests_twice() {
        let text = "cpu  100 5 50 800 40 2 3 4 70 6\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(Times::parse(text), Some(Times { idle: 840, total: 1_004 }));
        for bad in ["", "cpu0 1 2 3 4 5", "cpu  1 2 3 4", "cpu  1 2 x 4 5", "cpu"] {
            assert_eq!(Times::parse(bad), None, "{bad:?}");
        }
        let end = format!("cpu  {0} {0} {0} {0} {0}", u64::MAX);
        assert_eq!(Times::parse(&end), Some(Times { idle: u64::MAX, total: u64::MAX }));
    }

    #[test]
    fn memory_used_is_what_is_not_available() {
        assert_eq!(used("MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:  2000 kB\n"), Some(0.75));
        assert_eq!(used("MemTotal:  8000 kB\nMemFree: 1 kB\n"), None);
        assert_eq!(used("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    }

    #[test]
    fn pressure_is_the_short_average_as_a_ratio() {
        let some = "some avg10=12.50 avg60=1.00 avg300=0.50 total=9\n";
        let full = "full avg10=99.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(waiting(&format!("{some}{full}")), Some(0.125));
        assert_eq!(waiting(some), Some(0.125), "processors before Linux 5.13");
        for bad in ["", "some", full, "some avg10=NaN", "some avg10=", "some avg60=1.00"] {
            assert_eq!(waiting(bad), None, "{bad:?}");
        }
    }

    /// A kernel without pressure figures: `None`, and remembered as told.
    #[test]
    fn a_missing_source_is_none_and_told_once() {
        let mut sampler = Sampler::default();
        for _ in 0..3 {
            let missing = Err(io::ErrorKind::NotFound.into());
            assert_eq!(sampler.note(SOURCES[2], missing, waiting), None);
        }
        assert_eq!(sampler.told, [SOURCES[2]]);
        assert_eq!(sampler.note(SOURCES[1], Ok("7".into()), |text| text.parse().ok()), Some(7));
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
