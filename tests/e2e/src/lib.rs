//! What the end-to-end tests share: a deployment under probes, and gaps that are measured, bounded and written down.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use understudy_lab::{
    ANSWER_LIMIT, Deployment, DnsProbe, Moment, Probe, Stalls,
    deployment::{NAME, Plan, VIP},
    wait_until,
};

/// For anything that must happen, but whose speed is not the point of the test.
pub const SOON: Duration = Duration::from_secs(30);
/// How long the client must be served without a break before a gap counts as over.
const SETTLED: Duration = Duration::from_millis(300);

/// A holder that stays may be hard to reach for a moment on a busy machine; a lease that was lost and given back
/// shows as more than this (T at its default).
const UNMOVED: Duration = Duration::from_millis(300);

/// One test's deployment, watched from before the first fault to the end.
pub struct Stage {
    /// The deployment.
    pub deployment: Deployment,
    /// Who answers.
    pub probe: Probe,
    /// What the name resolves to.
    pub names: Option<DnsProbe>,
    stalls: Stalls,
    test: &'static str,
}

impl Stage {
    /// The default deployment with web-a serving, every detector granting, both standbys ready and the name on the VIP.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn set(test: &'static str) -> Result<Self> {
        Self::with(test, Plan::new("e2e"))
    }

    /// The same for another plan.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with(test: &'static str, plan: Plan) -> Result<Self> {
        let deployment = Deployment::start(plan)?;
        // Until the test has come to its good end.
        deployment.network.keep_folder(true);
        let probe = deployment.probe()?;
        deployment.wait_first(&probe)?;
        let names = deployment.knot.as_ref().map(|knot| {
            let names = DnsProbe::start(&deployment.client, knot.address(), NAME, "A")?;
            names.wait_for(&[VIP.parse()?], SOON)?;
            anyhow::Ok(names)
        });
        Ok(Self { names: names.transpose()?, stalls: Stalls::watch()?, deployment, probe, test })
    }

    /// Does `fault` and waits until `heir` serves without a break; the gap that the client saw must be at most `bound`.
    ///
    /// # Errors
    /// When somebody else serves, nobody does, or the gap is longer.
    pub fn fails_over(
        &self,
        fault: &str,
        heir: &str,
        bound: Duration,
        act: impl FnOnce(&Deployment) -> Result<()>,
    ) -> Result<()> {
        let (gap, _) = self.move_to(fault, heir, bound, act)?;
        let bound = bound.as_secs_f64() * 1e3;
        ensure!(gap <= bound, "{fault}: the client's gap was {gap:.1} ms, at most {bound:.0} are allowed");
        Ok(())
    }

    /// As [`Stage::fails_over`], but what the machine itself stood still within the gap does not count against
    /// `bound`. Looser than the requirement, which is for the whole gap: a virtual machine that is stopped for longer
    /// than the bound cannot show it. The table of gaps judges the whole gap all the same.
    ///
    /// # Errors
    /// As for [`Stage::fails_over`].
    pub fn moves_within(
        &self,
        fault: &str,
        heir: &str,
        bound: Duration,
        act: impl FnOnce(&Deployment) -> Result<()>,
    ) -> Result<()> {
        let (gap, stalled) = self.move_to(fault, heir, bound, act)?;
        let bound = bound.as_secs_f64() * 1e3;
        ensure!(
            gap - stalled <= bound,
            "{fault}: the client's gap was {gap:.1} ms, {stalled:.1} of it the machine's; at most {bound:.0} are allowed"
        );
        Ok(())
    }

    /// Does `fault`, waits until `heir` serves, and writes the gap down; it and the machine's stall in it, ms.
    fn move_to(
        &self,
        fault: &str,
        heir: &str,
        bound: Duration,
        act: impl FnOnce(&Deployment) -> Result<()>,
    ) -> Result<(f64, f64)> {
        let before = self.probe.mark();
        act(&self.deployment).with_context(|| format!("carrying out: {fault}"))?;
        // Until the fault has had its effect the old holder answers: wait for the heir, not for an answer.
        self.probe.wait_served_by(heir, SOON).with_context(|| format!("after: {fault}"))?;
        self.settle(heir)?;
        let (gap, stalled) = self.gap_since(before);
        self.note(fault, gap, stalled, Some(bound));
        Ok((gap, stalled))
    }

    /// The client's longest gap since `before`, and what of it the machine stood still, both in milliseconds. The
    /// youngest questions are left out: their answers may still be coming.
    ///
    /// The stall is shown beside the gap, to explain one that is over.
    pub fn gap_since(&self, before: Moment) -> (f64, f64) {
        let gap = self.probe.snapshot().gap(before, earlier(self.probe.mark(), 2 * ANSWER_LIMIT));
        let stalled = self.stalls.between(gap.from, gap.to).as_secs_f64() * 1e3;
        (gap.milliseconds(), stalled)
    }

    /// Waits until `node` has served without a break for a while.
    ///
    /// # Errors
    /// When it does not.
    pub fn settle(&self, node: &str) -> Result<()> {
        wait_until(&format!("{node} serves without a break"), SOON, || {
            let now = self.probe.mark();
            let (from, since) = (earlier(now, 2 * SETTLED), earlier(now, SETTLED));
            let history = self.probe.snapshot();
            self.probe.serving_now().as_deref() == Some(node)
                && history.first_answer(node, from).is_some()
                && history.longest_gap(since, now) < 50.0
        })
    }

    /// Watches for `span` that `node` goes on serving: nothing moves, and the client sees no gap as of a lost lease.
    ///
    /// # Errors
    /// When another node answers, or the client sees a gap.
    pub fn nothing_moves(&self, fault: &str, node: &str, since: Moment, span: Duration) -> Result<()> {
        let end = self.probe.mark() + span;
        wait_until("the watch is over", span + SOON, || self.probe.mark() >= end)?;
        let (gap, stalled) = self.gap_since(since);
        let history = self.probe.snapshot();
        let others: Vec<_> =
            history.tenures().into_iter().filter(|(other, _, last)| other != node && *last > since).collect();
        self.note(fault, gap, stalled, Some(UNMOVED));
        ensure!(others.is_empty(), "{fault}: the slot moved: {others:?}");
        let bound = UNMOVED.as_secs_f64() * 1e3;
        ensure!(gap < bound, "{fault}: the client saw a gap of {gap:.1} ms although nothing had to move");
        Ok(())
    }

    /// The name resolves to the VIP, and the zone holds an epoch of at least `epoch` for the slot; returns it.
    ///
    /// # Errors
    /// When it does not within [`SOON`].
    pub fn dns_epoch_above(&self, epoch: u64) -> Result<u64> {
        let knot = self.deployment.knot.as_ref().context("the deployment has no name server")?;
        wait_until(&format!("DNS holds an epoch above {epoch}"), SOON, || {
            let found = dns_epoch(&knot.records(&format!("_understudy.{NAME}"), "TXT").ok()?)?;
            (found > epoch).then_some(found)
        })
    }

    /// Epoch of the slot in DNS now.
    ///
    /// # Errors
    /// When the zone has none.
    pub fn dns_epoch(&self) -> Result<u64> {
        self.dns_epoch_above(0)
    }

    /// Writes a gap down for the table at the end of the run.
    pub fn note(&self, fault: &str, gap_ms: f64, stalled_ms: f64, bound: Option<Duration>) {
        let bound_ms = bound.map(|bound| bound.as_secs_f64() * 1e3);
        let line = json!({
            "test": self.test, "fault": fault, "gap_ms": gap_ms, "stalled_ms": stalled_ms, "bound_ms": bound_ms
        });
        if let Err(error) = append(&line.to_string()) {
            eprintln!("the gap is not in the table: {error:#}");
        }
    }

    /// Ends the test: in its whole course two nodes never answered.
    ///
    /// # Errors
    /// When two did.
    pub fn end(self) -> Result<()> {
        let history = self.probe.finish();
        let two = history.two_answering_at();
        self.deployment.network.keep_folder(!two.is_empty());
        ensure!(two.is_empty(), "two nodes answered for the VIP in {} ms: {:?}", two.len(), two.first());
        Ok(())
    }
}

fn earlier(moment: Moment, span: Duration) -> Moment {
    Moment::from_nanos(moment.nanos().saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
}

/// Highest epoch in the TXT records beside a name.
pub fn dns_epoch(records: &[String]) -> Option<u64> {
    let epochs = records.iter().filter_map(|record| {
        let text = record.split("epoch=").nth(1)?;
        text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    });
    epochs.max()
}

fn append(line: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/e2e");
    std::fs::create_dir_all(&folder)?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("gaps.jsonl"))?;
    Ok(writeln!(file, "{line}")?)
}
