//! Takeover: from the quorum to the last step of the plan.

use std::net::IpAddr;

use understudy_dns::Desired;
use understudy_service::{
    clock,
    config::{Hook, RecordAddress},
};
use understudy_wire::{
    BootTime, Epoch, Heartbeat, NodeId, Seat, Slot,
    v1::{self, StepOutcome},
};

use crate::{
    announcing::{Announcing, Change},
    executor::{Executor, HookDone},
    hooks::{self, Occasion},
    plan::{self, Step},
    tenure::{Tenure, Wait},
};

impl Executor {
    /// Remembers which seat granted when, for the record.
    pub fn note_grant(&mut self, slot: Slot, seat: Seat) {
        if !self.tenures.contains_key(&slot) {
            self.courting.entry(slot).or_default().entry(seat).or_insert_with(clock::now);
        } else if let Some(tenure) = self.tenures.get_mut(&slot)
            && tenure.grants.iter().all(|(known, _)| *known != seat)
        {
            tenure.grants.push((seat, clock::now()));
        }
    }

    /// A quorum granted the slot: claim it at once, then begin the plan.
    pub(crate) fn begin(&mut self, slot: Slot, epoch: Epoch, until: BootTime) {
        let now = clock::now();
        let settings = &self.settings;
        // The lease knows slots of the group only, and the configuration has as many.
        let config = settings.group.slots[usize::from(slot.0)].clone();
        let guards = plan::guards(&settings.group, &config, settings.address);
        let plan = plan::takeover(&settings.group, &config, settings.kind, &guards);
        let predicted = plan.predicted(&self.history.durations());
        let open_ends = plan.steps.iter().filter(|step| !step.delays_service()).count();
        let mut tenure = Tenure::new(slot, epoch, until, now, plan);
        tenure.predicted_ms = predicted.map(|predicted| predicted.as_secs_f64() * 1e3);
        tenure.vips = config.vips;
        tenure.guards = guards;
        tenure.open_ends = open_ends;
        tenure.previous = self.peers.previous(slot, epoch);
        // If it gave the slot up, it has told or is about to.
        tenure.release_within = 2 * settings.interval;
        tenure.grants = self.courting.remove(&slot).unwrap_or_default().into_iter().collect();
        let previous = tenure.previous.as_ref().map(|previous| previous.node.as_str());
        tracing::info!(%slot, %epoch, previous, "a quorum granted the slot: taking over");
        self.metrics.takeovers.inc();
        self.tenures.insert(slot, tenure);
        self.push_state();
    }

    /// The lease was extended: the gate learns it before anything else.
    pub(crate) async fn renew(&mut self, slot: Slot, until: BootTime) {
        let Some(tenure) = self.tenures.get_mut(&slot) else { return };
        tenure.until = until;
        if tenure.open
            && let Err(error) = self.network.renew(&tenure.guards, &tenure.vips, until).await
        {
            // The kernel shuts it at the old time, which is always safe.
            tracing::error!(%slot, cause = format!("{error:#}"), "renewing the gate");
        }
    }

    /// A quorum has seen the epoch: hooks and DNS may use it (rule R7).
    pub(crate) fn confirmed(&mut self, slot: Slot, epoch: Epoch) {
        let Some(tenure) = self.tenures.get_mut(&slot).filter(|tenure| tenure.epoch == epoch) else { return };
        tenure.confirmed = true;
        if tenure.wait == Wait::Confirmation {
            tenure.wait = Wait::Nothing;
        }
    }

    /// Does every step that can be done now, of every takeover.
    pub(crate) async fn advance_takeovers(&mut self) {
        for slot in self.tenures.keys().copied().collect::<Vec<_>>() {
            // Taken out while it is worked on; put back whatever happens, since only the lease ends a tenure.
            let Some(mut tenure) = self.tenures.remove(&slot) else { continue };
            let failed = self.advance(&mut tenure).await.err();
            self.tenures.insert(slot, tenure);
            if let Some(error) = failed {
                self.fail(slot, format!("{error:#}"));
                self.carry_out().await;
            }
            self.publish_record_if_complete(slot);
        }
    }

    async fn advance(&mut self, tenure: &mut Tenure) -> anyhow::Result<()> {
        if let Wait::Health(deadline) = tenure.wait {
            let now = clock::now();
            if self.witness.health == v1::Health::Healthy {
                tenure.note("await healthy", tenure.waiting_since, now, StepOutcome::Done, "");
                tenure.wait = Wait::Nothing;
            } else if now >= deadline {
                tenure.note("await healthy", tenure.waiting_since, now, StepOutcome::TimedOut, "");
                anyhow::bail!("the workload did not become healthy after its start");
            }
        }
        while tenure.wait == Wait::Nothing {
            let Some(step) = tenure.queue.front() else {
                tenure.wait = Wait::Over;
                break;
            };
            tenure.step = step.name();
            if step.needs_confirmed_epoch() && !tenure.confirmed {
                tenure.wait = Wait::Confirmation;
                break;
            }
            let step = tenure.queue.pop_front().expect("there is a first");
            self.step(tenure, step).await?;
            // DNS and what comes after it does not hold up the service: it is served as soon as the last step
            // before is done.
            let serving = tenure.queue.iter().all(|step| !step.delays_service());
            if serving && tenure.serving_at.is_none() && tenure.wait == Wait::Nothing {
                tenure.serving_at = Some(clock::now());
            }
        }
        Ok(())
    }

    async fn step(&mut self, tenure: &mut Tenure, step: Step) -> anyhow::Result<()> {
        let started = clock::now();
        let name = step.name();
        let detail = match step {
            Step::Start(hook) | Step::Promote(hook) => {
                self.run_hook(tenure.slot, tenure.epoch, name, hook);
                tenure.wait = Wait::Hook;
                tenure.waiting_since = started;
                return Ok(());
            }
            Step::AwaitHealthy => {
                let limit = self.settings.group.hooks.start.as_ref().map(|hook| hook.timeout);
                tenure.wait = Wait::Health(started.after(limit.unwrap_or_default()));
                tenure.waiting_since = started;
                return Ok(());
            }
            Step::AddAddress(vip) => {
                self.network.add(vip, tenure.until).await?;
                vip.to_string()
            }
            Step::OpenGate(guards) => {
                self.network.open(&guards, tenure.until)?;
                tenure.open = true;
                String::new()
            }
            Step::Announce(vip) => {
                let mut announcing = Announcing::new(self.network.link.mac, started);
                announcing.poll(started);
                tenure.announcing.push((vip, announcing));
                self.network.announce(vip.addr(), tenure.until)?;
                vip.addr().to_string()
            }
            Step::UpdateDns { name, address } => {
                self.update_dns(tenure, &name, address);
                tenure.names.push((name, address));
                return Ok(());
            }
            // The sightings of others complete it.
            Step::Verify(_) => return Ok(()),
            Step::ShutGate(_) | Step::Release | Step::RemoveAddress(_) | Step::Demote(_) | Step::Stop(_) => {
                unreachable!("a takeover plan has no step of a demotion")
            }
        };
        let ended = clock::now();
        self.history.add(name, ended.since(started));
        tenure.note(name, started, ended, StepOutcome::Done, detail);
        Ok(())
    }

    /// Starts a hook beside the loop; it reports to the loop when it ends.
    pub(crate) fn run_hook(&mut self, slot: Slot, epoch: Epoch, step: &'static str, hook: Hook) {
        let vips = &self.settings.group.slots[usize::from(slot.0)].vips;
        let occasion = Occasion {
            group: self.settings.group_id.clone(),
            node: self.settings.node.clone(),
            slot,
            epoch,
            vips: vips.iter().map(|vip| vip.addr().to_string()).collect::<Vec<_>>().join(","),
            step,
        };
        let done = self.hooks.clone();
        let task = tokio::spawn(async move {
            let started = clock::now();
            let result = hooks::run(&hook, &occasion).await;
            // Nobody listens any more when the executor has ended.
            let _ = done.send(HookDone { slot, step, started, result }).await;
        });
        self.running.insert(slot, task);
    }

    /// A hook of a takeover ended.
    pub(crate) fn takeover_hook_ended(&mut self, done: &HookDone) {
        let Some(tenure) = self.tenures.get_mut(&done.slot).filter(|tenure| tenure.wait == Wait::Hook) else {
            return;
        };
        let now = clock::now();
        let (outcome, detail) = outcome(&done.result);
        tenure.note(done.step, done.started, now, outcome, detail.clone());
        match &done.result {
            Ok(()) => {
                tenure.wait = Wait::Nothing;
                self.history.add(done.step, now.since(done.started));
            }
            Err(_) => self.fail(done.slot, format!("hook {}: {detail}", done.step)),
        }
    }

    pub(crate) fn update_dns(&mut self, tenure: &mut Tenure, name: &str, address: RecordAddress) {
        let addresses: Vec<IpAddr> = match address {
            // No new clients (rule R14): the slot withdraws what it contributed.
            _ if tenure.closed || self.draining(tenure.slot) => Vec::new(),
            RecordAddress::Vip => tenure.vips.iter().map(|vip| vip.addr()).collect(),
            RecordAddress::Node => self.settings.address.into_iter().collect(),
        };
        let now = clock::now();
        let wanted =
            Desired { name: name.to_owned(), slot: tenure.slot.0.into(), epoch: tenure.epoch.0, addresses };
        let refused = match &self.dns {
            Some(dns) => dns.set(wanted).err().map(|error| error.to_string()),
            None => Some("no [dns] section".to_owned()),
        };
        if let Some(reason) = refused {
            tracing::error!(name, reason, "the DNS record is not updated");
            tenure.note("DNS", now, now, StepOutcome::Failed, reason);
            tenure.open_ends = tenure.open_ends.saturating_sub(1);
        }
    }

    /// Announces every VIP that is due.
    pub(crate) fn announce_what_is_due(&mut self) {
        let now = clock::now();
        for tenure in self.tenures.values_mut().filter(|tenure| tenure.open || !self.network.gated()) {
            for (vip, announcing) in &mut tenure.announcing {
                if now < tenure.until
                    && announcing.poll(now)
                    && let Err(error) = self.network.announce(vip.addr(), tenure.until)
                {
                    tracing::warn!(%vip, cause = format!("{error:#}"), "announcing");
                }
            }
        }
    }

    /// Whom another member sees behind our VIPs (design section 5, proof of takeover).
    pub(crate) fn take_sightings(&mut self, now: BootTime, heartbeat: &Heartbeat) {
        let others = self.peers.present(now).count();
        let needed = self.settings.group.witnesses.map_or(others.div_ceil(2), usize::from).min(others);
        let mut changes = Vec::new();
        for sighting in heartbeat.details().sightings {
            let Ok(vip) = sighting.vip.parse::<IpAddr>() else { continue };
            let address = <[u8; 6]>::try_from(sighting.link_address.as_slice()).ok();
            for tenure in self.tenures.values_mut() {
                let slot = tenure.slot;
                let watched = tenure.announcing.iter_mut().find(|(own, _)| own.addr() == vip);
                let Some((_, announcing)) = watched else { continue };
                if let Some(change) = announcing.sighting(now, &heartbeat.node, address, needed) {
                    changes.push((slot, vip, change));
                }
            }
        }
        for (slot, vip, change) in changes {
            self.sighting_changed(slot, vip, change);
        }
    }

    fn sighting_changed(&mut self, slot: Slot, vip: IpAddr, change: Change) {
        let Some(tenure) = self.tenures.get_mut(&slot) else { return };
        let now = clock::now();
        match change {
            Change::Disputed(node) => {
                tracing::warn!(%slot, %vip, %node, "a member sees somebody else behind the VIP: announcing again");
            }
            Change::Proved(witnesses) => {
                let names: Vec<String> = witnesses.iter().map(NodeId::to_string).collect();
                let found = tenure.announcing.iter().find(|(own, _)| own.addr() == vip);
                let (began, announcements) =
                    found.map_or((now, 0), |(_, announcing)| (announcing.began(), announcing.announced()));
                let seen_by = format!("{} behind {vip}", names.join(" "));
                tenure.note("verify", began, now, StepOutcome::Done, seen_by);
                tenure.open_ends = tenure.open_ends.saturating_sub(1);
                let proved = v1::TakeoverProved {
                    group: self.settings.group_id.to_string(),
                    slot: slot.0.into(),
                    node: self.settings.node.to_string(),
                    epoch: tenure.epoch.0,
                    vip: vip.to_string(),
                    witnesses: names,
                    announcements,
                    after_ms: now.since(began).as_secs_f64() * 1e3,
                };
                let key = format!("{slot}/{}/{vip}", tenure.epoch);
                self.tell(&key, &proved);
            }
        }
    }
}

/// How a hook's end is written down.
pub(crate) fn outcome(result: &Result<(), hooks::HookError>) -> (StepOutcome, String) {
    match result {
        Ok(()) => (StepOutcome::Done, String::new()),
        Err(error @ hooks::HookError::TimedOut { .. }) => (StepOutcome::TimedOut, error.to_string()),
        Err(error) => (StepOutcome::Failed, format!("{:#}", anyhow::anyhow!("{error}"))),
    }
}
