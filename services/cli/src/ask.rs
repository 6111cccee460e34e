//! Asks all detectors how things stand.

use std::{collections::BTreeSet, time::Duration};

use understudy_bus::nats::RequestError;
use understudy_wire::{GroupId, Subject, v1};

use crate::{
    overview::{Overview, merge},
    session::Session,
};

/// How long a detector has to answer. They answer from memory, so one that has not by then is stopped or cut off; a
/// round trip through a NATS cluster takes below 1 ms, and 200 ms over the worst line.
const WINDOW: Duration = Duration::from_millis(300);

/// Answers taken in one round: more detectors than any deployment has.
const MOST: usize = 64;

impl Session {
    /// What all detectors together see. Returns as soon as every seat has answered, else after [`WINDOW`].
    ///
    /// # Errors
    /// When no detector answers at all.
    pub(crate) async fn overview(&self) -> anyhow::Result<Overview> {
        let window = WINDOW.min(self.timeout);
        let expected = if self.expected.assumed { MOST } else { usize::from(self.expected.seats) };
        let mut replies = self.ask(window, expected).await.map_err(|error| no_answer(&error, window))?;
        // Observers answer as well and may have been faster than a seat: then everybody is heard out.
        if replies.len() >= expected && self.seats(&replies) < expected {
            replies.extend(self.ask(window, MOST).await.map_err(|error| no_answer(&error, window))?);
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

    async fn ask(&self, window: Duration, expected: usize) -> Result<Vec<v1::StatusReply>, RequestError> {
        let everybody = GroupId::new("all").expect("a name");
        let subject = Subject::Command(everybody, "status".to_owned());
        self.nats.request_many(&subject, &v1::StatusRequest {}, window, expected).await
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

fn no_answer(error: &RequestError, window: Duration) -> anyhow::Error {
    match error {
        RequestError::NoResponders(_) => {
            anyhow::anyhow!(
                "no detector is connected to NATS: check the detectors, and the name of the cluster"
            )
        }
        RequestError::Timeout { .. } => {
            anyhow::anyhow!("no detector answered within {window:?}, though some are connected to NATS")
        }
        other => anyhow::anyhow!("{other}"),
    }
}
