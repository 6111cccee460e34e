//! The environment over the file: `UNDERSTUDY_<SECTION>__<KEY>`.

use std::collections::BTreeMap;

use super::{
    problem::Origin,
    tree::{Tree, Value},
};

const PREFIX: &str = "UNDERSTUDY_";

/// The one key without a section.
const CLUSTER: &str = "CLUSTER";

/// Deeper than any key; what is cut off was an unknown key anyway, and is refused as one.
const MAX_DEPTH: usize = 16;

/// The variables of this process that begin with `UNDERSTUDY_`; others, and what is not UTF-8, are left out.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.into_string().ok()?))
    })
}

impl Tree {
    /// Lays the environment over the tree. Names without `__` are not settings (but for `UNDERSTUDY_CLUSTER`): hooks
    /// are given some. An empty value counts as not set, since compose files cannot leave a variable out.
    pub(super) fn overlay(&mut self, env: impl Iterator<Item = (String, String)>) {
        // Sorted, so that the order of the environment does not matter.
        let settings: BTreeMap<String, String> = env.filter(|(_, value)| !value.is_empty()).collect();
        for (variable, value) in settings {
            let Some(key) = variable.strip_prefix(PREFIX) else { continue };
            if key != CLUSTER && !key.contains("__") {
                continue;
            }
            let segments: Vec<&str> = key.split("__").take(MAX_DEPTH).collect();
            self.insert(
                &segments,
                &Tree {
                    origin: Origin::Environment { variable: variable.clone() },
                    value: Value::Given(value),
                },
            );
        }
    }

    fn insert(&mut self, segments: &[&str], leaf: &Tree) {
        let Some((first, rest)) = segments.split_first() else {
            *self = leaf.clone();
            return;
        };
        let child = match &mut self.value {
            Value::List(list) if first.parse().is_ok_and(|index: usize| index <= list.len()) => {
                let index = first.parse().unwrap_or(list.len());
                if index == list.len() {
                    list.push(table(leaf));
                }
                &mut list[index]
            }
            Value::Table(entries) => {
                let key = existing(entries, first).unwrap_or_else(|| first.to_ascii_lowercase());
                entries.entry(key).or_insert_with(|| table(leaf))
            }
            // A value cannot have parts: the whole becomes a table, which the reader refuses by this variable's name.
            _ => {
                *self = table(leaf);
                return self.insert(segments, leaf);
            }
        };
        child.insert(rest, leaf);
    }
}

fn table(leaf: &Tree) -> Tree {
    Tree { origin: leaf.origin.clone(), value: Value::Table(BTreeMap::new()) }
}

/// The key that a variable's segment means: variables have no `-` and no small letters, group names may.
fn existing(entries: &BTreeMap<String, Tree>, segment: &str) -> Option<String> {
    entries.keys().find(|key| key.replace('-', "_").eq_ignore_ascii_case(segment)).cloned()
}
