//! The credentials of a deployment: who needs one, and the files they lie in.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use understudy_bus::Identity;
use understudy_service::config::Config;

use crate::failure::Refused;

/// Reads a configuration for what it says of all, so without this process's environment.
///
/// # Errors
/// When it is refused.
pub(crate) fn configuration(file: &Path) -> anyhow::Result<Config> {
    let (config, report) = Config::examine(Some(file), std::iter::empty());
    Ok(config.ok_or(Refused(report))?)
}

/// Everybody who needs a credential: both processes of each member, each seat, and one of each other role. Members of
/// the group that elects an autoscaler are autoscalers, one process each.
pub(crate) fn owners(config: &Config) -> Vec<Identity> {
    let members = config.groups.iter().flat_map(|(group, entry)| {
        entry.members.iter().flat_map(|node| {
            if config.autoscaler.group.as_ref() == Some(group) {
                return vec![Identity::Autoscaler(group.clone(), node.clone())];
            }
            vec![
                Identity::Heartbeat(group.clone(), node.clone()),
                Identity::Executor(group.clone(), node.clone()),
            ]
        })
    });
    let seats = (1..=config.detector.seats).map(Identity::Detector);
    let others = [Identity::Observer, Identity::Operator, Identity::Viewer];
    members.chain(seats).chain(others).collect()
}

/// A folder of credentials.
pub(crate) struct Folder(PathBuf);

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// Its owner: keys, seeds, tokens.
    Secret = 0o600,
    /// Everybody: certificates, public keys.
    Public = 0o644,
}

impl Folder {
    /// Makes the folder if it is missing, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// A folder that is there.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Text of a file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Text of a file; written with what `make` gives when there is none. What is there is never replaced: it may be in
    /// use.
    ///
    /// # Errors
    /// When it cannot be read, made or written.
    pub(crate) fn keep(
        &self,
        name: &str,
        mode: Mode,
        make: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        let (text, path) = (make()?, self.0.join(name));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode as u32).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(text)
    }
}
