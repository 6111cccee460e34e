//! What concerns several keys at once, or a range that types cannot say.

use std::{collections::BTreeMap, fmt::Display};

use super::{
    group::{Flap, SlotConfig},
    load::Loading,
    problem::{Origin, Problem},
    schema::{Config, Lease, Nats},
    tree::{Path, path},
};

mod addresses;
mod groups;
mod network;
mod node;
mod scaling;
mod template;
mod timing;

pub use addresses::{MAX_GUARDS, MAX_RECORD_ADDRESSES, MAX_SLOT_NAME};
pub use timing::{RoundTripTooLong, check_round_trip};

/// Checks the whole and fills in what follows from other keys.
pub(super) fn check(config: &mut Config, loading: &mut Loading) {
    let mut checker = Checker { loading };
    timing::check(config, &mut checker);
    network::check(config, &mut checker);
    groups::check(config, &mut checker);
    addresses::check(config, &mut checker);
    node::check(config, &mut checker);
    scaling::check(config, &mut checker);
    template::check(config, &mut checker);
    complete(config);
}

/// Fills in the defaults that depend on other keys.
fn complete(config: &mut Config) {
    config.detector.deviation_floor = Some(config.detector.deviation_floor(config.lease.interval));
    for group in config.groups.values_mut() {
        group.slots.resize(usize::from(group.most_active()), SlotConfig::default());
        for slot in &mut group.slots {
            slot.address = Some(slot.record_address());
        }
    }
}

/// Collects problems and finds the place of each.
struct Checker<'a> {
    loading: &'a mut Loading,
}

impl Checker<'_> {
    fn refuse(&mut self, key: &str, message: impl Display) {
        if let Some(problem) = self.problem(key, &message) {
            self.loading.report.errors.push(problem);
        }
    }

    fn warn(&mut self, key: &str, message: impl Display) {
        if let Some(problem) = self.problem(key, &message) {
            self.loading.report.warnings.push(problem);
        }
    }

    /// Whether one of `keys` was refused before, so that its value here is not what was written.
    fn doubtful(&self, keys: &[&str]) -> bool {
        let keys: Vec<_> = keys.iter().map(|key| self.written(key)).collect();
        let related = |broken: &String| keys.iter().any(|key| within(broken, key) || within(key, broken));
        self.loading.broken.iter().any(related)
    }

    /// `key` with the indices of the file. The checks count elements as the schema has them, without those that were
    /// refused and taken out; `broken` counts these too, as people do.
    fn written(&self, key: &str) -> String {
        if self.loading.broken.is_empty() {
            return key.to_owned();
        }
        let counted = path(key);
        let written = self.loading.tree.past_holes(&counted);
        // Else as it is: names of labels may hold dots and brackets, which a path does not keep.
        if written == counted { key.to_owned() } else { Path(&written).to_string() }
    }

    fn problem(&self, key: &str, message: &dyn Display) -> Option<Problem> {
        if self.doubtful(&[key]) {
            return None;
        }
        let key = self.written(key);
        let path = path(&key);
        let (origin, value) = match self.loading.tree.find(&path) {
            Some(tree) => (tree.origin.clone(), tree.shown(&path)),
            None => (self.nearest(&key), default_of(&key).map(|value| format!("{value} (default)"))),
        };
        Some(Problem { origin, key, value, message: message.to_string() })
    }

    /// Place of the table that lacks the key, else the file as a whole.
    fn nearest(&self, key: &str) -> Origin {
        let mut path = path(key);
        while path.pop().is_some() && !path.is_empty() {
            if let Some(tree) = self.loading.tree.find(&path) {
                return tree.origin.clone();
            }
        }
        Origin::Absent { file: self.loading.file.clone() }
    }
}

/// Whether `key` is `outer` or lies below it.
fn within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Defaults that can be wrong together with something that is written.
fn default_of(key: &str) -> Option<String> {
    if key.ends_with(".flap.reuse") {
        return Some(Flap::default().reuse.to_string());
    }
    let (lease, nats) = (Lease::default(), Nats::default());
    let span = match key {
        "lease.interval" => lease.interval,
        "lease.duration" => lease.duration,
        "lease.max" => lease.max,
        "nats.ping_interval" => nats.ping_interval,
        _ => return None,
    };
    Some(format!("\"{}\"", humantime_serde::re::humantime::format_duration(span)))
}

/// Values that one key only may have, each with the key that had it first.
struct Seen<V>(BTreeMap<V, String>);

impl<V: Ord> Seen<V> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The key that had `value` first, if any.
    fn earlier(&mut self, value: V, key: &str) -> Option<String> {
        match self.0.entry(value) {
            std::collections::btree_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(key.to_owned());
                None
            }
        }
    }
}
