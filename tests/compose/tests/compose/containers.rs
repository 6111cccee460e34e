//! What the containers may do, as the engine and the kernel tell, not as the file says.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use understudy_compose::Stack;

/// Bits of CAP_NET_ADMIN and CAP_NET_RAW (capabilities(7)).
const EXECUTOR: u64 = 1 << 12 | 1 << 13;
/// The largest image with nothing but a binary in it.
const SMALL: u64 = 40_000_000;

/// A field of `/proc/<pid>/status` that is a hexadecimal set.
fn set(pid: i64, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(u64::from_str_radix(line.trim_start_matches(':').trim(), 16)?)
}

/// Whose credentials a service is given.
fn owner(service: &str) -> String {
    match service.rsplit_once('-') {
        Some(("nats", _)) => "nats".to_owned(),
        Some((node, role @ ("heartbeat" | "executor"))) => format!("{role}.web.{node}"),
        _ => service.to_owned(),
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a container of `service` mounts, of which the engine has `told`, is read-only but for data, and its secrets are
/// its own.
fn mounts(service: &str, told: &Value) -> Result<()> {
    for mount in told["Mounts"].as_array().context("no mounts")? {
        let (target, writable) = (mount["Destination"].as_str().unwrap_or_default(), &mount["RW"]);
        let engine = target.ends_with("docker.sock");
        let data = ["/run/understudy", "/data", "/storage"].contains(&target);
        ensure!(*writable == json!(data || engine), "{service}: {target} writable: {writable}");
        ensure!(!engine || service == "docker-proxy", "{service}: has the engine's socket");
        let source = Path::new(mount["Source"].as_str().unwrap_or_default());
        if source.parent().is_some_and(|folder| folder.ends_with("secrets")) {
            let given = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(given == owner(service), "{service}: is given the credentials of {given}");
        }
    }
    Ok(())
}

/// A container of `service`, of which the engine has `told`, can use up neither disk nor memory, processes nor processors
/// of the host.
fn limits(service: &str, told: &Value) -> Result<()> {
    let (host, config) = (&told["HostConfig"], &told["Config"]);
    ensure!(
        host["LogConfig"]["Config"] == json!({"max-size": "10m", "max-file": "3"}),
        "{service}: keeps logs without a bound"
    );
    ensure!(host["Memory"].as_u64().unwrap_or(0) > 0, "{service}: has no limit of memory");
    ensure!(host["PidsLimit"].as_i64().unwrap_or(0) > 0, "{service}: has no limit of processes");
    ensure!(host["NanoCpus"].as_u64().unwrap_or(0) > 0, "{service}: has no limit of processors");
    ensure!(
        !service.ends_with("-executor") || config["StopTimeout"] == 15,
        "{service}: is not given the time to hand over"
    );
    Ok(())
}

#[test]
fn containers_may_do_what_they_need_and_nothing_else() -> Result<()> {
    let stack = Stack::up()?;
    let containers = stack.containers()?;
    ensure!(containers.len() == 19, "{containers:?}");
    for container in containers {
        let told = container.inspect()?;
        let (host, config) = (&told["HostConfig"], &told["Config"]);
        let service = config["Labels"]["com.docker.compose.service"].as_str().context("no service")?;
        let of_ours = ["detector", "autoscaler"].contains(&service)
            || service.ends_with("-heartbeat")
            || service.ends_with("-executor");
        let executor = service.ends_with("-executor");
        let at = |what: &str| format!("{service}: {what}");

        ensure!(strings(&host["CapDrop"]) == ["ALL"], at("drops not all capabilities"));
        let mut added = strings(&host["CapAdd"]);
        added.sort_unstable();
        let added: Vec<_> = added.iter().map(|name| name.trim_start_matches("CAP_")).collect();
        let wanted: &[&str] = if executor { &["NET_ADMIN", "NET_RAW"] } else { &[] };
        ensure!(added == wanted, "{service}: adds {added:?}");
        let pid = container.pid()?;
        let expected = if executor { EXECUTOR } else { 0 };
        ensure!(set(pid, "CapBnd")? == expected, at("has another bounding set"));
        ensure!(set(pid, "CapEff")? == expected, at("has other effective capabilities"));

        ensure!(host["Privileged"] == false, at("is privileged"));
        ensure!(host["ReadonlyRootfs"] == true, at("may write to its root"));
        // The servers of NATS own their volumes, which the engine makes for root, and its socket is root's, too; without any
        // capability.
        let root = service.starts_with("nats-") || service == "docker-proxy";
        let user = config["User"].as_str().unwrap_or_default();
        ensure!(root || !["", "0", "root", "0:0"].contains(&user), "{service}: runs as {user:?}");
        if of_ours {
            ensure!(user == "65532:65532", "{service}: runs as {user:?}");
            let health = &config["Healthcheck"]["Test"];
            ensure!(strings(health).last() == Some(&"healthz"), "{service}: {health}");
        }

        mounts(service, &told)?;
        limits(service, &told)?;
    }
    for image in ["detector", "heartbeat", "autoscaler", "cli"] {
        let size = understudy_compose::docker(&[
            "image",
            "inspect",
            "-f",
            "{{.Size}}",
            &format!("understudy/{image}"),
        ])?;
        ensure!(size.trim().parse::<u64>()? <= SMALL, "{image}: {size} bytes");
    }
    stack.wait_status("every container of ours is well", |_| {
        let containers = stack.containers().ok()?;
        let well = containers.iter().all(|one| {
            let state = one.inspect().map(|told| told["State"]["Health"]["Status"].clone());
            state.is_ok_and(|state| state.is_null() || state == "healthy")
        });
        well.then_some(())
    })?;
    stack.end();
    Ok(())
}
