//! What a process costs, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Processor of what is measured.
pub(crate) const OWN: usize = 1;
/// Processor of everything that would be on other hosts.
pub(crate) const OTHERS: usize = 0;

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, shared pages in full.
    pub rss: u64,
    /// Resident, shared pages divided by those who share them.
    pub pss: u64,
    /// Resident and of no file: what the process holds, without code that was run for the first time.
    pub anonymous: u64,
}

/// Memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = |key: &str| {
        let value =
            text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
        value.with_context(|| format!("{path} has no {key}")).map(|kib: u64| kib * 1024)
    };
    Ok(Memory { rss: kib("Rss:")?, pss: kib("Pss:")?, anonymous: kib("Anonymous:")? })
}

/// Processor time that the threads of a process have used, to the nanosecond. Threads that ended are not counted: the
/// services keep theirs.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in threads(pid)? {
        let path = format!("/proc/{pid}/task/{thread}/schedstat");
        // One that ended between the two looks.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let used = text.split(' ').next().and_then(|used| used.parse::<u64>().ok());
        nanos += used.with_context(|| format!("{path}: {text:?} has no time"))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Keeps every thread of a process on one processor; threads to come inherit it.
pub(crate) fn pin(pid: u32, processor: usize) -> Result<()> {
    for thread in threads(pid)? {
        match pin_thread(thread, processor) {
            // One that ended between the two looks.
            Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => {}
            pinned => pinned?,
        }
    }
    Ok(())
}

/// Keeps a thread on one processor; 0 is the calling one.
pub(crate) fn pin_thread(thread: i32, processor: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(processor).context("naming a processor")?;
    sched_setaffinity(Pid::from_raw(thread), &only)
        .with_context(|| format!("keeping thread {thread} on processor {processor}"))
}

fn threads(pid: u32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let folder = fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
    Ok(folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
