//! The autoscaler's state and the one order in which everything happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use understudy_bus::{
    EventLog,
    store::{Maintenance, Sizes},
};
use understudy_scaling::{
    Action, ActionKind, Decision, Failed, Key, Memory, Plan, Policy, Rules, Steering, View, WallClock,
};
use understudy_service::{clock, config::Config};
use understudy_wire::{BootTime, CloudEvent, Epoch, GroupId, NodeId, v1};

use crate::{
    book::{Book, Facts, Listing},
    carrying::{Carrier, Job, Outcome},
    desk::{Desk, LIES},
    driver::Driver,
    leader::Term,
    metrics::{Carried, Metrics, OfGroup},
    sizes,
};

pub use crate::desk::Left;

/// After a change of the view the policy is asked this soon, so that changes that come together are seen together.
const SOON: Duration = Duration::from_millis(100);
/// A new leader listens for this long before it decides: whoever has not been heard yet must not be missed.
const LISTEN: Duration = Duration::from_secs(2);

/// The parts an autoscaler is put together from.
pub struct Parts {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// This process, as events name it.
    pub me: NodeId,
    /// The driver of each group that is scaled.
    pub drivers: BTreeMap<GroupId, Arc<dyn Driver>>,
    /// Does things beside the loop.
    pub carrier: Carrier,
    /// Events.
    pub events: Arc<EventLog>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Decides and does nothing.
    pub dry_run: bool,
}

/// The lead as it is used: what the policy remembers is worth nothing without it.
struct Lead {
    /// `None`: a dry run, which may do nothing.
    term: Option<Term>,
    epoch: Epoch,
    policy: Policy,
    /// Not before this.
    from: BootTime,
}

/// Everything the loop works on.
pub struct Autoscaler {
    parts: Parts,
    rules: Rules,
    book: Book,
    desks: BTreeMap<GroupId, Desk>,
    sizes: Option<Sizes>,
    maintenance: Option<Maintenance>,
    lead: Option<Lead>,
    due: BootTime,
    list_due: BootTime,
    told: u64,
}

impl Autoscaler {
    /// An autoscaler that has heard nothing and does not lead.
    pub fn new(parts: Parts) -> Self {
        let config = &parts.config;
        let rules = config.scaling_rules();
        let quorum = usize::from(config.detector.seats) / 2 + 1;
        let book = Book::new(rules.groups.keys().cloned(), quorum, config.lease.duration);
        let desks = rules.groups.keys().map(|group| (group.clone(), Desk::default())).collect();
        let now = clock::now();
        Self {
            parts,
            rules,
            book,
            desks,
            sizes: None,
            maintenance: None,
            lead: None,
            due: now,
            list_due: now,
            told: 0,
        }
    }

    /// What nodes and seats say is taken in here.
    pub fn book(&mut self) -> &mut Book {
        &mut self.book
    }

    /// Something has changed that the policy should see soon.
    pub fn hurry(&mut self) {
        self.due = self.due.min(clock::now().after(SOON));
    }

    /// Sizes as they are stored.
    pub fn set_sizes(&mut self, sizes: Option<Sizes>) {
        if let Some(sizes) = sizes {
            // A leader's own writes are known before they come back.
            let known = self.sizes.take().unwrap_or_default();
            let newer = |group: &GroupId, state: &v1::ScalingState| {
                known.get(group).is_some_and(|known| known.epoch > state.epoch)
            };
            let merged = sizes.into_iter().map(|(group, state)| {
                let state = if newer(&group, &state) { known[&group].clone() } else { state };
                (group, state)
            });
            self.sizes = Some(merged.collect());
            self.hurry();
        }
    }

    /// Nodes that are out.
    pub fn set_maintenance(&mut self, set: Option<Maintenance>) {
        if set.is_some() {
            self.maintenance = set;
            self.hurry();
        }
    }

    /// Leads from now on, with what the leader before has left.
    pub fn lead(&mut self, term: Option<Term>, memory: Memory) {
        let now = clock::now();
        let epoch = term.as_ref().map_or(Epoch(0), |term| term.epoch);
        let policy = Policy::resume(self.rules.clone(), memory, now);
        self.parts.metrics.leading.set(i64::from(term.is_some()));
        for desk in self.desks.values_mut() {
            // What was listed or begun before may be out of date: seen afresh.
            *desk = Desk { list_under_way: desk.list_under_way, ..Desk::default() };
        }
        self.lead = Some(Lead { term, epoch, policy, from: now.after(LISTEN) });
        (self.due, self.list_due) = (now, now);
    }

    /// Leads no more.
    pub fn step_down(&mut self) {
        self.parts.metrics.leading.set(0);
        self.lead = None;
    }

    /// The epoch under which this process may act now.
    pub fn term(&self) -> Option<&Term> {
        self.lead.as_ref().and_then(|lead| lead.term.as_ref()).filter(|term| term.holds())
    }

    /// The rules of a group, if it is scaled.
    pub fn rules(&self, group: &GroupId) -> Option<&understudy_scaling::GroupRules> {
        self.rules.groups.get(group)
    }

    /// The size of a group as it is stored, else as configured.
    pub fn size(&self, group: &GroupId) -> v1::ScalingState {
        let stored = self.sizes.as_ref().and_then(|sizes| sizes.get(group));
        let config = &self.parts.config.groups[group];
        let mut size = stored.cloned().unwrap_or_else(|| sizes::initial(config));
        // Slots that the configuration does not have (any more) cannot be open.
        let most = u32::from(config.most_active());
        (size.open, size.serving) = (size.open.min(most), size.serving.min(most));
        size
    }

    /// The last decision on a group.
    pub fn last(&self, group: &GroupId) -> Option<&v1::ScalingDecided> {
        self.desks.get(group)?.last.as_ref()
    }

    /// For `/readyz`.
    pub fn readiness(&self) -> (bool, String) {
        let Some(lead) = &self.lead else { return (true, "standing by".into()) };
        let unlisted = self.desks.iter().find(|(_, desk)| desk.listing.is_none()).map(|(group, _)| group);
        match unlisted {
            Some(group) => (false, format!("the driver of group {group} has not listed its members yet")),
            None if lead.term.is_none() => (true, "dry run".into()),
            None => (true, "leading".into()),
        }
    }

    /// One turn, after every input and every deadline:
    ///
    /// 1. lists of drivers that are due;
    /// 2. the policy, over everything that is known;
    /// 3. its decisions: told first, then begun.
    ///
    /// What is begun comes back through [`Self::outcome`].
    pub fn turn(&mut self) {
        let now = clock::now();
        let Some(lead) = &self.lead else { return };
        if lead.term.as_ref().is_some_and(|term| !term.holds()) {
            return;
        }
        let from = lead.from;
        if now >= self.list_due {
            self.list_due = now.after(self.rules.interval / 2);
            self.ask_lists();
        }
        if now < self.due || now < from {
            return;
        }
        self.due = now.after(self.rules.interval);
        let Some(view) = self.view(now) else { return };
        let Some(lead) = &mut self.lead else { return };
        let plan = lead.policy.observe(&view, now);
        self.parts.metrics.observe_turn(clock::now().since(now));
        self.decide(plan);
    }

    /// When [`Self::turn`] is due; `None`: not before something comes in.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let lead = self.lead.as_ref().filter(|lead| lead.term.as_ref().is_none_or(Term::holds))?;
        Some(self.due.max(lead.from).min(self.list_due))
    }

    fn ask_lists(&mut self) {
        for (group, desk) in &mut self.desks {
            let Some(driver) = self.parts.drivers.get(group).filter(|_| !desk.list_under_way) else {
                continue;
            };
            desk.list_under_way = true;
            let limit = limit(&self.parts.config, group);
            self.parts.carrier.list(group.clone(), Arc::clone(driver), limit);
        }
    }

    /// Everything that is known; nothing before sizes and maintenance were read. Groups whose driver has never listed
    /// its members are left out: what is not known must not be missed.
    fn view(&self, now: BootTime) -> Option<View> {
        let (_, maintenance) = (self.sizes.as_ref()?, self.maintenance.as_ref()?);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let wall = wall.and_then(|since| i64::try_from(since.as_secs()).ok()).map(WallClock);
        let mut groups = BTreeMap::new();
        for (group, desk) in &self.desks {
            let Some(listing) = &desk.listing else { continue };
            let size = self.size(group);
            let out =
                maintenance.iter().filter(|(of, _)| of == group).map(|(_, node)| node.clone()).collect();
            let facts = Facts {
                open: u16::try_from(size.open).unwrap_or(u16::MAX),
                serving: u16::try_from(size.serving).unwrap_or(u16::MAX),
                listing,
                maintenance: &out,
                steering: size.steering.as_ref().map_or_else(Steering::default, Steering::from),
                can_restart: self.parts.drivers[group].can_restart(),
            };
            groups.insert(group.clone(), self.book.view(now, group, &facts));
        }
        Some(View { wall, groups })
    }

    fn decide(&mut self, plan: Plan) {
        for decision in plan.decisions {
            self.show(&decision);
            let mut slots = Vec::new();
            for action in decision.actions() {
                if self.parts.dry_run {
                    tracing::info!(group = %decision.group, key = %action.key, "dry run: would {}", action.kind);
                } else if sizes::is_slot(&action.kind) {
                    slots.push(action.clone());
                } else {
                    self.begin(&decision.group, action);
                }
            }
            if let (Some(term), false) = (self.term().cloned(), slots.is_empty()) {
                let initial = sizes::initial(&self.parts.config.groups[&decision.group]);
                self.parts.carrier.size(decision.group.clone(), term, initial, slots);
            }
        }
    }

    /// Log, metrics, event, and what `explain` answers.
    fn show(&mut self, decision: &Decision) {
        let Some(lead) = &self.lead else { return };
        let Some(desk) = self.desks.get_mut(&decision.group) else { return };
        let (inputs, metrics) = (&decision.inputs, &self.parts.metrics);
        let of = OfGroup { group: decision.group.to_string() };
        metrics.serving.get_or_create(&of).set(inputs.serving.into());
        metrics.wanted.get_or_create(&of).set(inputs.wish.into());
        metrics.ready.get_or_create(&of).set(i64::try_from(inputs.ready).unwrap_or(i64::MAX));
        metrics.repairs_left.get_or_create(&of).set(inputs.repairs_left.into());
        let event = decision.event(&self.parts.me, lead.epoch);
        desk.last = Some(event.clone());
        if !decision.news {
            return;
        }
        desk.unsaved = true;
        for finding in &decision.findings {
            let (rule, outcome) = (finding.rule.name(), finding.outcome.name());
            tracing::info!(group = %decision.group, "{rule} {outcome}: {}", finding.reason);
        }
        if self.parts.dry_run {
            return;
        }
        self.told += 1;
        let (cluster, key) = (&self.parts.config.cluster, format!("{}/{}", lead.epoch, self.told));
        let source = self.parts.events.source();
        match CloudEvent::new(cluster, &decision.group, source, &key, &event) {
            Ok(event) => self.parts.events.publish(&event),
            Err(error) => tracing::error!(group = %decision.group, %error, "an event has no JSON form"),
        }
    }

    fn begin(&mut self, group: &GroupId, action: &Action) {
        let Some(job) = self.job(group) else { return };
        let Some(desk) = self.desks.get_mut(group) else { return };
        if desk.under_way.contains_key(&action.key) {
            return;
        }
        if desk.lied(&action.key) {
            let why = format!("the driver has said {LIES} times that it is done, and does not list it");
            return self.failed(group, action.key.clone(), &why);
        }
        desk.under_way.insert(action.key.clone(), action.kind.clone());
        if let ActionKind::Remove { node } = &action.kind {
            desk.leaving.insert(node.clone());
        }
        // Before it is out: the next leader must know whom to let in again.
        let left = matches!(action.kind, ActionKind::Remove { .. }).then(|| self.left(group)).flatten();
        let label = self.rules.groups[group].spread.clone();
        let domain = match &action.kind {
            ActionKind::Start { domain: Some(value), .. } => label.map(|label| (label, value.clone())),
            _ => None,
        };
        self.parts.carrier.begin(job, action.clone(), domain, left);
    }

    fn left(&self, group: &GroupId) -> Option<Left> {
        let mut memory = self.lead.as_ref()?.policy.memory(clock::now());
        let policy = memory.groups.remove(group).unwrap_or_default();
        Some(self.desks.get(group)?.left(policy))
    }

    fn job(&self, group: &GroupId) -> Option<Job> {
        let term = self.term()?.clone();
        let driver = Arc::clone(self.parts.drivers.get(group)?);
        Some(Job { group: group.clone(), driver, limit: limit(&self.parts.config, group), term })
    }

    /// What became of something that was done beside the loop.
    pub fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Listed(group, listed) => self.listed(&group, listed),
            Outcome::Sized(group, Some(state)) => {
                self.count(&group, "slot", "done");
                self.stored(group, state);
            }
            Outcome::Sized(group, None) => {
                tracing::warn!(%group, "a later leader has stored the size: this one is not the leader any more");
            }
            Outcome::Done(group, key, verb) => {
                self.count(&group, verb, "done");
                self.done(&group, &key, verb);
                self.list_due = clock::now();
            }
            Outcome::Failed(group, key, verb, why) => {
                self.count(&group, verb, "failed");
                tracing::warn!(%group, %key, why, "not done");
                self.failed(&group, key, &why);
            }
            Outcome::Out(group, key, node) => {
                let open = u16::try_from(self.size(&group).open).unwrap_or(u16::MAX);
                let holds = self.book.holds(clock::now(), &group, &node, open);
                let Some(job) = self.job(&group) else { return };
                self.parts.carrier.remove(job, key, node, holds);
            }
        }
    }

    /// A size is durable.
    pub fn stored(&mut self, group: GroupId, state: v1::ScalingState) {
        self.sizes.get_or_insert_default().insert(group, state);
        self.hurry();
    }

    fn listed(&mut self, group: &GroupId, listed: Result<Listing, crate::driver::DriverError>) {
        let now = clock::now();
        let Some(desk) = self.desks.get_mut(group) else { return };
        desk.list_under_way = false;
        match listed {
            Ok(listing) => {
                desk.listed(&listing);
                self.book.listed(now, group, &listing);
                let changed = desk.listing.as_ref() != Some(&listing);
                desk.listing = Some(listing);
                if changed {
                    self.hurry();
                }
            }
            // The last list stays: members are not missed because their driver does not answer.
            Err(error) => {
                self.parts.metrics.unlisted.get_or_create(&OfGroup { group: group.to_string() }).inc();
                tracing::warn!(%group, %error, "the driver does not list its members");
            }
        }
    }

    fn done(&mut self, group: &GroupId, key: &Key, verb: &'static str) {
        let Some(desk) = self.desks.get_mut(group) else { return };
        desk.said_done(key);
        if verb == "stop" {
            desk.settle_leaving(key);
        }
    }

    fn failed(&mut self, group: &GroupId, key: Key, why: &str) {
        if let Some(desk) = self.desks.get_mut(group) {
            desk.under_way.remove(&key);
            desk.settle_leaving(&key);
        }
        if let Some(lead) = &mut self.lead {
            lead.policy.handle_failed(&Failed { group: group.clone(), key, why: why.to_owned() });
        }
        self.hurry();
    }

    fn count(&self, group: &GroupId, action: &'static str, outcome: &'static str) {
        let carried = Carried { group: group.to_string(), action, outcome };
        self.parts.metrics.actions.get_or_create(&carried).inc();
    }

    /// What the next leader should know, of groups where it has changed since the last call.
    pub fn unsaved(&mut self) -> Vec<(GroupId, Left)> {
        let now = clock::now();
        let Some(lead) = self.lead.as_ref().filter(|lead| lead.term.is_some()) else { return Vec::new() };
        if !self.desks.values().any(|desk| desk.unsaved) {
            return Vec::new();
        }
        let mut memory = lead.policy.memory(now);
        let mut unsaved = Vec::new();
        for (group, desk) in &mut self.desks {
            if std::mem::take(&mut desk.unsaved) {
                let policy = memory.groups.remove(group).unwrap_or_default();
                unsaved.push((group.clone(), desk.left(policy)));
            }
        }
        unsaved
    }

    /// Lets nodes be chosen again that the leader before was about to remove.
    pub fn let_in(&self, group: &GroupId, nodes: &BTreeSet<NodeId>) {
        for node in nodes {
            if let Some(job) = self.job(group) {
                self.parts.carrier.let_in(job, node.clone());
            }
        }
    }
}

/// How long one call of a group's driver may take.
fn limit(config: &Config, group: &GroupId) -> Duration {
    let scaling = config.groups.get(group).and_then(|group| group.scaling.as_ref());
    let template = scaling.and_then(|scaling| scaling.template.as_ref());
    template.map_or(Duration::from_secs(30), |template| template.timeout)
}
