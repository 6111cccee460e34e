//! What the tests of the files in `deploy/` share.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Text of a file of the repository.
///
/// # Errors
/// When it cannot be read.
pub fn text(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

/// A YAML or JSON file of the repository.
///
/// # Errors
/// When it cannot be read, or is neither.
pub fn document(path: &str) -> Result<Value> {
    serde_saphyr::from_str(&text(path)?).with_context(|| format!("reading {path}"))
}

/// Runs a command to its end; what it printed.
///
/// # Errors
/// When it cannot be started or fails; with all that it said.
pub fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let [printed, said] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{command:?}: {}: {printed}{said}", output.status);
    Ok(printed)
}

/// The same of a command that must have nothing to say.
///
/// # Errors
/// When it fails or says anything, on either output.
pub fn silent(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.is_empty(), "{command:?}: {}: {said}", output.status);
    Ok(())
}
