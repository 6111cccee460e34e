//! The executor's state and the one order in which everything happens.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    iter,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use understudy_bus::{EventLog, paths::NodeSender};
use understudy_detection::Flap;
use understudy_dns::Updater;
use understudy_lease::{Holder, HolderOutput, Why};
use understudy_service::{clock, config::Group};
use understudy_wire::{
    BootTime, CloudEvent, ClusterId, EventBody, GroupId, Heartbeat, Incarnation, NodeId, Seat, Slot,
    StandbyKind, v1,
};

use crate::{
    history::History,
    hooks::HookError,
    leaving::Ending,
    metrics::Metrics,
    network::Network,
    peers::Peers,
    tenure::{Tenure, Wait},
};

/// After a takeover that failed the node is not ready for this long: the next candidate has its turn, and a broken
/// hook is not run in a loop.
const COOLDOWN: Duration = Duration::from_secs(10);
/// This often the lifetimes of addresses that serve are renewed, the interface is looked at, and the kernel is asked who is
/// behind the other VIPs.
const UPKEEP: Duration = Duration::from_secs(1);
/// So much earlier at most, for a turn that something else caused: to be woken for it alone costs more than it does.
const EARLY: Duration = Duration::from_millis(200);

/// Who this executor is; fixed for the life of the process.
pub struct Settings {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the node.
    pub group_id: GroupId,
    /// The group's configuration.
    pub group: Group,
    /// The node.
    pub node: NodeId,
    /// What it needs before it can serve.
    pub kind: StandbyKind,
    /// Its own address, if known.
    pub address: Option<IpAddr>,
    /// This process.
    pub incarnation: Incarnation,
    /// Preference among the members, for failback.
    pub priority: i32,
    /// Heartbeat interval, I.
    pub interval: Duration,
    /// A member that never fell, with the group's damping.
    pub steady: Flap,
}

/// A hook that ended: of which tenure, and how.
pub struct HookDone {
    /// Slot it ran for.
    pub slot: Slot,
    /// Which of them: takeovers and demotions are told apart by the step.
    pub step: &'static str,
    /// When it began.
    pub started: BootTime,
    /// How it ended.
    pub result: Result<(), HookError>,
}

/// What the witness last said.
#[derive(Default)]
pub struct Witness {
    /// Attached to node.sock.
    pub attached: bool,
    /// Its checks.
    pub health: v1::Health,
}

/// Everything the loop works on. Its parts are spread over the modules of this crate.
pub struct Executor {
    pub(crate) settings: Settings,
    pub(crate) holder: Holder,
    pub(crate) network: Network,
    pub(crate) link: watch::Sender<v1::ExecutorState>,
    pub(crate) sender: NodeSender,
    pub(crate) events: EventLog,
    pub(crate) dns: Option<Updater>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) history: History,
    pub(crate) witness: Witness,
    pub(crate) peers: Peers,
    pub(crate) tenures: BTreeMap<Slot, Tenure>,
    pub(crate) endings: BTreeMap<Slot, Ending>,
    pub(crate) courting: BTreeMap<Slot, BTreeMap<Seat, BootTime>>,
    pub(crate) running: BTreeMap<Slot, JoinHandle<()>>,
    pub(crate) hooks: mpsc::Sender<HookDone>,
    pub(crate) asked: VecDeque<(String, Option<v1::SwitchoverReply>)>,
    /// Slots that serve, and that are open, where the group is scaled.
    pub(crate) size: Option<(u32, u32)>,
    sightings: BTreeMap<IpAddr, Option<[u8; 6]>>,
    /// Newcomers heard so far.
    pub(crate) greeted: u64,
    cooldown: Option<(BootTime, String)>,
    leaving: bool,
    pushed: Option<v1::ExecutorState>,
    /// What the witness must prove shut should this process die.
    guards: Vec<v1::Guard>,
    /// The witness waits for a tick.
    pub(crate) tick_asked: bool,
    upkeep_due: BootTime,
}

/// The parts an executor is put together from.
pub struct Parts {
    /// Who it is.
    pub settings: Settings,
    /// The lease.
    pub holder: Holder,
    /// The kernel.
    pub network: Network,
    /// What node.sock tells the witness.
    pub link: watch::Sender<v1::ExecutorState>,
    /// Releases, both paths.
    pub sender: NodeSender,
    /// Events.
    pub events: EventLog,
    /// Name servers.
    pub dns: Option<Updater>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What steps took before.
    pub history: History,
    /// Where hooks report.
    pub hooks: mpsc::Sender<HookDone>,
}

impl Executor {
    /// An executor that holds nothing.
    pub fn new(parts: Parts) -> Self {
        let now = clock::now();
        let peers = Peers::new(parts.settings.steady);
        let guards = all_guards(&parts.settings);
        Self {
            settings: parts.settings,
            holder: parts.holder,
            network: parts.network,
            link: parts.link,
            sender: parts.sender,
            events: parts.events,
            dns: parts.dns,
            metrics: parts.metrics,
            history: parts.history,
            hooks: parts.hooks,
            witness: Witness::default(),
            peers,
            tenures: BTreeMap::new(),
            endings: BTreeMap::new(),
            courting: BTreeMap::new(),
            running: BTreeMap::new(),
            asked: VecDeque::new(),
            size: None,
            sightings: BTreeMap::new(),
            greeted: 0,
            cooldown: None,
            leaving: false,
            pushed: None,
            guards,
            tick_asked: false,
            upkeep_due: now,
        }
    }

    /// One turn, after every input and every deadline. The order matters:
    ///
    /// 1. whether new grants are wanted at all, so that no lease begins that could not be used;
    /// 2. the lease: what must be shut is shut before anything else is done, and its release, for which others wait, is given
    ///    to the witness; renewals reach the kernel;
    /// 3. the next steps of takeovers, announcements, lifetimes;
    /// 4. the state for the witness, at once when it changed.
    pub async fn turn(&mut self) {
        let now = clock::now();
        self.holder.set_willing(self.obstacle(now).is_none());
        self.holder.handle_time(now);
        self.carry_out().await;
        self.advance_takeovers().await;
        self.announce_what_is_due();
        self.advance_endings().await;
        self.keep_up().await;
        self.push_state();
        self.metrics.held.set(i64::try_from(self.tenures.len()).unwrap_or(i64::MAX));
    }

    /// Carries out what the lease machine wants.
    pub(crate) async fn carry_out(&mut self) {
        while let Some(output) = self.holder.poll_output() {
            match output {
                HolderOutput::Claim { .. } => self.push_state(),
                HolderOutput::Take { slot, epoch, until } => self.begin(slot, epoch, until),
                HolderOutput::Renew { slot, until } => self.renew(slot, until).await,
                HolderOutput::Confirmed { slot, epoch } => self.confirmed(slot, epoch),
                HolderOutput::Shut { slot, why, .. } => self.shut(slot, why).await,
                HolderOutput::Release(release) => {
                    self.courting.remove(&release.slot);
                    // The heartbeat repeats it, in an order that cannot be mixed up with older claims (rule R8).
                    // Only without a publisher does it travel alone.
                    if !self.witness.attached {
                        self.sender.send_release(&release);
                    }
                    self.push_state();
                    self.released(release.slot, release.at).await;
                }
            }
        }
    }

    /// Why this node could not take a slot over now; `None`: it could.
    pub(crate) fn obstacle(&self, now: BootTime) -> Option<String> {
        if self.leaving {
            Some("the executor is ending".into())
        } else if !self.witness.attached {
            Some("no heartbeat publisher is attached".into())
        } else if !self.network.link.up {
            Some("the interface is down".into())
        } else if !self.endings.is_empty() {
            Some("a demotion is under way".into())
        } else {
            let cooling = self.cooldown.as_ref().filter(|(until, _)| now < *until);
            cooling.map(|(_, reason)| format!("a takeover failed lately: {reason}"))
        }
    }

    /// A takeover failed: the slot goes to the next candidate.
    pub(crate) fn fail(&mut self, slot: Slot, reason: String) {
        let now = clock::now();
        self.cooldown = Some((now.after(COOLDOWN), reason.clone()));
        self.holder.give_up(now, slot, Why::TakeoverFailed(reason), None);
    }

    /// The witness is gone: nothing renews the lease, so give it up while the gate can still be proved shut.
    pub fn witness_lost(&mut self) {
        self.witness = Witness::default();
        self.give_up_all(&Why::Leaving("the heartbeat publisher ended".into()));
    }

    /// This process is asked to end: hand over first.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.give_up_all(&Why::Leaving("the executor was asked to end".into()));
    }

    /// Whether nothing is held and nothing is under way any more.
    pub fn has_left(&self) -> bool {
        self.leaving && self.tenures.is_empty() && self.endings.is_empty()
    }

    fn give_up_all(&mut self, why: &Why) {
        let now = clock::now();
        for slot in self.tenures.keys().copied().collect::<Vec<_>>() {
            self.holder.give_up(now, slot, why.clone(), None);
        }
    }

    /// What this host sees behind a VIP.
    pub fn sighted(&mut self, vip: IpAddr, address: Option<[u8; 6]>) {
        self.sightings.insert(vip, address);
    }

    /// A member of the group tells of itself: who it is, and whom it sees.
    pub fn heard(&mut self, heartbeat: Heartbeat) {
        if heartbeat.group != self.settings.group_id || heartbeat.node == self.settings.node {
            return;
        }
        let now = clock::now();
        self.take_sightings(now, &heartbeat);
        if self.peers.is_newcomer(now, &heartbeat) {
            // It knows of nobody, and could be a holder before it hears of this node by itself.
            self.greeted += 1;
        }
        self.peers.heard(now, heartbeat);
    }

    /// When the next turn is due at the latest.
    pub fn next_deadline(&self) -> BootTime {
        let releases = self.endings.values().filter_map(Ending::deadline);
        let tenures = self.tenures.values().filter_map(Tenure::deadline);
        let announcing = self.tenures.values().flat_map(|tenure| &tenure.announcing);
        let announcements = announcing.map(|(_, announcing)| announcing.next_deadline());
        let due =
            iter::once(self.upkeep_due).chain(self.holder.next_deadline()).chain(releases).chain(tenures);
        due.chain(announcements).min().expect("lifetimes are always due")
    }

    /// Renews lifetimes, looks at the interface, asks for neighbours.
    async fn keep_up(&mut self) {
        let now = clock::now();
        // A heartbeat earlier is the last turn before it is due.
        let early = if self.is_steady() { EARLY.min(self.settings.interval) } else { Duration::ZERO };
        if now.after(early) < self.upkeep_due {
            return;
        }
        self.upkeep_due = now.after(UPKEEP);
        for tenure in self.tenures.values().filter(|tenure| tenure.open) {
            for vip in &tenure.vips {
                if let Err(error) = self.network.add(*vip, tenure.until).await {
                    tracing::error!(%vip, cause = format!("{error:#}"), "renewing the lifetime of an address");
                }
            }
        }
        self.network.look_at_link().await;
        self.fail_back();
        let mine: BTreeSet<IpAddr> =
            self.tenures.values().flat_map(|tenure| &tenure.vips).map(|vip| vip.addr()).collect();
        for vip in self.settings.group.slots.iter().flat_map(|slot| &slot.vips).map(|vip| vip.addr()) {
            if !mine.contains(&vip) {
                self.network.solicit(vip);
            }
        }
    }

    /// Whether nothing is under way that a millisecond would slow down.
    pub fn is_steady(&self) -> bool {
        let settled = |tenure: &Tenure| tenure.wait == Wait::Over && tenure.confirmed;
        !self.leaving
            && self.endings.is_empty()
            && self.courting.is_empty()
            && self.running.is_empty()
            && self.tenures.values().all(settled)
    }

    /// Tells the witness what it must carry: at once when it changed, else as the answer to each heartbeat, which shows
    /// that this loop turns.
    pub(crate) fn push_state(&mut self) {
        let state = self.state(clock::now());
        if self.pushed.as_ref() != Some(&state) {
            self.pushed = Some(state.clone());
        } else if !self.tick_asked {
            return;
        }
        self.tick_asked = false;
        self.link.send_replace(state);
    }

    fn state(&self, now: BootTime) -> v1::ExecutorState {
        let raw = |claim: &understudy_wire::Claim| v1::SlotEpoch {
            slot: claim.slot.0.into(),
            epoch: claim.epoch.0,
        };
        let obstacle = self.obstacle(now);
        let mine: BTreeSet<IpAddr> =
            self.tenures.values().flat_map(|tenure| &tenure.vips).map(|vip| vip.addr()).collect();
        let sightings = self.sightings.iter().filter(|(vip, _)| !mine.contains(vip));
        v1::ExecutorState {
            incarnation: self.settings.incarnation.raw(),
            ready: obstacle.is_none(),
            reason: obstacle.unwrap_or_default(),
            phase: self.phase().to_owned(),
            claims: self.holder.claims(now).iter().map(raw).collect(),
            known: self.holder.known().iter().map(raw).collect(),
            releases: self.holder.releases().iter().map(Into::into).collect(),
            sightings: sightings
                .map(|(vip, address)| v1::Sighting {
                    vip: vip.to_string(),
                    link_address: address.map(|address| address.to_vec()).unwrap_or_default(),
                })
                .collect(),
            address: self.settings.address.map(|address| address.to_string()).unwrap_or_default(),
            link_address: self.network.link.mac.to_vec(),
            starting: self.tenures.values().any(Tenure::starting),
            guards: self.guards.clone(),
            leaving: self.has_left(),
            greeted: self.greeted,
        }
    }

    fn phase(&self) -> &'static str {
        if !self.endings.is_empty() {
            "releasing"
        } else if self.tenures.values().any(|tenure| tenure.serving_at.is_none()) {
            "taking over"
        } else if self.tenures.is_empty() {
            "standby"
        } else {
            "serving"
        }
    }

    /// Publishes an event; `key` tells equal sightings of one thing from different things.
    pub(crate) fn tell<B: EventBody>(&self, key: &str, body: &B) {
        let source = self.events.source();
        match CloudEvent::new(&self.settings.cluster, &self.settings.group_id, source, key, body) {
            Ok(event) => self.events.publish(&event),
            Err(error) => tracing::error!(kind = B::KIND, %error, "an event has no JSON form"),
        }
    }
}

fn all_guards(settings: &Settings) -> Vec<v1::Guard> {
    let slots = settings.group.slots.iter();
    let guards = slots.flat_map(|slot| crate::plan::guards(&settings.group, slot, settings.address));
    guards.map(|guard| raw_guard(&guard)).collect()
}

fn raw_guard(guard: &understudy_vip::gate::Guard) -> v1::Guard {
    match guard {
        understudy_vip::gate::Guard::Address(address) => {
            v1::Guard { address: address.to_string(), protocol: String::new(), port: 0 }
        }
        understudy_vip::gate::Guard::Service { address, protocol, port } => v1::Guard {
            address: address.to_string(),
            protocol: match protocol {
                understudy_vip::gate::Protocol::Tcp => "tcp".into(),
                understudy_vip::gate::Protocol::Udp => "udp".into(),
            },
            port: u32::from(*port),
        },
    }
}
