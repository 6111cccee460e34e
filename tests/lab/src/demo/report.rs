//! What an act showed, what is wrong with it, and how both look. Nothing here asks or prints.

use std::{net::IpAddr, time::Duration};

use understudy_wire::v1::Takeover;

use super::timeline::{WIDTH, wrap};
use crate::{
    DnsSample, Gap,
    table::{Align, table},
};

/// A pause of the probe that is worth telling: below it is ordinary scheduling.
const PAUSE: Duration = Duration::from_millis(5);
/// Columns before the text of the lines below a timeline.
const INDENT: usize = 14;
/// The verdict on what is not as it should be.
const WRONG: &str = "WRONG";
/// Column where verdicts stand.
const VERDICT: usize = WIDTH - WRONG.len();

/// What the name resolved to during an act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Questions.
    pub(super) asked: usize,
    /// Those without an answer in time.
    pub(super) silent: usize,
    /// Those with an answer other than the VIP.
    pub(super) wrong: usize,
}

impl Names {
    /// Counts answers; only `address` is right.
    pub(super) fn count(samples: &[DnsSample], address: IpAddr) -> Self {
        let mut names = Self { asked: samples.len(), ..Self::default() };
        for sample in samples {
            match &sample.addresses {
                None => names.silent += 1,
                Some(addresses) if *addresses == [address] => {}
                Some(_) => names.wrong += 1,
            }
        }
        names
    }
}

/// An act that came to its end.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// What was done, for the table.
    pub(super) what: &'static str,
    /// Who served before.
    pub(super) from: String,
    /// Who was to follow.
    pub(super) to: String,
    /// The takeover.
    pub(super) record: Takeover,
    /// What the client saw.
    pub(super) gap: Gap,
    /// For how long two nodes answered.
    pub(super) two_answering: Duration,
    /// Epoch beside the name, read from the zone.
    pub(super) zone_epoch: u64,
    /// What the name resolved to.
    pub(super) names: Names,
    /// What else went wrong: takeovers that nobody wanted, an old holder that answered again.
    pub(super) trouble: Vec<String>,
}

impl Outcome {
    /// What is wrong with the takeover itself.
    fn moved(&self) -> Vec<String> {
        let mut wrong = self.trouble.clone();
        if self.record.previous != self.from {
            wrong.push(format!("it says that it follows {:?}, not {}", self.record.previous, self.from));
        }
        wrong
    }

    fn dns_follows(&self) -> bool {
        self.zone_epoch == self.record.epoch && self.names.wrong == 0 && self.names.asked > self.names.silent
    }

    /// Whether all was as intended.
    pub(super) fn is_ok(&self) -> bool {
        self.moved().is_empty() && self.two_answering.is_zero() && self.dns_follows()
    }

    /// The lines below the timeline: the client's, the name's, and what is wrong.
    pub(super) fn lines(&self, name: &str, address: IpAddr) -> String {
        let mut text = item("client", &self.client_line(), self.two_answering.is_zero());
        text += &item("name", &self.names_line(name, address), self.dns_follows());
        for wrong in self.moved() {
            text += &item("wrong", &wrong, false);
        }
        text
    }

    fn client_line(&self) -> String {
        let two = self.two_answering.as_millis();
        let pause = match self.gap.pause {
            pause if pause >= PAUSE => {
                format!(" (the probe itself paused for {} ms of it)", pause.as_millis())
            }
            _ => String::new(),
        };
        format!("gap {:.1} ms{pause}, answered by two nodes for {two} ms", self.gap.milliseconds())
    }

    fn names_line(&self, name: &str, address: IpAddr) -> String {
        let Names { asked, silent, wrong } = self.names;
        let right = asked - silent - wrong;
        let mut text =
            format!("{name} = {address} in {right} of {asked} answers, epoch {} beside it", self.zone_epoch);
        if silent > 0 {
            text += &format!(", {silent} without answer");
        }
        if self.zone_epoch != self.record.epoch {
            text += &format!(", {} expected", self.record.epoch);
        }
        text
    }
}

/// A line with a word in front, and the verdict at its right end.
pub(super) fn item(word: &str, text: &str, ok: bool) -> String {
    let verdict = if ok { "ok" } else { WRONG };
    let text = format!("{word:>width$}  {}", wrap(text, INDENT, VERDICT - 2), width = INDENT - 2);
    let last = text.lines().next_back().map_or(0, |line| line.chars().count());
    format!("{text}{:>pad$}{verdict}\n", "", pad = VERDICT.saturating_sub(last).max(2))
}

/// The table at the end, and the verdict on all. `acts` is how many there should have been.
pub(super) fn summary(outcomes: &[Outcome], acts: usize) -> String {
    let header = [
        ("act", Align::Left),
        ("what", Align::Left),
        ("from", Align::Left),
        ("to", Align::Left),
        ("epoch", Align::Right),
        ("gap", Align::Right),
        ("two answering", Align::Right),
        ("DNS", Align::Left),
        ("", Align::Left),
    ];
    let rows: Vec<Vec<String>> =
        outcomes.iter().zip(1..).map(|(outcome, number)| row(outcome, number)).collect();
    let good = outcomes.iter().filter(|outcome| outcome.moved().is_empty()).count();
    let two: Duration = outcomes.iter().map(|outcome| outcome.two_answering).sum();
    let followed = outcomes.iter().filter(|outcome| outcome.dns_follows()).count();
    format!(
        "{}\n{good} of {acts} takeovers as intended; answered by two nodes for {} ms; DNS followed {followed} of {acts}: {}\n",
        table(&header, &rows),
        two.as_millis(),
        if all_well(outcomes, acts) { "ok" } else { WRONG }
    )
}

/// Whether every act was played, and all was as intended.
pub(super) fn all_well(outcomes: &[Outcome], acts: usize) -> bool {
    outcomes.len() == acts && outcomes.iter().all(Outcome::is_ok)
}

fn row(outcome: &Outcome, number: usize) -> Vec<String> {
    let follows = if outcome.dns_follows() { "followed" } else { "NOT" };
    vec![
        number.to_string(),
        outcome.what.to_owned(),
        outcome.from.clone(),
        outcome.to.clone(),
        outcome.record.epoch.to_string(),
        format!("{:.1} ms", outcome.gap.milliseconds()),
        format!("{} ms", outcome.two_answering.as_millis()),
        follows.to_owned(),
        if outcome.is_ok() { "ok" } else { WRONG }.to_owned(),
    ]
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
