//! Who acts (rule R12): a slot without VIP, held by the same lease rules as any other. There is no gate here but
//! [`Term::holds`], which everybody asks before each action; what an action of an earlier leader may still do after it
//! has lost the lease is harmless, since actions are idempotent by their keys and stores are fenced by the epoch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use prost::Message as _;
use tokio::sync::watch;
use understudy_bus::{
    Nats, NatsState,
    paths::{FromSeat, NodeOptions, NodePaths, NodeSender},
    queue,
};
use understudy_lease::{Holder, HolderOutput, Identity, Rules, Why};
use understudy_service::{
    access,
    clock::{self, Alarm},
    config::Config,
};
use understudy_wire::{
    BootTime, Epoch, Health, Heartbeat, Holder as HolderId, Incarnation, NodeId, Slot, StandbyKind, v1,
};

/// The one slot of the group that elects the leader.
const SLOT: Slot = Slot(0);
/// A leader that cannot reach NATS neither hears members nor stores anything: after this it lets another go on.
const DEAF: Duration = Duration::from_secs(3);
/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_millis(200);

/// A tenure as leader.
#[derive(Debug, Clone)]
pub struct Term {
    /// Its fencing token, confirmed by a quorum (rule R7).
    pub epoch: Epoch,
    /// End of the lease, CLOCK_BOOTTIME nanoseconds; 0 once it was given up.
    until: Arc<AtomicU64>,
}

impl Term {
    /// Whether this process may act now.
    pub fn holds(&self) -> bool {
        clock::now().0 < self.until.load(Ordering::Acquire)
    }

    /// A term that never ends: for tests of what acts.
    #[doc(hidden)]
    pub fn endless(epoch: Epoch) -> Self {
        Self { epoch, until: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

/// This process in the election.
pub struct Candidate {
    config: Arc<Config>,
    me: HolderId,
    group: understudy_wire::GroupId,
    holder: Holder,
    sender: NodeSender,
    seats: queue::Receiver<FromSeat>,
    nats: watch::Receiver<NatsState>,
    heard_nats: BootTime,
    seq: u64,
    due: BootTime,
    alarm: Alarm,
    leaving: bool,
    until: Arc<AtomicU64>,
    term: watch::Sender<Option<Term>>,
}

impl Candidate {
    /// Stands for election as `node`; the receiver has the term while this process leads.
    ///
    /// # Errors
    /// When the election group is not set, or the direct path cannot be opened.
    pub async fn stand(
        config: &Arc<Config>,
        node: NodeId,
        nats: &Nats,
    ) -> anyhow::Result<(Self, watch::Receiver<Option<Term>>)> {
        let group = config.autoscaler.group.clone().context("autoscaler.group is not set")?;
        let now = clock::now();
        let identity = Identity { cluster: config.cluster.clone(), group: group.clone(), slots: 1 };
        let lease = &config.lease;
        let rules = Rules::new(config.detector.seats, lease.duration, lease.interval, lease.max, lease.drift);
        let incarnation = Incarnation::new(now.0).context("the clock stands at 0")?;
        let boot = clock::boot_id().context("reading the boot id")?;
        let me = HolderId { node: node.clone(), boot, incarnation };
        let detectors = config.detector.direct.iter().map(ToString::to_string).collect();
        let tls = access::direct_client(config)?;
        let options = NodeOptions { group: group.clone(), node, detectors, grants: true, echo: None, tls };
        let (sender, seats) = NodePaths::open(nats, options).await?;
        let (term, terms) = watch::channel(None);
        let candidate = Self {
            config: Arc::clone(config),
            holder: Holder::new(identity, rules, me.clone()),
            me,
            group,
            sender,
            seats,
            nats: nats.state(),
            heard_nats: now,
            // Microseconds since boot: above whatever an earlier process of this boot has sent.
            seq: now.0 / 1_000,
            due: now,
            alarm: Alarm::new().context("making the candidate's timer")?,
            leaving: false,
            until: Arc::default(),
            term,
        };
        Ok((candidate, terms))
    }

    /// Bids, renews and releases until `ended`; then gives the lead up.
    pub async fn run(mut self, ended: impl Future<Output = ()>) {
        tokio::pin!(ended);
        loop {
            let deadline = self.holder.next_deadline().map_or(self.due, |due| due.min(self.due));
            tokio::select! {
                biased;
                Some(message) = self.seats.recv() => self.heard_seat(&message),
                () = self.alarm.reached(deadline) => {}
                () = &mut ended => break,
            }
            self.turn();
        }
        self.leaving = true;
        self.holder.set_willing(false);
        self.holder.give_up(clock::now(), SLOT, Why::Leaving("asked to end".into()), None);
        self.follow();
        self.beat();
        self.sender.close(FLUSH).await;
    }

    fn heard_seat(&mut self, message: &FromSeat) {
        let now = clock::now();
        let refused = match message {
            FromSeat::Grant(grant) => self.holder.handle_grant(now, grant).err(),
            FromSeat::Revoke(revoke) => self.holder.handle_revoke(now, revoke).err(),
            FromSeat::Presence(_) => None,
        };
        if let Some(refused) = refused {
            tracing::debug!(?refused, "message of a seat not counted");
        }
    }

    /// The lease first, then the bid.
    fn turn(&mut self) {
        let now = clock::now();
        if *self.nats.borrow() == NatsState::Connected {
            self.heard_nats = now;
        }
        let deaf = now.since(self.heard_nats) > DEAF;
        self.holder.set_willing(!deaf);
        if deaf {
            self.holder.give_up(now, SLOT, Why::Leaving("no NATS server can be reached".into()), None);
        }
        self.holder.handle_time(now);
        let changed = self.follow();
        if changed || now >= self.due {
            self.due = now.after(self.config.lease.interval);
            self.beat();
        }
    }

    /// Carries out what the lease says; whether others must hear of it at once.
    fn follow(&mut self) -> bool {
        let mut changed = false;
        while let Some(output) = self.holder.poll_output() {
            changed |= !matches!(output, HolderOutput::Renew { .. } | HolderOutput::Confirmed { .. });
            match output {
                HolderOutput::Claim { .. } => {}
                HolderOutput::Take { until, .. } | HolderOutput::Renew { until, .. } => {
                    self.until.store(until.0, Ordering::Release);
                }
                HolderOutput::Confirmed { epoch, .. } => {
                    tracing::info!(%epoch, "leads");
                    self.term.send_replace(Some(Term { epoch, until: Arc::clone(&self.until) }));
                }
                HolderOutput::Shut { epoch, why, .. } => {
                    tracing::warn!(%epoch, %why, "leads no more");
                    self.until.store(0, Ordering::Release);
                    // A new one for the next tenure, or a task of this one would believe in that.
                    self.until = Arc::default();
                    self.term.send_replace(None);
                    self.holder.gate_shut(clock::now(), SLOT);
                }
                HolderOutput::Release(release) => self.sender.send_release(&release),
            }
        }
        changed
    }

    fn beat(&mut self) {
        self.seq += 1;
        let (now, node) = (clock::now(), &self.config.node);
        let claims = self.holder.claims(now);
        let phase = if claims.is_empty() { "standby" } else { "serving" };
        let interval = self.config.lease.interval;
        let deaf = now.since(self.heard_nats) > DEAF;
        let details = v1::Details {
            reason: if deaf { "no NATS server can be reached".into() } else { String::new() },
            labels: node.labels.clone().into_iter().collect(),
            interval_nanos: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            phase: phase.into(),
            ..v1::Details::default()
        };
        self.sender.send_heartbeat(&Heartbeat {
            cluster: self.config.cluster.clone(),
            group: self.group.clone(),
            node: self.me.node.clone(),
            boot: self.me.boot,
            incarnation: Some(self.me.incarnation),
            seq: self.seq,
            sent_at: now,
            health: Health::Healthy,
            standby: StandbyKind::Hot,
            ready: !deaf && !self.leaving,
            priority: node.priority,
            claims,
            known: self.holder.known(),
            releases: self.holder.releases(),
            details: details.encode_to_vec(),
        });
    }
}
