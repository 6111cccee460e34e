//! `understudy events`: the history in JetStream, and what is added to it.

use understudy_bus::{
    EventLog,
    events::{From, StoredEvent},
};
use understudy_service::{exit, shutdown};

use crate::{args::Events, output, render, session::Session};

pub(super) async fn run(session: &Session, args: &Events) -> anyhow::Result<u8> {
    let log = EventLog::open(&session.nats, "cli");
    let last = usize::try_from(args.last).unwrap_or(usize::MAX);
    let stored = session.stored(async || log.read(From::Last(last), args.group.as_ref()).await).await?;
    for event in &stored {
        show(event, args.json)?;
    }
    if !args.follow {
        if stored.is_empty() && !args.json {
            eprintln!("no events yet");
        }
        return Ok(exit::OK);
    }
    let newest = stored.last().map_or(0, |event| event.sequence);
    let mut following = log.follow(From::After(newest), args.group.as_ref());
    let ended = shutdown::on_signals(exit::ERROR.into())?;
    loop {
        tokio::select! {
            () = ended.cancelled() => return Ok(exit::OK),
            Some(event) = following.next() => show(&event, args.json)?,
        }
    }
}

fn show(event: &StoredEvent, json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&render::event_json(event));
    }
    output::print(&render::event(event.attribute("time"), event))
}
