//! The kernel's own share of the work: on a busy machine packets wait for `ksoftirqd`, which is scheduled like any
//! program. Every host of the lab shares the two processors of one machine with servers, probes and the test itself, so
//! its packets go before programs here, as they do on a host with real-time network threads.

use std::{fs, path::Path};

/// Below the services (10) and the probes (20), above everything that is not real-time.
const PRIORITY: i32 = 5;

/// Raises the kernel's network threads until it is dropped. Where that is not permitted gaps are merely less exact.
#[derive(Debug)]
pub struct Softirqs(Vec<libc::pid_t>);

impl Softirqs {
    /// Raises them.
    pub fn raise() -> Self {
        let mut raised = kernel_threads();
        raised.retain(|thread| schedule(*thread, libc::SCHED_RR, PRIORITY));
        Self(raised)
    }
}

impl Drop for Softirqs {
    fn drop(&mut self) {
        for thread in &self.0 {
            schedule(*thread, libc::SCHED_OTHER, 0);
        }
    }
}

fn kernel_threads() -> Vec<libc::pid_t> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let is_softirq =
        |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    let found = processes.flatten().filter(|process| is_softirq(&process.path()));
    found.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

fn schedule(thread: libc::pid_t, policy: libc::c_int, priority: libc::c_int) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: a system call with a valid pointer to what it reads.
    #[allow(unsafe_code)]
    let result = unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) };
    result == 0
}
