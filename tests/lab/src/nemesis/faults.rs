//! Carries faults out on a deployment, and heals them.

use anyhow::{Context as _, Result};

use super::schedule::{Action, Fault};
use crate::{Deployment, Process};

/// Begins a fault.
///
/// # Errors
/// When the kernel refuses it, or the deployment has no such process or host.
pub(super) fn strike(deployment: &Deployment, fault: &Fault) -> Result<()> {
    let processes = || fault.on.iter().map(|name| find(deployment, name));
    match fault.action {
        Action::Kill => processes().try_for_each(|process| process?.kill9()),
        Action::Stop => processes().try_for_each(|process| process?.stop()),
        Action::Restart => processes().try_for_each(|process| process?.terminate()),
        Action::Isolate => fault.on.iter().try_for_each(|host| deployment.network.isolate(host)),
        Action::Cut | Action::Mute | Action::Deafen => deployment.network.cut_pairs(&fault.directions()),
    }
    .with_context(|| format!("fault {fault}"))
}

/// Ends a fault, and nothing that another one did.
///
/// # Errors
/// As [`strike`].
pub(super) fn mend(deployment: &Deployment, fault: &Fault) -> Result<()> {
    let processes = || fault.on.iter().map(|name| find(deployment, name));
    match fault.action {
        Action::Kill | Action::Restart => processes().try_for_each(|process| process?.restart()),
        Action::Stop => processes().try_for_each(|process| process?.cont()),
        Action::Isolate => fault.on.iter().try_for_each(|host| deployment.network.rejoin(host)),
        Action::Cut | Action::Mute | Action::Deafen => deployment.network.mend_pairs(&fault.directions()),
    }
    .with_context(|| format!("healing fault {fault}"))
}

fn find<'a>(deployment: &'a Deployment, name: &str) -> Result<&'a Process> {
    let process = deployment.processes().find(|process| process.name() == name);
    process.with_context(|| format!("the deployment has no process {name}"))
}
