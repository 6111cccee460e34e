//! What an act showed, what is wrong with it, and how both look. Nothing here asks or prints.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use understudy_wire::v1::Takeover;

use super::{
    timeline::{WIDTH, wrap},
    watch::in_order,
};
use crate::{
    DnsSample, Gap, Request,
    table::{Align, table},
};

/// A pause of the probe that is worth telling: below it is ordinary scheduling.
const PAUSE: Duration = Duration::from_millis(5);
/// Reasons of failed requests that are shown; the next are mostly the same.
const SHOWN: usize = 3;
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
    /// Those with another answer than what may be.
    pub(super) wrong: usize,
}

impl Names {
    /// Counts answers; only one of `right` is right, each with its addresses in order.
    pub(super) fn count(samples: &[DnsSample], right: &[&[IpAddr]]) -> Self {
        let mut names = Self { asked: samples.len(), ..Self::default() };
        for sample in samples {
            match in_order(sample) {
                None => names.silent += 1,
                Some(addresses) if right.contains(&&*addresses) => {}
                Some(_) => names.wrong += 1,
            }
        }
        names
    }

    /// Whether there were answers, and none was wrong.
    fn are_right(&self) -> bool {
        self.wrong == 0 && self.asked > self.silent
    }

    /// `n of m answers`, with those that never came.
    fn counted(&self) -> String {
        let Self { asked, silent, wrong } = self;
        let missing = if *silent > 0 { format!(", {silent} without answer") } else { String::new() };
        format!("{} of {asked} answers{missing}", asked - silent - wrong)
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// How many each node has answered.
    pub(super) by: BTreeMap<String, usize>,
    /// Why the others were not.
    pub(super) failed: Vec<String>,
}

impl Answered {
    /// Counts requests that are over.
    pub(super) fn count(requests: &[Request]) -> Self {
        let mut answered = Self::default();
        for request in requests {
            match &request.answer {
                Ok(node) => *answered.by.entry(node.clone()).or_default() += 1,
                Err(why) => answered.failed.push(why.clone()),
            }
        }
        answered
    }

    fn total(&self) -> usize {
        self.by.values().sum()
    }
}

/// A change of the group, made by the autoscaler, that came to its end.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Number of the act.
    pub(super) act: usize,
    /// What happened, for the table.
    pub(super) what: String,
    /// Who was there before, or served.
    pub(super) from: String,
    /// Who is there now, or serves.
    pub(super) to: String,
    /// Epoch of the slot that was opened.
    pub(super) epoch: Option<u64>,
    /// The longest time in which slot 0 did not answer the client.
    pub(super) gap: Gap,
    /// For how long two nodes answered for one address.
    pub(super) two_answering: Duration,
    /// What the name resolved to.
    pub(super) names: Names,
    /// Requests.
    pub(super) answered: Answered,
    /// What else went wrong.
    pub(super) trouble: Vec<String>,
}

impl Change {
    fn is_as_intended(&self) -> bool {
        self.trouble.is_empty() && self.answered.failed.is_empty() && self.answered.total() > 0
    }

    /// Whether all was as intended.
    pub(super) fn is_ok(&self) -> bool {
        self.is_as_intended() && self.two_answering.is_zero() && self.names.are_right()
    }

    /// The lines below the timeline; `name` says what the name resolved to.
    pub(super) fn lines(&self, name: &str) -> String {
        let two = self.two_answering;
        let client = format!(
            "gap {:.1} ms at slot 0{}, any slot answered by two nodes for {} ms",
            self.gap.milliseconds(),
            paused(&self.gap),
            two.as_millis()
        );
        let Answered { by, failed } = &self.answered;
        let by: Vec<String> = by.iter().map(|(node, count)| format!("{count} by {node}")).collect();
        let requests =
            format!("{} answered ({}), {} failed", self.answered.total(), by.join(", "), failed.len());
        let mut text = item("client", &client, two.is_zero());
        text += &item("name", &format!("{name} in {}", self.names.counted()), self.names.are_right());
        text += &item("requests", &requests, failed.is_empty() && self.answered.total() > 0);
        for wrong in self.trouble.iter().chain(failed.iter().take(SHOWN)) {
            text += &item("wrong", wrong, false);
        }
        text
    }

    fn row(&self) -> Vec<String> {
        let follows = if self.names.are_right() { "followed" } else { "NOT" };
        vec![
            self.act.to_string(),
            self.what.clone(),
            self.from.clone(),
            self.to.clone(),
            self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            format!("{:.1} ms", self.gap.milliseconds()),
            format!("{} ms", self.two_answering.as_millis()),
            follows.to_owned(),
            if self.is_ok() { "ok" } else { WRONG }.to_owned(),
        ]
    }
}

/// So much of a gap as the probe itself paused, where that is worth telling.
fn paused(gap: &Gap) -> String {
    match gap.pause {
        pause if pause >= PAUSE => format!(" (the probe itself paused for {} ms of it)", pause.as_millis()),
        _ => String::new(),
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
        self.zone_epoch == self.record.epoch && self.names.are_right()
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
        let (gap, pause) = (self.gap.milliseconds(), paused(&self.gap));
        format!("gap {gap:.1} ms{pause}, answered by two nodes for {two} ms")
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

/// The table at the end, and the verdict on all. `acts` and `scalings` are how many there should have been.
pub(super) fn summary(
    (outcomes, acts): (&[Outcome], usize),
    (changes, scalings): (&[Change], usize),
) -> String {
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
    let takeovers = outcomes.iter().zip(1..).map(|(outcome, number)| row(outcome, number));
    let rows: Vec<Vec<String>> = takeovers.chain(changes.iter().map(Change::row)).collect();
    let good = outcomes.iter().filter(|outcome| outcome.moved().is_empty()).count();
    let sized = changes.iter().filter(|change| change.is_as_intended()).count();
    let two = outcomes.iter().map(|outcome| outcome.two_answering);
    let two: Duration = two.chain(changes.iter().map(|change| change.two_answering)).sum();
    let followed = outcomes.iter().filter(|outcome| outcome.dns_follows()).count()
        + changes.iter().filter(|change| change.names.are_right()).count();
    let answered: usize = changes.iter().map(|change| change.answered.total()).sum();
    let failed: usize = changes.iter().map(|change| change.answered.failed.len()).sum();
    let verdict = format!(
        "{good} of {acts} takeovers and {sized} of {scalings} scalings as intended; answered by two nodes for {} ms; \
         DNS followed {followed} of {}; {answered} requests answered, {failed} failed: {}",
        two.as_millis(),
        acts + scalings,
        if all_well((outcomes, acts), (changes, scalings)) { "ok" } else { WRONG }
    );
    format!("{}\n{}\n", table(&header, &rows), wrap(&verdict, 0, WIDTH))
}

/// Whether every act was played, and all was as intended.
pub(super) fn all_well(
    (outcomes, acts): (&[Outcome], usize),
    (changes, scalings): (&[Change], usize),
) -> bool {
    let takeovers = outcomes.len() == acts && outcomes.iter().all(Outcome::is_ok);
    takeovers && changes.len() == scalings && changes.iter().all(Change::is_ok)
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
