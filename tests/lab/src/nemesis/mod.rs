//! The nemesis: random faults out of a seed on a whole deployment, two at a time, then all healed.
//!
//! [`schedule`] says what is done and when, [`faults`] does it, [`record`] writes down what is seen from outside,
//! [`check`] reads the file and decides. The same seed gives the same faults at the same times; what the machine makes
//! of them differs a little each time.

mod check;
mod events;
mod faults;
mod history;
mod record;
mod resources;
mod schedule;
mod tenures;
mod verdict;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Deployment, Moment, Probe, deployment::Plan, wait_until};
pub use check::check_file;
use history::{Line, Writer};
use record::Record;
pub use resources::Growth;
use resources::Resources;
use schedule::Fault;
pub use verdict::{Verdict, Violation};

/// How long nothing is done after a round was healed: the bound of filling every slot, and a second to see it stay.
const WATCH: Duration = Duration::from_secs(6);
/// At the end DNS follows and the last events come. An election of JetStream takes up to 9 s, and what was not stored
/// is sent again after 5 s at most, twice if it just failed.
const REST: Duration = Duration::from_secs(30);
/// A new probe takes over from the old one once it has answers.
const PROBED: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Faults come from it.
    pub seed: u64,
    /// How many.
    pub faults: usize,
    /// Where the files of the run go: `schedule.txt`, `history.jsonl`, `resources.jsonl`. Those of an earlier run
    /// are replaced.
    pub folder: PathBuf,
}

impl Options {
    /// What runs the same faults again.
    pub fn command(&self) -> String {
        let Self { seed, faults, folder } = self;
        format!(
            "target/debug/understudy-lab nemesis --seed {seed} --faults {faults} --folder {}",
            folder.display()
        )
    }
}

/// A seed that no run had.
pub fn fresh_seed() -> u64 {
    rand::random()
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the history.
    pub verdict: Verdict,
    /// Processes that lived through a run long enough to compare its beginning with its end.
    pub growth: Vec<Growth>,
    /// Logs of all processes.
    pub logs: PathBuf,
}

impl Report {
    /// Whether nothing was violated and nothing leaks.
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty() && !self.growth.iter().any(Growth::leaks)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for growth in &self.growth {
            writeln!(f, "{}{growth}", if growth.leaks() { "LEAKS: " } else { "" })?;
        }
        write!(f, "{}", self.verdict)?;
        if self.is_good() { Ok(()) } else { write!(f, "\nlogs are kept in {}", self.logs.display()) }
    }
}

/// Runs a whole deployment under random faults, writes its history, and judges it. Logs stay if the run was not good.
///
/// # Errors
/// When the deployment does not come up, a fault cannot be carried out, or a file not be written.
pub fn run(options: &Options) -> Result<Report> {
    let plan = Plan::new("nemesis");
    let rounds = schedule::schedule(&plan, options.seed, options.faults);
    ensure!(!rounds.is_empty(), "a run needs a fault at least");
    let folder = &options.folder;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(folder.join("schedule.txt"), schedule::describe(&rounds)).context("writing the schedule")?;
    let history = folder.join("history.jsonl");
    let deployment = Deployment::start(plan)?;
    deployment.network.keep_folder(true);
    let mut nemesis = Nemesis::start(&deployment, options, &history)?;
    rounds.iter().enumerate().try_for_each(|(number, round)| nemesis.round(number, round))?;
    let growth = nemesis.finish()?;
    let logs = deployment.network.folder().to_owned();
    let report = Report { verdict: check_file(&history)?, growth, logs };
    deployment.network.keep_folder(!report.is_good());
    Ok(report)
}

/// A run under way.
struct Nemesis<'a> {
    deployment: &'a Deployment,
    writer: Arc<Writer>,
    record: Record,
    resources: Resources,
    look_due: Moment,
    probe: Probe,
}

impl<'a> Nemesis<'a> {
    fn start(deployment: &'a Deployment, options: &Options, history: &Path) -> Result<Self> {
        let writer = Arc::new(Writer::create(history)?);
        writer.add(&Line::begin(options.seed, options.faults))?;
        let record = Record::start(deployment, &writer)?;
        let probe = deployment.probe()?;
        deployment.wait_first(&probe)?;
        let resources = Resources::create(&options.folder.join("resources.jsonl"))?;
        Ok(Self { deployment, writer, record, resources, look_due: Moment::now(), probe })
    }

    /// Carries a round out, each fault and each healing at its time, and watches what becomes of it.
    fn round(&mut self, number: usize, faults: &[Fault]) -> Result<()> {
        self.change_probe()?;
        let begins = faults.iter().map(|fault| (fault.begin, false, fault));
        let mut steps: Vec<_> = begins.chain(faults.iter().map(|fault| (fault.end, true, fault))).collect();
        steps.sort_by_key(|(due, heals, fault)| (*due, !*heals, fault.number));
        let start = Moment::now();
        for (due, heals, fault) in steps {
            self.wait(start + Duration::from_millis(due))?;
            if heals {
                faults::mend(self.deployment, fault)?;
                self.writer.add(&Line::Mended { at: Moment::now().nanos(), number: fault.number })?;
            } else {
                // Its time is that before it, as that of a healing is after it: what happens in between is the fault's.
                let at = Moment::now().nanos();
                faults::strike(self.deployment, fault)?;
                self.writer.add(&Line::Struck { at, fault: fault.clone() })?;
            }
        }
        self.start_what_ended()?;
        let healed = Moment::now();
        self.writer.add(&Line::Healed { at: healed.nanos(), round: number })?;
        self.wait(healed + WATCH)?;
        self.start_what_ended()?;
        self.writer.add(&Line::Resumed { at: Moment::now().nanos(), round: number })
    }

    /// As a service manager would; but that a process ends by itself is noted.
    fn start_what_ended(&self) -> Result<()> {
        for process in self.deployment.processes().filter(|process| !process.is_running()) {
            let (at, name) = (Moment::now().nanos(), process.name().to_owned());
            self.writer.add(&Line::Ended { at, process: name })?;
            process.restart()?;
        }
        Ok(())
    }

    /// A probe records for two minutes and a half, so each round has its own. They overlap: no moment is unseen.
    fn change_probe(&mut self) -> Result<()> {
        let probe = self.deployment.probe()?;
        // In the dark there is nothing to wait for.
        let begun = Moment::now();
        self.wait(begun + PROBED)?;
        let old = std::mem::replace(&mut self.probe, probe);
        self.record.answers(old)
    }

    /// Until `due`; looks at the processes meanwhile.
    fn wait(&mut self, due: Moment) -> Result<()> {
        while self.look_due < due {
            self.look_due.reach();
            self.resources.look(self.deployment)?;
            self.look_due = self.look_due + resources::INTERVAL;
        }
        due.reach();
        Ok(())
    }

    /// A task that panics does not end its process, so nothing else may show it.
    fn note_panics(&self) -> Result<()> {
        for process in self.deployment.processes() {
            for text in process.log_text().lines().filter(|line| line.contains("panicked at")) {
                let (process, text) = (process.name().to_owned(), text.to_owned());
                self.writer.add(&Line::Panicked { process, text })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Growth>> {
        // What is not at rest by then is for the check to find.
        let _ = wait_until("the deployment to come to rest", REST, || {
            self.record.is_at_rest(self.probe.serving_now().as_deref())
        });
        self.note_panics()?;
        let Self { mut record, probe, writer, resources, .. } = self;
        record.answers(probe)?;
        record.finish()?;
        writer.add(&Line::End { at: Moment::now().nanos() })?;
        writer.flush()?;
        resources.finish()
    }
}
