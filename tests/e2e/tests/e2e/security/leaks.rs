//! No secret is in anything that a deployment shows.

use std::fs;

use anyhow::{Result, ensure};
use understudy_e2e::Stage;
use understudy_lab::{
    KEY_SECRET,
    deployment::{DETECTOR_PAGES, EXECUTOR_PAGES, HEARTBEAT_PAGES},
};

use super::keys::{Keys, said};

/// Looks for every secret in all logs, what the CLI shows, the pages, and `more` (name, text), such as spans. The public
/// key of `refused`, an owner that was, must be found: that is no secret, and proves that the search finds what is there.
pub(crate) fn none(stage: &Stage, keys: &Keys, more: &[(&str, String)], refused: Option<&str>) -> Result<()> {
    let deployment = &stage.deployment;
    let mut shown: Vec<(String, String)> =
        more.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    for entry in fs::read_dir(deployment.network.folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "log") {
            shown.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    let logs = shown.len();
    for arguments in [&["status", "--json"][..], &["status"], &["events", "--json", "--last", "1000"]] {
        shown.push((arguments.join(" "), said(&deployment.understudy(arguments)?)));
    }
    let node = &deployment.nodes[1].host;
    let pages = [
        ("detector", deployment.detectors[0].host(), DETECTOR_PAGES),
        ("heartbeat", node, HEARTBEAT_PAGES),
        ("executor", node, EXECUTOR_PAGES),
    ];
    for page in pages {
        shown.push((format!("metrics of {}", page.0), keys.metrics(deployment, page)?));
    }
    ensure!(logs >= 12, "only {logs} logs were found");
    for (name, text) in &shown {
        ensure!(!text.is_empty() || name.ends_with(".log"), "{name} is empty: nothing was looked at");
    }
    let mut secrets = keys.secrets()?;
    secrets.push(("TSIG key".to_owned(), KEY_SECRET.to_owned()));
    for (owner, secret) in &secrets {
        let found = shown.iter().find(|(_, text)| text.contains(secret.as_str()));
        ensure!(
            found.is_none(),
            "{owner} is in {}",
            found.map(|(name, _)| name.as_str()).unwrap_or_default()
        );
    }
    if let Some(owner) = refused {
        let public = keys.text(&format!("{owner}.pub"))?;
        let found = shown.iter().any(|(_, text)| text.contains(&public));
        ensure!(
            found,
            "{owner} was refused, but no log has its public key: secrets would not be found either"
        );
    }
    Ok(())
}
