//! What is left of a failover: one record with the time of each step, one trace over all services, pages.

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    Traces, check_metrics,
    deployment::{DETECTOR_PAGES, EXECUTOR_PAGES, HEARTBEAT_PAGES, Plan},
    fetch, wait_until,
};

/// Where the collector listens on the client's host.
const COLLECTOR: &str = "10.77.0.5:4317";

#[test]
fn every_takeover_leaves_one_record_with_its_steps() -> Result<()> {
    let stage = Stage::set("record")?;
    let before = stage.dns_epoch()?;
    stage.fails_over("active cut off the network", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    // DNS follows the service: only then the zone names the new tenure.
    let epoch = stage.dns_epoch_above(before)?;
    let record = wait_until("the record of the takeover", SOON, || {
        let output = stage.deployment.understudy(&["events", "--json"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let records: Vec<_> = events.filter(|event| is_takeover(event, epoch)).collect();
        (records.len() == 1).then(|| records[0].clone())
    })?;
    let text = record.to_string();
    for step in ["add address", "open gate", "announce", "DNS", "verify", "grants", "suspectedMs"] {
        ensure!(text.contains(step), "{step} is missing in {text}");
    }
    ensure!(
        text.contains("failover") && text.contains("web-a"),
        "cause or previous holder is missing in {text}"
    );
    stage.end()
}

fn is_takeover(event: &serde_json::Value, epoch: u64) -> bool {
    let text = event.to_string();
    text.contains("v1.Takeover\"")
        && (text.contains(&format!("\"{epoch}\"")) || text.contains(&format!(":{epoch},")))
}

#[test]
fn one_trace_spans_a_failover_over_all_services() -> Result<()> {
    let plan = Plan { more: format!("[telemetry]\notlp = \"http://{COLLECTOR}\"\n"), ..Plan::new("trace") };
    let stage = Stage::with("trace", plan)?;
    let (traces, address) = (Traces::default(), COLLECTOR.parse()?);
    let collector = traces.clone();
    // Ends with the test's process.
    let _receiving = stage.deployment.client.thread("collector", move || collector.receive(address))?;
    stage.fails_over("active cut off the network", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    let services = ["understudy-detector", "understudy-heartbeat", "understudy-executor"];
    traces.wait_for_one_of(&services, SOON)?;
    stage.end()
}

#[test]
fn every_service_has_its_pages() -> Result<()> {
    let stage = Stage::set("pages")?;
    let client = &stage.deployment.client;
    let node = &stage.deployment.node("web-a").host;
    let detector = stage.deployment.detectors[0].host();
    for (host, port, metric) in [
        (detector, DETECTOR_PAGES, "understudy_heartbeats_total"),
        (node, HEARTBEAT_PAGES, "understudy_heartbeats_total"),
        (node, EXECUTOR_PAGES, "understudy_takeovers_total 1"),
    ] {
        let page = |path: &str| fetch(client, host.socket(port), path, SOON);
        let metrics = page("/metrics")?;
        ensure!(
            metrics.status == 200 && metrics.body.contains(metric),
            "{metric} is not in {}",
            metrics.body
        );
        check_metrics(&metrics.body).with_context(|| format!("{host} {port}"))?;
        for path in ["/healthz", "/readyz"] {
            let found = page(path)?;
            ensure!(found.status == 200, "{host} {port} {path}: {} {}", found.status, found.body);
        }
    }
    // An executor without its publisher lives, but is not ready, and says why.
    stage.deployment.node("web-c").heartbeat.kill9()?;
    wait_until("the executor of web-c is not ready", SOON, || {
        let ready =
            fetch(client, stage.deployment.node("web-c").host.socket(EXECUTOR_PAGES), "/readyz", SOON)
                .ok()?;
        (ready.status == 503 && ready.body.contains("heartbeat publisher")).then_some(())
    })?;
    stage.end()
}
