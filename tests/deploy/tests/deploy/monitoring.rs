//! What Prometheus, Grafana and the OpenTelemetry collector are given. Prometheus runs for real in `tests/compose`; the
//! others have no stand-in there, so here is checked what can be without them.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_deploy::{document, printed, root, text};
use understudy_lab::tool;

/// Elements of an array, none if there is none.
fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> BTreeSet<&str> {
    all(value).filter_map(Value::as_str).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str)).collect()
}

fn services() -> Result<Value> {
    Ok(document("docker-compose.yml")?["services"].clone())
}

/// The host in `http://host:port` or `host:port`.
fn host(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default()
}

#[test]
fn promtool_accepts_configuration_and_rules() -> Result<()> {
    let promtool = tool("promtool")?;
    let folder = root().join("deploy/prometheus");
    let said = printed(
        Command::new(&promtool).args(["check", "rules", "--lint=all"]).arg(folder.join("rules.yml")),
    )?;
    ensure!(said.contains("SUCCESS") && !said.contains("FAILED"), "{said}");
    // Syntax alone: the files that it names are in the container.
    printed(
        Command::new(&promtool).args(["check", "config", "--syntax-only"]).arg(folder.join("prometheus.yml")),
    )
    .map(drop)
}

#[test]
fn every_alert_says_how_soon_and_what_to_do() -> Result<()> {
    let rules = document("deploy/prometheus/rules.yml")?;
    for rule in all(&rules["groups"]).flat_map(|group| all(&group["rules"])) {
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["page", "ticket"].contains(&severity), "{rule}");
        for key in ["summary", "action"] {
            ensure!(
                rule["annotations"][key].as_str().is_some_and(|text| !text.is_empty()),
                "no {key}: {rule}"
            );
        }
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_services_that_there_are() -> Result<()> {
    let (config, services) = (document("deploy/prometheus/prometheus.yml")?, services()?);
    for job in all(&config["scrape_configs"]) {
        let fixed = all(&job["static_configs"]).flat_map(|one| all(&one["targets"]));
        let looked_up = all(&job["dns_sd_configs"]).flat_map(|one| all(&one["names"]));
        let targets: Vec<_> = fixed.chain(looked_up).filter_map(Value::as_str).collect();
        ensure!(!targets.is_empty(), "a job without targets: {job}");
        for target in targets {
            ensure!(services[host(target)].is_object(), "{target} is no service of docker-compose.yml");
        }
    }
    Ok(())
}

#[test]
fn grafana_shows_what_it_is_provisioned_with() -> Result<()> {
    let (sources, services) = (document("deploy/grafana/provisioning/datasources/all.yml")?, services()?);
    let mut known = BTreeSet::new();
    for source in all(&sources["datasources"]) {
        known.insert((source["type"].as_str().context("a source without type")?, source["uid"].as_str()));
        let url = source["url"].as_str().context("a source without URL")?;
        ensure!(services[host(url)].is_object(), "{url} is no service of docker-compose.yml");
    }
    let providers = document("deploy/grafana/provisioning/dashboards/all.yml")?;
    let mounts = strings(&services["grafana"]["volumes"]);
    for provider in all(&providers["providers"]) {
        let path = provider["options"]["path"].as_str().context("a provider without folder")?;
        let mounted = mounts.iter().any(|mount| mount.contains(&format!(":{path}:")));
        ensure!(mounted, "nothing is mounted at {path}: {mounts:?}");
    }
    for file in fs::read_dir(root().join("deploy/grafana/dashboards"))? {
        let name = file?.file_name();
        let read = text(&format!("deploy/grafana/dashboards/{}", name.display()))?;
        let dashboard: Value = serde_json::from_str(&read).with_context(|| format!("reading {name:?}"))?;
        let panels: Vec<_> = all(&dashboard["panels"]).collect();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        ensure!(!panels.is_empty() && ids.len() == panels.len(), "{name:?}: panels share an id");
        for panel in panels {
            let source = &panel["datasource"];
            let named = (source["type"].as_str().unwrap_or_default(), source["uid"].as_str());
            ensure!(
                known.contains(&named),
                "{name:?}: {} asks {source}, which is not provisioned",
                panel["title"]
            );
            let asked = all(&panel["targets"]).filter(|target| target["expr"].is_string()).count();
            ensure!(asked > 0, "{name:?}: {} asks nothing", panel["title"]);
        }
    }
    Ok(())
}

#[test]
fn the_collectors_pipelines_are_made_of_what_is_declared() -> Result<()> {
    let (config, services) = (document("deploy/otel/collector.yml")?, services()?);
    let pipelines = config["service"]["pipelines"].as_object().context("no pipelines")?;
    ensure!(pipelines.contains_key("traces"), "nothing is done with traces");
    for (name, pipeline) in pipelines {
        for kind in ["receivers", "processors", "exporters"] {
            let (used, declared) = (strings(&pipeline[kind]), keys(&config[kind]));
            ensure!(used.is_subset(&declared), "{name}: {kind} {used:?}, declared are {declared:?}");
            ensure!(kind == "processors" || !used.is_empty(), "{name}: no {kind}");
        }
    }
    let listening = config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].as_str();
    ensure!(listening == Some("0.0.0.0:4317"), "docs/deployment.md says 4317: {listening:?}");
    for exporter in config["exporters"].as_object().context("no exporters")?.values() {
        let endpoint = exporter["endpoint"].as_str().context("an exporter without endpoint")?;
        ensure!(services[host(endpoint)].is_object(), "{endpoint} is no service of docker-compose.yml");
    }
    Ok(())
}
