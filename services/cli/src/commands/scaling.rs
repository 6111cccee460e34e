//! `understudy scale` and `understudy scaling`: the leading autoscaler stores what is asked before it answers.

use std::time::Duration;

use anyhow::bail;
use understudy_bus::{EventLog, events::From, nats::RequestError};
use understudy_service::{clock, exit, seat::hostname};
use understudy_wire::{
    EventBody as _, GroupId, Subject,
    v1::{
        ScalingDecided, ScalingReply, ScalingRequest, ScalingSize, ScalingSteering, scaling_request::Steer,
    },
};

use super::maintenance::person;
use crate::{
    args::{Explain, Scale, Scaling},
    output,
    render::{self, plain},
    session::Session,
};

/// What the leader may need to store a size while JetStream elects a leader, on top of the time limit.
const STORING: Duration = Duration::from_secs(4);
/// Stored events of a group that are looked through for decisions.
const HISTORY: usize = 1_000;

pub(super) async fn scale(session: &Session, args: &Scale) -> anyhow::Result<u8> {
    if args.standby == Some(0) {
        eprintln!("warning: without a standby a failed member is missed until its replacement has started");
    }
    let size = ScalingSize { active: args.active.map(u32::from), standby: args.standby.map(u32::from) };
    let reply = ask(session, &args.group, "scaling", Some(Steer::Size(size))).await?;
    told(&args.group, &reply)
}

pub(super) async fn run(session: &Session, action: &Scaling) -> anyhow::Result<u8> {
    let (group, steer) = match action {
        Scaling::Pause { group } => (group, Steer::Pause(true)),
        Scaling::Resume { group } => (group, Steer::Pause(false)),
        Scaling::GrantBudget { group } => (group, Steer::GrantBudget(true)),
        Scaling::Explain(args) => return explain(session, args).await,
    };
    let reply = ask(session, group, "scaling", Some(steer)).await?;
    told(group, &reply)
}

/// Asks the leader; its refusal is an error.
async fn ask(
    session: &Session,
    group: &GroupId,
    verb: &str,
    steer: Option<Steer>,
) -> anyhow::Result<ScalingReply> {
    let request = ScalingRequest {
        group: group.to_string(),
        by: person(),
        request: format!("{}-{}-{}", hostname(), std::process::id(), clock::now().0),
        steer,
    };
    let subject = Subject::Command(group.clone(), verb.to_owned());
    let limit = session.timeout + if request.steer.is_some() { STORING } else { Duration::ZERO };
    let reply: ScalingReply = match session.nats.request(&subject, &request, limit).await {
        Ok(reply) => reply,
        Err(RequestError::NoResponders(_)) => bail!("no autoscaler is connected to NATS"),
        Err(RequestError::Timeout { .. }) if request.steer.is_some() => bail!(
            "no autoscaler answered within {limit:?}: none leads, or it is stored and its answer is late; see \
             `understudy scaling explain --group {group}`"
        ),
        Err(RequestError::Timeout { .. }) => bail!("no autoscaler leads: none answered within {limit:?}"),
        Err(error) => return Err(error.into()),
    };
    if !reply.accepted {
        bail!("refused: {}", plain(&reply.reason));
    }
    Ok(reply)
}

fn told(group: &GroupId, reply: &ScalingReply) -> anyhow::Result<u8> {
    output::print(&format!("{group}: {}\n", steering(reply.steering.as_ref())))?;
    Ok(exit::OK)
}

/// What operators have asked for, in words.
fn steering(stored: Option<&ScalingSteering>) -> String {
    let stored = stored.cloned().unwrap_or_default();
    let active = match stored.pinned {
        0 => "active as the load says".to_owned(),
        pinned => format!("{pinned} active"),
    };
    let standby =
        stored.standby.map_or("standbys as configured".to_owned(), |count| format!("{count} standby"));
    let paused = match stored.paused_by.as_str() {
        "" => String::new(),
        by => format!("; paused by {}", plain(by)),
    };
    format!("{active}, {standby}{paused}")
}

/// The last decisions that were told, then the one of now, where an autoscaler leads.
async fn explain(session: &Session, args: &Explain) -> anyhow::Result<u8> {
    let log = EventLog::open(&session.nats, "cli");
    let stored = match args.last {
        0 => Vec::new(),
        // The leader can be asked all the same.
        _ => log.read(From::Last(HISTORY), Some(&args.group)).await.unwrap_or_else(|error| {
            eprintln!("warning: no earlier decisions: {:#}", anyhow::Error::new(error));
            Vec::new()
        }),
    };
    let told: Vec<_> = stored.iter().filter(|event| event.kind() == ScalingDecided::KIND).collect();
    let last = usize::try_from(args.last).unwrap_or(usize::MAX);
    for event in &told[told.len().saturating_sub(last)..] {
        output::print(&render::event(event.attribute("time"), event))?;
    }
    let reply = ask(session, &args.group, "explain", None).await?;
    output::print(&format!("now    {}\n", steering(reply.steering.as_ref())))?;
    match &reply.decision {
        Some(decision) => output::print(&render::decision(decision))?,
        None => {
            eprintln!("nothing was decided yet: the leader still listens, or its driver has not answered");
        }
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_reads_as_a_sentence() {
        assert_eq!(steering(None), "active as the load says, standbys as configured");
        let asked = ScalingSteering {
            pinned: 3,
            standby: Some(2),
            paused_by: "anna@desk\x1b[2J".into(),
            ..Default::default()
        };
        assert_eq!(steering(Some(&asked)), "3 active, 2 standby; paused by anna@desk [2J");
    }
}
