//! Load that starves a machine: processes that do nothing but compute, and one that makes the disk keep what it writes.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::net::Host;
use crate::process::{Launch, Process};
use crate::tools::binary;

/// What is written before the disk has to keep it.
const CHUNK: usize = 1 << 20;
/// Chunks of the file, then from its beginning: enough for every write to reach the disk, too little to fill it.
const CHUNKS: u64 = 64;

/// Busy processes and a writer. Dropping it ends them; so does the end of the process that started them.
#[derive(Debug)]
pub struct Load {
    busy: Vec<Process>,
    writer: Process,
}

impl Load {
    /// Starts `busy` processes that compute without a pause, and the writer, with a file in the network's folder: on
    /// the disk that logs, JetStream and name servers of the lab write to.
    ///
    /// # Errors
    /// When `understudy-lab` is not built, or a process cannot be started.
    pub fn start(host: &Host, busy: usize) -> Result<Self> {
        let compute = |index| {
            let arguments = ["-c", "while :; do :; done"];
            Launch::new(host, &format!("busy-{index}"), "/bin/sh").arguments(arguments).spawn()
        };
        let file = host.folder().join("scribble");
        let writer = Launch::new(host, "scribble", binary("understudy-lab")?)
            .arguments(["scribble".as_ref(), file.as_os_str()])
            .spawn()?;
        Ok(Self { busy: (0..busy).map(compute).collect::<Result<_>>()?, writer })
    }

    /// Processor time that the busy processes have had so far, all together.
    ///
    /// # Errors
    /// When one of them has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let had = |process: &Process| {
            let stat =
                entry(process)?.stat().with_context(|| format!("reading {}'s time", process.name()))?;
            let ticks = (stat.utime + stat.stime) as f64;
            anyhow::Ok(Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64))
        };
        self.busy.iter().map(had).sum()
    }

    /// Bytes that the writer has sent to the disk so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn written(&self) -> Result<u64> {
        Ok(entry(&self.writer)?.io().context("reading what the writer has written")?.write_bytes)
    }
}

fn entry(process: &Process) -> Result<procfs::process::Process> {
    anyhow::ensure!(process.is_running(), "{} has ended: {}", process.name(), process.log_text());
    let pid = process.pid().cast_signed();
    procfs::process::Process::new(pid).with_context(|| format!("finding {} in /proc", process.name()))
}

/// Writes a chunk, makes the disk keep it, and so on until the process is ended.
///
/// # Errors
/// When the file cannot be made, written or synced.
pub fn write_and_sync(file: &Path) -> Result<()> {
    let context = || format!("writing {}", file.display());
    let mut file = File::create(file).with_context(context)?;
    let chunk = vec![0x5a; CHUNK];
    loop {
        for _ in 0..CHUNKS {
            file.write_all(&chunk).and_then(|()| file.sync_all()).with_context(context)?;
        }
        file.seek(SeekFrom::Start(0)).with_context(context)?;
    }
}
