//! Puts an autoscaler together and feeds it until it is asked to end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use understudy_bus::{
    EventLog, Nats, NatsState, Store,
    nats::{Received, Subscription},
    paths::{own_heartbeat, own_presence},
    store::{Maintenance, Sizes},
};
use understudy_scaling::{GroupMemory, Memory};
use understudy_service::{
    Frame, Hopeless,
    clock::{self, Alarm},
    config::Config,
};
use understudy_wire::{GroupId, NodeId, Subject, v1};

use crate::{
    autoscaler::{Autoscaler, Left, Parts},
    carrying::{Carrier, Outcome},
    driver,
    leader::{Candidate, Term},
    metrics::Metrics,
    sizes, steering,
};

/// Heartbeats taken in before anything else is looked at: so many that a queue is drained in few rounds, so few that
/// the round stays far below an interval.
const BATCH: usize = 1_024;
/// Outcomes that wait for the loop: one for each call under way and each group's list; a full queue holds the calls up,
/// not the loop.
const OUTCOMES: usize = 1_024;
/// Groups whose memory is read at a time when the lead begins.
const READING: usize = 16;
/// Pause before the memory is asked for again: an election in JetStream takes seconds.
const RETRY: Duration = Duration::from_millis(250);
/// What seats judged before this process listened is asked for this often, should a verdict have been lost.
const STATUS: Duration = Duration::from_secs(10);
/// For the answers of all seats.
const ANSWERS: Duration = Duration::from_millis(300);
/// Answers that are taken: more detectors than any deployment has.
const DETECTORS: usize = 64;
/// The loop wakes at least this often, so that its life shows.
const AWAKE: Duration = Duration::from_millis(500);
/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_millis(300);

/// What the loop listens to.
struct Inputs {
    heartbeats: Subscription<v1::Heartbeat>,
    verdicts: Subscription<v1::Verdict>,
    presence: Subscription<v1::Presence>,
    scaling: Subscription<v1::ScalingRequest>,
    explain: Subscription<v1::ScalingRequest>,
    outcomes: mpsc::Receiver<Outcome>,
    statuses: mpsc::Receiver<v1::StatusReply>,
    taken: mpsc::Receiver<(Term, BTreeMap<GroupId, Left>)>,
    steered: mpsc::Receiver<(GroupId, v1::ScalingState)>,
    maintenance: watch::Receiver<Option<Maintenance>>,
    sizes: watch::Receiver<Option<Sizes>>,
    terms: watch::Receiver<Option<Term>>,
}

/// What the loop does things with.
struct Tools {
    config: Arc<Config>,
    nats: Nats,
    store: Arc<Store>,
    carrier: Carrier,
    taken: mpsc::Sender<(Term, BTreeMap<GroupId, Left>)>,
    steered: mpsc::Sender<(GroupId, v1::ScalingState)>,
}

/// Runs an autoscaler until it is asked to end.
///
/// # Errors
/// When the configuration has no group that elects the leader, or a driver that this program does not have.
pub async fn run(frame: Frame, dry_run: bool) -> anyhow::Result<()> {
    let config = Arc::clone(&frame.config);
    if config.autoscaler.group.is_none() {
        let what = "autoscaler.group is not set: its slot elects the one autoscaler that acts";
        return Err(Hopeless(what.into()).into());
    }
    let me = NodeId::new(&frame.instance).context("the name of this autoscaler")?;
    let drivers = driver::all(&config)?;
    if drivers.is_empty() {
        tracing::warn!("no group is scaled: nothing to do; add such as [group.web.scaling]");
    }
    let source = format!("autoscaler/{me}");
    let nats = understudy_service::nats::connect(&config, &source).await?;
    understudy_service::nats::export(&frame.metrics, nats.counters());
    let store = Arc::new(Store::open(&nats));
    let metrics = frame.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let (outcomes_in, outcomes) = mpsc::channel(OUTCOMES);
    let (statuses_in, statuses) = mpsc::channel(DETECTORS);
    let (taken_in, taken) = mpsc::channel(1);
    let (steered_in, steered) = mpsc::channel(READING);
    let carrier = Carrier::new(&nats, &store, outcomes_in);
    let (election, terms) = if dry_run {
        (None, watch::channel(None).1)
    } else {
        let (candidate, terms) = Candidate::stand(&config, me.clone(), &nats).await?;
        (Some(Election::start(candidate)), terms)
    };
    tokio::spawn(ask_statuses(nats.clone(), statuses_in));
    let inputs = Inputs {
        heartbeats: nats.subscribe("heartbeat.*.*").await?,
        verdicts: nats.subscribe("verdict.*.*").await?,
        presence: nats.subscribe("detector.*").await?,
        scaling: nats.subscribe("command.*.scaling").await?,
        explain: nats.subscribe("command.*.explain").await?,
        outcomes,
        statuses,
        taken,
        steered,
        maintenance: store.watch_maintenance(),
        sizes: store.watch_sizes(config.scaled_groups()),
        terms,
    };
    let events = Arc::new(EventLog::open(&nats, source));
    let parts = Parts {
        config: Arc::clone(&config),
        me,
        drivers,
        carrier: carrier.clone(),
        events,
        metrics,
        dry_run,
    };
    let mut autoscaler = Autoscaler::new(parts);
    if dry_run {
        autoscaler.lead(None, Memory::default());
    }
    let tools = Tools { config, nats: nats.clone(), store, carrier, taken: taken_in, steered: steered_in };
    let alarm = Alarm::new().context("making the loop's timer")?;
    serve(&frame, autoscaler, inputs, alarm, &tools).await;
    if let Some(election) = election {
        election.end().await?;
    }
    nats.flush(FLUSH).await;
    Ok(())
}

/// The candidacy of this autoscaler, in a task of its own.
struct Election {
    end: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Election {
    fn start(candidate: Candidate) -> Self {
        let (end, ended) = oneshot::channel();
        let running = tokio::spawn(candidate.run(async {
            let _ = ended.await;
        }));
        Self { end, running }
    }

    /// Gives the lead up.
    async fn end(self) -> anyhow::Result<()> {
        // It fails when the candidate has ended already.
        let _ = self.end.send(());
        self.running.await.context("giving the lead up")
    }
}

/// The loop: who leads, then what members and seats say, then everything else, then the turn.
async fn serve(
    frame: &Frame,
    mut autoscaler: Autoscaler,
    mut inputs: Inputs,
    mut alarm: Alarm,
    tools: &Tools,
) {
    loop {
        let awake = clock::now().after(AWAKE);
        let deadline = autoscaler.next_deadline().map_or(awake, |due| due.min(awake));
        tokio::select! {
            biased;
            () = frame.shutdown.cancelled() => return,
            Ok(()) = inputs.terms.changed() => {
                autoscaler.step_down();
                let term = inputs.terms.borrow_and_update().clone();
                if let Some(term) = term {
                    take_over(tools, term);
                }
            }
            Some((term, left)) = inputs.taken.recv() => begin(&mut autoscaler, term, left),
            Some(received) = inputs.heartbeats.next() => {
                hear(&mut autoscaler, &tools.nats, received);
                for _ in 1..BATCH {
                    let Some(received) = inputs.heartbeats.try_next() else { break };
                    hear(&mut autoscaler, &tools.nats, received);
                }
            }
            Some(received) = inputs.presence.next() => {
                if let Some(presence) = own_presence(&tools.nats, received) {
                    autoscaler.book().presence(clock::now(), &presence);
                }
            }
            Some(received) = inputs.verdicts.next() => {
                if received.message.is_ok_and(|verdict| autoscaler.book().verdict(&verdict)) {
                    autoscaler.hurry();
                }
            }
            Some(reply) = inputs.statuses.recv() => autoscaler.book().status(clock::now(), &reply),
            Some(outcome) = inputs.outcomes.recv() => autoscaler.outcome(outcome),
            Some((group, state)) = inputs.steered.recv() => autoscaler.stored(group, state),
            Ok(()) = inputs.maintenance.changed() => {
                let set = inputs.maintenance.borrow_and_update().clone();
                autoscaler.set_maintenance(set);
            }
            Ok(()) = inputs.sizes.changed() => {
                let sizes = inputs.sizes.borrow_and_update().clone();
                autoscaler.set_sizes(sizes);
            }
            Some(received) = inputs.scaling.next() => answer(&autoscaler, tools, received, true),
            Some(received) = inputs.explain.next() => answer(&autoscaler, tools, received, false),
            () = alarm.reached(deadline) => {}
        }
        autoscaler.turn();
        save(&mut autoscaler, tools);
        frame.health.tick();
        let (ready, reason) = autoscaler.readiness();
        frame.health.ready(ready, reason);
    }
}

fn hear(autoscaler: &mut Autoscaler, nats: &Nats, received: Received<v1::Heartbeat>) {
    let Some(heartbeat) = own_heartbeat(nats, received) else { return };
    if autoscaler.book().heartbeat(clock::now(), heartbeat) {
        autoscaler.hurry();
    }
}

/// Reads what the leader before has left; the lead begins when it is known.
fn take_over(tools: &Tools, term: Term) {
    let (store, groups, taken) =
        (Arc::clone(&tools.store), tools.config.scaled_groups(), tools.taken.clone());
    tokio::spawn(async move {
        let read = |group: GroupId| {
            let (store, term) = (Arc::clone(&store), term.clone());
            async move {
                while term.holds() {
                    match store.take_memory(&group, term.epoch).await {
                        Ok(left) => return (group, left.map(|left| understood(&left)).unwrap_or_default()),
                        Err(error) => {
                            tracing::debug!(%group, error = &error as &dyn std::error::Error, "memory not read yet");
                        }
                    }
                    tokio::time::sleep(RETRY).await;
                }
                (group, Left::default())
            }
        };
        let left: BTreeMap<_, _> = stream::iter(groups).map(read).buffer_unordered(READING).collect().await;
        // Nobody listens any more: the process ends.
        let _ = taken.send((term, left)).await;
    });
}

fn understood(left: &serde_json::Value) -> Left {
    serde_json::from_value(left.clone()).unwrap_or_else(|error| {
        tracing::error!(%error, "what the leader before has left cannot be read: the repair budget starts anew");
        Left::default()
    })
}

fn begin(autoscaler: &mut Autoscaler, term: Term, left: BTreeMap<GroupId, Left>) {
    if !term.holds() {
        return;
    }
    let leaving: Vec<_> = left.iter().map(|(group, left)| (group.clone(), left.leaving.clone())).collect();
    let groups: BTreeMap<GroupId, GroupMemory> =
        left.into_iter().map(|(group, left)| (group, left.policy)).collect();
    autoscaler.lead(Some(term), Memory { groups });
    for (group, nodes) in leaving {
        autoscaler.let_in(&group, &nodes);
    }
}

/// Stores what the next leader should know, beside the loop.
fn save(autoscaler: &mut Autoscaler, tools: &Tools) {
    for (group, left) in autoscaler.unsaved() {
        let Some(term) = autoscaler.term().cloned() else { return };
        let carrier = tools.carrier.clone();
        tokio::spawn(async move {
            if let Err(error) = carrier.keep(&group, &term, &left).await {
                tracing::warn!(%group, %error, "the next leader will not know the last repairs");
            }
        });
    }
}

/// Only the leader answers.
fn answer(autoscaler: &Autoscaler, tools: &Tools, received: Received<v1::ScalingRequest>, may_steer: bool) {
    let (Ok(request), Some(reply)) = (received.message, received.reply) else { return };
    let Some(term) = autoscaler.term().cloned() else { return };
    let refuse = |reason: String| {
        tools.nats.respond(&reply, &v1::ScalingReply { reason, ..Default::default() });
    };
    let group = match GroupId::new(&request.group) {
        Ok(group) => group,
        Err(error) => return refuse(error.to_string()),
    };
    let addressed = matches!(&received.subject, Subject::Command(of, _) if *of == group);
    let Some(rules) = autoscaler.rules(&group).filter(|_| addressed) else {
        return refuse(format!("group {group} is not scaled: it has no [group.{group}.scaling]"));
    };
    if request.steer.is_some() && !may_steer {
        return refuse("only asks: to steer, ask on command.<group>.scaling".into());
    }
    let config = &tools.config.groups[&group];
    if let Err(reason) = steering::check(&request, config, rules) {
        return refuse(reason);
    }
    let decision = autoscaler.last(&group).cloned();
    if request.steer.is_none() {
        let steering = autoscaler.size(&group).steering;
        let answer = v1::ScalingReply { accepted: true, reason: String::new(), steering, decision };
        return tools.nats.respond(&reply, &answer);
    }
    let (nats, store, steered) = (tools.nats.clone(), Arc::clone(&tools.store), tools.steered.clone());
    let initial = sizes::initial(config);
    tokio::spawn(async move {
        let change = |state: &mut v1::ScalingState| {
            let mut asked = state.steering.clone().unwrap_or_default();
            steering::steer(&mut asked, &request);
            state.steering = Some(asked);
        };
        let (accepted, reason, state) = match store.change_size(&group, term.epoch, &initial, change).await {
            Ok(Some(state)) => (true, String::new(), Some(state)),
            Ok(None) => (false, "another autoscaler leads meanwhile: ask again".into(), None),
            Err(error) => (false, format!("{:#}", anyhow::Error::new(error)), None),
        };
        let steering = state.as_ref().and_then(|state| state.steering.clone());
        if let Some(state) = state {
            let _ = steered.send((group, state)).await;
        }
        nats.respond(&reply, &v1::ScalingReply { accepted, reason, steering, decision });
    });
}

/// Asks all seats how they judge, at first and again: whenever NATS is back, and in case a verdict was lost.
async fn ask_statuses(nats: Nats, statuses: mpsc::Sender<v1::StatusReply>) {
    let everybody = GroupId::new("all").expect("a name");
    let subject = Subject::Command(everybody, "status".to_owned());
    let mut state = nats.state();
    loop {
        if state.wait_for(|state| *state == NatsState::Connected).await.is_err() {
            return;
        }
        // No answer is no harm: the next one comes.
        let enough = |replies: &[_]| replies.len() >= DETECTORS;
        let replies = nats.request_many(&subject, &v1::StatusRequest {}, ANSWERS, enough).await;
        for reply in replies.unwrap_or_default() {
            if statuses.send(reply).await.is_err() {
                return;
            }
        }
        let changed = async { state.changed().await.is_ok() };
        let _ = tokio::time::timeout(STATUS, changed).await;
    }
}
