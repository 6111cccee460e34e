//! Members as pods of a StatefulSet, which is told how many there are.
//!
//! Pods have lasting names, `web-1` to `web-<replicas>`, and so are the members that the policy names: the StatefulSet has
//! the name of the group and counts from 1. Its number of replicas is written with the version that was read, so that
//! nobody's write is lost; what has changed meanwhile is read again. Only the highest pod can go.

mod api;
mod pods;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        autoscaling::v1::{Scale, ScaleSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource as _,
    core::{
        ObjectList, Request, Selector,
        params::{DeleteParams, GetParams, ListParams, PostParams, Preconditions},
    },
};
use serde::de::IgnoredAny;
use understudy_service::config::Template;
use understudy_wire::{GroupId, NodeId};

use super::{Driver, DriverError, Instance, Start, State};
use api::{Api, Failure};

/// Number of the first member, as the policy counts.
const FIRST: u32 = 1;
/// Members in one list, as the book keeps at most.
const MAX_MEMBERS: u32 = 16_384;
/// Pods in one answer, as `kubectl` asks for.
const PAGE: u32 = 500;
/// Times that the size is read and written before a conflict is an error: others write it as well, but only now and
/// then; the controller changes the version whenever a pod changes.
const CONFLICTS: u32 = 6;
/// Pause after the first conflict, doubled each time: all of them together stay below a second.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);
/// A pod that has to go is looked at this often.
const GONE: Duration = Duration::from_millis(500);

impl From<Failure> for DriverError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

/// The StatefulSet as it was read.
struct Set {
    uid: String,
    version: String,
    replicas: u32,
    /// Which pods may be its own.
    selector: String,
}

/// A pod as it was listed last, and the restart that was ordered of it.
#[derive(Debug, Clone, Default)]
struct Seen {
    uid: String,
    /// Key of the last restart, and the pod that it was about.
    restart: Option<(String, String)>,
}

/// The StatefulSet of one group.
pub struct Kubernetes {
    namespace: String,
    name: String,
    api: Api,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
}

impl Kubernetes {
    /// The StatefulSet of a template, which was checked: its name is the group's.
    pub fn new(group: &GroupId, template: &Template) -> Self {
        let api = Api::new(&template.kubeconfig, template.timeout);
        let (namespace, name) = (template.namespace.clone(), group.to_string());
        Self { namespace, name, api, seen: Mutex::default() }
    }

    fn set_name(&self) -> String {
        format!("statefulset {}/{}", self.namespace, self.name)
    }

    fn pod_name(&self, node: &NodeId) -> String {
        format!("pod {}/{node}", self.namespace)
    }

    fn sets(&self) -> Request {
        Request::new(StatefulSet::url_path(&(), Some(&self.namespace)))
    }

    fn pods(&self) -> Request {
        Request::new(Pod::url_path(&(), Some(&self.namespace)))
    }

    /// `web-7` is 7; `None`: no pod of this StatefulSet can have the name.
    fn ordinal(&self, node: &str) -> Option<u32> {
        let digits = node.strip_prefix(&self.name)?.strip_prefix('-')?;
        let ordinal: u32 = digits.parse().ok()?;
        (ordinal >= FIRST && ordinal.to_string() == digits).then_some(ordinal)
    }

    fn own_ordinal(&self, node: &NodeId) -> Result<u32, DriverError> {
        let ordinal = self.ordinal(node.as_str()).filter(|ordinal| *ordinal <= MAX_MEMBERS);
        ordinal.ok_or_else(|| {
            let (set, name) = (self.set_name(), &self.name);
            DriverError(format!("{node} is no pod of {set}: those are {name}-1 to {name}-{MAX_MEMBERS}"))
        })
    }

    /// Reads the StatefulSet, and refuses one whose pods could not be the members.
    async fn read(&self, deadline: Instant) -> Result<Set, DriverError> {
        let what = format!("get {}", self.set_name());
        let request = self.sets().get(&self.name, &GetParams::default());
        let set: StatefulSet = self.api.ask(deadline, &what, request).await?;
        let refuse = |why: String| Err(DriverError(format!("{}: {why}", self.set_name())));
        let spec = set.spec;
        let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
        if start != FIRST as i32 {
            return refuse(format!(
                "spec.ordinals.start is {start}, and must be 1, since members are named {0}-1, {0}-2, ...",
                self.name
            ));
        }
        let order = spec.pod_management_policy.as_deref().unwrap_or("OrderedReady");
        if order != "Parallel" {
            return refuse(format!(
                "spec.podManagementPolicy is {order}, and must be Parallel, else one broken pod holds up its replacement"
            ));
        }
        let replicas = u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        if replicas > MAX_MEMBERS {
            return refuse(format!("{replicas} replicas, {MAX_MEMBERS} are taken"));
        }
        let selector = match Selector::try_from(spec.selector) {
            Ok(selector) => selector.to_string(),
            Err(error) => return refuse(format!("spec.selector: {error}")),
        };
        let ObjectMeta { uid, resource_version, .. } = set.metadata;
        let (Some(uid), Some(version)) = (uid, resource_version) else {
            return refuse("it has no uid or no resourceVersion".into());
        };
        Ok(Set { uid, version, replicas, selector })
    }

    /// Writes the number of replicas, unless anything has changed since `set` was read.
    async fn scale(&self, deadline: Instant, set: &Set, replicas: u32) -> Result<(), Failure> {
        let what = format!("update {}/scale", self.set_name());
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(set.uid.clone()),
            resource_version: Some(set.version.clone()),
            ..ObjectMeta::default()
        };
        let spec = Some(ScaleSpec { replicas: i32::try_from(replicas).ok() });
        let body =
            serde_json::to_vec(&Scale { metadata, spec, status: None }).expect("a Scale has a JSON form");
        let request = self.sets().replace_subresource("scale", &self.name, &PostParams::default(), body);
        self.api.ask::<IgnoredAny>(deadline, &what, request).await.map(drop)
    }

    /// Brings the number of replicas to what `wanted` makes of it; `None`: it is right already.
    async fn resize(
        &self,
        deadline: Instant,
        wanted: impl Fn(u32) -> Result<Option<u32>, DriverError>,
    ) -> Result<(), DriverError> {
        for round in 0..CONFLICTS {
            let set = self.read(deadline).await?;
            let Some(replicas) = wanted(set.replicas)? else { return Ok(()) };
            match self.scale(deadline, &set, replicas).await {
                Err(failure) if failure.is_conflict() => {}
                result => return Ok(result?),
            }
            tokio::time::sleep(CONFLICT_PAUSE * 2u32.pow(round)).await;
        }
        let set = self.set_name();
        Err(DriverError(format!("update {set}/scale: others have changed it {CONFLICTS} times meanwhile")))
    }

    /// Every pod that the StatefulSet has made.
    async fn own_pods(&self, deadline: Instant, set: &Set) -> Result<BTreeMap<u32, Pod>, DriverError> {
        let what = format!("list pods of {}", self.set_name());
        let mut params = ListParams::default().labels(&set.selector).limit(PAGE);
        let mut own = BTreeMap::new();
        // One page more than there can be: an answer that never ends is one.
        for _ in 0..=MAX_MEMBERS / PAGE + 1 {
            let page: ObjectList<Pod> = self.api.ask(deadline, &what, self.pods().list(&params)).await?;
            for pod in page.items {
                if let Some(ordinal) = self.owned(&pod, &set.uid) {
                    own.insert(ordinal, pod);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(own),
            }
        }
        Err(DriverError(format!("{what}: more than {MAX_MEMBERS}")))
    }

    /// Number of a pod, if this StatefulSet has made it.
    fn owned(&self, pod: &Pod, set: &str) -> Option<u32> {
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.uid == set && owner.controller == Some(true))?;
        self.ordinal(pod.metadata.name.as_deref()?).filter(|ordinal| *ordinal <= MAX_MEMBERS)
    }

    async fn members(&self) -> Result<BTreeMap<NodeId, Instance>, DriverError> {
        let deadline = self.api.deadline();
        let set = self.read(deadline).await?;
        let pods = self.own_pods(deadline, &set).await?;
        // A pod above the number of replicas is on its way out, and the one below it cannot go before.
        let highest = pods.keys().next_back().copied().unwrap_or(0).max(set.replicas);
        let mut members = BTreeMap::new();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen_now = BTreeMap::new();
        for ordinal in FIRST..=highest {
            let Ok(node) = NodeId::new(&format!("{}-{ordinal}", self.name)) else { continue };
            let (state, labels) = match pods.get(&ordinal) {
                Some(pod) => (pods::state(pod), pods::labels(pod)),
                // It was ordered; the controller makes it, or makes it anew.
                None if ordinal <= set.replicas => (State::Starting, BTreeMap::new()),
                None => continue,
            };
            let before = seen.remove(&node);
            let uid = pods.get(&ordinal).and_then(|pod| pod.metadata.uid.clone());
            let now = match uid {
                Some(uid) => Some(Seen { uid, restart: before.and_then(|before| before.restart) }),
                None => before,
            };
            seen_now.extend(now.map(|now| (node.clone(), now)));
            members.insert(node, Instance { state, key: None, labels, removable: ordinal == highest });
        }
        *seen = seen_now;
        Ok(members)
    }

    /// Which pod has the name now; `None`: none.
    async fn uid(&self, deadline: Instant, node: &NodeId) -> Result<Option<String>, DriverError> {
        let what = format!("get {}", self.pod_name(node));
        let request = self.pods().get(node.as_str(), &GetParams::default());
        match self.api.ask::<Pod>(deadline, &what, request).await {
            Ok(pod) => Ok(pod.metadata.uid),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn add(&self, node: &NodeId) -> Result<(), DriverError> {
        let ordinal = self.own_ordinal(node)?;
        let wanted = |replicas| Ok((replicas < ordinal).then_some(ordinal));
        self.resize(self.api.deadline(), wanted).await
    }

    async fn take_away(&self, node: &NodeId) -> Result<(), DriverError> {
        let (ordinal, deadline) = (self.own_ordinal(node)?, self.api.deadline());
        let pod = self.uid(deadline, node).await?;
        let lower = |replicas: u32| match replicas.cmp(&ordinal) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some(ordinal - 1)),
            std::cmp::Ordering::Greater => Err(DriverError(format!(
                "{node} cannot go: {} removes its highest pod first, which is {}-{replicas}",
                self.set_name(),
                self.name
            ))),
        };
        self.resize(deadline, lower).await?;
        // Whoever is removed may be elected again as soon as this returns: so not while it still runs.
        while pod.is_some() && self.uid(deadline, node).await? == pod {
            if Instant::now() + GONE >= deadline {
                let pod = self.pod_name(node);
                let why = "is not gone yet; template.timeout should be above its grace period";
                return Err(DriverError(format!("{pod} {why}")));
            }
            tokio::time::sleep(GONE).await;
        }
        Ok(())
    }

    /// Deletes the pod that the order was about: the one that was listed last when the order first came.
    async fn make_anew(&self, key: &str, node: &NodeId) -> Result<(), DriverError> {
        self.own_ordinal(node)?;
        let uid = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(seen) = seen.get_mut(node) else { return Ok(()) };
            let about = seen.restart.take().filter(|(earlier, _)| earlier == key);
            let about = about.unwrap_or_else(|| (key.to_owned(), seen.uid.clone()));
            seen.restart.insert(about).1.clone()
        };
        let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let what = format!("delete {}", self.pod_name(node));
        let request = self.pods().delete(node.as_str(), &params);
        match self.api.ask::<IgnoredAny>(self.api.deadline(), &what, request).await {
            Ok(_) => Ok(()),
            // It is gone, or another is in its place.
            Err(failure) if failure.is_missing() || failure.is_conflict() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl Driver for Kubernetes {
    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<NodeId, Instance>, DriverError>> {
        Box::pin(self.members())
    }

    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.add(&start.node))
    }

    fn stop<'a>(&'a self, _key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.take_away(node))
    }

    fn restart<'a>(&'a self, key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.make_anew(key, node))
    }

    fn can_restart(&self) -> bool {
        true
    }
}

/// The beginning of a text in one line, at most so many characters.
fn short(text: &str, most: usize) -> String {
    let line = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char });
    line.take(most).collect()
}
