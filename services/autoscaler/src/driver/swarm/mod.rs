//! Members as services of a swarm.
//!
//! A member is a service of its own with one replica, since a service that shrinks chooses itself which replica goes, and
//! here only the policy may choose. And it is one container, since those of a task share no network with others: its
//! image runs workload, heartbeat and executor. A task that fails is not started again by the swarm: that is the policy's
//! affair, with its backoff and budget.

mod shape;

use std::{collections::BTreeMap, time::Duration};

use bollard::{
    Docker as Api,
    models::{Service, ServiceSpec, Task, TaskState},
    query_parameters::{ListServicesOptionsBuilder, ListTasksOptionsBuilder, UpdateServiceOptionsBuilder},
};
use futures_util::future::BoxFuture;
use understudy_service::config::Template;
use understudy_wire::{ClusterId, GroupId, NodeId};

use super::{
    Driver, DriverError, Instance, MAX_MEMBERS, Start, State,
    engine::{CONFLICT, Engine, GONE, Identity, answered},
    short,
};

/// Services whose tasks are asked for at once: their IDs go into one address, which engines take up to a length.
const AT_ONCE: usize = 100;
/// Between two looks at a task that ends: soon enough for somebody who waits, seldom enough for the engine.
const LOOK: Duration = Duration::from_millis(200);

/// The members of one group in one swarm.
#[derive(Debug)]
pub struct Swarm {
    engine: Engine,
}

impl Swarm {
    /// Members by a template, which was checked.
    pub fn new(cluster: &ClusterId, group: &GroupId, template: &Template) -> Self {
        Self { engine: Engine::new(cluster, group, template) }
    }

    async fn members(&self) -> Result<BTreeMap<NodeId, Instance>, DriverError> {
        let api = self.engine.api()?;
        let options = ListServicesOptionsBuilder::new().filters(&self.engine.ours()).build();
        let services = api.list_services(Some(options)).await;
        let services = services.map_err(self.engine.failed("listing services"))?;
        if services.len() > MAX_MEMBERS {
            let count = services.len();
            return Err(DriverError(format!("the swarm lists {count} members, {MAX_MEMBERS} are taken")));
        }
        let ids: Vec<String> = services.iter().filter_map(|service| service.id.clone()).collect();
        let mut tasks: BTreeMap<String, Vec<Task>> = BTreeMap::new();
        for some in ids.chunks(AT_ONCE) {
            for task in self.tasks(&api, some).await? {
                tasks.entry(task.service_id.clone().unwrap_or_default()).or_default().push(task);
            }
        }
        let mut members = BTreeMap::new();
        for service in services {
            let Some(identity) = identity(&service) else { continue };
            let mut of_it = tasks.remove(&service.id.clone().unwrap_or_default()).unwrap_or_default();
            let state = state(&service, &mut of_it);
            members.insert(
                identity.node,
                Instance { state, key: identity.key, labels: identity.domains, removable: true },
            );
        }
        Ok(members)
    }

    async fn tasks(&self, api: &Api, services: &[String]) -> Result<Vec<Task>, DriverError> {
        let filters = [("service".to_owned(), services.to_vec())].into();
        let options = ListTasksOptionsBuilder::new().filters(&filters).build();
        api.list_tasks(Some(options)).await.map_err(self.engine.failed("listing tasks"))
    }

    /// The service of a member; `None`: there is none.
    async fn service(&self, api: &Api, node: &NodeId) -> Result<Option<Service>, DriverError> {
        match api.inspect_service(&self.name(node), None).await {
            Ok(service) if identity(&service).is_some_and(|found| found.node == *node) => Ok(Some(service)),
            Ok(_) => {
                let name = self.name(node);
                Err(DriverError(format!(
                    "the service {name} is not one of this group's: it lacks the labels"
                )))
            }
            Err(error) if answered(&error, GONE) => Ok(None),
            Err(error) => Err(self.engine.failed(format!("looking at the service of {node}"))(error)),
        }
    }

    async fn update(
        &self,
        api: &Api,
        node: &NodeId,
        service: &Service,
        spec: ServiceSpec,
    ) -> Result<(), DriverError> {
        let version = service.version.as_ref().and_then(|version| version.index).unwrap_or_default();
        // A swarm counts its changes; two billion of them take decades.
        let options =
            UpdateServiceOptionsBuilder::new().version(i32::try_from(version).unwrap_or(i32::MAX)).build();
        let updated = api.update_service(&self.name(node), spec, options, None).await;
        updated.map(drop).map_err(self.engine.failed(format!("changing the service of {node}")))
    }

    async fn start_member(&self, start: &Start) -> Result<(), DriverError> {
        let (api, member) = (self.engine.api()?, Identity::of(start));
        let mut service = self.service(&api, &start.node).await?;
        if service.is_none() {
            match api.create_service(self.spec(&member, 0)?, None).await {
                Ok(_) => return Ok(()),
                // Somebody else has made it meanwhile.
                Err(error) if answered(&error, CONFLICT) => {
                    service = self.service(&api, &start.node).await?;
                }
                Err(error) => {
                    return Err(self.engine.failed(format!("making the service of {}", start.node))(error));
                }
            }
        }
        let Some(service) = service else {
            return Err(DriverError(format!(
                "making the service of {}: it was removed meanwhile",
                start.node
            )));
        };
        let mut tasks = self.tasks(&api, &[service.id.clone().unwrap_or_default()]).await?;
        if !matches!(state(&service, &mut tasks), State::Ended(_)) {
            return Ok(());
        }
        let spec = self.spec(&member, forced(&service) + 1)?;
        self.update(&api, &start.node, &service, spec).await
    }

    async fn restart_member(&self, node: &NodeId) -> Result<(), DriverError> {
        let api = self.engine.api()?;
        let Some(service) = self.service(&api, node).await? else {
            return Err(DriverError(format!("restarting {node}: it has no service")));
        };
        let Some(mut spec) = service.spec.clone() else {
            return Err(DriverError(format!("restarting {node}: its service says nothing")));
        };
        spec.mode = Some(shape::replicas(1));
        spec.task_template.get_or_insert_default().force_update = Some(forced(&service) + 1);
        self.update(&api, node, &service, spec).await
    }

    async fn stop_member(&self, node: &NodeId) -> Result<(), DriverError> {
        let api = self.engine.api()?;
        let Some(service) = self.service(&api, node).await? else { return Ok(()) };
        if wanted(&service) > 0
            && let Some(spec) = service.spec.clone()
        {
            // A service that is deleted takes its tasks with it at once; this way the executor may hand over.
            let spec = ServiceSpec { mode: Some(shape::replicas(0)), ..spec };
            self.update(&api, node, &service, spec).await?;
        }
        let id = [service.id.clone().unwrap_or_default()];
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            if !self.tasks(&api, &id).await?.iter().any(lives) {
                break;
            }
        }
        match api.delete_service(&self.name(node)).await {
            Err(error) if !answered(&error, GONE) => {
                Err(self.engine.failed(format!("removing the service of {node}"))(error))
            }
            _ => Ok(()),
        }
    }
}

fn identity(service: &Service) -> Option<Identity> {
    Identity::carrying(service.spec.as_ref()?.labels.as_ref()?)
}

/// How often the service was restarted by an update that changes nothing else.
fn forced(service: &Service) -> u64 {
    let spec = service.spec.as_ref().and_then(|spec| spec.task_template.as_ref());
    spec.and_then(|task| task.force_update).unwrap_or_default()
}

/// Replicas of a service.
fn wanted(service: &Service) -> i64 {
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
    mode.and_then(|mode| mode.replicated.as_ref())
        .and_then(|replicated| replicated.replicas)
        .unwrap_or_default()
}

/// Whether a task has a container that runs, or will have.
fn lives(task: &Task) -> bool {
    use TaskState::{ACCEPTED, ALLOCATED, ASSIGNED, NEW, PENDING, PREPARING, READY, RUNNING, STARTING};
    let state = task.status.as_ref().and_then(|status| status.state);
    let begun = [NEW, ALLOCATED, PENDING, ASSIGNED, ACCEPTED, PREPARING, READY, STARTING, RUNNING];
    state.is_none_or(|state| begun.contains(&state))
}

/// How far a member is, by its youngest task.
fn state(service: &Service, tasks: &mut [Task]) -> State {
    if wanted(service) == 0 {
        return State::Ended("it was stopped".into());
    }
    tasks.sort_by(|one, other| one.created_at.cmp(&other.created_at));
    let Some(last) = tasks.last() else { return State::Starting };
    let status = last.status.as_ref();
    match status.and_then(|status| status.state) {
        Some(TaskState::RUNNING) => State::Running,
        // Such as "no suitable node": it would wait for ever.
        _ if lives(last) => {
            match status.and_then(|status| status.err.as_deref()).filter(|why| !why.is_empty()) {
                Some(why) => State::Ended(format!("it does not start: {}", short(why))),
                None => State::Starting,
            }
        }
        _ => State::Ended(cause(last)),
    }
}

fn cause(task: &Task) -> String {
    let status = task.status.as_ref();
    let code = status.and_then(|status| status.container_status.as_ref()?.exit_code);
    let why = status.and_then(|status| status.err.as_deref()).unwrap_or_default();
    match code {
        // What is said of these is only the number once more.
        Some(code) if code != 0 || why.is_empty() => format!("it exited with {code}"),
        _ if !why.is_empty() => short(why),
        _ => "it has ended".into(),
    }
}

impl Driver for Swarm {
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

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerStatus, TaskStatus};

    use super::*;

    fn task(created: &str, state: TaskState, err: &str, code: Option<i64>) -> Task {
        Task {
            created_at: Some(created.into()),
            status: Some(TaskStatus {
                state: Some(state),
                err: Some(err.into()),
                container_status: code
                    .map(|code| ContainerStatus { exit_code: Some(code), ..Default::default() }),
                ..TaskStatus::default()
            }),
            ..Task::default()
        }
    }

    fn of(replicas: i64, tasks: &[Task]) -> State {
        let spec = ServiceSpec { mode: Some(shape::replicas(replicas)), ..ServiceSpec::default() };
        state(&Service { spec: Some(spec), ..Service::default() }, &mut tasks.to_vec())
    }

    fn ended(cause: &str) -> State {
        State::Ended(cause.into())
    }

    #[test]
    fn a_member_is_what_its_youngest_task_is() {
        let failed =
            task("2026-01-01T10:00:00.5Z", TaskState::FAILED, "task: non-zero exit (127)", Some(127));
        let runs = task("2026-01-01T10:00:05.25Z", TaskState::RUNNING, "", None);
        assert_eq!(of(1, &[]), State::Starting);
        assert_eq!(of(1, std::slice::from_ref(&failed)), ended("it exited with 127"));
        assert_eq!(of(1, &[runs.clone(), failed]), State::Running);
        assert_eq!(of(0, &[runs]), ended("it was stopped"));
        let preparing = task("2026-01-01T10:00:00Z", TaskState::PREPARING, "", None);
        assert_eq!(of(1, &[preparing]), State::Starting);
        let nowhere = task("2026-01-01T10:00:00Z", TaskState::PENDING, "no suitable node", None);
        assert_eq!(of(1, &[nowhere]), ended("it does not start: no suitable node"));
        let missing = task("2026-01-01T10:00:00Z", TaskState::REJECTED, "No such image: web:2", None);
        assert_eq!(of(1, &[missing]), ended("No such image: web:2"));
        let done = task("2026-01-01T10:00:00Z", TaskState::COMPLETE, "", Some(0));
        assert_eq!(of(1, &[done]), ended("it exited with 0"));
    }
}
