//! What the end-to-end tests share: a deployment under probes, and gaps that are measured, bounded and written down.

use std::{io::Write as _, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use understudy_lab::{
    ANSWER_LIMIT, Deployment, DnsProbe, Moment, NameServer, Probe, Process, Stalls,
    deployment::{NAME, Plan, VIP, VIP6},
    fetch, wait_until,
};

/// For anything that must happen, but whose speed is not the point of the test.
pub const SOON: Duration = Duration::from_secs(30);
/// T at its default.
pub const LEASE: Duration = Duration::from_millis(300);
/// What a failover may take at that: T + 100 ms.
pub const LEASE_AND_A_BIT: Duration = Duration::from_millis(400);
/// How long the client must be served without a break before a gap counts as over.
const SETTLED: Duration = Duration::from_millis(300);

/// A holder that stays may be hard to reach for a moment on a busy machine; a lease that was lost and given back
/// shows as more than this.
const UNMOVED: Duration = LEASE;

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
    /// The default deployment with web-a serving, every detector granting, both standbys ready and the name where it is.
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
        Self::on(test, plan, VIP)
    }

    /// The default deployment, with the client on the IPv6 VIP.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn set_ipv6(test: &'static str) -> Result<Self> {
        Self::on(test, Plan::new("e2e6"), VIP6)
    }

    fn on(test: &'static str, plan: Plan, vip: &str) -> Result<Self> {
        let deployment = Deployment::start(plan)?;
        // Until the test has come to its good end.
        deployment.network.keep_folder(true);
        let probe = if deployment.plan.vip { deployment.probe_vip(vip)? } else { deployment.probe()? };
        deployment.wait_first(&probe)?;
        let vip: IpAddr = vip.parse()?;
        let names = deployment.name_servers.first().map(|server| {
            let first = deployment.nodes.first().context("a deployment has nodes")?;
            let serving = if deployment.plan.vip { vip } else { first.host.ipv4().into() };
            let kind = if serving.is_ipv4() { "A" } else { "AAAA" };
            let names = DnsProbe::start(&deployment.client, server.address(), NAME, kind)?;
            names.wait_for(&[serving], SOON)?;
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
        let before = self.probe.mark();
        act(&self.deployment).with_context(|| format!("carrying out: {fault}"))?;
        // Until the fault has had its effect the old holder answers: wait for the heir, not for an answer.
        self.probe.wait_served_by(heir, SOON).with_context(|| format!("after: {fault}"))?;
        self.settle(heir)?;
        let (gap, stalled) = self.gap_since(before);
        self.note(fault, gap, stalled, Some(bound));
        let bound = bound.as_secs_f64() * 1e3;
        ensure!(gap <= bound, "{fault}: the client's gap was {gap:.1} ms, at most {bound:.0} are allowed");
        Ok(())
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

    /// Waits until `node` has served without a break for a while, from this call on.
    ///
    /// # Errors
    /// When it does not.
    pub fn settle(&self, node: &str) -> Result<()> {
        let begin = self.probe.mark();
        wait_until(&format!("{node} serves without a break"), SOON, || {
            let now = self.probe.mark();
            let since = earlier(now, SETTLED);
            // What was before does not count: a short gap that has just ended would be cut off in the measurement.
            since >= begin
                && self.probe.serving_now().as_deref() == Some(node)
                && self.probe.snapshot().longest_gap(since, now) < 50.0
        })
    }

    /// Asks for a switchover, of a group with one slot.
    ///
    /// # Errors
    /// When it is refused, with the reason.
    pub fn switch_over(deployment: &Deployment, to: &str) -> Result<()> {
        let output = deployment.understudy(&["switchover", "--group", "web", "--to", to])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the switchover was refused: {said}");
        Ok(())
    }

    /// Every event of the history so far, as `understudy events --json` prints them.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        let output = self.deployment.understudy(&["events", "--json", "-n", "1000"])?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
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

    /// Waits until `node` is the one ready standby of the group.
    ///
    /// # Errors
    /// When it is not within the deadline.
    pub fn wait_only_standby(&self, node: &str) -> Result<()> {
        self.deployment.wait_status(&format!("{node} is the only ready standby"), |status| {
            let ready = status["groups"][0]["ready_standbys"].as_array()?;
            (ready.len() == 1 && ready[0] == node).then_some(())
        })
    }

    /// The name resolves to the VIP, and the zone holds an epoch of at least `epoch` for the slot; returns it.
    ///
    /// # Errors
    /// When it does not within [`SOON`].
    pub fn dns_epoch_above(&self, epoch: u64) -> Result<u64> {
        let server = self.deployment.name_server()?;
        wait_until(&format!("DNS holds an epoch above {epoch}"), SOON, || {
            epoch_at(server).filter(|found| *found > epoch)
        })
    }

    /// Epoch of the slot in DNS now.
    ///
    /// # Errors
    /// When the zone has none.
    pub fn dns_epoch(&self) -> Result<u64> {
        self.dns_epoch_above(0)
    }

    /// Waits until the takeover of this epoch is in the history.
    ///
    /// # Errors
    /// When it is not within [`SOON`].
    pub fn takeover_is_recorded(&self, epoch: u64) -> Result<()> {
        wait_until(&format!("the takeover of epoch {epoch} is in the history"), SOON, || {
            // Protobuf JSON writes 64 bits as a string.
            let epoch = Value::from(epoch.to_string());
            let is_it = |event: &Value| event["kind"] == "takeover" && event["data"]["epoch"] == epoch;
            self.events().ok()?.iter().any(is_it).then_some(())
        })
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

/// What a service counts under this name and label on its page of metrics.
///
/// # Errors
/// When the page does not come, or does not show it.
pub fn metric(service: &Process, pages: u16, name: &str) -> Result<f64> {
    let host = service.host();
    let page = fetch(host, host.socket(pages), "/metrics", SOON)?;
    let value = page.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("{} shows no {name}", service.name()))?;
    value.parse().with_context(|| format!("{} of {}: {value:?}", name, service.name()))
}

/// Highest epoch that a name server holds for the group's name; none when it does not answer, or holds none.
pub fn epoch_at(server: &NameServer) -> Option<u64> {
    let records = server.records(&format!("_understudy.{NAME}"), "TXT").ok()?;
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
