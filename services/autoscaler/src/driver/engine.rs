//! What the drivers `docker` and `swarm` share: the way to the engine, what it says when it refuses, and how a member is
//! found again by its labels.

use std::collections::{BTreeMap, HashMap};

use bollard::{API_DEFAULT_VERSION, Docker as Api, errors::Error};
use understudy_service::config::Template;
use understudy_wire::{ClusterId, GroupId, NodeId};

use super::{DriverError, Start, short};

/// Label of the deployment that a member belongs to.
pub const CLUSTER: &str = "understudy.cluster";
/// Label of its group.
pub const GROUP: &str = "understudy.group";
/// Label of its name.
pub const NODE: &str = "understudy.node";
/// Label of the order that made it.
pub const KEY: &str = "understudy.key";
/// What labels of failure domains begin with: `understudy.label.rack`.
const DOMAIN: &str = "understudy.label.";

/// What the engine answers when there is no such thing.
pub(super) const GONE: u16 = 404;
/// What it answers when the name is taken, or a removal is under way.
pub(super) const CONFLICT: u16 = 409;

/// The engine, and whose members are meant.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) cluster: ClusterId,
    pub(super) group: GroupId,
    pub(super) template: Template,
}

/// Whom a driver makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) key: Option<String>,
    /// Failure domains.
    pub(super) domains: BTreeMap<String, String>,
}

impl Identity {
    pub(super) fn of(start: &Start) -> Self {
        let domains = start.domain.clone().into_iter().collect();
        Self { node: start.node.clone(), key: Some(start.key.clone()), domains }
    }

    /// Who carries these labels; `None`: nobody of ours.
    pub(super) fn carrying(labels: &HashMap<String, String>) -> Option<Self> {
        let node = NodeId::new(labels.get(NODE)?).ok()?;
        let domain = |(label, value): (&String, &String)| {
            Some((label.strip_prefix(DOMAIN)?.to_owned(), value.clone()))
        };
        let domains = labels.iter().filter_map(domain).collect();
        Some(Self { node, key: labels.get(KEY).cloned(), domains })
    }
}

impl Engine {
    pub(super) fn new(cluster: &ClusterId, group: &GroupId, template: &Template) -> Self {
        Self { cluster: cluster.clone(), group: group.clone(), template: template.clone() }
    }

    /// A client. It is made anew for each call, which costs nothing, so that an engine that was not there when this
    /// program started is found when it is.
    pub(super) fn api(&self) -> Result<Api, DriverError> {
        let endpoint = &self.template.endpoint;
        // A call is bounded as a whole by whoever makes it; one request can at least not take longer.
        let limit = self.template.timeout.as_secs().max(1);
        let connected = match endpoint.strip_prefix("unix://") {
            Some(path) => Api::connect_with_unix(path, limit, API_DEFAULT_VERSION),
            None => Api::connect_with_http(endpoint, limit, API_DEFAULT_VERSION),
        };
        connected.map_err(|error| self.failed("connecting")(error))
    }

    /// What it means that a request has failed.
    pub(super) fn failed(&self, doing: impl Into<String>) -> impl FnOnce(Error) -> DriverError {
        let (doing, endpoint) = (doing.into(), self.template.endpoint.clone());
        let limit = self.template.timeout;
        move |error| {
            DriverError(match error {
                Error::DockerResponseServerError { status_code, message } if message.is_empty() => {
                    format!("{doing}: the engine at {endpoint} answers with {status_code}")
                }
                // A proxy answers with a page.
                Error::DockerResponseServerError { status_code, message } if message.starts_with('<') => {
                    format!("{doing}: what answers at {endpoint} refuses it with {status_code}")
                }
                Error::DockerResponseServerError { message, .. } => format!("{doing}: {}", short(&message)),
                Error::RequestTimeoutError => {
                    format!("{doing}: the engine at {endpoint} does not answer within {limit:?}")
                }
                Error::SocketNotFoundError(_) => format!("{doing}: no engine at {endpoint}"),
                other => format!("{doing}: the engine at {endpoint}: {}", innermost(&other)),
            })
        }
    }

    /// Filter for everything of this group.
    pub(super) fn ours(&self) -> HashMap<String, Vec<String>> {
        let labels = vec![format!("{CLUSTER}={}", self.cluster), format!("{GROUP}={}", self.group)];
        HashMap::from([("label".to_owned(), labels)])
    }

    /// Labels of everything that is made for a member.
    pub(super) fn labels(&self, member: &Identity) -> HashMap<String, String> {
        let mut labels: HashMap<_, _> = self
            .template
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), self.filled(value, member)))
            .collect();
        let own =
            [(CLUSTER, self.cluster.as_str()), (GROUP, self.group.as_str()), (NODE, member.node.as_str())];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        labels.extend(member.key.iter().map(|key| (KEY.to_owned(), key.clone())));
        labels
            .extend(member.domains.iter().map(|(label, value)| (format!("{DOMAIN}{label}"), value.clone())));
        labels
    }

    /// A text of the template with names in place of placeholders.
    pub(super) fn filled(&self, text: &str, member: &Identity) -> String {
        text.replace("{cluster}", self.cluster.as_str())
            .replace("{group}", self.group.as_str())
            .replace("{node}", member.node.as_str())
    }

    /// Environment of a container, `NAME=value`; `tells` says whether a process of Understudy runs in it, which has to
    /// know who it is.
    pub(super) fn environment(
        &self,
        env: &BTreeMap<String, String>,
        member: &Identity,
        tells: bool,
    ) -> Vec<String> {
        let mut all: BTreeMap<String, String> =
            env.iter().map(|(name, value)| (name.clone(), self.filled(value, member))).collect();
        if tells {
            all.insert("UNDERSTUDY_NODE__NAME".into(), member.node.to_string());
            all.insert("UNDERSTUDY_NODE__GROUP".into(), self.group.to_string());
            let domains = member.domains.iter().map(|(label, value)| format!("{label}={value}"));
            let given = all.remove("UNDERSTUDY_NODE__LABELS");
            let labels: Vec<String> = given.into_iter().chain(domains).collect();
            if !labels.is_empty() {
                all.insert("UNDERSTUDY_NODE__LABELS".into(), labels.join(","));
            }
        }
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Whether the engine answered with this.
pub(super) fn answered(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The cause at the bottom: those above only say that there was one.
fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    short(&cause.to_string())
}

/// `None` where there is nothing to say, as the engine's requests have it.
pub(super) fn said<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The same for a number, where 0 is no limit.
pub(super) fn limit(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

/// Processors in billionths, as engines count them; `None`: no limit.
pub(super) fn nano_cpus(cpus: f64) -> Option<i64> {
    // `as` saturates.
    limit((cpus * 1e9) as i64)
}

/// MiB in bytes; `None`: no limit.
pub(super) fn bytes(mib: u32) -> Option<i64> {
    limit(i64::from(mib) << 20)
}
