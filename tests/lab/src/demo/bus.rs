//! What goes over NATS while the group is scaled, heard by anybody who listens: decisions, judgements, and what changes
//! in heartbeats.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream::select_all};
use tokio::sync::{oneshot, watch};
use understudy_wire::{
    EventBody as _, decode,
    v1::{Health, Heartbeat, Judgement, NodeJudged, ScalingDecided, ScalingRule, scaling_action::Kind},
};

use super::moments::{self, Happened};
use crate::{Deployment, Moment};

/// Heartbeats and events of the group.
const SUBJECTS: [&str; 3] =
    ["understudy.lab.heartbeat.web.*", "understudy.lab.event.web.judged", "understudy.lab.event.web.scaling"];

/// Something that was heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// The first heartbeat of a node.
    Appeared(String),
    /// A node could take a slot over from now on.
    Ready(String),
    /// A node says that it serves a slot: node, slot, epoch.
    Serves(String, u32, u64),
    /// A seat says what it thinks of a node.
    Judged(NodeJudged),
    /// The autoscaler has decided.
    Decided(ScalingDecided),
}

/// A word, and when it was heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heard {
    pub(super) at: Moment,
    pub(super) word: Word,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Bus {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Bus {
    /// Listens from the client's host from now on.
    ///
    /// # Errors
    /// When no server can be subscribed to.
    pub(super) fn listen(deployment: &Deployment) -> Result<Self> {
        let server = deployment.nats.servers().first().context("the deployment has NATS servers")?;
        let (url, heard) = (server.url(), Arc::<Mutex<Vec<Heard>>>::default());
        let (stop, mut stopped) = watch::channel(());
        let (begun, begins) = oneshot::channel::<Result<()>>();
        let written = Arc::clone(&heard);
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(begun.send(Err(error.into()))),
            };
            runtime.block_on(async {
                let mut messages = match subscribe(&url).await {
                    Ok((client, messages)) => {
                        // Whoever waits for it has gone only when the demo is over.
                        let _ = begun.send(Ok(()));
                        (client, messages)
                    }
                    Err(error) => return drop(begun.send(Err(error))),
                };
                let mut known = Known::default();
                loop {
                    tokio::select! {
                        Some(message) = messages.1.next() => {
                            let at = Moment::now();
                            let words = known.take(&message.subject, &message.payload);
                            let words = words.into_iter().map(|word| Heard { at, word });
                            written.lock().unwrap_or_else(PoisonError::into_inner).extend(words);
                        }
                        _ = stopped.changed() => return,
                    }
                }
            });
        };
        let thread = Some(deployment.client.thread("bus", work)?);
        let bus = Self { heard, stop, thread };
        begins.blocking_recv().context("the thread that listens has ended")??;
        Ok(bus)
    }

    /// What was heard since then, as far as `wanted` takes it.
    fn since<T>(&self, since: Moment, wanted: impl Fn(&Heard) -> Option<T>) -> Vec<T> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|heard| heard.at >= since).filter_map(wanted).collect()
    }

    /// What the first action of a rule since then is that `wanted` takes.
    pub(super) fn action<T>(
        &self,
        since: Moment,
        rule: ScalingRule,
        wanted: impl Fn(&Kind) -> Option<T>,
    ) -> Option<T> {
        let decided = self.since(since, |heard| match &heard.word {
            Word::Decided(decided) => moments::actions(decided, rule).find_map(&wanted),
            _ => None,
        });
        decided.into_iter().next()
    }

    /// What was decided since then.
    pub(super) fn decisions(&self, since: Moment) -> Vec<Happened> {
        let told = self.since(since, |heard| match &heard.word {
            Word::Decided(decided) => Some((heard.at, moments::told(decided))),
            _ => None,
        });
        told.into_iter().flat_map(|(at, told)| told.into_iter().map(move |text| (at, text))).collect()
    }

    /// That a node is suspected since then, and that a quorum of the seats calls it failed.
    pub(super) fn judgements(&self, since: Moment, node: &str, quorum: usize) -> Vec<Happened> {
        let heard = self.since(since, |heard| Some(heard.clone()));
        let suspected = judged(&heard, node, Judgement::Suspect, 1);
        let failed = judged(&heard, node, Judgement::Failed, quorum);
        let suspected = suspected.map(|(at, phi)| (at, format!("suspected (phi {phi:.1})")));
        let failed = failed.map(|(at, _)| (at, format!("{quorum} seats, a quorum, call it failed")));
        suspected.into_iter().chain(failed).collect()
    }

    /// Who first says since then that it has a slot: when, who, and with which epoch.
    pub(super) fn holds(&self, since: Moment, slot: u32) -> Option<(Moment, String, u64)> {
        let held = self.since(since, |heard| match &heard.word {
            Word::Serves(node, of, epoch) if *of == slot => Some((heard.at, node.clone(), *epoch)),
            _ => None,
        });
        held.into_iter().next()
    }

    /// When this was heard first, since then.
    pub(super) fn first(&self, since: Moment, word: &Word) -> Option<Moment> {
        let same = |heard: &Heard| (heard.word == *word).then_some(heard.at);
        self.since(since, same).first().copied()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

type Messages = futures_util::stream::SelectAll<async_nats::Subscriber>;

async fn subscribe(url: &str) -> Result<(async_nats::Client, Messages)> {
    let client = async_nats::connect(url).await.with_context(|| format!("connecting to {url}"))?;
    let mut subscriptions = Vec::new();
    for subject in SUBJECTS {
        subscriptions.push(client.subscribe(subject).await.context("subscribing")?);
    }
    client.flush().await.context("subscribing")?;
    Ok((client, select_all(subscriptions)))
}

/// What the last heartbeats said.
#[derive(Debug, Default)]
struct Known {
    ready: BTreeMap<String, bool>,
    serves: BTreeSet<(String, u32, u64)>,
}

impl Known {
    /// What is new in a message. One that cannot be read says nothing.
    fn take(&mut self, subject: &str, payload: &[u8]) -> Vec<Word> {
        match subject.rsplit('.').next() {
            Some(NodeJudged::KIND) => serde_json::from_slice(payload).map(Word::Judged).into_iter().collect(),
            Some(ScalingDecided::KIND) => {
                serde_json::from_slice(payload).map(Word::Decided).into_iter().collect()
            }
            _ => decode("heartbeat", payload).map(|heartbeat| self.heartbeat(&heartbeat)).unwrap_or_default(),
        }
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Vec<Word> {
        let mut words = Vec::new();
        let node = &heartbeat.node;
        let ready = heartbeat.ready && heartbeat.health() == Health::Healthy;
        let before = self.ready.insert(node.clone(), ready);
        if before.is_none() {
            words.push(Word::Appeared(node.clone()));
        }
        if ready && before != Some(true) {
            words.push(Word::Ready(node.clone()));
        }
        for claim in &heartbeat.claims {
            if self.serves.insert((node.clone(), claim.slot, claim.epoch)) {
                words.push(Word::Serves(node.clone(), claim.slot, claim.epoch));
            }
        }
        words
    }
}

/// When a quorum of the seats called this node so, and how much the last of them suspected it.
fn judged(heard: &[Heard], node: &str, judgement: Judgement, quorum: usize) -> Option<(Moment, f64)> {
    let mut seats = BTreeSet::new();
    heard.iter().find_map(|heard| match &heard.word {
        Word::Judged(judged) if judged.node == node && judged.judgement() == judgement => {
            seats.insert(judged.seat);
            (seats.len() >= quorum).then_some((heard.at, judged.phi))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use understudy_wire::v1::SlotEpoch;

    use super::*;

    fn heartbeat(ready: bool, claims: &[(u32, u64)]) -> Heartbeat {
        Heartbeat {
            node: "web-1".to_owned(),
            ready,
            health: Health::Healthy.into(),
            claims: claims.iter().map(|(slot, epoch)| SlotEpoch { slot: *slot, epoch: *epoch }).collect(),
            ..Heartbeat::default()
        }
    }

    #[test]
    fn of_heartbeats_only_changes_are_told() {
        let mut known = Known::default();
        let name = || "web-1".to_owned();
        assert_eq!(known.heartbeat(&heartbeat(false, &[])), [Word::Appeared(name())]);
        assert_eq!(known.heartbeat(&heartbeat(true, &[])), [Word::Ready(name())]);
        assert_eq!(known.heartbeat(&heartbeat(true, &[])), []);
        assert_eq!(known.heartbeat(&heartbeat(true, &[(1, 7)])), [Word::Serves(name(), 1, 7)]);
        assert_eq!(known.heartbeat(&heartbeat(true, &[(1, 7)])), []);
        assert_eq!(known.heartbeat(&heartbeat(false, &[])), []);
        assert_eq!(known.heartbeat(&heartbeat(true, &[])), [Word::Ready(name())]);
    }

    #[test]
    fn a_judgement_is_that_of_a_quorum_of_different_seats() {
        let judged_by = |at, seat, phi| Heard {
            at: Moment::from_nanos(at),
            word: Word::Judged(NodeJudged {
                node: "web-c".to_owned(),
                judgement: Judgement::Failed.into(),
                seat,
                phi,
                ..NodeJudged::default()
            }),
        };
        let heard = [judged_by(1, 2, 9.0), judged_by(2, 2, 10.0), judged_by(3, 1, 11.0)];
        assert_eq!(judged(&heard, "web-c", Judgement::Failed, 2), Some((Moment::from_nanos(3), 11.0)));
        assert_eq!(judged(&heard, "web-c", Judgement::Failed, 3), None);
        assert_eq!(judged(&heard, "web-a", Judgement::Failed, 1), None);
        assert_eq!(judged(&heard, "web-c", Judgement::Suspect, 1), None);
    }
}
