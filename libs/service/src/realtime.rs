//! SCHED_RR and locked memory where they are allowed: a heartbeat that waits for a busy CPU or for a swapped page is a
//! false failover.

use std::{fs, io};

use crate::config::Realtime;

/// What the process got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// `Ok` with SCHED_RR, else why not.
    pub scheduling: Result<(), String>,
    /// `Ok` with locked memory, else why not.
    pub memory: Result<(), String>,
}

impl Granted {
    /// What was not granted, and what that may lead to.
    pub fn limits(&self) -> Vec<String> {
        let scheduling = self.scheduling.as_ref().err();
        let memory = self.memory.as_ref().err();
        let scheduling = scheduling
            .map(|reason| format!("no realtime scheduling, a busy host may delay heartbeats ({reason})"));
        let memory =
            memory.map(|reason| format!("memory is not locked, swapping may delay heartbeats ({reason})"));
        scheduling.into_iter().chain(memory).collect()
    }
}

/// Asks for SCHED_RR for the calling thread and for locked memory for the process.
pub fn enter(config: &Realtime) -> Granted {
    if !config.enabled {
        let reason = || Err("realtime.enabled is false".to_owned());
        return Granted { scheduling: reason(), memory: reason() };
    }
    Granted { scheduling: enter_thread(config.priority), memory: lock_memory() }
}

/// SCHED_RR with `priority` (1..=99) for the calling thread. Neither its threads nor its child processes inherit it:
/// a hook must not outrun the heartbeat, and each thread that needs it asks for itself.
///
/// # Errors
/// Why not, with the cure.
#[allow(unsafe_code)] // nix has no sched_setscheduler
pub fn enter_thread(priority: u8) -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: pid 0 is the calling thread; the pointer is to a live, initialised sched_param that is only read.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("SCHED_RR priority {priority}: {error}; grant CAP_SYS_NICE or an rtprio limit of {priority}"))
}

/// Locks all pages, present and future, each when it is first touched.
#[allow(unsafe_code)] // nix lacks MCL_ONFAULT, without which whole thread stacks become resident
fn lock_memory() -> Result<(), String> {
    // With a limit, every later allocation beyond it would fail, and a failed allocation aborts: rather not lock.
    if !may_lock_without_limit() {
        return Err("grant CAP_IPC_LOCK or an unlimited memlock limit".into());
    }
    // SAFETY: takes flags only.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(format!("mlockall: {}", io::Error::last_os_error())) }
}

fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let unlimited = fs::read_to_string("/proc/self/limits").is_ok_and(|limits| {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        line.and_then(|line| line.split_whitespace().next()) == Some("unlimited")
    });
    let capable = fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_some_and(|set| set & (1 << CAP_IPC_LOCK) != 0)
    });
    unlimited || capable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switched_off_asks_for_nothing() {
        let granted = enter(&Realtime { enabled: false, priority: 10 });
        assert_eq!(granted.scheduling, Err("realtime.enabled is false".into()));
        assert_eq!(granted.memory, granted.scheduling);
    }

    #[test]
    fn a_thread_gets_what_is_said_and_its_children_do_not_inherit_it() {
        // In a thread of its own, so that the other tests keep their class.
        let thread = std::thread::spawn(|| {
            let granted = enter_thread(10);
            let policy = || {
                let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
                let fields: Vec<_> =
                    stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect();
                // proc(5): field 41 is the policy; field 3 is the first one after the name.
                fields[41 - 3].parse::<i32>().unwrap()
            };
            let expected = if granted.is_ok() { libc::SCHED_RR } else { libc::SCHED_OTHER };
            assert_eq!(policy(), expected, "{granted:?}");
            assert_eq!(std::thread::spawn(policy).join().unwrap(), libc::SCHED_OTHER);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_refusal_names_the_cure() {
        let reason = std::thread::spawn(|| enter_thread(100)).join().unwrap().unwrap_err();
        assert!(reason.contains("CAP_SYS_NICE"), "{reason}");
    }
}
