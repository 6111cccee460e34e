//! `[group.<name>.scaling.template]`: how members are started.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// What stands for the cluster, the group and the member in what a template says of a container.
pub const PLACEHOLDERS: [&str; 3] = ["{cluster}", "{group}", "{node}"];

/// `[group.<name>.scaling.template]`: how the driver starts a member.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Who starts members.
    pub driver: Driver,
    /// How long one call of the driver may take; a slower one counts as failed.
    #[serde(default = "Template::default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// `docker`, `swarm`: where the engine listens, `unix:///path` or `http://host:port`.
    #[serde(default = "Template::default_endpoint")]
    pub endpoint: String,
    /// `docker`, `swarm`: labels of everything that is made.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `docker`: the container that is served from; `swarm`: the one container of a member; `kubernetes`: the name of an
    /// object, `statefulset/web`, of the group's name.
    #[serde(default)]
    pub workload: Workload,
    /// `docker`: the container of the heartbeat publisher.
    #[serde(default)]
    pub heartbeat: Container,
    /// `docker`: the container of the executor.
    #[serde(default)]
    pub executor: Container,
    /// `swarm`: what the names of services begin with.
    #[serde(default)]
    pub service: String,
    /// `kubernetes`: namespace.
    #[serde(default)]
    pub namespace: String,
    /// `kubernetes`: file that says where the API server is; without it, as the pod's service account says.
    #[serde(default)]
    pub kubeconfig: String,
    /// `exec`: starts a member.
    #[serde(default)]
    pub start: Vec<String>,
    /// `exec`: stops and deletes a member.
    #[serde(default)]
    pub remove: Vec<String>,
    /// `exec`: restarts a member in place; without it none is.
    #[serde(default)]
    pub restart: Vec<String>,
    /// `exec`: lists the members.
    #[serde(default)]
    pub list: Vec<String>,
}

impl Template {
    /// A template that says nothing but who starts members.
    pub fn of(driver: Driver) -> Self {
        Self {
            driver,
            timeout: Self::default_timeout(),
            endpoint: Self::default_endpoint(),
            labels: BTreeMap::new(),
            workload: Workload::default(),
            heartbeat: Container::default(),
            executor: Container::default(),
            service: String::new(),
            namespace: String::new(),
            kubeconfig: String::new(),
            start: Vec::new(),
            remove: Vec::new(),
            restart: Vec::new(),
            list: Vec::new(),
        }
    }

    /// Long enough for an engine to take in a container under load; an image that has to be fetched first takes longer.
    fn default_timeout() -> Duration {
        Duration::from_secs(30)
    }

    /// Where an engine listens unless it was told otherwise.
    pub(super) fn default_endpoint() -> String {
        "unix:///var/run/docker.sock".into()
    }
}

/// Who starts members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Docker Engine API.
    Docker,
    /// Services of a swarm.
    Swarm,
    /// The scale subresource of a workload.
    Kubernetes,
    /// Commands.
    Exec,
}

impl Driver {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Swarm => "swarm",
            Self::Kubernetes => "kubernetes",
            Self::Exec => "exec",
        }
    }
}

/// `template.workload`: a container for engines, the name of an object for Kubernetes.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    /// Such as `statefulset/web`; empty where nothing was said.
    Object(String),
    /// A container.
    Container(Box<Container>),
}

impl Workload {
    /// The container; `None` where it is the name of an object, or nothing.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            Self::Object(_) => None,
        }
    }

    /// The name of an object; empty where it is a container, or nothing.
    pub fn object(&self) -> &str {
        match self {
            Self::Object(name) => name,
            Self::Container(_) => "",
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self::Object(String::new())
    }
}

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Workload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with the image of a container, or the name of an object such as \"statefulset/web\"")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Workload, E> {
                Ok(Workload::Object(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Workload, A::Error> {
                Container::deserialize(MapAccessDeserializer::new(table))
                    .map(Box::new)
                    .map(Workload::Container)
            }
        }

        input.deserialize_any(Either)
    }
}

/// One container of a member, as the engine is asked for it. In values of `env`, in `volumes` and in labels stand
/// [`PLACEHOLDERS`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// Image; the engine must have it.
    pub image: String,
    /// User and group in place of the image's own, `65532:65532`.
    pub user: String,
    /// Entrypoint in place of the image's own.
    pub entrypoint: Vec<String>,
    /// Command in place of the image's own.
    pub command: Vec<String>,
    /// Environment beside the image's own.
    pub env: BTreeMap<String, String>,
    /// `/path/on/the/host:/path:ro` or `name-of-a-volume:/path`.
    pub volumes: Vec<String>,
    /// Folders in memory, `/tmp:mode=1777,size=16m`.
    pub tmpfs: Vec<String>,
    /// Networks; of the workload only, since the others share its network.
    pub networks: Vec<String>,
    /// Capabilities; all others are dropped.
    pub cap_add: Vec<String>,
    /// The root file system is read-only.
    pub read_only: bool,
    /// Most memory, in MiB; 0: no limit.
    pub memory: u32,
    /// Most processes; 0: no limit.
    pub pids: u32,
    /// Most processors; 0: no limit.
    pub cpus: f64,
    /// How long it is given to end before it is killed.
    #[serde(with = "humantime_serde::option")]
    pub stop_timeout: Option<Duration>,
}

impl Container {
    /// Whether anything was said of it.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }
}
