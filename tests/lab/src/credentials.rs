//! Credentials of a secured deployment, made by the program that operators use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Launch, binary};

/// Folder of the credentials beside the configuration; only a secured deployment has it.
const FOLDER: &str = "credentials";
/// The NATS servers' accounts, in that folder.
pub(crate) const NATS_AUTH: &str = "nats-auth.conf";

/// Makes credentials for everybody in `config`, and the NATS servers' accounts.
pub(crate) fn make(config: &Path) -> Result<PathBuf> {
    let folder = config.with_file_name(FOLDER);
    understudy(config, "certs", "--dir", &folder)?;
    let auth = understudy(config, "nats-auth", "--keys", &folder)?;
    fs::write(folder.join(NATS_AUTH), auth).context("writing the accounts of the NATS servers")?;
    Ok(folder)
}

fn understudy(config: &Path, command: &str, option: &str, folder: &Path) -> Result<Vec<u8>> {
    let output =
        Command::new(binary("understudy")?).arg(command).arg(config).arg(option).arg(folder).output();
    let output = output.with_context(|| format!("running understudy {command}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "understudy {command}: {said}");
    Ok(output.stdout)
}

/// The folder beside `config`, if the deployment is secured.
pub(crate) fn beside(config: &Path) -> Option<PathBuf> {
    Some(config.with_file_name(FOLDER)).filter(|folder| folder.is_dir())
}

/// Gives a service the credentials of `owner`, if the deployment is secured.
pub(crate) fn give(launch: Launch, config: &Path, owner: &str) -> Launch {
    let Some(folder) = beside(config) else { return launch };
    launch
        .environment("UNDERSTUDY_NATS__NKEY_FILE", folder.join(format!("{owner}.nk")))
        .environment("UNDERSTUDY_TLS__CERT_FILE", folder.join(format!("{owner}.pem")))
        .environment("UNDERSTUDY_TLS__KEY_FILE", folder.join(format!("{owner}.key")))
}

/// TOML of the transport's protection: for a secured deployment where the authorities and tokens are, else that it is
/// open on purpose.
pub(crate) fn sections(config: &Path, secured: bool) -> (String, String) {
    if !secured {
        return (String::new(), "[access]\ninsecure = true\n\n".to_owned());
    }
    let file = |name: &str| config.with_file_name(FOLDER).join(name).display().to_string();
    let nats = format!("ca_file = {:?}\n", file("nats-ca.pem"));
    let rest = format!(
        "[tls]\nca_file = {:?}\n\n[access]\nviewer_token_file = {:?}\noperator_token_file = {:?}\n\n",
        file("ca.pem"),
        file("viewer.token"),
        file("operator.token")
    );
    (nats, rest)
}
