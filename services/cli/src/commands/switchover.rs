//! `understudy switchover`: the holder decides; then the new one is waited for.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};
use understudy_bus::{
    EventLog,
    events::{LiveEvents, StoredEvent},
    nats::RequestError,
};
use understudy_service::{clock, exit, seat::hostname};
use understudy_wire::{
    EventBody, Subject,
    v1::{SwitchoverReply, SwitchoverRequest, Takeover, TakeoverFailed},
};

use crate::{
    args::Switchover,
    ask::unknown_group,
    output,
    overview::{Overview, Slot},
    render::{self, plain, span},
    session::Session,
};

/// The request is sent this often within the time limit: a NATS server may be lost with the first one, and the
/// idempotency key makes one switchover of all.
const ATTEMPTS: u32 = 3;
/// Pause between two looks at who holds the slot.
const PAUSE: Duration = Duration::from_millis(50);
/// The record of a takeover follows within 2 s of the service (it waits for name servers and witnesses).
const RECORD: Duration = Duration::from_secs(3);

pub(super) async fn run(session: &Session, args: &Switchover) -> anyhow::Result<u8> {
    let before = session.overview().await;
    let from = match &before {
        Ok(overview) => slot_of(overview, args)?.holder.clone(),
        Err(_) => None,
    };
    // Listened to before the question, so that nothing of the answer is missed.
    let log = EventLog::open(&session.nats, "cli");
    let mut events = log.live(Some(&args.group)).await?;
    let began = Instant::now();
    let reply = ask(session, args, from.unwrap_or_default()).await?;
    if !reply.accepted {
        bail!("{} refuses: {}", plain(&reply.from), plain(&reply.reason));
    }
    let from = plain(&reply.from);
    let to = if reply.to.is_empty() { "the first in line".to_owned() } else { plain(&reply.to) };
    let group = &args.group;
    output::print(&format!("{group}: {from} gives slot {} (epoch {}) to {to}\n", args.slot, reply.epoch))?;
    if args.no_wait {
        return Ok(exit::OK);
    }
    let served = wait(session, args, &reply, &mut events).await?;
    let after = span(began.elapsed().as_secs_f64() * 1e3);
    let Served { node, epoch, record } = served;
    output::print(&format!(
        "{group}: {node} serves slot {} since epoch {epoch}, seen {after} after the question\n",
        args.slot
    ))?;
    let record = match record {
        Some(record) => Some(record),
        None => timeout(RECORD, record_of(args, reply.epoch, &mut events)).await.ok().flatten(),
    };
    match record {
        Some(record) => output::print(&render::timeline(&record))?,
        None => eprintln!("note: its record is not published yet, see `understudy events --group {group}`"),
    }
    if node == from {
        bail!("{from} serves it again: nobody else took over");
    }
    Ok(exit::OK)
}

/// The slot that was named.
fn slot_of<'a>(overview: &'a Overview, args: &Switchover) -> anyhow::Result<&'a Slot> {
    let Some(group) = overview.group(args.group.as_str()) else {
        let known: Vec<_> = overview.groups.iter().map(|group| group.group.clone()).collect();
        return Err(unknown_group(&args.group, &known));
    };
    let slots = group.slots.len();
    group.slot(args.slot).with_context(|| {
        format!("group {} has no slot {}: it has {slots}, counted from 0", args.group, args.slot)
    })
}

/// Asks until the holder answers.
async fn ask(session: &Session, args: &Switchover, from: String) -> anyhow::Result<SwitchoverReply> {
    let request = SwitchoverRequest {
        group: args.group.to_string(),
        slot: args.slot.into(),
        to: args.to.as_ref().map(ToString::to_string).unwrap_or_default(),
        request: args.request.clone().unwrap_or_else(key),
        from,
    };
    let subject = Subject::Command(args.group.clone(), "switchover".to_owned());
    for _ in 0..ATTEMPTS {
        match session.nats.request(&subject, &request, session.timeout / ATTEMPTS).await {
            Ok(reply) => return Ok(reply),
            Err(RequestError::Timeout { .. }) => {}
            Err(RequestError::NoResponders(_)) => {
                bail!(
                    "no executor of group {} is connected to NATS; {}",
                    args.group,
                    holder(session, args).await
                )
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no holder answers within {:?}; {}", session.timeout, holder(session, args).await)
}

/// Who holds the slot, for whoever got no answer.
async fn holder(session: &Session, args: &Switchover) -> String {
    match session.overview().await {
        Err(error) => format!("who holds slot {} is not known either: {error}", args.slot),
        Ok(overview) => match slot_of(&overview, args) {
            Err(error) => error.to_string(),
            Ok(slot) => describe(slot),
        },
    }
}

fn describe(slot: &Slot) -> String {
    let number = slot.slot;
    match &slot.holder {
        Some(node) => format!("{node} holds slot {number}, but its executor is not heard over NATS"),
        None => format!("slot {number} is held by {}", slot.standing()),
    }
}

/// Unique to this run: host, process and time since boot.
fn key() -> String {
    format!("{}-{}-{}", hostname(), std::process::id(), clock::now().0)
}

/// The new holder.
struct Served {
    node: String,
    epoch: u64,
    /// When it was the record that told.
    record: Option<Takeover>,
}

/// Waits until a later tenure serves: its record says so, or the detectors do.
async fn wait(
    session: &Session,
    args: &Switchover,
    reply: &SwitchoverReply,
    events: &mut LiveEvents,
) -> anyhow::Result<Served> {
    let looked = async {
        loop {
            if let Ok(overview) = session.overview().await
                && let Some((node, epoch)) = serving(&overview, args, reply.epoch)
            {
                return Served { node, epoch, record: None };
            }
            sleep(PAUSE).await;
        }
    };
    let told = record_of(args, reply.epoch, events);
    let either = async {
        tokio::select! {
            served = looked => Some(served),
            record = told => record.map(|record| {
                Served { node: plain(&record.node), epoch: record.epoch, record: Some(record) }
            }),
        }
    };
    match timeout(args.wait_for, either).await {
        Ok(Some(served)) => Ok(served),
        Ok(None) => bail!("the connection to NATS ended"),
        Err(_elapsed) => {
            bail!("nobody new serves it within {:?}; {}", args.wait_for, holder(session, args).await)
        }
    }
}

/// The holder that serves with an epoch above `epoch`.
fn serving(overview: &Overview, args: &Switchover, epoch: u64) -> Option<(String, u64)> {
    let group = overview.group(args.group.as_str())?;
    let slot = group.slot(args.slot)?;
    let node = group.node(slot.holder.as_deref()?)?;
    let newer = slot.epoch.filter(|newer| *newer > epoch)?;
    (node.phase == "serving").then(|| (node.node.clone(), newer))
}

/// The record of the slot's next tenure; failures on the way are told.
async fn record_of(args: &Switchover, epoch: u64, events: &mut LiveEvents) -> Option<Takeover> {
    loop {
        let event = events.next().await?;
        if failed(&event, args, epoch) {
            eprint!("{}", render::event(&render::time_of_day(event.attribute("time")), &event));
        }
        if event.kind() == Takeover::KIND
            && let Ok(record) = event.body::<Takeover>()
            && record.slot == u32::from(args.slot)
            && record.epoch > epoch
        {
            return Some(record);
        }
    }
}

fn failed(event: &StoredEvent, args: &Switchover, epoch: u64) -> bool {
    event.kind() == TakeoverFailed::KIND
        && event
            .body::<TakeoverFailed>()
            .is_ok_and(|body| body.slot == u32::from(args.slot) && body.epoch > epoch)
}
