//! `understudy watch`: one line a happening, and the state whenever it changes.

use std::time::Duration;

use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use understudy_bus::{EventLog, NatsState, events::StoredEvent};
use understudy_service::{exit, shutdown};
use understudy_wire::{
    EventBody, GroupId,
    v1::{NodeJudged, Verdict},
};

use crate::{
    args::Watch,
    output,
    overview::Overview,
    render::{self, judgement, plain, span},
    session::Session,
};

/// How often the detectors are asked.
const EVERY: Duration = Duration::from_millis(500);

/// What the detectors said, or why they did not.
type Looked = Result<Overview, String>;

pub(super) async fn run(session: &Session, args: &Watch) -> anyhow::Result<u8> {
    let log = EventLog::open(&session.nats, "cli");
    let group = args.group.as_ref();
    let mut events = log.live(group).await?;
    let pattern = format!("verdict.{}.*", group.map_or("*", GroupId::as_str));
    let mut verdicts = session.nats.subscribe::<Verdict>(&pattern).await?;
    let mut state = session.nats.state();
    // Connected, or there were no session: only what changes is news.
    state.mark_unchanged();
    // One look waits to be shown at most.
    let (sender, mut looks) = mpsc::channel(1);
    let looking = look(session, group, &sender);
    tokio::pin!(looking);
    let mut screen = Screen { json: args.json, shown: String::new() };
    let ended = shutdown::on_signals(exit::ERROR.into())?;
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return Ok(exit::OK),
            Some(event) = events.next() => screen.event(&event)?,
            Some(received) = verdicts.next() => {
                if let Ok(verdict) = received.message {
                    screen.verdict(&verdict)?;
                }
            }
            Ok(()) = state.changed() => {
                let now = *state.borrow_and_update();
                screen.nats(now)?;
            }
            Some(looked) = looks.recv() => screen.state(&looked)?,
            () = &mut looking => {}
        }
    }
}

/// Asks for ever.
async fn look(session: &Session, group: Option<&GroupId>, sender: &mpsc::Sender<Looked>) {
    loop {
        let next = Instant::now() + EVERY;
        let looked = session.overview_of(group).await.map_err(|error| format!("{error:#}"));
        // The receiver lives as long as this future.
        let _ = sender.send(looked).await;
        sleep_until(next).await;
    }
}

/// What was shown last, so that only changes are.
struct Screen {
    json: bool,
    shown: String,
}

impl Screen {
    fn event(&self, event: &StoredEvent) -> anyhow::Result<()> {
        // The verdicts say the same, and for every seat.
        if event.kind() == NodeJudged::KIND {
            return Ok(());
        }
        if self.json {
            return output::print_json(&render::event_json(event));
        }
        output::print(&render::event(&render::time_of_day(event.attribute("time")), event))
    }

    fn verdict(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let now = render::now();
        if self.json {
            return output::print_json(&render::now_json("verdict", &now, &serde_json::to_value(verdict)?));
        }
        output::print(&format!("{}  {}", render::time_of_day(&now), verdict_line(verdict)))
    }

    fn nats(&self, state: NatsState) -> anyhow::Result<()> {
        let now = render::now();
        let word = match state {
            NatsState::Connected => "connected",
            NatsState::Disconnected => "disconnected",
        };
        if self.json {
            return output::print_json(&render::now_json("nats", &now, &json!({ "state": word })));
        }
        output::print(&format!("{}  NATS: {word}\n", render::time_of_day(&now)))
    }

    fn state(&mut self, looked: &Looked) -> anyhow::Result<()> {
        let Some(text) = self.news(looked) else { return Ok(()) };
        let now = render::now();
        if self.json {
            let (kind, data) = match looked {
                Ok(overview) => ("state", serde_json::to_value(overview)?),
                Err(error) => ("unknown", json!({ "error": error })),
            };
            return output::print_json(&render::now_json(kind, &now, &data));
        }
        let time = render::time_of_day(&now);
        output::print(&text.lines().map(|line| format!("{time}  = {line}\n")).collect::<String>())
    }

    /// The state, if it is another one than was shown last.
    fn news(&mut self, looked: &Looked) -> Option<String> {
        let text = state_lines(looked);
        let news = text != self.shown;
        self.shown.clone_from(&text);
        news.then_some(text)
    }
}

/// What must change for the state to be shown again: nothing in it moves with time alone.
fn state_lines(looked: &Looked) -> String {
    match looked {
        Ok(overview) => overview.groups.iter().map(|group| group.headline.clone() + "\n").collect(),
        Err(error) => format!("{error}\n"),
    }
}

fn verdict_line(verdict: &Verdict) -> String {
    let who = if verdict.seat == 0 { "an observer".to_owned() } else { format!("seat {}", verdict.seat) };
    let (group, node) = (plain(&verdict.group), plain(&verdict.node));
    let reason =
        if verdict.reason.is_empty() { String::new() } else { format!(": {}", plain(&verdict.reason)) };
    let (word, silent) = (judgement(verdict.judgement()), span(verdict.silent_ms));
    format!("{group}  {who} judges {node} {word} (phi {:.1}, silent {silent}){reason}\n", verdict.phi)
}

#[cfg(test)]
mod tests {
    use understudy_wire::v1::Judgement;

    use super::*;
    use crate::overview::{fixture::*, merge};

    #[test]
    fn the_state_is_shown_when_it_changes_and_not_when_time_passes() {
        let mut screen = Screen { json: false, shown: String::new() };
        let mut look = |replies: &[_]| screen.news(&Ok(merge("demo", &EXPECTED, replies)));
        assert!(look(&calm()).is_some());
        let mut later = calm();
        change(&mut later, 1, |node| (node.phi, node.silent_ms) = (0.7, 99.0));
        later.iter_mut().for_each(|reply| reply.groups[0].slots[0].remaining_ms = 17.0);
        assert_eq!(look(&later), None);
        change(&mut later, 1, |node| node.ready = false);
        assert!(look(&later).unwrap().contains("1 ready standby"));
        assert_eq!(
            screen.news(&Err("no detector answered".into())).as_deref(),
            Some("no detector answered\n")
        );
    }

    #[test]
    fn a_verdict_is_one_line() {
        let verdict = Verdict {
            group: "web".into(),
            node: "web-a".into(),
            seat: 2,
            judgement: Judgement::Suspect.into(),
            phi: 8.31,
            silent_ms: 212.4,
            ..Default::default()
        };
        assert_eq!(verdict_line(&verdict), "web  seat 2 judges web-a suspect (phi 8.3, silent 212 ms)\n");
    }
}
