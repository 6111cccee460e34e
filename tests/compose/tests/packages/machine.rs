//! A container that systemd runs in.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use understudy_compose::docker;
use understudy_lab::wait_until;

const NAME: &str = "understudy-test-machine";
const BOOT: Duration = Duration::from_secs(60);
/// What systemd and the units need; not --privileged, which asks for capabilities that a virtual machine may lack.
const RIGHTS: [&str; 16] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_NICE",
    "--cap-add",
    "IPC_LOCK",
    "--cap-add",
    "SYS_PTRACE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--security-opt",
    "systempaths=unconfined",
];
const MEMORY: [&str; 6] = ["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"];

/// Goes when it is dropped.
pub(crate) struct Machine(());

impl Machine {
    /// Starts one from the image of `scripts/package-tests`, until systemd has nothing left to do.
    pub(crate) fn boot() -> Result<Self> {
        let machine = Self(());
        let _ = docker(&["rm", "-f", NAME]);
        let place = ["run", "-d", "--name", NAME, "--network", "none"];
        let groups = ["-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "understudy/machine"];
        docker(&[&place[..], &RIGHTS, &MEMORY, &groups].concat())?;
        wait_until("systemd is up", BOOT, || {
            (machine.shell("systemctl is-system-running").ok()?.trim() == "running").then_some(())
        })?;
        machine.shell("mkdir /packages")?;
        Ok(machine)
    }

    /// Runs a command there; what it printed.
    pub(crate) fn shell(&self, command: &str) -> Result<String> {
        docker(&["exec", NAME, "sh", "-c", command])
    }

    /// Copies a file into a folder there.
    pub(crate) fn take(&self, file: &Path, folder: &str) -> Result<()> {
        docker(&["cp", &file.display().to_string(), &format!("{NAME}:{folder}/")]).map(drop)
    }

    /// Writes over a file there, which keeps its mode.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        let name = file.path().file_name().context("a name")?.display().to_string();
        self.take(file.path(), "/packages")?;
        self.shell(&format!("cat /packages/{name} > {path} && rm /packages/{name}")).map(drop)
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> Result<String> {
        Ok(self.shell(&format!("systemctl show --property {name} --value {unit}"))?.trim().to_owned())
    }

    /// What a unit has said last, beside that it has no NATS.
    pub(crate) fn journal(&self, unit: &str) -> Result<String> {
        self.shell(&format!("journalctl --no-pager --unit {unit} | grep -v 'IO error' | tail -n 100"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = docker(&["rm", "-fv", NAME]) {
            eprintln!("taking {NAME} away: {error:#}");
        }
    }
}
