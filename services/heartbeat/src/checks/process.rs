//! A process is running.

use std::io::Read;
use std::path::Path;

use procfs::process::{Process, all_processes};

use crate::blocking::Blocking;

use super::config::ProcessSelector;
use super::failure::Failure;

/// Longest content of a pid file that is read; a process id has at most 10 digits.
const MAX_PID_FILE: u64 = 64;

#[derive(Debug)]
pub(super) struct ProcessProbe {
    selector: ProcessSelector,
    /// The process found last: asked first, so that the others need not be read every time.
    known: Option<Identity>,
    looking: Blocking<Result<Identity, Failure>>,
}

/// A process beyond the reuse of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
}

impl ProcessProbe {
    /// `None` if the name is empty.
    pub(super) fn new(selector: &ProcessSelector) -> Option<Self> {
        let empty = match selector {
            ProcessSelector::PidFile(path) => path.as_os_str().is_empty(),
            ProcessSelector::Name(name) | ProcessSelector::CommandLine(name) => name.is_empty(),
        };
        (!empty).then(|| Self { selector: selector.clone(), known: None, looking: Blocking::new() })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let (selector, known) = (self.selector.clone(), self.known.take());
        // The command line of a process that hangs in the kernel can block its reader.
        let found = self.looking.run(move || look(&selector, known)).await;
        self.known = Some(found.map_err(|cause| Failure::step("looking for", "the process", cause))??);
        Ok(())
    }
}

fn look(selector: &ProcessSelector, known: Option<Identity>) -> Result<Identity, Failure> {
    match selector {
        ProcessSelector::PidFile(path) => {
            let pid = read_pid(path)?;
            running(pid).ok_or(Failure::NotRunning(pid))
        }
        ProcessSelector::Name(name) => find(known, name, |process| has_name(process, name)),
        ProcessSelector::CommandLine(part) => find(known, part, |process| has_command_line(process, part)),
    }
}

fn read_pid(path: &Path) -> Result<i32, Failure> {
    let name = || path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PID_FILE).read_to_string(&mut text))
        .map_err(|cause| Failure::step("reading", name(), cause))?;
    text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(|| Failure::NoPid(name()))
}

/// The process if it is there and neither dead nor a zombie.
fn running(pid: i32) -> Option<Identity> {
    identity(&Process::new(pid).ok()?)
}

fn identity(process: &Process) -> Option<Identity> {
    let stat = process.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(Identity { pid: stat.pid, started: stat.starttime })
}

fn find(
    known: Option<Identity>,
    name: &str,
    matches: impl Fn(&Process) -> bool,
) -> Result<Identity, Failure> {
    if let Some(identity) = known
        && running(identity.pid) == Some(identity)
    {
        return Ok(identity);
    }
    all_processes()
        .map_err(|cause| Failure::step("reading", "/proc", cause))?
        // One that ends while it is being read is no error.
        .flatten()
        .find_map(|process| identity(&process).filter(|_| matches(&process) && !is_ourselves(&process)))
        .ok_or_else(|| Failure::NoSuchProcess(name.to_owned()))
}

/// Our own command line may well contain the name looked for, and for a moment every command that we start is a copy
/// of ourselves.
fn is_ourselves(process: &Process) -> bool {
    let own = Process::myself().and_then(|own| own.cmdline());
    own.is_ok_and(|own| process.cmdline().is_ok_and(|line| line == own))
}

fn has_name(process: &Process, name: &str) -> bool {
    if process.stat().is_ok_and(|stat| stat.comm == name) {
        return true;
    }
    let first = process.cmdline().ok().and_then(|line| line.into_iter().next());
    first.is_some_and(|first| Path::new(&first).file_name().is_some_and(|file| file == name))
}

fn has_command_line(process: &Process, part: &str) -> bool {
    process.cmdline().is_ok_and(|line| line.join(" ").contains(part))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn we_are_not_the_workload() {
        let own = Process::myself().unwrap();
        assert!(has_command_line(&own, &own.cmdline().unwrap().join(" ")));
        assert!(is_ourselves(&own));
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let is_other = is_ourselves(&Process::new(other.id().cast_signed()).unwrap());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!is_other);
    }
}
