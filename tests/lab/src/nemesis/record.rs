//! What is written down while the nemesis strikes: events, the zone, answers. It decides nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use async_nats::{ConnectOptions, Message};
use futures_util::{StreamExt as _, stream::select_all};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    events,
    history::{CLIENT, Line, Writer},
};
use crate::{
    Deployment, Moment, Probe,
    deployment::NAME,
    dns::{ask, connect, question},
};

/// All events of the deployment.
const EVENTS: &str = "understudy.lab.event.>";
/// A server that hangs is given up after two or three of these, so that the next event finds a connection.
const PING: Duration = Duration::from_millis(100);
/// One attempt to connect.
const CONNECT: Duration = Duration::from_millis(500);
/// Between two questions for the TXT records.
const ZONE_INTERVAL: Duration = Duration::from_millis(20);
/// A name server that is stopped must not hold up the next question for long.
const ZONE_PATIENCE: Duration = Duration::from_millis(100);

/// Writes events and the zone into the history until it is dropped.
#[derive(Debug)]
pub(super) struct Record {
    writer: Arc<Writer>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    stopped: watch::Sender<()>,
    threads: Vec<JoinHandle<Result<()>>>,
    probes: usize,
}

/// The newest of what was seen, to know when a deployment has come to rest.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Highest epoch that a takeover event had, and whose.
    takeover: Option<(u64, String)>,
    /// Highest epoch in the zone at last.
    zone: Option<u64>,
}

impl Record {
    /// Starts to listen and to ask, from the client's host.
    ///
    /// # Errors
    /// When there is no name server, or threads or sockets cannot be made.
    pub(super) fn start(deployment: &Deployment, writer: &Arc<Writer>) -> Result<Self> {
        let (stopped, stopping) = watch::channel(());
        let mut record = Self {
            writer: Arc::clone(writer),
            seen: Arc::default(),
            stop: Arc::default(),
            stopped,
            threads: Vec::new(),
            probes: 0,
        };
        record.listen(deployment, stopping)?;
        record.watch_zone(deployment)?;
        Ok(record)
    }

    /// A connection of its own to each server: one that is stopped or killed takes no event with it.
    fn listen(&mut self, deployment: &Deployment, mut stopping: watch::Receiver<()>) -> Result<()> {
        let servers = deployment.nats.servers().iter();
        let servers: Vec<_> = servers.map(|server| (server.host().name().to_owned(), server.url())).collect();
        let (writer, seen) = (Arc::clone(&self.writer), Arc::clone(&self.seen));
        let thread = deployment.client.thread("record-events", move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (mut clients, mut subscriptions) = (Vec::new(), Vec::new());
                for (name, url) in servers {
                    let options = ConnectOptions::new().ping_interval(PING).connection_timeout(CONNECT);
                    let client = options.ignore_discovered_servers().connect(url).await?;
                    let subscription = client.subscribe(EVENTS).await?;
                    client.flush().await?;
                    clients.push(client);
                    subscriptions.push(subscription.map(move |message| (name.clone(), message)).boxed());
                }
                let mut messages = select_all(subscriptions);
                loop {
                    tokio::select! {
                        Some((via, message)) = messages.next() => {
                            let line = event(via, &message);
                            note_event(&seen, &line);
                            writer.add(&line)?;
                        }
                        _ = stopping.changed() => return anyhow::Ok(()),
                    }
                }
            })
        })?;
        self.threads.push(thread);
        Ok(())
    }

    fn watch_zone(&mut self, deployment: &Deployment) -> Result<()> {
        let name_server = deployment.name_server()?;
        let question = question(&format!("_understudy.{NAME}"), "TXT")?;
        let server = name_server.address();
        let socket = deployment.client.enter(|| connect(server))??;
        let (writer, seen, stop) = (Arc::clone(&self.writer), Arc::clone(&self.seen), Arc::clone(&self.stop));
        let thread = deployment.client.thread("record-zone", move || -> Result<()> {
            let mut next = Moment::now();
            while !stop.load(Ordering::SeqCst) {
                let at = Moment::now();
                let records = ask(&socket, &question, ZONE_PATIENCE).ok();
                if let Some(records) = &records {
                    lock(&seen).zone = events::epochs(records).into_values().max();
                }
                writer.add(&Line::Dns { at: at.nanos(), records })?;
                next = (next + ZONE_INTERVAL).max(Moment::now());
                next.reach();
            }
            Ok(())
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Writes down what a probe of slot 0 was answered. Probes record for a while only, so a run has several.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn answers(&mut self, probe: Probe) -> Result<()> {
        let history = probe.finish();
        self.probes += 1;
        self.writer.add_answers(0, self.probes, CLIENT, &history.client)?;
        history.eyes.iter().try_for_each(|(node, eye)| self.writer.add_answers(0, self.probes, node, eye))
    }

    /// Whether `serving` is who took over last, and the zone has that epoch.
    pub(super) fn is_at_rest(&self, serving: Option<&str>) -> bool {
        let Seen { takeover, zone } = lock(&self.seen).clone();
        takeover.is_some_and(|(epoch, node)| serving == Some(&node) && zone == Some(epoch))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something could not be written, or no event could be listened for.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            ensure!(ended.is_ok(), "a thread that records has panicked");
            ended.unwrap_or(Ok(())).context("recording")?;
        }
        Ok(())
    }

    fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.stopped.send_replace(());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event(via: String, message: &Message) -> Line {
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let headers: BTreeMap<String, String> = headers
        .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())))
        .collect();
    let text = || Value::String(String::from_utf8_lossy(&message.payload).into_owned());
    let body = serde_json::from_slice(&message.payload).unwrap_or_else(|_| text());
    Line::Event { at: Moment::now().nanos(), via, subject: message.subject.to_string(), headers, body }
}

fn note_event(seen: &Mutex<Seen>, line: &Line) {
    let Line::Event { headers, body, .. } = line else { return };
    if let Some(told) = events::told(headers, body, 0).filter(|told| told.takeover) {
        let takeover = Some((told.claim.epoch, told.claim.node));
        let mut seen = lock(seen);
        if seen.takeover < takeover {
            seen.takeover = takeover;
        }
    }
}
