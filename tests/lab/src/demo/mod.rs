//! The demo: a whole deployment, five failovers, then a group that heals itself and follows its load, each shown step
//! by step.
//!
//! What is printed comes from the deployment itself: the timeline of a failover is the record that the new holder
//! publishes, that of a scaling what was heard on NATS and seen from outside; the gap is what the probing client saw, the
//! epoch stands in the zone.

mod act;
mod bus;
mod events;
mod fleet;
mod growth;
mod interrupt;
mod keep;
mod moments;
mod opening;
mod report;
mod timeline;
mod watch;

use std::{io::Write as _, path::PathBuf, rc::Rc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Cleanup, Deployment, Moment, deployment::NAME, wait_until};
use act::Act;
use events::Events;
use fleet::Fleet;
use growth::Growth;
use report::{Change, Outcome};
use watch::{SOON, Watch};

/// Changes of the group by its autoscaler: a standby replaced, N up, N down.
const SCALINGS: usize = 3;
/// How long the old holder is watched after its fault is over.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Runs the demo, and prints it; `keep` leaves the deployment running afterwards, until Ctrl-C. Returns whether every
/// takeover and every scaling went as intended, two nodes never answered, DNS followed each time, and no request failed
/// while the group was scaled.
///
/// Ctrl-C, SIGTERM and SIGHUP end it at any time, with everything that it started.
///
/// # Errors
/// When not root, when a program is missing, or when the deployment does not come up.
pub fn run(keep: bool) -> Result<bool> {
    // Before the cleaning up, so that it knows of a signal first.
    interrupt::watch()?;
    let well = play(keep);
    interrupt::hold();
    well
}

fn play(keep: bool) -> Result<bool> {
    ensure!(nix::unistd::geteuid().is_root(), "the demo needs root, for its network namespaces");
    Cleanup::install()?;
    let plan = fleet::plan();
    print(&opening::text(&plan, &opening::Machine::read()))?;
    let begun = Moment::now();
    let deployment = Deployment::start(plan)?;
    let mut stage = match Stage::set(&deployment, begun) {
        Ok(stage) => stage,
        Err(error) => {
            interrupt::hold();
            return Err(error.context(keep_logs(&deployment)));
        }
    };
    stage.play_all()?;
    let fleet = stage.scale(begun)?;
    let (takeovers, scalings) = ((&*stage.outcomes, Act::ALL.len()), (&*stage.changes, SCALINGS));
    let well = report::all_well(takeovers, scalings);
    print(&format!("\n{}", report::summary(takeovers, scalings)))?;
    drop(stage);
    if keep {
        keep::stay(&deployment, fleet.as_ref())?;
    }
    if !well {
        print(&format!("{}\n", keep_logs(&deployment)))?;
    }
    Ok(well)
}

/// Logs go with the network; those of a run that went wrong are moved aside, for a day.
fn keep_logs(deployment: &Deployment) -> String {
    let folder = deployment.network.folder();
    let mut kept = folder.as_os_str().to_owned();
    kept.push("-kept");
    let kept = PathBuf::from(kept);
    match std::fs::rename(folder, &kept) {
        Ok(()) => format!("logs are kept in {}", kept.display()),
        Err(error) => format!("logs could not be kept in {}: {error}", kept.display()),
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("printing")
}

/// The deployment under watch.
struct Stage<'a> {
    deployment: &'a Deployment,
    watch: Watch,
    events: Rc<Events>,
    outcomes: Vec<Outcome>,
    changes: Vec<Change>,
}

impl<'a> Stage<'a> {
    /// Waits, and tells, until the first node serves and everything else is ready.
    fn set(deployment: &'a Deployment, begun: Moment) -> Result<Self> {
        let progress = |what: &str| print(&opening::progress(Moment::now().since(begun), what));
        let first = &deployment.plan.members.first().context("the demo has nodes")?.name;
        let folder = deployment.network.folder().display();
        progress(&format!("all of it runs, a log of each in {folder}"))?;
        let watch = Watch::start(deployment)?;
        watch.probe.wait_served_by(first, SOON)?;
        progress(&format!("{first} serves the client"))?;
        watch.wait_name()?;
        progress(&format!("{NAME} resolves to the VIP, epoch {}", watch::zone_epoch(deployment)?))?;
        deployment.wait_granting()?;
        deployment.wait_standbys()?;
        progress("every detector grants, every other node is a ready standby")?;
        let events = Rc::new(Events::follow(deployment)?);
        Ok(Self { deployment, watch, events, outcomes: Vec::new(), changes: Vec::new() })
    }

    /// Plays act after act, until one does not come to its end.
    fn play_all(&mut self) -> Result<()> {
        for (act, number) in Act::ALL.into_iter().zip(1..) {
            if let Err(error) = self.play(act, number) {
                interrupt::hold();
                print(&report::item("wrong", &format!("{error:#}"), false))?;
                break;
            }
        }
        self.count_two_answering()
    }

    /// Starts the autoscalers and plays the acts that are theirs, if all before came to their end. Returns what was
    /// started, for those who go on with it.
    fn scale(&mut self, begun: Moment) -> Result<Option<Fleet<'a>>> {
        if self.outcomes.len() < Act::ALL.len() {
            return Ok(None);
        }
        let fleet = Fleet::muster(self.deployment);
        let scaled = match &fleet {
            Ok(fleet) => self.scale_with(fleet, begun),
            Err(_) => Ok(()),
        };
        for error in [fleet.as_ref().err(), scaled.as_ref().err()].into_iter().flatten() {
            interrupt::hold();
            print(&report::item("wrong", &format!("{error:#}"), false))?;
        }
        Ok(fleet.ok())
    }

    fn scale_with(&mut self, fleet: &Fleet<'_>, begun: Moment) -> Result<()> {
        let (leader, epoch) = &fleet.leader;
        let text = format!(
            "{} autoscalers run as well, and {leader} was elected to act, epoch {epoch}",
            fleet.autoscalers()
        );
        print(&format!("\n{}", opening::progress(Moment::now().since(begun), &text)))?;
        let epoch = self.outcomes.last().map_or(0, |last| last.record.epoch);
        let growth = Growth::watch(fleet, Rc::clone(&self.events), epoch)?;
        self.count_two_answering()?;
        self.changes.push(growth.heal()?);
        let risen = growth.rise()?;
        let fallen = growth.fall(&risen);
        self.changes.push(risen);
        self.changes.push(fallen?);
        Ok(())
    }

    fn play(&mut self, act: Act, number: usize) -> Result<()> {
        self.deployment.wait_granting()?;
        self.deployment.wait_standbys()?;
        let fresh = Watch::start(self.deployment)?;
        let since = fresh.wait_name()?;
        self.count_two_answering()?;
        self.watch = fresh;
        let from = self.holder()?;
        let line: Vec<&str> =
            self.deployment.plan.members.iter().map(|member| member.name.as_str()).collect();
        let Some(to) = act.heir(&from, &line) else { bail!("{from} serves: there is nobody to follow") };
        print(&format!("\nact {number}  {}\n", act.title(&from, to)))?;
        let mut outcome = self.take_over(act, &from, to, since)?;
        print(&outcome.lines(NAME, watch::address()?))?;
        outcome.trouble.extend(self.undo(act, &outcome)?);
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Who serves; that must be whom the last act left serving.
    fn holder(&self) -> Result<String> {
        let serving = || self.watch.probe.serving_now();
        let holder = wait_until("somebody to serve the client", SOON, serving)?;
        match self.outcomes.last() {
            Some(last) if last.to != holder => {
                bail!("{holder} serves, but {} did after the last act", last.to)
            }
            _ => Ok(holder),
        }
    }

    fn take_over(&self, act: Act, from: &str, to: &str, since: Moment) -> Result<Outcome> {
        let before = watch::zone_epoch(self.deployment)?;
        let judgements = self.events.judgements();
        let mark = self.watch.probe.mark();
        act.carry_out(self.deployment, from, to)?;
        let gap = self.watch.wait_moved(to, mark)?;
        let record = self.events.wait_takeover(to, before)?;
        print(&timeline::timeline(&record, self.events.phi(from, judgements)))?;
        let followed = wait_until("DNS to hold the new epoch", SOON, || {
            watch::zone_epoch(self.deployment).ok().filter(|epoch| *epoch >= record.epoch)
        });
        let zone_epoch = match followed {
            Ok(epoch) => epoch,
            Err(_) => watch::zone_epoch(self.deployment)?,
        };
        Ok(Outcome {
            what: act.short(),
            from: from.to_owned(),
            to: to.to_owned(),
            gap,
            two_answering: self.watch.probe.snapshot().two_answering(),
            zone_epoch,
            names: self.watch.names_since(since)?,
            trouble: self.unwanted(before, record.epoch),
            record,
        })
    }

    /// Ends the fault, and watches what the old holder makes of that; returns what is wrong.
    fn undo(&self, act: Act, outcome: &Outcome) -> Result<Vec<String>> {
        let Outcome { from, to, .. } = outcome;
        let mark = self.watch.probe.mark();
        let done = act.undo(self.deployment, from)?;
        let history = self.watch.look_on(AFTERWARDS)?;
        let mut wrong = self.unwanted(outcome.record.epoch, outcome.record.epoch);
        if history.last_served(from, self.watch.probe.mark()).is_some_and(|last| last > mark) {
            wrong.push(format!("{from} answered for the VIP again"));
        }
        if history.tenures().iter().any(|(node, _, last)| node != to && *last > mark) {
            wrong.push(format!("{to} did not go on serving"));
        }
        let seen = match &wrong[..] {
            [] => format!("{from} stays dark, {to} goes on serving"),
            wrong => wrong.join("; "),
        };
        let done = done.map(|done| done + "; ").unwrap_or_default();
        print(&report::item("after", &format!("{done}{seen}"), wrong.is_empty()))?;
        Ok(wrong)
    }

    /// Takeovers above epoch `before`, other than that of epoch `wanted`, and those that failed.
    fn unwanted(&self, before: u64, wanted: u64) -> Vec<String> {
        let others = self.events.takeovers_above(0, before).into_iter().filter(|other| other.epoch != wanted);
        let others = others.map(|other| format!("{} took over too, epoch {}", other.node, other.epoch));
        let failed = self.events.failed_above(0, before).into_iter();
        let failed = failed.map(|failed| {
            format!(
                "{} failed to take over, epoch {}, at {}: {}",
                failed.node, failed.epoch, failed.step, failed.reason
            )
        });
        others.chain(failed).collect()
    }

    /// Adds what the probe has seen since the last act's end to that act.
    fn count_two_answering(&mut self) -> Result<()> {
        let two = self.watch.probe.snapshot().two_answering();
        let Some(last) = self.outcomes.last_mut() else {
            ensure!(two.is_zero(), "two nodes answered for {} ms before the first act", two.as_millis());
            return Ok(());
        };
        if two > last.two_answering {
            last.two_answering = two;
            let text = format!("answered by two nodes for {} ms in all, until the next act", two.as_millis());
            print(&report::item("client", &text, false))?;
        }
        Ok(())
    }
}
