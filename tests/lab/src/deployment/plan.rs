//! What is deployed, and the configuration that says so to the services.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Result, bail};

use super::{DIRECT_PORT, NAME, PORT};
use crate::{
    Host, NameServer, NatsCluster, Software, credentials,
    name_server::{KEY_ALGORITHM, KEY_NAME, KEY_SECRET},
    yard,
};

/// One node of the group.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name of node and host.
    pub name: String,
    /// Higher is preferred.
    pub priority: i32,
    /// `hot`, `warm` or `cold`.
    pub standby: String,
}

impl Member {
    /// A hot standby.
    pub fn hot(name: &str, priority: i32) -> Self {
        Self { name: name.to_owned(), priority, standby: "hot".to_owned() }
    }
}

/// That the group is scaled: by the exec driver of a [`Yard`](crate::Yard), from what serves at first upwards.
#[derive(Debug, Clone)]
pub struct Scaling {
    /// Most nodes that serve at a time, which is the number of slots.
    pub max: usize,
    /// Autoscalers, each on a host of its own; the detectors elect the one that acts.
    pub autoscalers: Vec<String>,
    /// Whether every slot has the name, so that clients find all that serve; else slot 0 alone.
    pub one_name: bool,
    /// Keys of `[group.web.scaling]`, then tables below it, as TOML.
    pub rules: String,
}

impl Scaling {
    fn configuration(&self, active: usize, yard: &Path) -> String {
        let Self { max, autoscalers, rules, .. } = self;
        let group = super::SCALERS;
        let standby = autoscalers.len().saturating_sub(1).max(1);
        format!(
            "[autoscaler]\ninterval = \"1s\"\ngroup = \"{group}\"\n\n\
             [group.{group}]\nactive = 1\nstandby = {standby}\nmembers = {autoscalers:?}\n\n\
             [group.web.scaling]\nmin = {active}\nmax = {max}\n{rules}\n{}\n",
            yard::template(yard)
        )
    }
}

/// What to deploy.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Short name, shows in namespaces and folder.
    pub name: String,
    /// Nodes.
    pub members: Vec<Member>,
    /// Nodes that serve at a time, which is the number of slots; slot 0 has the name, see [`vips`].
    pub active: usize,
    /// Whether the number of nodes is kept, and follows the load.
    pub scaling: Option<Scaling>,
    /// Nodes that may join later, and so have credentials.
    pub joining: Vec<String>,
    /// Detectors, which is also S.
    pub detectors: usize,
    /// NATS servers.
    pub nats: usize,
    /// Interval, I.
    pub interval: Duration,
    /// Lease, T.
    pub lease: Duration,
    /// Name servers, each with the zone; none: the group has no name.
    pub name_servers: Vec<Software>,
    /// Keys of `[group.web]`, as TOML.
    pub policy: String,
    /// Whether the group serves a VIP. Without one the name follows the holder's own address, and the gate guards the
    /// workload's port there.
    pub vip: bool,
    /// Whether TLS, credentials and permissions are on.
    pub secured: bool,
    /// TOML behind `[group.web]`: checks, hooks.
    pub group: String,
    /// More TOML, at the top level.
    pub more: String,
    /// Variables that Understudy's processes on one host have beside their configuration: host, name, value.
    pub environment: Vec<(String, String, String)>,
}

impl Plan {
    /// Three NATS servers, three detectors, Knot, web-a and two hot standbys; I = 100 ms, T = 300 ms; an HTTP check.
    pub fn new(name: &str) -> Self {
        let members = [("web-a", 100), ("web-b", 90), ("web-c", 80)];
        Self {
            name: name.to_owned(),
            members: members.map(|(name, priority)| Member::hot(name, priority)).into(),
            active: 1,
            scaling: None,
            joining: Vec::new(),
            detectors: 3,
            nats: 3,
            interval: Duration::from_millis(100),
            lease: Duration::from_millis(300),
            name_servers: vec![Software::Knot],
            policy: String::new(),
            vip: true,
            secured: false,
            group: http_check(),
            more: String::new(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn environment_of(&self, host: &Host) -> impl Iterator<Item = (&str, &str)> {
        let own = self.environment.iter().filter(|(name, ..)| name == host.name());
        own.map(|(_, key, value)| (key.as_str(), value.as_str()))
    }

    /// The configuration of all services, which will be in `file`.
    pub(super) fn configuration(
        &self,
        file: &Path,
        nats: &[Host],
        detectors: &[Host],
        name_servers: &[NameServer],
    ) -> Result<String> {
        if self.members.is_empty() {
            bail!("a deployment needs nodes");
        }
        let quoted =
            |items: Vec<String>| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
        let direct = detectors.iter().map(|host| host.socket(DIRECT_PORT).to_string()).collect();
        let (trusted, access) = credentials::sections(file, self.secured);
        let (interval, lease) = (self.interval.as_millis(), self.lease.as_millis());
        // Its default, unless the lease is longer.
        let max = lease.max(1000);
        let mut text = format!(
            "cluster = \"lab\"\n\n[nats]\nservers = [{}]\n{trusted}\n{access}\
             [lease]\ninterval = \"{interval}ms\"\nduration = \"{lease}ms\"\nmax = \"{max}ms\"\n\n\
             [detector]\nseats = {}\ndirect = [{}]\n\n",
            quoted(NatsCluster::urls_in(nats)),
            detectors.len(),
            quoted(direct),
        );
        let mut names = String::new();
        if !name_servers.is_empty() {
            write!(
                text,
                "[dns]\nservers = [{}]\nzone = \"ha.test.\"\n\
                 key = {{ name = \"{KEY_NAME}\", algorithm = \"{KEY_ALGORITHM}\", secret = \"{KEY_SECRET}\" }}\n\n",
                quoted(name_servers.iter().map(|server| server.address().to_string()).collect())
            )?;
            names = format!("names = [\"{NAME}\"]\n");
        }
        let (active, standby) = (self.active, self.members.len() - self.active);
        let ports =
            if self.vip { String::new() } else { format!("ports = [\"tcp/{PORT}\", \"udp/{PORT}\"]\n") };
        let members = self.members.iter().map(|member| &member.name).chain(&self.joining);
        let members = quoted(members.cloned().collect());
        writeln!(
            text,
            "[group.web]\nactive = {active}\nstandby = {standby}\nmembers = [{members}]\n{ports}{}\n",
            self.policy
        )?;
        let slots = self.scaling.as_ref().map_or(active, |scaling| scaling.max);
        let one_name = self.scaling.as_ref().is_some_and(|scaling| scaling.one_name);
        for slot in 0..slots {
            let [vip, vip6] = vips(slot);
            let vips =
                if self.vip { format!("vips = [\"{vip}/24\", \"{vip6}/64\"]\n") } else { String::new() };
            let names = if slot == 0 || one_name { names.as_str() } else { "" };
            writeln!(text, "[[group.web.slot]]\n{vips}{names}")?;
        }
        writeln!(text, "{}\n{}", self.group, self.more)?;
        if let Some(scaling) = &self.scaling {
            text += &scaling.configuration(active, &yard::folder(file));
        }
        Ok(text)
    }
}

/// Addresses of a slot, IPv4 first; those of slot 0 are [`VIP`](super::VIP) and [`VIP6`](super::VIP6).
pub fn vips(slot: usize) -> [String; 2] {
    [format!("10.77.0.{}", 100 + slot), format!("fd77::{}", 100 + slot)]
}

/// The check of the sample group. A workload that refuses connections is down after two intervals of 100 ms, one that
/// hangs after twice its timeout of 100 ms as well; a machine that stalls for a tenth of a second is not taken for either.
pub fn http_check() -> String {
    format!(
        "[[group.web.check]]\nkind = \"http\"\nurl = \"http://127.0.0.1:{PORT}/healthz\"\n\
         interval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 2\n"
    )
}
