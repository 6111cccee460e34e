//! Running seeds: one, many, and again.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context;

use crate::{
    check::{Gap, Violation},
    options::Options,
    world::World,
};

/// What a run left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Seed of the run.
    pub seed: u64,
    /// Hash over every event.
    pub hash: u64,
    /// First violation, if any.
    pub violation: Option<Violation>,
    /// How often a gate was opened.
    pub tenures: u64,
    /// All gaps between gates.
    pub gaps: Vec<Gap>,
    /// When the only fault struck a node that served, and which slot that was.
    pub struck: Option<(u64, u16)>,
}

/// What many runs left.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that ended.
    pub runs: u64,
    /// Gates opened in all of them.
    pub tenures: u64,
    /// Runs with a violation, by seed.
    pub failed: Vec<Outcome>,
}

/// Runs a world to its end.
pub fn run(options: Options) -> Outcome {
    run_traced(options, false).0
}

/// Runs a world to its end and keeps a line for every event.
pub fn replay(options: Options) -> (Outcome, Vec<String>) {
    run_traced(options, true)
}

fn run_traced(options: Options, keep_lines: bool) -> (Outcome, Vec<String>) {
    let seed = options.seed;
    let mut world = World::new(options, keep_lines);
    // An assertion of a production machine is a finding like any other, and its seed must be told.
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let what = format!("panic: {}", text.unwrap_or_default());
        world.check.fail(0, world.now, what);
    }
    let struck = world.struck.and_then(|struck| {
        let slot = struck.before.iter().position(|holder| holder.is_some() && *holder == struck.hit.node)?;
        Some((struck.at, slot as u16))
    });
    let outcome = Outcome {
        seed,
        hash: world.trace.hash(),
        violation: world.check.violation.clone(),
        tenures: world.check.tenures,
        gaps: std::mem::take(&mut world.check.gaps),
        struck,
    };
    (outcome, world.trace.into_lines())
}

/// Runs the seeds `from..from + seeds` on `threads` threads; stops after `most_failures`.
pub fn run_many(
    from: u64,
    seeds: u64,
    threads: usize,
    most_failures: usize,
    options: impl Fn(u64) -> Options + Sync,
    each: impl Fn(&Outcome) + Sync,
) -> Summary {
    let next = AtomicU64::new(from);
    let failures = AtomicU64::new(0);
    let work = || {
        let mut part = Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || failures.load(Ordering::Relaxed) >= most_failures as u64 {
                return part;
            }
            let outcome = run(options(seed));
            each(&outcome);
            part.runs += 1;
            part.tenures += outcome.tenures;
            if outcome.violation.is_some() {
                failures.fetch_add(1, Ordering::Relaxed);
                part.failed.push(outcome);
            }
        }
    };
    let mut whole = Summary::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for part in parts {
            let part = part.join().expect("panics of a run are caught");
            whole.runs += part.runs;
            whole.tenures += part.tenures;
            whole.failed.extend(part.failed);
        }
    });
    whole.failed.sort_by_key(|outcome| outcome.seed);
    whole
}

/// Replays a failing run into a file below `folder` and says where.
pub fn save(folder: &Path, kind: &str, options: Options) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(format!("{kind}-{}.txt", options.seed));
    let head = format!("{options:#?}");
    let (outcome, lines) = replay(options);
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        writeln!(file, "{head}")?;
        lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        if let Some(violation) = &outcome.violation {
            writeln!(file, "{violation}")?;
        }
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
