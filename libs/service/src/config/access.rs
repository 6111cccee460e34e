//! What services ask of a configuration.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use data_encoding::BASE64;
use ipnet::IpNet;
use understudy_wire::{GroupId, NodeId};

use super::{
    group::Group,
    problem::{ConfigErrors, Origin, Problem},
    schema::{Config, Nats, Node, TsigKey},
    types::Secret,
};

/// This node as a member of its group.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its name.
    pub name: NodeId,
    /// Its group's name.
    pub group_id: GroupId,
    /// Its group.
    pub group: &'a Group,
    /// The rest of `[node]`.
    pub node: &'a Node,
}

impl Config {
    /// This node's place; for services that stand for a node. Without `node.name` the host's name up to the first dot,
    /// without `node.group` the only group.
    ///
    /// # Errors
    /// What is missing, and how to say it.
    pub fn member(&self) -> Result<Member<'_>, ConfigErrors> {
        let mut problems = Vec::new();
        let host = crate::seat::hostname();
        let short = host.split('.').next().unwrap_or_default();
        let name = self.node.name.clone().map_or_else(|| NodeId::new(short), Ok);
        if name.is_err() {
            let message =
                format!("missing, and the host's name {host:?} will not do; set UNDERSTUDY_NODE__NAME=web-a");
            problems.push(missing("node.name", message));
        }
        let group = self.own_entry();
        if group.is_none() {
            let known: Vec<_> = self.groups.keys().map(GroupId::as_str).collect();
            let message =
                format!("missing; set UNDERSTUDY_NODE__GROUP to one of the groups ({})", known.join(", "));
            problems.push(missing("node.group", message));
        }
        match (name, group) {
            (Ok(name), Some((group_id, group))) => {
                Ok(Member { name, group_id: group_id.clone(), group, node: &self.node })
            }
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// The group of this node, if it is said or the only one.
    pub(super) fn own_group(&self) -> Option<(&str, &Group)> {
        let (name, group) = self.own_entry()?;
        Some((name.as_str(), group))
    }

    /// The VIPs of this node's group.
    pub(crate) fn own_vips(&self) -> Vec<IpNet> {
        let group = self.own_entry().map(|(_, group)| group);
        group.into_iter().flat_map(|group| &group.slots).flat_map(|slot| slot.vips.clone()).collect()
    }

    fn own_entry(&self) -> Option<(&GroupId, &Group)> {
        match &self.node.group {
            Some(name) => self.groups.get_key_value(name),
            None if self.groups.len() == 1 => self.groups.first_key_value(),
            None => None,
        }
    }
}

fn missing(key: &str, message: String) -> Problem {
    Problem { origin: Origin::Absent { file: None }, key: key.to_owned(), value: None, message }
}

/// A secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("reading {key} = {file:?}")]
    Unreadable {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there is not base64.
    #[error("{key} does not hold base64 with its padding, as tsig-keygen prints it")]
    NotBase64 {
        /// The key that holds it or names its file.
        key: &'static str,
    },
}

impl Nats {
    /// User and password; `None` without a user.
    ///
    /// # Errors
    /// When `password_file` cannot be read.
    pub fn login(&self) -> Result<Option<(&str, Secret)>, SecretError> {
        let Some(user) = &self.user else { return Ok(None) };
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => Secret::read("nats.password_file", file)?,
            (None, None) => Secret::new(""),
        };
        Ok(Some((user, password)))
    }

    /// Seed of the nkey; `None` without `nkey_file`.
    ///
    /// # Errors
    /// When `nkey_file` cannot be read.
    pub fn seed(&self) -> Result<Option<Secret>, SecretError> {
        self.nkey_file.as_deref().map(|file| Secret::read("nats.nkey_file", file)).transpose()
    }
}

impl TsigKey {
    /// The key itself, decoded.
    ///
    /// # Errors
    /// When `secret_file` cannot be read or the secret is not base64.
    pub fn bytes(&self) -> Result<Vec<u8>, SecretError> {
        let (key, secret) = match (&self.secret, &self.secret_file) {
            (None, Some(file)) => ("dns.key.secret_file", Secret::read("dns.key.secret_file", file)?),
            (secret, _) => ("dns.key.secret", secret.clone().unwrap_or_else(|| Secret::new(""))),
        };
        let bytes = BASE64.decode(secret.expose().trim().as_bytes()).ok().filter(|bytes| !bytes.is_empty());
        bytes.ok_or(SecretError::NotBase64 { key })
    }
}

impl Secret {
    /// First line of the file that `key` names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(key: &'static str, file: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { key, file: file.display().to_string(), source };
        let text = fs::read_to_string(file).map_err(unreadable)?;
        warn_if_open(key, file);
        Ok(Self::new(text.lines().next().unwrap_or_default().trim()))
    }
}

/// Says so when every user of this host may read a secret. A warning only: containers are often given secrets so, and
/// have no other users.
pub(crate) fn warn_if_open(key: &str, file: &Path) {
    const OTHERS: u32 = 0o004;
    if fs::metadata(file).is_ok_and(|found| found.permissions().mode() & OTHERS != 0) {
        tracing::warn!(file = %file.display(), "{key}: every user of this host can read it; chmod 600");
    }
}
