//! docker-compose.yml as both generations of Compose read it.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use understudy_lab::tool;

const PROFILES: [&str; 3] = ["cli", "observability", "chaos"];
const FILES: [&[&str]; 2] = [&[], &["--file", "docker-compose.yml", "--file", "docker-compose.realtime.yml"]];

/// `config` of a Compose, all profiles, files other than the usual one.
fn config(program: &str, files: &[&str], format: &[&str]) -> Result<Command> {
    let mut command = Command::new(tool(program)?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    command.current_dir(root).args(files);
    command.args(PROFILES.iter().flat_map(|profile| ["--profile", profile]));
    command.arg("config").args(format);
    Ok(command)
}

/// Bytes: 1.29 says `128m`, v2 `134217728`.
fn bytes(size: &str) -> Result<u64> {
    let (number, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
    let factor = match unit {
        "" | "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => anyhow::bail!("{size}: what is a {unit}?"),
    };
    Ok(number.parse::<u64>()? * factor)
}

/// `source:target:mode` for either way to say it.
fn mount(value: &Value) -> Result<Value> {
    if let Some(short) = value.as_str() {
        return Ok(json!(short.trim_end_matches(":rw")));
    }
    let part = |key: &str| value[key].as_str().with_context(|| format!("no {key} in {value}"));
    let mode = if value["read_only"] == true { ":ro" } else { "" };
    Ok(json!(format!("{}:{}{mode}", part("source")?, part("target")?)))
}

/// `address:published:target/protocol` for either way to say it.
fn port(value: &Value) -> Result<Value> {
    if value.is_string() {
        return Ok(value.clone());
    }
    let part = |key: &str| value[key].as_str().with_context(|| format!("no {key} in {value}"));
    let target = value["target"].as_u64().with_context(|| format!("no target in {value}"))?;
    Ok(json!(format!("{}:{}:{target}/{}", part("host_ip")?, part("published")?, part("protocol")?)))
}

/// The elements of a list whose order means nothing: where files are laid over each other the two differ in it.
fn each(value: &Value, same: fn(&Value) -> Result<Value>) -> Result<Value> {
    let list = value.as_array().context("not a list")?.iter();
    let mut elements = list.map(same).collect::<Result<Vec<_>>>()?;
    elements.sort_by_key(ToString::to_string);
    Ok(Value::Array(elements))
}

/// A service as both would say it.
fn service(told: &Map<String, Value>) -> Result<Value> {
    let mut same = Map::new();
    // What v2 says of itself it leaves out where there is nothing to say.
    for (key, value) in told.iter().filter(|(_, value)| !value.is_null()) {
        let value = match key.as_str() {
            "mem_limit" => json!(bytes(value.as_str().context("mem_limit")?)?),
            "cpus" => json!(value.as_f64().context("cpus")?),
            "volumes" => each(value, mount)?,
            "ports" => each(value, port)?,
            "cap_add" | "cap_drop" => each(value, |name| Ok(name.clone()))?,
            "networks" => json!(shared(value)?),
            "depends_on" => json!(value.as_object().context("depends_on")?.keys().collect::<Vec<_>>()),
            "build" => {
                let mut build = value.as_object().context("build")?.clone();
                build.retain(|key, value| key != "dockerfile" || value != "Dockerfile");
                Value::Object(build)
            }
            _ => value.clone(),
        };
        same.insert(key.clone(), value);
    }
    // v2 adds the service whose network is joined to what is waited for.
    if let Some(owner) = same.get("network_mode").and_then(Value::as_str).map(str::to_owned) {
        let waits = same.entry("depends_on").or_insert_with(|| json!([]));
        let mut names: Vec<_> = waits.as_array().context("depends_on")?.clone();
        names.push(json!(owner.trim_start_matches("service:")));
        names.sort_by_key(ToString::to_string);
        names.dedup();
        *waits = Value::Array(names);
    } else {
        same.entry("networks").or_insert_with(|| json!({}));
    }
    Ok(Value::Object(same))
}

fn named(value: &Value) -> Result<BTreeMap<String, Value>> {
    let entries = value.as_object().context("not a table")?.iter();
    Ok(entries.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Networks or volumes: v2 adds the name that the engine will know them by, and the network of who has none;
/// where there is nothing to say, one says it with an empty table.
fn shared(value: &Value) -> Result<BTreeMap<String, Value>> {
    let mut all = named(value)?;
    all.remove("default");
    for one in all.values_mut() {
        if let Some(table) = one.as_object_mut() {
            table.remove("name");
            // And of a network's addresses.
            if table.get("ipam").is_some_and(|ipam| *ipam == json!({})) {
                table.remove("ipam");
            }
        }
        if one.is_null() {
            *one = json!({});
        }
    }
    Ok(all)
}

/// Runs it to its end; what it printed. It must not say anything else.
fn printed(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let [printed, said] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success() && said.is_empty(), "{command:?}: {}: {said}", output.status);
    Ok(printed)
}

#[test]
fn both_generations_of_compose_read_the_same() -> Result<()> {
    for files in FILES {
        let old: Value = serde_saphyr::from_str(&printed(config("docker-compose", files, &[])?)?)?;
        let new: Value =
            serde_json::from_str(&printed(config("docker-compose-v2", files, &["--format", "json"])?)?)?;
        for kind in ["networks", "volumes"] {
            let (old, new) = (shared(&old[kind])?, shared(&new[kind])?);
            ensure!(old == new, "{kind}: 1.29 reads {old:#?}, v2 {new:#?}");
        }
        let (old, new) = (named(&old["services"])?, named(&new["services"])?);
        ensure!(old.keys().eq(new.keys()), "1.29 reads {:?}, v2 {:?}", old.keys(), new.keys());
        for (name, told) in &old {
            let [old, new] = [told, &new[name]].map(|told| service(told.as_object().context("no table")?));
            let (old, new) = (old.context(name.clone())?, new.context(name.clone())?);
            ensure!(old == new, "{name}: 1.29 reads {old:#}, v2 {new:#}");
        }
    }
    Ok(())
}
