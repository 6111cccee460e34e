//! Asks all detectors how things stand.

use std::{collections::BTreeSet, time::Duration};

use anyhow::bail;
use tokio::time::Instant;
use understudy_bus::nats::RequestError;
use understudy_wire::{GroupId, Subject, v1};

use crate::{
    overview::{Overview, merge},
    session::Session,
};

/// How long a seat is waited for that others do without. Detectors answer from memory, so one that has not by then is
/// stopped or cut off; a round trip through a NATS cluster takes below 1 ms, and 200 ms over the worst line.
const WINDOW: Duration = Duration::from_millis(300);

/// Answers taken in one round: more detectors than any deployment has.
const MOST: usize = 64;

impl Session {
    /// What all detectors together see. Returns as soon as every seat has answered; after [`WINDOW`] when a quorum
    /// has; else at the time limit, since less than a quorum says nothing about a holder.
    ///
    /// # Errors
    /// When no detector answers at all.
    pub(crate) async fn overview(&self) -> anyhow::Result<Overview> {
        let until = Instant::now() + self.timeout;
        let (window, seats) = (WINDOW.min(self.timeout), usize::from(self.expected.seats));
        let expected = if self.expected.assumed { MOST } else { seats };
        let mut replies = self.ask(window, expected).await?;
        // Observers answer as well and may have been faster than a seat: then everybody is heard out.
        if replies.len() >= expected && self.seats(&replies) < seats {
            replies.extend(self.ask(window, MOST).await?);
        }
        let left = until.saturating_duration_since(Instant::now());
        if self.seats(&replies) <= seats / 2 && !left.is_zero() {
            // Not so many answers, but so many seats: observers answer as well.
            replies.extend(self.ask(left, MOST).await?);
        }
        if replies.is_empty() {
            let limit = self.timeout;
            bail!("no detector answered within {limit:?}, though some are connected to NATS");
        }
        Ok(merge(self.nats.cluster().as_str(), &self.expected, &replies))
    }

    /// As [`Session::overview`], of one group where one is named.
    ///
    /// # Errors
    /// Also when no detector knows the group.
    pub(crate) async fn overview_of(&self, group: Option<&GroupId>) -> anyhow::Result<Overview> {
        let overview = self.overview().await?;
        let Some(group) = group else { return Ok(overview) };
        overview.only(group.as_str()).map_err(|known| unknown_group(group, &known))
    }

    /// One round; no answer is an empty one.
    async fn ask(&self, window: Duration, expected: usize) -> anyhow::Result<Vec<v1::StatusReply>> {
        let everybody = GroupId::new("all").expect("a name");
        let subject = Subject::Command(everybody, "status".to_owned());
        match self.nats.request_many(&subject, &v1::StatusRequest {}, window, expected).await {
            Ok(replies) => Ok(replies),
            Err(RequestError::Timeout { .. }) => Ok(Vec::new()),
            Err(RequestError::NoResponders(_)) => {
                bail!("no detector is connected to NATS: check the detectors, and the name of the cluster")
            }
            Err(error) => Err(error.into()),
        }
    }

    fn seats(&self, replies: &[v1::StatusReply]) -> usize {
        let seats = replies.iter().filter_map(|reply| Some(reply.presence.as_ref()?.seat));
        let ours = seats.filter(|seat| (1..=u32::from(self.expected.seats)).contains(seat));
        ours.collect::<BTreeSet<_>>().len()
    }
}

/// The error for a group that no detector has.
pub(crate) fn unknown_group(group: &GroupId, known: &[String]) -> anyhow::Error {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    anyhow::anyhow!("no detector knows group {group}; known: {known}")
}
