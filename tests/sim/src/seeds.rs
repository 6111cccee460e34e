//! Running seeds, whatever is simulated: one, many, and a failing one again into a file.

use std::{
    fmt::{Debug, Display, Formatter},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context;

/// Everything that shapes a run, drawn from a seed.
pub trait Simulation: Clone + Debug {
    /// What a run shows beside its hash.
    type Found: Send;
    /// What a run counts.
    const COUNTED: &'static str;
    /// What stands before `run` and `replay` in a command, and before the names of traces.
    const NAME: Option<&'static str>;

    /// Where it came from.
    fn seed(&self) -> u64;

    /// Runs to the end; with `keep_lines` there is a line for every event.
    fn simulate(self, keep_lines: bool) -> (Outcome<Self::Found>, Vec<String>);
}

/// What must not happen, and when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant in the module's documentation; 0: a machine panicked or a verdict was wrong.
    pub invariant: u8,
    /// Real time, with its unit.
    pub at: String,
    /// What was seen.
    pub what: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "invariant {} at {}: {}", self.invariant, self.at, self.what)
    }
}

/// What a run left.
#[derive(Debug, Clone)]
pub struct Outcome<F> {
    /// Seed of the run.
    pub seed: u64,
    /// Hash over everything that happened.
    pub hash: u64,
    /// First violation, if any.
    pub violation: Option<Violation>,
    /// How much happened, see [`Simulation::COUNTED`].
    pub count: u64,
    /// What else it showed.
    pub found: F,
}

/// What many runs left.
#[derive(Debug)]
pub struct Summary<F> {
    /// Runs that ended.
    pub runs: u64,
    /// How much happened in all of them.
    pub count: u64,
    /// Runs with a violation, by seed.
    pub failed: Vec<Outcome<F>>,
}

impl<F> Summary<F> {
    const fn new() -> Self {
        Self { runs: 0, count: 0, failed: Vec::new() }
    }

    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.count += other.count;
        self.failed.extend(other.failed);
    }
}

/// Runs to the end.
pub fn run<S: Simulation>(options: S) -> Outcome<S::Found> {
    options.simulate(false).0
}

/// Runs to the end and keeps a line for every event.
pub fn replay<S: Simulation>(options: S) -> (Outcome<S::Found>, Vec<String>) {
    options.simulate(true)
}

/// How `run` panicked, if it did: an assertion of a production machine is a finding like any other, and its seed must be
/// told.
pub(crate) fn panic_of(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    Some(format!("panic: {}", text.unwrap_or_default()))
}

/// Runs the seeds `from..from + seeds` on `threads` threads; stops after `most_failures`.
pub fn run_many<S: Simulation>(
    from: u64,
    seeds: u64,
    threads: usize,
    most_failures: usize,
    options: impl Fn(u64) -> S + Sync,
    each: impl Fn(&Outcome<S::Found>) + Sync,
) -> Summary<S::Found> {
    let (next, failures) = (AtomicU64::new(from), AtomicU64::new(0));
    let work = || {
        let mut part = Summary::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || failures.load(Ordering::Relaxed) >= most_failures as u64 {
                return part;
            }
            let outcome = run(options(seed));
            each(&outcome);
            part.runs += 1;
            part.count += outcome.count;
            if outcome.violation.is_some() {
                failures.fetch_add(1, Ordering::Relaxed);
                part.failed.push(outcome);
            }
        }
    };
    let mut whole = Summary::new();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for part in parts {
            whole.add(part.join().expect("panics of a run are caught"));
        }
    });
    whole.failed.sort_by_key(|outcome| outcome.seed);
    whole
}

/// Replays a failing run into a file below `folder` and says where.
pub fn save<S: Simulation>(folder: &Path, kind: &str, options: S) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let prefix = S::NAME.map(|name| format!("{name}-")).unwrap_or_default();
    let path = folder.join(format!("{prefix}{kind}-{}.txt", options.seed()));
    let head = format!("{options:#?}");
    let (outcome, lines) = replay(options);
    let violation = outcome.violation.map(|violation| violation.to_string());
    let mut text = std::iter::once(head).chain(lines).chain(violation);
    let mut write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        text.try_for_each(|line| writeln!(file, "{line}"))?;
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
