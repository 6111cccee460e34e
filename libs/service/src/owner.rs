//! Who a process is, and so which credential is its own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use understudy_bus::Identity;
use understudy_wire::{NodeId, Seat};

use crate::{config::Config, seat};

/// Stands for the owner's name, such as `executor.web.web-a`, in the keys that name a credential's files.
pub(crate) const PLACEHOLDER: &str = "{owner}";

/// Which service a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Heartbeat publisher of a node.
    Heartbeat,
    /// Executor of a node.
    Executor,
    /// A detector, with a seat or without.
    Detector,
    /// An autoscaler.
    Autoscaler,
}

impl Role {
    /// What its program is called.
    pub fn program(self) -> &'static str {
        match self {
            Self::Heartbeat => "understudy-heartbeat",
            Self::Executor => "understudy-executor",
            Self::Detector => "understudy-detector",
            Self::Autoscaler => "understudy-autoscaler",
        }
    }

    /// Whether it is one of a node's two processes, which are of no use without the node's interface.
    pub(crate) fn is_of_a_node(self) -> bool {
        matches!(self, Self::Heartbeat | Self::Executor)
    }

    /// Name in the certificate of every service of this role.
    pub(crate) fn server_name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat.understudy.internal",
            Self::Executor => "executor.understudy.internal",
            Self::Detector => "detector.understudy.internal",
            Self::Autoscaler => "autoscaler.understudy.internal",
        }
    }

    /// Puts this process's name where its credential's files are named. A detector learns its seat for that, once and
    /// for all: what it was given is of that seat. Likewise a replica of the autoscaler learns its name.
    pub(crate) async fn resolve(self, config: &mut Config) -> anyhow::Result<Option<seat::OwnSeat>> {
        if self == Self::Autoscaler {
            name_of_a_replica(config).await?;
        }
        if !config.names_an_owner() {
            return Ok(None);
        }
        let mut own = None;
        let owner = match self {
            Self::Heartbeat | Self::Executor => {
                let member = config.member()?;
                let (group, node) = (member.group_id, member.name);
                if self == Self::Heartbeat {
                    Identity::Heartbeat(group, node)
                } else {
                    Identity::Executor(group, node)
                }
            }
            Self::Detector => {
                let found = own.insert(seat::own_seat(&config.detector).await);
                found.seat.map(Seat::raw).map_or(Identity::Observer, Identity::Detector)
            }
            Self::Autoscaler => {
                let group = config.autoscaler.group.clone().context("autoscaler.group is not set")?;
                let name = config.node.name.clone().map_or_else(|| NodeId::new(&seat::hostname()), Ok);
                Identity::Autoscaler(group, name.context("the name of this autoscaler")?)
            }
        };
        config.own(&owner);
        tracing::info!(%owner, "credentials");
        Ok(own)
    }
}

/// An autoscaler that was not given a name and is number 2 of its service is `<group>-2`.
async fn name_of_a_replica(config: &mut Config) -> anyhow::Result<()> {
    if let (None, Some(group)) = (&config.node.name, &config.autoscaler.group)
        && let Some((number, source)) = seat::own_number("autoscaler").await
    {
        let name = NodeId::new(&format!("{group}-{number}")).context("the name of this autoscaler")?;
        tracing::info!(%name, source, "named by its number");
        config.node.name = Some(name);
    }
    Ok(())
}

impl Config {
    /// The keys that name files of one owner.
    fn owned_files(&mut self) -> [&mut Option<PathBuf>; 3] {
        [&mut self.nats.nkey_file, &mut self.tls.cert_file, &mut self.tls.key_file]
    }

    /// Whether a file of a credential is left for its owner to fill in.
    fn names_an_owner(&mut self) -> bool {
        let named = |file: &Path| file.to_string_lossy().contains(PLACEHOLDER);
        self.owned_files().into_iter().flatten().any(|file| named(file))
    }

    /// Puts the owner's name where its credential's files are named.
    pub fn own(&mut self, owner: &Identity) {
        for file in self.owned_files().into_iter().flatten() {
            *file = file.to_string_lossy().replace(PLACEHOLDER, &owner.to_string()).into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &str = "nats.nkey_file = \"/c/{owner}.nk\"\ntls.ca_file = \"/c/ca.pem\"\n\
                         tls.cert_file = \"/c/{owner}.pem\"\ntls.key_file = \"/c/{owner}.key\"\n";

    fn load(more: &str) -> Config {
        let text = format!("cluster = \"demo\"\nnats.servers = [\"a\", \"b\"]\n{FILES}{more}");
        Config::examine_text(Some(("test", &text)), std::iter::empty()).0.unwrap()
    }

    async fn certificate(role: Role, more: &str) -> String {
        let mut config = load(more);
        role.resolve(&mut config).await.unwrap();
        assert_eq!(config.tls.key_file, config.tls.cert_file.as_ref().map(|file| file.with_extension("key")));
        assert_eq!(
            config.nats.nkey_file,
            config.tls.cert_file.as_ref().map(|file| file.with_extension("nk"))
        );
        assert_eq!(config.tls.ca_file.as_deref(), Some(Path::new("/c/ca.pem")));
        config.tls.cert_file.unwrap().display().to_string()
    }

    #[tokio::test]
    async fn every_process_takes_its_own_files() {
        let node = "node.name = \"web-a\"\n[group.web]\n";
        assert_eq!(certificate(Role::Heartbeat, node).await, "/c/heartbeat.web.web-a.pem");
        assert_eq!(certificate(Role::Executor, node).await, "/c/executor.web.web-a.pem");
        assert_eq!(certificate(Role::Detector, "detector.seat = 2").await, "/c/detector.2.pem");
        // Beyond the seats.
        assert_eq!(certificate(Role::Detector, "detector.seat = 4").await, "/c/observer.pem");
        let scaler = "node.name = \"one\"\nautoscaler.group = \"scalers\"\n[group.scalers]\n";
        assert_eq!(certificate(Role::Autoscaler, scaler).await, "/c/autoscaler.scalers.one.pem");
    }

    #[tokio::test]
    async fn files_that_name_nobody_stay_as_they_are() {
        let mut config = load("");
        config.own(&Identity::Viewer);
        assert_eq!(config.nats.nkey_file.as_deref(), Some(Path::new("/c/viewer.nk")));
        let before = config.clone();
        // No group and so no name: none is needed.
        assert_eq!(Role::Executor.resolve(&mut config).await.unwrap(), None);
        assert_eq!(config, before);
        assert!(Role::Executor.resolve(&mut load("")).await.is_err());
    }

    #[test]
    fn a_role_is_called_in_certificates_as_the_credential_says() {
        let node = || ("web".parse().unwrap(), "web-a".parse().unwrap());
        let ((group, name), (of, own)) = (node(), node());
        assert_eq!(Role::Heartbeat.server_name(), Identity::Heartbeat(group, name).server_name());
        assert_eq!(Role::Executor.server_name(), Identity::Executor(of, own).server_name());
        assert_eq!(Role::Detector.server_name(), Identity::Detector(1).server_name());
    }
}
