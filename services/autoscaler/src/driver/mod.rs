//! Who starts and stops members. Every driver is idempotent by the state that an order names: a member that is there is
//! not started again, one that is gone is not stopped again, a newer incarnation is not restarted.

pub mod docker;
pub mod engine;
pub mod exec;
pub mod kubernetes;
pub mod swarm;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use understudy_service::config::{self, Config, Template};
use understudy_wire::{ClusterId, GroupId, NodeId};

/// Bytes that are kept of what somebody else says of a failure.
const MAX_REASON: usize = 1024;
/// Members in one list, as the book keeps at most.
const MAX_MEMBERS: usize = 16_384;

/// Why a driver did not do what was ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DriverError(pub String);

/// One instance of a member, as a driver lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// How far it is.
    pub state: State,
    /// Key of the order that made it; `None`: somebody else made it, or the driver cannot keep one.
    pub key: Option<String>,
    /// Failure domains.
    pub labels: BTreeMap<String, String>,
    /// It can be stopped now. What a driver cannot stop is not ordered to be.
    pub removable: bool,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Ordered, does not run yet.
    Starting,
    /// Runs.
    Running,
    /// Has ended, with the cause, such as "exited with 127".
    Ended(String),
}

/// An order to start a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Idempotency key, to be kept with the instance.
    pub key: String,
    /// Name of the member.
    pub node: NodeId,
    /// Failure domain: label and value.
    pub domain: Option<(String, String)>,
    /// The member whose place it takes.
    pub replaces: Option<NodeId>,
}

/// Starts, stops, restarts and lists the members of one group. A call may take as long as it likes: the caller bounds
/// it, and what is dropped then must not go on by itself.
pub trait Driver: Send + Sync {
    /// Every instance of the group, those that have ended too.
    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<NodeId, Instance>, DriverError>>;

    /// Starts a member. Done already where one of this name is there.
    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Stops and deletes a member. Done already where there is none.
    fn stop<'a>(&'a self, key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Restarts a member in place.
    fn restart<'a>(&'a self, key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Whether it can restart in place.
    fn can_restart(&self) -> bool;
}

/// The driver of each group that is scaled.
///
/// # Errors
/// A template that names a driver which this program does not have.
pub fn all(config: &Config) -> anyhow::Result<BTreeMap<GroupId, Arc<dyn Driver>>> {
    let mut drivers = BTreeMap::new();
    for (id, group) in &config.groups {
        let Some(template) = group.scaling.as_ref().and_then(|scaling| scaling.template.as_ref()) else {
            continue;
        };
        drivers.insert(id.clone(), one(&config.cluster, id, template)?);
    }
    Ok(drivers)
}

fn one(cluster: &ClusterId, group: &GroupId, template: &Template) -> anyhow::Result<Arc<dyn Driver>> {
    match template.driver {
        config::Driver::Docker => Ok(Arc::new(docker::Docker::new(cluster, group, template))),
        config::Driver::Swarm => Ok(Arc::new(swarm::Swarm::new(cluster, group, template))),
        config::Driver::Exec => Ok(Arc::new(exec::Exec::new(cluster, group, template))),
        config::Driver::Kubernetes => Ok(Arc::new(kubernetes::Kubernetes::new(group, template))),
    }
}

/// Foreign text on one line, cut.
fn short(text: &str) -> String {
    let line: String = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    line.chars().take(MAX_REASON).collect()
}
