//! What the engine is asked to make.

use std::{collections::HashMap, time::Duration};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum, VolumeCreateRequest,
};
use understudy_service::config::Container;
use understudy_wire::NodeId;

use super::{
    super::{
        DriverError,
        engine::{Identity, bytes, limit, nano_cpus, said},
    },
    Docker,
    found::{Part, labelled},
};

/// Where heartbeat and executor meet.
const RUN: &str = "/run/understudy";
/// Options of the volume there: in memory, of the user that both run as, as in docker-compose.yml.
const RUN_OPTIONS: &str = "uid=65532,gid=65532,mode=0770,size=1m";
/// Longer than any hook should take: the executor hands its slot over before it ends.
const HAND_OVER: Duration = Duration::from_secs(15);
/// What an executor needs for the gate, addresses and announcements.
const EXECUTOR: [&str; 2] = ["NET_ADMIN", "NET_RAW"];
/// Networks of the engine itself, which know no other names than its own.
const NAMELESS: [&str; 3] = ["bridge", "host", "none"];
/// Logs of a container that nobody looks after: three files of 10 MB, as in docker-compose.yml.
const LOGS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

impl Docker {
    /// Name of a container. Names of clusters, groups and nodes have no dots, so no two members share one.
    pub(super) fn name(&self, node: &NodeId, part: Part) -> String {
        format!("{}.{part}", self.volume_name(node))
    }

    /// Name of the volume that heartbeat and executor of a member share.
    pub(super) fn volume_name(&self, node: &NodeId) -> String {
        format!("{}.{}.{node}", self.engine.cluster, self.engine.group)
    }

    pub(super) fn volume(&self, member: &Identity) -> VolumeCreateRequest {
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", RUN_OPTIONS)];
        VolumeCreateRequest {
            name: Some(self.volume_name(&member.node)),
            driver: Some("local".into()),
            driver_opts: Some(pairs(options)),
            labels: Some(self.engine.labels(member)),
            ..VolumeCreateRequest::default()
        }
    }

    /// The template of a part.
    fn told(&self, part: Part) -> Result<&Container, DriverError> {
        let template = &self.engine.template;
        match part {
            Part::Workload => template.workload.container(),
            Part::Heartbeat => Some(&template.heartbeat),
            Part::Executor => Some(&template.executor),
        }
        .ok_or_else(|| DriverError(format!("the template says nothing of the {part}")))
    }

    /// A container; `network` is the one whose network it joins.
    pub(super) fn body(
        &self,
        member: &Identity,
        part: Part,
        network: Option<&str>,
    ) -> Result<ContainerCreateBody, DriverError> {
        let told = self.told(part)?;
        let workload = part == Part::Workload;
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let grace = told.stop_timeout.or((part == Part::Executor).then_some(HAND_OVER));
        Ok(ContainerCreateBody {
            image: text(&told.image),
            user: text(&told.user),
            // Those that join the workload's network have its name.
            hostname: workload.then(|| member.node.to_string()),
            entrypoint: said(told.entrypoint.clone()),
            cmd: said(told.command.clone()),
            env: said(self.engine.environment(&told.env, member, !workload)),
            labels: Some(labelled(self.engine.labels(member), part)),
            stop_timeout: grace.and_then(|grace| i64::try_from(grace.as_secs()).ok()),
            networking_config: workload.then(|| networks(&told.networks, &member.node)),
            host_config: Some(self.host(member, part, network, told)),
            ..ContainerCreateBody::default()
        })
    }

    fn host(&self, member: &Identity, part: Part, network: Option<&str>, told: &Container) -> HostConfig {
        let mut binds: Vec<String> =
            told.volumes.iter().map(|volume| self.engine.filled(volume, member)).collect();
        let mut cap_add = told.cap_add.clone();
        if part != Part::Workload {
            binds.push(format!("{}:{RUN}", self.volume_name(&member.node)));
        }
        if part == Part::Executor {
            cap_add.extend(EXECUTOR.map(str::to_owned));
        }
        // A workload that ends is the autoscaler's to restart, within backoff and budget; the other two end whenever the
        // network that they have joined is gone, and are to come back at once.
        let again =
            RestartPolicy { name: Some(RestartPolicyNameEnum::UNLESS_STOPPED), ..RestartPolicy::default() };
        HostConfig {
            network_mode: match network {
                Some(id) => Some(format!("container:{id}")),
                None => told.networks.first().cloned(),
            },
            binds: said(binds),
            tmpfs: (!told.tmpfs.is_empty()).then(|| {
                pairs(told.tmpfs.iter().map(|folder| folder.split_once(':').unwrap_or((folder, ""))))
            }),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: said(cap_add),
            readonly_rootfs: Some(told.read_only),
            memory: bytes(told.memory),
            pids_limit: limit(told.pids.into()),
            nano_cpus: nano_cpus(told.cpus),
            restart_policy: (part != Part::Workload).then_some(again),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(pairs(LOGS)),
            }),
            ..HostConfig::default()
        }
    }
}

/// The networks of a workload, where the others know it by the name of its node.
fn networks(names: &[String], node: &NodeId) -> NetworkingConfig {
    let settings = |name: &String| EndpointSettings {
        aliases: (!NAMELESS.contains(&name.as_str())).then(|| vec![node.to_string()]),
        ..EndpointSettings::default()
    };
    let endpoints: HashMap<_, _> = names.iter().map(|name| (name.clone(), settings(name))).collect();
    NetworkingConfig { endpoints_config: (!endpoints.is_empty()).then_some(endpoints) }
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> HashMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
