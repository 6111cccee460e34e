//! What CloudEvents and TXT records say of epochs.

use std::{
    collections::BTreeMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// A node's epoch of a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The epoch.
    pub epoch: u64,
    /// The node.
    pub node: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with epoch {}", self.node, self.epoch)
    }
}

/// An event about one tenure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    /// When it was made, on the clock that `offset` leads to.
    pub(super) created: u64,
    /// The slot.
    pub(super) slot: u32,
    /// Who, and with which epoch.
    pub(super) claim: Claim,
    /// Whether it tells of a takeover, done or failed.
    pub(super) takeover: bool,
}

/// Reads an event; `None`: it is not about one node's epoch. `offset` is what CLOCK_REALTIME is ahead, nanoseconds.
pub(super) fn told(headers: &BTreeMap<String, String>, body: &Value, offset: u64) -> Option<Told> {
    let created: SystemTime = humantime::parse_rfc3339(headers.get("ce-time")?).ok()?;
    let wall = u64::try_from(created.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?;
    let takeover =
        matches!(headers.get("ce-type")?.as_str(), "understudy.v1.Takeover" | "understudy.v1.TakeoverFailed");
    let node = body.get("node")?.as_str()?.to_owned();
    let claim = Claim { epoch: number(body.get("epoch")?)?, node };
    // Protobuf JSON leaves out what is 0, and writes 64 bits as a string.
    let slot = body.get("slot").map_or(Some(0), number)?;
    Some(Told { created: wall.saturating_sub(offset), slot: u32::try_from(slot).ok()?, claim, takeover })
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Epoch of each slot in TXT records (`understudy=1 slot=0 epoch=1017 addresses=...`).
pub(super) fn epochs(records: &[String]) -> BTreeMap<u32, u64> {
    records.iter().filter_map(|record| Some((field(record, "slot")?, field(record, "epoch")?))).collect()
}

fn field<T: std::str::FromStr>(record: &str, name: &str) -> Option<T> {
    let words = record.split(|c: char| c.is_whitespace() || c == '"');
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}
