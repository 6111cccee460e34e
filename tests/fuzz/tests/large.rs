//! A large input costs no more memory and time than its size explains. A process of its own, since memory is measured
//! in the whole process.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};
use peak_alloc::PeakAlloc;
use understudy_fuzz::{TARGETS, corpus};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// As large as a JetStream or DNS message, a file or an answer may be that is read at all.
const LARGE: usize = 1024 * 1024;

/// Decoded values, the error, and what the target itself keeps to compare: measured at most 46 times the input.
const FACTOR: usize = 128;

/// Time of the processor for one input. What is linear takes milliseconds, what is quadratic takes minutes.
const LONGEST: Duration = Duration::from_secs(5);

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn memory_and_time_stay_in_proportion_to_the_input() {
    for target in TARGETS {
        for entry in fs::read_dir(corpus().join(target.name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if bytes.is_empty() || !path.file_name().unwrap().to_string_lossy().starts_with("seed-") {
                continue;
            }
            let input: Vec<u8> = bytes.iter().copied().cycle().take(LARGE).collect();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let begun = processor_time();
            (target.run)(&input);
            let took = processor_time() - begun;
            assert!(took < LONGEST, "{}: {took:?} for {LARGE} bytes", path.display());
            let used = MEMORY.peak_usage().saturating_sub(before);
            assert!(used <= FACTOR * LARGE, "{}: {used} bytes for {LARGE}", path.display());
        }
    }
}
