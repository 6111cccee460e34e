//! Members as containers of a Docker engine.
//!
//! A member is three containers: the workload, which owns the network namespace of the node, and heartbeat and executor,
//! which join it. They are found by their labels, so a member that docker-compose.yml has made is one as well. What a
//! member is like, the engine says; nothing is kept here but which members are being started, so that a list in between
//! does not call them half.
//!
//! A container that joins another's network is bound to that container, not to its name: once the workload was made anew
//! (not only restarted) the other two must be, too. One that joins is given the namespace of the moment when it starts,
//! so they are started after the workload, always.

mod found;
mod shape;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bollard::{
    Docker as Api,
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptions,
    },
};
use futures_util::future::BoxFuture;
use understudy_service::config::Template;
use understudy_wire::{ClusterId, GroupId, NodeId};

pub use found::PART;
use found::{Found, Part, state, whole};

use super::{
    Driver, DriverError, Instance, MAX_MEMBERS, Start, State,
    engine::{CONFLICT, Engine, GONE, Identity, NODE, answered},
};

/// The members of one group on one engine.
#[derive(Debug)]
pub struct Docker {
    engine: Engine,
    starting: Mutex<BTreeSet<NodeId>>,
}

/// A member is being started, until this is dropped.
struct Busy<'a> {
    starting: &'a Mutex<BTreeSet<NodeId>>,
    node: NodeId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
    }
}

impl Docker {
    /// Members by a template, which was checked.
    pub fn new(cluster: &ClusterId, group: &GroupId, template: &Template) -> Self {
        Self { engine: Engine::new(cluster, group, template), starting: Mutex::default() }
    }

    fn busy(&self, node: &NodeId) -> Busy<'_> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone());
        Busy { starting: &self.starting, node: node.clone() }
    }

    /// Containers of the group, those that have ended too; of one member, or of all.
    async fn found(&self, api: &Api, node: Option<&NodeId>) -> Result<Vec<Found>, DriverError> {
        let mut filters = self.engine.ours();
        if let (Some(node), Some(labels)) = (node, filters.get_mut("label")) {
            labels.push(format!("{NODE}={node}"));
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = api.list_containers(Some(options)).await;
        let listed = listed.map_err(self.engine.failed("listing containers"))?;
        Ok(listed.into_iter().filter_map(Found::from).collect())
    }

    async fn members(&self) -> Result<BTreeMap<NodeId, Instance>, DriverError> {
        let mut nodes: BTreeMap<NodeId, Vec<Found>> = BTreeMap::new();
        for found in self.found(&self.engine.api()?, None).await? {
            nodes.entry(found.identity.node.clone()).or_default().push(found);
        }
        if nodes.len() > MAX_MEMBERS {
            let count = nodes.len();
            return Err(DriverError(format!("the engine lists {count} members, {MAX_MEMBERS} are taken")));
        }
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let instance = |(node, found): (NodeId, Vec<Found>)| {
            let state = match state(&found) {
                State::Ended(_) if starting.contains(&node) => State::Starting,
                state => state,
            };
            let identity = whole(&node, &found);
            (node, Instance { state, key: identity.key, labels: identity.domains, removable: true })
        };
        Ok(nodes.into_iter().map(instance).collect())
    }

    async fn start_member(&self, start: &Start) -> Result<(), DriverError> {
        let _busy = self.busy(&start.node);
        let (api, member) = (self.engine.api()?, Identity::of(start));
        let mut found = self.found(&api, Some(&start.node)).await?;
        if state(&found) == State::Running {
            return Ok(());
        }
        // What an earlier order has left half or ended: that key would never be seen as done.
        let (old, own): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.identity.key != member.key);
        self.remove_all(&api, &old).await?;
        found = own;
        self.make(&api, &member, &found, false).await
    }

    async fn restart_member(&self, node: &NodeId) -> Result<(), DriverError> {
        let _busy = self.busy(node);
        let api = self.engine.api()?;
        let found = self.found(&api, Some(node)).await?;
        if found.is_empty() {
            return Err(DriverError(format!("restarting {node}: it has no container")));
        }
        let member = whole(node, &found);
        let missing = Part::ALL.into_iter().find(|part| !found.iter().any(|one| one.part == *part));
        if let (None, Some(part)) = (&member.key, missing) {
            let why = format!("restarting {node}: it has no {part}, and was not made by this driver");
            return Err(DriverError(why));
        }
        self.make(&api, &member, &found, true).await
    }

    /// Makes what a member lacks and starts what does not run; with `again` what runs, too.
    async fn make(
        &self,
        api: &Api,
        member: &Identity,
        found: &[Found],
        again: bool,
    ) -> Result<(), DriverError> {
        if again {
            // First, as it hands its slot over when it ends.
            for one in found.iter().filter(|one| one.part == Part::Executor) {
                self.halt(api, one).await?;
            }
        }
        if member.key.is_some() {
            let volume = api.create_volume(self.volume(member)).await;
            volume.map_err(self.engine.failed(format!("making the volume of {}", member.node)))?;
        }
        let mut network = None;
        for part in Part::ALL {
            let there = found.iter().find(|one| one.part == part);
            let stale = there.filter(|one| one.joined.is_some() && one.joined != network);
            if let Some(stale) = stale {
                if member.key.is_none() {
                    let node = &member.node;
                    let why = format!(
                        "{node}: its {part} is not in the network of its workload, and was not made by this driver"
                    );
                    return Err(DriverError(why));
                }
                self.remove(api, stale).await?;
            }
            let id = match there.filter(|_| stale.is_none()) {
                Some(one) => one.id.clone(),
                None => self.create(api, member, part, network.as_deref()).await?,
            };
            let doing = || self.engine.failed(format!("starting the {part} of {}", member.node));
            if again && part != Part::Executor {
                api.restart_container(&id, None).await.map_err(doing())?;
            } else {
                api.start_container(&id, None).await.map_err(doing())?;
            }
            network.get_or_insert(id);
        }
        Ok(())
    }

    /// Makes a container; its ID. One that somebody else has made meanwhile is as good.
    async fn create(
        &self,
        api: &Api,
        member: &Identity,
        part: Part,
        network: Option<&str>,
    ) -> Result<String, DriverError> {
        let name = self.name(&member.node, part);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let doing = format!("making the {part} of {}", member.node);
        match api.create_container(Some(options), self.body(member, part, network)?).await {
            Ok(made) => Ok(made.id),
            Err(error) if answered(&error, CONFLICT) => {
                let found = self.found(api, Some(&member.node)).await?;
                let twin = found.into_iter().find(|one| one.part == part && one.identity.key == member.key);
                twin.map(|twin| twin.id).ok_or_else(|| self.engine.failed(doing)(error))
            }
            Err(error) => Err(self.engine.failed(doing)(error)),
        }
    }

    async fn stop_member(&self, node: &NodeId) -> Result<(), DriverError> {
        let api = self.engine.api()?;
        let found = self.found(&api, Some(node)).await?;
        self.remove_all(&api, &found).await?;
        match api.remove_volume(&self.volume_name(node), None::<RemoveVolumeOptions>).await {
            Err(error) if !answered(&error, GONE) => {
                Err(self.engine.failed(format!("removing the volume of {node}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Stops and removes containers of one member, the executor first: it hands its slot over when it ends.
    async fn remove_all(&self, api: &Api, found: &[Found]) -> Result<(), DriverError> {
        let mut found: Vec<_> = found.iter().collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.part));
        for one in found {
            self.halt(api, one).await?;
            self.remove(api, one).await?;
        }
        Ok(())
    }

    async fn halt(&self, api: &Api, one: &Found) -> Result<(), DriverError> {
        let doing = || self.engine.failed(format!("stopping the {} of {}", one.part, one.identity.node));
        match api.stop_container(&one.id, None).await {
            Err(error) if !answered(&error, GONE) => Err(doing()(error)),
            _ => Ok(()),
        }
    }

    async fn remove(&self, api: &Api, one: &Found) -> Result<(), DriverError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let doing = || self.engine.failed(format!("removing the {} of {}", one.part, one.identity.node));
        match api.remove_container(&one.id, Some(options)).await {
            // Somebody else is about to.
            Err(error) if !answered(&error, GONE) && !answered(&error, CONFLICT) => Err(doing()(error)),
            _ => Ok(()),
        }
    }
}

impl Driver for Docker {
    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<NodeId, Instance>, DriverError>> {
        Box::pin(self.members())
    }

    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.start_member(start))
    }

    fn stop<'a>(&'a self, _key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.stop_member(node))
    }

    fn restart<'a>(&'a self, _key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.restart_member(node))
    }

    fn can_restart(&self) -> bool {
        true
    }
}
