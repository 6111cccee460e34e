//! Acts 6 and 7: a standby is lost for good, the load rises and falls.

use std::{cell::Cell, collections::BTreeSet, net::IpAddr, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use understudy_wire::v1::{ScalingRule, scaling_action::Kind};

use super::{
    bus::{Bus, Word},
    events::Events,
    fleet::{Fleet, TARGET},
    moments::{self, Happened},
    print,
    report::{self, Answered, Change, Names},
    watch::{SOON, Watch, earlier, in_order},
};
use crate::{
    ANSWER_LIMIT, Moment, Probe, Requests, Service,
    deployment::{NAME, PORT, VIP, vips},
    wait_until,
};

/// Clients that one node is enough for, and clients that it takes two for.
const FEW: usize = 2;
const MANY: usize = 6;
/// How long what has changed is watched.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// The group under an autoscaler, watched from outside: both of its addresses, its name, its clients, and what goes over
/// NATS.
pub(super) struct Growth<'a> {
    fleet: &'a Fleet<'a>,
    events: Rc<Events>,
    bus: Bus,
    requests: Requests,
    watch: Watch,
    second: Probe,
    /// Epoch of slot 0, which must not move.
    epoch: u64,
    /// Up to where it was counted what the probes have seen, and how many requests were.
    counted: Cell<(Moment, usize)>,
}

/// What one act was, before it is measured.
struct Scene<'a> {
    act: usize,
    what: &'a str,
    from: &'a str,
    to: &'a str,
    /// Epoch of the slot that was opened or closed.
    epoch: Option<u64>,
    /// What the name may resolve to, first and last.
    before: &'a [IpAddr],
    after: &'a [IpAddr],
}

impl<'a> Growth<'a> {
    /// Begins to watch, with few clients, a slot 0 of this epoch.
    ///
    /// # Errors
    /// When a probe or the clients do not start, or nobody is served.
    pub(super) fn watch(fleet: &'a Fleet<'a>, events: Rc<Events>, epoch: u64) -> Result<Self> {
        let deployment = fleet.deployment;
        let watch = Watch::over(deployment, fleet.yard.probe_vip(VIP)?)?;
        let second = fleet.yard.probe_vip(&vips(1)[0])?;
        let server = deployment.name_server()?.address();
        let work = Service { port: PORT, path: "/work" };
        let requests = Requests::start(&deployment.client, server, NAME, work, MANY)?;
        let growth = Self {
            fleet,
            events,
            bus: Bus::listen(deployment)?,
            requests,
            watch,
            second,
            epoch,
            counted: Cell::new((Moment::now(), 0)),
        };
        growth.watch.wait_name()?;
        growth.requests.set_clients(FEW);
        growth.wait("the first request to be answered", || {
            growth.requests.done().iter().any(|request| request.answer.is_ok()).then_some(())
        })?;
        Ok(growth)
    }

    /// Act 6: the last standby in line dies and nobody starts it again.
    ///
    /// # Errors
    /// When something does not happen.
    pub(super) fn heal(&self) -> Result<Change> {
        let deployment = self.fleet.deployment;
        let holder = self.holder()?;
        let mut nodes = deployment.plan.members.iter().map(|member| &member.name);
        let lost = nodes.rfind(|name| **name != holder).context("the demo has standbys")?;
        print(&format!(
            "\nact 6  {lost} is lost for good: all its processes are killed, and nobody starts them\n"
        ))?;
        let zero = Moment::now();
        deployment.node(lost).kill()?;
        let heir = self.wait(&format!("{lost} to be replaced"), || {
            self.bus.action(zero, ScalingRule::Repair, |kind| match kind {
                Kind::Start(start) if start.replaces == *lost => Some(start.node.clone()),
                _ => None,
            })
        })?;
        let appeared = self.wait_word(zero, &Word::Appeared(heir.clone()))?;
        let ready = self.wait_word(zero, &Word::Ready(heir.clone()))?;
        let gone = self.wait_gone(lost)?;
        let standbys = self.wait_size(1)?;
        let mut happened = self.bus.decisions(zero);
        happened.extend([
            (zero, format!("the last process of {lost} is killed")),
            (appeared, format!("{heir} heartbeats")),
            (ready, format!("{heir} is a ready standby")),
            (gone, format!("{lost} is removed")),
        ]);
        happened.extend(self.bus.judgements(zero, lost, self.fleet.deployment.plan.detectors / 2 + 1));
        print(&moments::lines(zero, happened))?;
        let vip = [super::watch::address()?];
        let scene = Scene {
            act: 6,
            what: "standby lost for good",
            from: lost,
            to: &heir,
            epoch: None,
            before: &vip,
            after: &vip,
        };
        let change = self.measure(&scene, &holder, zero)?;
        let text = format!("{holder} goes on serving, {} are ready standbys", listed(&standbys));
        print(&report::item("after", &text, standbys.contains(&heir)))?;
        Ok(change)
    }

    /// The first half of act 7: more clients come than one node is to have.
    ///
    /// # Errors
    /// When something does not happen.
    pub(super) fn rise(&self) -> Result<Change> {
        let holder = self.holder()?;
        print(&format!(
            "\nact 7  the load rises and falls: {FEW} clients, then {MANY}, then {FEW}; {TARGET} are wanted on a node\n"
        ))?;
        let zero = Moment::now();
        self.requests.set_clients(MANY);
        self.wait("slot 1 to be opened", || {
            self.bus.action(zero, ScalingRule::ScaleOut, |kind| matches!(kind, Kind::Open(1)).then_some(()))
        })?;
        let (claimed, node, epoch) = self.wait("slot 1 to be held", || self.bus.holds(zero, 1))?;
        let newcomer = self.wait("a standby to be ordered", || {
            self.bus.action(zero, ScalingRule::Redundancy, |kind| match kind {
                Kind::Start(start) => Some(start.node.clone()),
                _ => None,
            })
        })?;
        let served = self.wait("a request to be answered on slot 1", || self.first_request(&node, zero))?;
        let appeared = self.wait_word(zero, &Word::Appeared(newcomer.clone()))?;
        let ready = self.wait_word(zero, &Word::Ready(newcomer.clone()))?;
        let [vip, both] = self.addresses()?;
        self.wait("the name to have both addresses", || self.watch.resolved(&both, zero))?;
        let standbys = self.wait_size(2)?;
        self.look_on()?;
        let answers = self.second.snapshot().first_answer(&node, zero).context("slot 1 does not answer")?;
        let mut happened = self.bus.decisions(zero);
        happened.extend([
            (zero, format!("{MANY} clients instead of {FEW}")),
            (answers, format!("slot 1 open: {node} answers at {}", vips(1)[0])),
            (claimed, format!("{node} says that it has slot 1, epoch {epoch}")),
            (served, format!("the first request is answered by {node}")),
            (appeared, format!("{newcomer} heartbeats")),
            (ready, format!("{newcomer} is a ready standby")),
        ]);
        happened.extend(self.renamed(zero));
        print(&moments::lines(zero, happened))?;
        let two = format!("{holder} {node}");
        let scene = Scene {
            act: 7,
            what: "load rises",
            from: &holder,
            to: &two,
            epoch: Some(epoch),
            before: &vip,
            after: &both,
        };
        let change = self.measure(&scene, &holder, zero)?;
        let text = format!("{holder} and {node} serve, {} are ready standbys", listed(&standbys));
        print(&report::item("after", &text, !standbys.contains(&node)))?;
        Ok(change)
    }

    /// The second half of act 7: the clients that came go, and so does what was there for them.
    ///
    /// # Errors
    /// When something does not happen.
    pub(super) fn fall(&self, risen: &Change) -> Result<Change> {
        let holder = self.holder()?;
        let node = self.wait("slot 1 to be served", || self.second.serving_now())?;
        let [vip, both] = self.addresses()?;
        print("\n")?;
        let zero = Moment::now();
        self.requests.set_clients(FEW);
        self.wait("slot 1 to drain", || {
            self.bus.action(zero, ScalingRule::ScaleIn, |kind| matches!(kind, Kind::Drain(1)).then_some(()))
        })?;
        self.wait("the name to have one address", || self.watch.resolved(&vip, zero))?;
        self.wait("slot 1 to be closed", || {
            self.bus.action(zero, ScalingRule::ScaleIn, |kind| matches!(kind, Kind::Close(1)).then_some(()))
        })?;
        self.wait("slot 1 to be dark", || {
            (self.second.serving_now().is_none() && self.second.eyes_now().is_empty()).then_some(())
        })?;
        let surplus = self.wait("a member to be too many", || {
            self.bus.action(zero, ScalingRule::Surplus, |kind| match kind {
                Kind::Remove(node) => Some(node.clone()),
                _ => None,
            })
        })?;
        let gone = self.wait_gone(&surplus)?;
        let standbys = self.wait_size(1)?;
        let last = self
            .second
            .snapshot()
            .client
            .iter()
            .rfind(|sample| sample.node().is_some())
            .map(|last| last.sent);
        let mut happened = self.bus.decisions(zero);
        happened.extend([
            (zero, format!("{FEW} clients instead of {MANY}")),
            (
                last.context("slot 1 was never served")?,
                format!("{node} answers at {} for the last time", vips(1)[0]),
            ),
            (gone, format!("{surplus} is removed")),
        ]);
        happened.extend(self.renamed(zero));
        if let Some(last) = self.last_request(&node) {
            happened.push((last, format!("the last request is answered by {node}")));
        }
        print(&moments::lines(zero, happened))?;
        let scene = Scene {
            act: 7,
            what: "load falls",
            from: &risen.to,
            to: &holder,
            epoch: None,
            before: &both,
            after: &vip,
        };
        let change = self.measure(&scene, &holder, zero)?;
        let text = format!("{holder} goes on serving, {} are ready standbys", listed(&standbys));
        print(&report::item("after", &text, standbys.contains(&node)))?;
        Ok(change)
    }

    fn wait<T>(&self, what: &str, wanted: impl FnMut() -> Option<T>) -> Result<T> {
        self.fleet.yard.wait(what, wanted)
    }

    fn wait_word(&self, since: Moment, word: &Word) -> Result<Moment> {
        self.wait(&format!("{word:?}"), || self.bus.first(since, word))
    }

    /// Waits until the driver lists this member no more.
    fn wait_gone(&self, node: &str) -> Result<Moment> {
        self.wait(&format!("{node} to be removed"), || {
            (!self.fleet.yard.members().ok()?.contains(node)).then(Moment::now)
        })
    }

    /// Waits until so many slots are held, and as many standbys are ready as are wanted; returns these.
    fn wait_size(&self, slots: usize) -> Result<BTreeSet<String>> {
        let plan = &self.fleet.deployment.plan;
        let wanted = plan.members.len() - plan.active;
        self.fleet.yard.wait_status("slots are held and standbys are ready", |status| {
            let group = &status["groups"][0];
            let held = group["slots"].as_array()?.iter().filter(|slot| slot["holder"].is_string());
            let ready = group["ready_standbys"].as_array()?.iter();
            let ready: BTreeSet<_> = ready.filter_map(|node| Some(node.as_str()?.to_owned())).collect();
            let all = group["slots"].as_array()?.len();
            (held.count() == slots && all == slots && ready.len() == wanted).then_some(ready)
        })
    }

    fn holder(&self) -> Result<String> {
        wait_until("somebody to serve the client", SOON, || self.watch.probe.serving_now())
    }

    /// What the name resolves to while slot 0 alone serves, and while both slots do.
    fn addresses(&self) -> Result<[Vec<IpAddr>; 2]> {
        let second = vips(1)[0].parse().context("parsing the second VIP")?;
        let first = super::watch::address()?;
        Ok([vec![first], vec![first, second]])
    }

    /// Changes of what the name resolves to.
    fn renamed(&self, since: Moment) -> Vec<Happened> {
        let changes = self.watch.changes(since).into_iter();
        changes.map(|(at, found)| (at, format!("{NAME} = {}", addresses(&found)))).collect()
    }

    fn first_request(&self, node: &str, since: Moment) -> Option<Moment> {
        let done = self.requests.done();
        done.iter().find(|one| one.ended >= since && one.answer.as_deref() == Ok(node)).map(|one| one.ended)
    }

    fn last_request(&self, node: &str) -> Option<Moment> {
        self.requests.done().iter().rfind(|one| one.answer.as_deref() == Ok(node)).map(|one| one.ended)
    }

    fn look_on(&self) -> Result<()> {
        let end = Moment::now() + AFTERWARDS;
        self.wait("the watch to be over", || (Moment::now() >= end).then_some(()))
    }

    /// What was seen from outside since the act before; printed, and returned.
    fn measure(&self, scene: &Scene<'_>, holder: &str, zero: Moment) -> Result<Change> {
        let (since, requests) = self.counted.get();
        // A snapshot leaves the youngest questions out: the span must end before them, or they would be a gap.
        let end = earlier(self.watch.probe.mark(), 2 * ANSWER_LIMIT);
        let (first, second) = (self.watch.probe.snapshot(), self.second.snapshot());
        let two = [&first, &second].map(|history| history.two_answering_at()).concat();
        let two = two.iter().filter(|(at, _)| (since..end).contains(at)).count() as u64;
        let done = self.requests.done();
        let answered = Answered::count(&done[requests..]);
        self.counted.set((end, done.len()));
        let others = first.tenures().into_iter().filter(|(node, ..)| node != holder);
        let mut trouble: Vec<_> = others.map(|(node, ..)| format!("{node} has served {VIP}")).collect();
        trouble.extend(self.unwanted());
        let names = self.watch.answers_since(zero);
        let last = names.iter().rev().find_map(in_order);
        if last.as_deref() != Some(scene.after) {
            trouble.push(format!("{NAME} = {} in the end", addresses(&last.unwrap_or_default())));
        }
        let change = Change {
            act: scene.act,
            what: scene.what.to_owned(),
            from: scene.from.to_owned(),
            to: scene.to.to_owned(),
            epoch: scene.epoch,
            gap: first.gap(zero, end),
            two_answering: Duration::from_millis(two),
            names: Names::count(&names, &[scene.before, scene.after]),
            answered,
            trouble,
        };
        print(&change.lines(&format!("{NAME} = {}", addresses_of(scene))))?;
        Ok(change)
    }

    /// Takeovers of slot 0 since the acts before, and those of any slot that failed.
    fn unwanted(&self) -> Vec<String> {
        let moved = self.events.takeovers_above(0, self.epoch).into_iter();
        let moved = moved.map(|moved| format!("{} took slot 0 over, epoch {}", moved.node, moved.epoch));
        let failed = [(0, self.epoch), (1, 0)].into_iter();
        let failed = failed.flat_map(|(slot, epoch)| self.events.failed_above(slot, epoch));
        let failed = failed.map(|failed| {
            format!("{} failed to take slot {} over: {}", failed.node, failed.slot, failed.reason)
        });
        moved.chain(failed).collect()
    }
}

fn addresses_of(scene: &Scene<'_>) -> String {
    if scene.before == scene.after {
        return addresses(scene.after);
    }
    format!("{}, then {}", addresses(scene.before), addresses(scene.after))
}

fn addresses(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}

fn listed(nodes: &BTreeSet<String>) -> String {
    nodes.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
}
