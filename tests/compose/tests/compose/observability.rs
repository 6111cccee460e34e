//! The profiles `observability` and `chaos`. Brought up by Compose v2, where the other tests take what is installed.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_compose::{Compose, Namespace, Stack, T, bystander};
use understudy_lab::{Moment, Traces, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// As in the tests of the faults: the engine takes the network away a while after the workload.
const NETWORK_OWNER: Duration = T.saturating_add(Duration::from_millis(2 * 100 + 50));
/// Faults that are struck and mended. Each lasts longer than services put up with a network that has gone, and hits a node:
/// what detectors and NATS servers cost is tested elsewhere (scaling.rs).
const FAULTS: usize = 4;
const CHAOS: [(&str, &str); 3] =
    [("CHAOS_INTERVAL", "1"), ("CHAOS_DURATION", "4"), ("CHAOS_VICTIMS", "web-[abc][-_](1|executor)")];

/// Asks Prometheus, from the stack's network.
struct Prometheus {
    from: Namespace,
    address: SocketAddr,
}

impl Prometheus {
    fn start(stack: &Stack) -> Result<Self> {
        stack.compose(&["up", "-d", "prometheus"])?;
        let container = stack.container("prometheus");
        Ok(Self { from: container.namespace()?, address: SocketAddr::new(container.address()?, 9090) })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.from.fetch(self.address, path)?)?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// The series that an expression gives.
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={escaped}"))?;
        Ok(data["result"].as_array().context("no series")?.clone())
    }

    fn wait_for_series(&self, expression: &str) -> Result<()> {
        let series = || self.query(expression).ok().filter(|series| !series.is_empty()).map(drop);
        wait_until(&format!("series of {expression}"), SOON, series)
            .with_context(|| format!("{:?}", self.query(expression)))
    }

    /// Every replica of every service is a target, and up.
    fn scrapes_every_service(&self) -> Result<()> {
        let mut seen = Vec::new();
        let up = || {
            let targets = self.ask("/api/v1/targets").ok()?;
            let told = |target: &Value| {
                Some((target["labels"]["job"].as_str()?.to_owned(), target["health"] == "up"))
            };
            seen = targets["activeTargets"].as_array()?.iter().filter_map(told).collect();
            let of = |job: &str| seen.iter().filter(|(other, up)| other == job && *up).count();
            let jobs = ["detector", "heartbeat", "executor", "autoscaler"].map(of);
            (seen.iter().all(|(_, up)| *up) && jobs == [3, 3, 3, 2]).then_some(())
        };
        wait_until(
            "three detectors, two autoscalers and two services on each of three nodes are scraped",
            SOON,
            up,
        )
        .with_context(|| format!("{seen:?}"))
    }

    /// The rules of the file are evaluated, over metrics that there are.
    fn evaluates_the_rules(&self) -> Result<()> {
        let mut rules = Vec::new();
        wait_until("every rule is evaluated", SOON, || {
            let data = self.ask("/api/v1/rules").ok()?;
            rules = data["groups"][0]["rules"].as_array()?.clone();
            let well = rules.iter().all(|rule| rule["health"] == "ok");
            (!rules.is_empty() && well).then_some(())
        })
        .with_context(|| format!("{rules:?}"))?;
        let file = std::fs::read_to_string(root().join("deploy/prometheus/rules.yml"))?;
        ensure!(rules.len() == file.matches("- alert:").count(), "{} rules of {file}", rules.len());
        for rule in &rules {
            let expression = rule["query"].as_str().context("a rule without expression")?;
            for metric in metrics(expression) {
                self.wait_for_series(&metric).with_context(|| format!("{}", rule["name"]))?;
            }
        }
        let held_twice =
            rules.iter().find(|rule| rule["name"] == "SlotHeldTwice").context("no SlotHeldTwice")?;
        ensure!(held_twice["state"] == "inactive", "{held_twice}");
        Ok(())
    }

    /// Every panel of the dashboard has something to show.
    fn fills_the_dashboard(&self) -> Result<()> {
        let file = std::fs::read_to_string(root().join("deploy/grafana/dashboards/understudy.json"))?;
        let dashboard: Value = serde_json::from_str(&file)?;
        let panels = dashboard["panels"].as_array().context("no panels")?;
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array()).flatten() {
            self.wait_for_series(target["expr"].as_str().context("a target without expression")?)?;
        }
        Ok(())
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Names of our metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("understudy_")).map(str::to_owned).collect()
}

/// Strikes with the chaos container until enough faults are mended.
fn survives_chaos(stack: &mut Stack) -> Result<()> {
    stack.watch_nodes()?;
    let begin = Moment::now();
    stack.compose(&["up", "-d", "chaos"])?;
    let mut said = String::new();
    wait_until("the faults are struck and mended", SOON, || {
        // Between two looks of the watchers nobody can have become active who was not a standby for longer.
        stack.follow_nodes().ok()?;
        said = stack.compose(&["logs", "--no-color", "chaos"]).ok()?;
        (said.matches(": done").count() >= FAULTS).then_some(())
    })
    .with_context(|| said.clone())?;
    stack.compose(&["stop", "chaos"])?;
    println!("{}", stack.compose(&["logs", "--no-color", "chaos"])?);
    stack.client.wait_served(SOON, |_| true)?;
    stack.wait_ready()?;
    stack.never_two(begin)
}

#[test]
fn prometheus_sees_every_service_one_trace_spans_a_failover_and_chaos_is_survived() -> Result<()> {
    let environment = [&[("UNDERSTUDY_OTLP", "http://collector:4317")], &CHAOS[..]].concat();
    let mut stack = Stack::up_with(Compose::V2, &environment)?;
    // Takes the place of the collector's container, for which there is no stand-in.
    let (traces, place) = (Traces::default(), bystander("collector")?.namespace()?);
    let collector = traces.clone();
    // Ends with the test's process.
    let _receiving = std::thread::spawn(move || {
        place.join()?;
        collector.receive(SocketAddr::from(([0, 0, 0, 0], 4317)))
    });

    let prometheus = Prometheus::start(&stack)?;
    prometheus.scrapes_every_service()?;
    prometheus.evaluates_the_rules()?;
    prometheus.fills_the_dashboard()?;

    let killed = stack.active()?;
    stack.fails_over("docker compose kill", NETWORK_OWNER, |active| {
        stack.compose(&["kill", active]).map(drop)
    })?;
    traces.wait_for_one_of(&["understudy-detector", "understudy-heartbeat", "understudy-executor"], SOON)?;
    stack.compose(&["up", "-d"])?;
    stack.wait_ready().with_context(|| format!("{killed} is back"))?;

    survives_chaos(&mut stack)?;
    stack.end();
    Ok(())
}
