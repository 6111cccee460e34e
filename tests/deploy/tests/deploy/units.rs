//! The systemd units.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use understudy_deploy::{printed, root, silent, text};
use understudy_lab::binary;

const FOLDER: &str = "deploy/systemd";

/// Names of the units' files.
fn units() -> Result<Vec<String>> {
    let files = fs::read_dir(root().join(FOLDER))?;
    let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.ends_with(".service")).collect())
}

/// The program of a unit: `understudy-detector` of `understudy-detector@.service`.
fn program(unit: &str) -> &str {
    unit.trim_end_matches(".service").trim_end_matches('@')
}

/// What a unit sets a key to, the last time.
fn value<'a>(unit: &'a str, key: &str) -> Result<&'a str> {
    let mut lines = unit.lines().rev().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.next().with_context(|| format!("{key} is not set"))
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

#[test]
fn every_service_has_a_unit() -> Result<()> {
    let services = fs::read_dir(root().join("services"))?;
    let names = services.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned()));
    let names: BTreeSet<String> = names.collect::<Result<_>>()?;
    let wanted: BTreeSet<_> =
        names.iter().filter(|name| *name != "cli").map(|name| format!("understudy-{name}")).collect();
    let found: BTreeSet<_> = units()?.iter().map(|unit| program(unit).to_owned()).collect();
    ensure!(found == wanted, "units of {found:?}, services {wanted:?}");
    Ok(())
}

#[test]
fn systemd_has_nothing_to_complain_of_and_grants_little() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for unit in units()? {
        let path = root().join(FOLDER).join(&unit);
        // In tenths: 3.0, and 4.5 for the executor, which changes the network.
        let limit = if program(&unit) == "understudy-executor" { "45" } else { "30" };
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--no-pager", "--offline=yes", "--threshold", limit]).arg(&path);
        let judged = printed(&mut security)?;
        println!("{unit}: {}", judged.lines().last().unwrap_or_default());

        // Its program is not installed here, but built.
        let built = binary(program(&unit))?;
        let there = fs::read_to_string(&path)?
            .replace(&format!("/usr/bin/{}", program(&unit)), &built.display().to_string());
        let copy = folder.path().join(&unit);
        fs::write(&copy, there)?;
        silent(Command::new("systemd-analyze").args(["verify", "--recursive-errors=no"]).arg(&copy))?;
    }
    Ok(())
}

#[test]
fn units_grant_what_the_program_uses_and_are_started_again() -> Result<()> {
    for unit in units()? {
        let read = text(&format!("{FOLDER}/{unit}"))?;
        let check = || {
            let capabilities = value(&read, "AmbientCapabilities")?;
            let allowed: &[&str] = match program(&unit) {
                "understudy-autoscaler" => &[],
                "understudy-executor" => &["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_NICE", "CAP_IPC_LOCK"],
                _ => &["CAP_SYS_NICE", "CAP_IPC_LOCK"],
            };
            ensure!(words(capabilities) == allowed.iter().copied().collect(), "grants {capabilities}");
            ensure!(words(value(&read, "CapabilityBoundingSet")?) == words(capabilities), "bounds others");
            ensure!(value(&read, "User")? == "understudy", "runs as somebody else");
            ensure!(value(&read, "Type")? == "notify", "is not waited for");
            ensure!(value(&read, "Restart")? == "always", "is not started again");
            ensure!(value(&read, "RestartPreventExitStatus")? == "69 78", "is started again in vain");
            // Longer than the loop may hang before it is no longer fed for (TICK_LIMIT, 5 s).
            let watchdog: u32 = value(&read, "WatchdogSec")?.trim_end_matches('s').parse()?;
            ensure!((6..=30).contains(&watchdog), "WatchdogSec={watchdog}");
            Ok(())
        };
        check().context(unit.clone())?;
    }
    Ok(())
}
