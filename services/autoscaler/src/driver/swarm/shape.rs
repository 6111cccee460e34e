//! What the swarm is asked to make.

use std::time::Duration;

use bollard::models::{
    Limit, Mount, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkAttachmentConfig,
    ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, TaskSpec, TaskSpecContainerSpec,
    TaskSpecPlacement, TaskSpecResources, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use understudy_service::config::Container;
use understudy_wire::NodeId;

use super::{
    super::{
        DriverError,
        engine::{Identity, bytes, limit, nano_cpus, said},
    },
    Swarm,
};

/// Longer than any hook should take: the executor hands its slot over before the container ends.
const HAND_OVER: Duration = Duration::from_secs(15);
/// What the executor in the container needs for the gate, addresses and announcements.
const EXECUTOR: [&str; 2] = ["NET_ADMIN", "NET_RAW"];

/// So many replicas.
pub(super) fn replicas(count: i64) -> ServiceSpecMode {
    let replicated = ServiceSpecModeReplicated { replicas: Some(count) };
    ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() }
}

impl Swarm {
    /// Name of a member's service.
    pub(super) fn name(&self, node: &NodeId) -> String {
        format!("{}-{node}", self.engine.template.service)
    }

    /// A service of one replica; `force` is larger than before where the same is to start anew.
    pub(super) fn spec(&self, member: &Identity, force: u64) -> Result<ServiceSpec, DriverError> {
        let template = &self.engine.template;
        let told = template.workload.container();
        let told = told.ok_or_else(|| DriverError("the template says nothing of the workload".into()))?;
        let constraint = |(label, value): (&String, &String)| format!("node.labels.{label} == {value}");
        let network = |name: &String| NetworkAttachmentConfig {
            target: Some(name.clone()),
            aliases: Some(vec![member.node.to_string()]),
            ..NetworkAttachmentConfig::default()
        };
        Ok(ServiceSpec {
            name: Some(self.name(&member.node)),
            labels: Some(self.engine.labels(member)),
            mode: Some(replicas(1)),
            task_template: Some(TaskSpec {
                container_spec: Some(self.container(member, told)),
                resources: Some(TaskSpecResources {
                    limits: Some(Limit {
                        nano_cpus: nano_cpus(told.cpus),
                        memory_bytes: bytes(told.memory),
                        pids: limit(told.pids.into()),
                    }),
                    ..TaskSpecResources::default()
                }),
                restart_policy: Some(TaskSpecRestartPolicy {
                    condition: Some(TaskSpecRestartPolicyConditionEnum::NONE),
                    ..TaskSpecRestartPolicy::default()
                }),
                placement: Some(TaskSpecPlacement {
                    constraints: said(member.domains.iter().map(constraint).collect()),
                    ..TaskSpecPlacement::default()
                }),
                force_update: Some(force),
                networks: said(told.networks.iter().map(network).collect()),
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        })
    }

    fn container(&self, member: &Identity, told: &Container) -> TaskSpecContainerSpec {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let mounts = told.volumes.iter().map(|volume| mount(&self.engine.filled(volume, member)));
        let mounts = mounts.chain(told.tmpfs.iter().map(|folder| in_memory(folder)));
        let capabilities = told.cap_add.iter().map(String::as_str).chain(EXECUTOR);
        let grace = told.stop_timeout.unwrap_or(HAND_OVER);
        TaskSpecContainerSpec {
            image: text(&told.image),
            user: text(&told.user),
            hostname: Some(member.node.to_string()),
            command: said(told.entrypoint.clone()),
            args: said(told.command.clone()),
            env: said(self.engine.environment(&told.env, member, true)),
            mounts: said(mounts.collect()),
            read_only: Some(told.read_only),
            stop_grace_period: i64::try_from(grace.as_nanos()).ok(),
            capability_drop: Some(vec!["ALL".into()]),
            capability_add: Some(capabilities.map(str::to_owned).collect()),
            ..TaskSpecContainerSpec::default()
        }
    }
}

/// `source:target:ro`, which was checked.
fn mount(volume: &str) -> Mount {
    let mut parts = volume.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Mount {
        typ: Some(if source.starts_with('/') { MountType::BIND } else { MountType::VOLUME }),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(parts.next() == Some("ro")),
        ..Mount::default()
    }
}

/// `/folder:uid=65532,mode=0770,size=16m`: a volume without a name, since the swarm's own folders in memory know of size and
/// mode only, and belong to root.
fn in_memory(folder: &str) -> Mount {
    let (target, options) = folder.split_once(':').unwrap_or((folder, ""));
    let all = [("type", "tmpfs"), ("device", "tmpfs"), ("o", options)];
    let all = all.into_iter().filter(|(_, value)| !value.is_empty());
    Mount {
        typ: Some(MountType::VOLUME),
        target: Some(target.to_owned()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            driver_config: Some(MountVolumeOptionsDriverConfig {
                name: Some("local".into()),
                options: Some(all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
            }),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}
