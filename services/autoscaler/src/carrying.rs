//! Carries actions out, beside the loop. Every call is bounded, and none begins after the lead was lost.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use understudy_bus::{Nats, Store};
use understudy_scaling::{Action, ActionKind, Key};
use understudy_wire::{GroupId, NodeId, Subject, v1};

use crate::{
    autoscaler::Left,
    book::Listing,
    driver::{Driver, DriverError, Start},
    leader::Term,
    sizes,
};

/// Calls of drivers under way at a time, all groups together: an engine that takes seconds for each must not be given
/// a thousand at once.
const CALLS: usize = 32;
/// For a detector to store that a node is taken out; JetStream may elect a leader meanwhile.
const STORING: Duration = Duration::from_secs(6);
/// Seats hear within milliseconds that a node was taken out; one that missed the notice reads the set again within 5 s
/// (`understudy_bus::store`). Only then is the node looked at again and removed.
const HEARD: Duration = Duration::from_secs(6);

/// What became of something that was done beside the loop.
#[derive(Debug)]
pub enum Outcome {
    /// A driver's list, or why there is none.
    Listed(GroupId, Result<Listing, DriverError>),
    /// The size of a group is durable; `None`: a later leader has written it.
    Sized(GroupId, Option<v1::ScalingState>),
    /// The driver did it.
    Done(GroupId, Key, &'static str),
    /// It was not done.
    Failed(GroupId, Key, &'static str, String),
    /// The node is out, so that no seat elects it, and can be removed if it holds nothing.
    Out(GroupId, Key, NodeId),
}

/// Does things beside the loop; what becomes of them goes to `outcomes`.
#[derive(Clone)]
pub struct Carrier {
    nats: Nats,
    store: Arc<Store>,
    calls: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

/// What one action on a member needs.
pub struct Job {
    /// The group.
    pub group: GroupId,
    /// Its driver.
    pub driver: Arc<dyn Driver>,
    /// How long one call may take.
    pub limit: Duration,
    /// The lead, asked before the call begins.
    pub term: Term,
}

impl Carrier {
    /// A carrier.
    pub fn new(nats: &Nats, store: &Arc<Store>, outcomes: mpsc::Sender<Outcome>) -> Self {
        let (nats, store) = (nats.clone(), Arc::clone(store));
        Self { nats, store, calls: Arc::new(Semaphore::new(CALLS)), outcomes }
    }

    /// Asks a driver for its list. The loop asks for the next one only after this has come: lists stay in order.
    pub fn list(&self, group: GroupId, driver: Arc<dyn Driver>, limit: Duration) {
        let this = self.clone();
        tokio::spawn(async move {
            let listed = this.call("listing the members", limit, driver.list()).await;
            this.tell(Outcome::Listed(group, listed)).await;
        });
    }

    /// Does actions on slots, in this order, in one write.
    pub fn size(&self, group: GroupId, term: Term, initial: v1::ScalingState, actions: Vec<Action>) {
        let this = self.clone();
        tokio::spawn(async move {
            let change = |state: &mut v1::ScalingState| {
                actions.iter().for_each(|action| sizes::apply(state, &action.kind));
            };
            if !term.holds() {
                return;
            }
            match this.store.change_size(&group, term.epoch, &initial, change).await {
                Ok(state) => this.tell(Outcome::Sized(group, state)).await,
                Err(error) => {
                    let why = format!("{:#}", anyhow::Error::new(error));
                    for action in actions {
                        let failed = Outcome::Failed(group.clone(), action.key, "slot", why.clone());
                        this.tell(failed).await;
                    }
                }
            }
        });
    }

    /// Begins an action on a member. A removal comes back as [`Outcome::Out`] first; `left` is what the next leader
    /// must know before it begins.
    pub fn begin(&self, job: Job, action: Action, domain: Option<(String, String)>, left: Option<Left>) {
        let this = self.clone();
        tokio::spawn(async move {
            let Action { key, kind } = action;
            let (verb, result) = match kind {
                ActionKind::Start { node, replaces, .. } => {
                    let start = Start { key: key.to_string(), node, domain, replaces };
                    ("start", this.drive(&job, "starting", job.driver.start(&start)).await)
                }
                ActionKind::Restart { node, .. } => {
                    let restart = job.driver.restart(key.as_str(), &node);
                    ("restart", this.drive(&job, "restarting", restart).await)
                }
                ActionKind::Remove { node } => match this.take_out_noted(&job, &node, left).await {
                    Ok(()) => {
                        tokio::time::sleep(HEARD).await;
                        return this.tell(Outcome::Out(job.group, key, node)).await;
                    }
                    Err(error) => ("stop", Err(error)),
                },
                ActionKind::Open { .. }
                | ActionKind::Close { .. }
                | ActionKind::Drain { .. }
                | ActionKind::Undrain { .. } => return,
            };
            this.end(job.group, key, verb, result).await;
        });
    }

    /// Removes a node that is out, or lets it be chosen again: `holds` says that it holds a slot.
    pub fn remove(&self, job: Job, key: Key, node: NodeId, holds: bool) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut result = Err(DriverError(format!("{node} holds a slot")));
            if !holds {
                result = this.drive(&job, "removing", job.driver.stop(key.as_str(), &node)).await;
            }
            // Whoever comes under this name again is a new member; and one that stays must not be forgotten outside.
            let back = this.take_out(&job, &node, false).await;
            this.end(job.group, key, "stop", result.and(back)).await;
        });
    }

    /// Lets nodes be chosen again that an earlier leader has taken out and did not come to remove.
    pub fn let_in(&self, job: Job, node: NodeId) {
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.take_out(&job, &node, false).await {
                tracing::warn!(group = %job.group, %node, %error, "stays out: see understudy maintenance list");
            }
        });
    }

    async fn drive(
        &self,
        job: &Job,
        doing: &str,
        call: impl Future<Output = Result<(), DriverError>>,
    ) -> Result<(), DriverError> {
        let permitted = async {
            // After the wait for a place: the lead may be gone by now.
            if job.term.holds() { call.await } else { Err(DriverError("the lead was lost".into())) }
        };
        self.call(doing, job.limit, permitted).await
    }

    async fn call<T>(
        &self,
        doing: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let _place = self.calls.acquire().await;
        match timeout(limit, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(DriverError(format!("{doing}: no answer within {limit:?}"))),
        }
    }

    async fn take_out_noted(&self, job: &Job, node: &NodeId, left: Option<Left>) -> Result<(), DriverError> {
        if let Some(left) = left {
            self.keep(&job.group, &job.term, &left).await?;
        }
        self.take_out(job, node, true).await
    }

    /// Stores what the next leader should know.
    ///
    /// # Errors
    /// When JetStream does not answer, or a later leader has stored its own.
    pub async fn keep(&self, group: &GroupId, term: &Term, left: &Left) -> Result<(), DriverError> {
        let value = serde_json::to_value(left).map_err(|error| DriverError(error.to_string()))?;
        match self.store.keep_memory(group, term.epoch, &value).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(DriverError("a later leader has stored what it knows".into())),
            Err(error) => Err(DriverError(format!("{:#}", anyhow::Error::new(error)))),
        }
    }

    /// Has a detector store that a node is out, or in again.
    async fn take_out(&self, job: &Job, node: &NodeId, on: bool) -> Result<(), DriverError> {
        let request = v1::MaintenanceRequest {
            group: job.group.to_string(),
            node: node.to_string(),
            on,
            by: format!("autoscaler of epoch {}", job.term.epoch),
        };
        let subject = Subject::Command(job.group.clone(), "maintenance".to_owned());
        let answer = self.nats.request::<_, v1::MaintenanceReply>(&subject, &request, STORING).await;
        let why = match answer {
            Ok(reply) if reply.stored => return Ok(()),
            Ok(reply) => reply.reason,
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        };
        Err(DriverError(format!("maintenance of {node} is not stored: {why}")))
    }

    async fn end(&self, group: GroupId, key: Key, verb: &'static str, result: Result<(), DriverError>) {
        self.tell(match result {
            Ok(()) => Outcome::Done(group, key, verb),
            Err(error) => Outcome::Failed(group, key, verb, error.to_string()),
        })
        .await;
    }

    async fn tell(&self, outcome: Outcome) {
        // Nobody listens any more: the process ends.
        let _ = self.outcomes.send(outcome).await;
    }
}
