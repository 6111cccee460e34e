//! `understudy maintenance`: durable when it says so.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use understudy_bus::{Store, nats::RequestError};
use understudy_service::{exit, seat::hostname};
use understudy_wire::{GroupId, NodeId, Subject, v1};

use crate::{
    args::{Maintenance, Member},
    ask::unknown_group,
    output,
    render::plain,
    session::Session,
};

/// What a detector may need to store a setting while JetStream elects a leader, on top of the time limit.
const STORING: Duration = Duration::from_secs(4);

pub(super) async fn run(session: &Session, action: &Maintenance) -> anyhow::Result<u8> {
    match action {
        Maintenance::On(member) => set(session, member, true).await,
        Maintenance::Off(member) => set(session, member, false).await,
        Maintenance::List { group, json } => list(session, group.as_ref(), *json).await,
    }
}

async fn set(session: &Session, member: &Member, on: bool) -> anyhow::Result<u8> {
    let Member { group, node } = member;
    let held = check(session, member, on).await?;
    let request =
        v1::MaintenanceRequest { group: group.to_string(), node: node.to_string(), on, by: person() };
    let subject = Subject::Command(group.clone(), "maintenance".to_owned());
    let limit = session.timeout + STORING;
    let reply: v1::MaintenanceReply = match session.nats.request(&subject, &request, limit).await {
        Ok(reply) => reply,
        Err(RequestError::NoResponders(_)) => bail!("not stored: no detector is connected to NATS"),
        Err(RequestError::Timeout { .. }) => bail!(
            "no detector answered within {limit:?}: it may be stored or not, see `understudy maintenance list`"
        ),
        Err(error) => return Err(error.into()),
    };
    if !reply.stored {
        bail!("not stored: {}", plain(&reply.reason));
    }
    let word = if on { "on" } else { "off" };
    output::print(&format!("{group}: maintenance of {node} {word}\n"))?;
    if let Some(slot) = held {
        eprintln!(
            "note: {node} holds slot {slot}; it goes to a ready standby, and stays while there is none"
        );
    }
    Ok(exit::OK)
}

/// Refuses a group that does not exist, warns of a node that was never heard; a slot that the node holds, when it
/// goes into maintenance.
async fn check(session: &Session, member: &Member, on: bool) -> anyhow::Result<Option<u32>> {
    let Member { group, node } = member;
    // Whoever stores it will say what is wrong.
    let Ok(overview) = session.overview().await else { return Ok(None) };
    let Some(known) = overview.group(group.as_str()) else {
        let known: Vec<_> = overview.groups.iter().map(|group| group.group.clone()).collect();
        return Err(unknown_group(group, &known));
    };
    let Some(status) = known.node(node.as_str()) else {
        eprintln!("warning: no detector has heard of node {node} in group {group}");
        return Ok(None);
    };
    Ok(status.slots.first().copied().filter(|_| on))
}

/// Who asked, for the history.
pub(super) fn person() -> String {
    let user = ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    format!("{user}@{}", hostname())
}

/// One line of the list.
#[derive(Serialize)]
struct Listed {
    group: GroupId,
    node: NodeId,
}

async fn list(session: &Session, group: Option<&GroupId>, json: bool) -> anyhow::Result<u8> {
    let store = Store::open(&session.nats);
    let set = session.stored(async || store.maintenance().await).await?;
    let wanted = set.into_iter().filter(|(of, _)| group.is_none_or(|group| group == of));
    let listed: Vec<_> = wanted.map(|(group, node)| Listed { group, node }).collect();
    if json {
        output::print_json(&listed)?;
    } else if listed.is_empty() {
        eprintln!("no node is in maintenance");
    } else {
        output::print(
            &listed.iter().map(|Listed { group, node }| format!("{group}  {node}\n")).collect::<String>(),
        )?;
    }
    Ok(exit::OK)
}
