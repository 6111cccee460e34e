//! Row 28: random faults in any combination, two at a time, then all healed.

use std::path::Path;

use anyhow::{Result, ensure};
use understudy_lab::nemesis::{self, Options};

/// A minute of them; `make soak` has a thousand.
const FAULTS: usize = 100;
/// Seeds that once failed, each with what it found: they come first.
const FORMER: [u64; 0] = [];

#[test]
fn row_28_random_faults_two_at_a_time() -> Result<()> {
    for seed in FORMER.into_iter().chain([nemesis::fresh_seed()]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/e2e/nemesis-{seed}"));
        let options = Options { seed, faults: FAULTS, folder };
        println!("seed {seed}; again: {}", options.command());
        let report = nemesis::run(&options)?;
        println!("{report}");
        ensure!(report.is_good(), "{report}\nagain: {}", options.command());
        // Some ten megabytes; that of a bad run stays.
        std::fs::remove_dir_all(&options.folder)?;
    }
    Ok(())
}
