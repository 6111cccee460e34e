//! From data to text; nothing here reads, asks or prints.

mod event;
mod json;
mod status;
mod table;
mod takeover;

use std::time::SystemTime;

use understudy_wire::v1::Judgement;

pub(crate) use event::{decision, event};
pub(crate) use json::{event as event_json, now as now_json};
pub(crate) use status::status;
pub(crate) use takeover::timeline;

/// How tables may look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// Lines are wrapped to the terminal's width.
    pub(crate) terminal: bool,
    /// Escape codes for colours are wanted.
    pub(crate) colour: bool,
}

/// Text of another process on one line, without the control characters that would steer the reader's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// The word for a judgement.
pub(crate) fn judgement(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Alive => "alive",
        Judgement::Suspect => "suspect",
        Judgement::Failed => "failed",
        Judgement::Unhealthy => "unhealthy",
        Judgement::Unspecified => "unknown",
    }
}

/// Milliseconds with the precision that a reader can use: `0.4 ms`, `34 ms`, `2.5 s`, `3 min`.
pub(crate) fn span(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => "?".to_owned(),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 7_200_000.0 => format!("{:.0} min", ms / 60_000.0),
        ms => format!("{:.0} h", ms / 3_600_000.0),
    }
}

/// Now, UTC, as events carry their time. Only to show.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The time of day out of an RFC 3339 time; the whole where it has another form.
pub(crate) fn time_of_day(time: &str) -> String {
    match time.split_once('T') {
        Some((_, time)) => plain(time.trim_end_matches('Z')),
        None => plain(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\nc\u{9b}d"), "a [2Jb  c d");
    }

    #[test]
    fn spans_are_short() {
        let shown = [0.04, 9.94, 34.2, 2_500.0, 180_000.0, 1e8, f64::NAN].map(span);
        assert_eq!(shown, ["0.0 ms", "9.9 ms", "34 ms", "2.5 s", "3 min", "28 h", "?"]);
    }
}
