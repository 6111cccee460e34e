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
    /// has, and as soon as one has later; else at the time limit, since less than a quorum says nothing about a holder.
    ///
    /// # Errors
    /// When no detector answers at all.
    pub(crate) async fn overview(&self) -> anyhow::Result<Overview> {
        let until = Instant::now() + self.timeout;
        let seats = usize::from(self.expected.seats);
        // Where nobody said how many seats there are, there may be more.
        let all = |replies: &[_]| !self.expected.assumed && self.seats(replies.iter()) == seats;
        let mut replies = self.ask(WINDOW.min(self.timeout), all).await?;
        // Seats and not answers: observers answer as well.
        let quorum = |more: &[_]| self.seats(replies.iter().chain(more)) > seats / 2;
        let left = until.saturating_duration_since(Instant::now());
        if !quorum(&[]) && !left.is_zero() {
            // For a detector that was not there yet; one that answers twice counts once.
            let more = self.ask(left, quorum).await?;
            replies.extend(more);
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

    /// One round, until the answers are `enough`; no answer is an empty one.
    async fn ask(
        &self,
        limit: Duration,
        enough: impl Fn(&[v1::StatusReply]) -> bool,
    ) -> anyhow::Result<Vec<v1::StatusReply>> {
        let everybody = GroupId::new("all").expect("a name");
        let subject = Subject::Command(everybody, "status".to_owned());
        let enough = |replies: &[_]| replies.len() >= MOST || enough(replies);
        match self.nats.request_many(&subject, &v1::StatusRequest {}, limit, enough).await {
            Ok(replies) => Ok(replies),
            Err(RequestError::Timeout { .. }) => Ok(Vec::new()),
            Err(RequestError::NoResponders(_)) => {
                bail!("no detector is connected to NATS: check the detectors, and the name of the cluster")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many of the deployment's seats are among `replies`.
    fn seats<'a>(&self, replies: impl Iterator<Item = &'a v1::StatusReply>) -> usize {
        let seats = replies.filter_map(|reply| Some(reply.presence.as_ref()?.seat));
        let ours = seats.filter(|seat| (1..=u32::from(self.expected.seats)).contains(seat));
        ours.collect::<BTreeSet<_>>().len()
    }
}

/// The error for a group that no detector has.
pub(crate) fn unknown_group(group: &GroupId, known: &[String]) -> anyhow::Error {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    anyhow::anyhow!("no detector knows group {group}; known: {known}")
}
