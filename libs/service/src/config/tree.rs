//! The configuration as a tree of values that know where they stand.

use std::{collections::BTreeMap, fmt, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{MAX_PROBLEMS, Origin, Problem};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What TOML and the environment can say.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Table(BTreeMap<String, Tree>),
    List(Vec<Tree>),
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Datetime(String),
    /// Text of the environment, whose type only the reader knows.
    Given(String),
    /// An element that was taken out of a list; the others keep their index.
    Hole,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// `group.web.slot[0]`
pub(super) struct Path<'a>(pub(super) &'a [Segment]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Reads `group.web.slot[0]`.
pub(super) fn path(text: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    for part in text.split('.') {
        let mut pieces = part.split('[');
        segments.push(Segment::Key(pieces.next().unwrap_or_default().to_owned()));
        segments
            .extend(pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()).map(Segment::Index));
    }
    segments
}

/// Values at and below these keys are never shown. The environment of a container (`env`) is where images look for
/// passwords, under names of their own.
pub(super) const SENSITIVE: &[&str] = &["password", "secret", "key", "env"];

/// Whether the value of `key` is a secret, also where the key is unknown or in capitals; the name of a file is none.
fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let named = ["password", "secret"].iter().any(|word| key.contains(word));
    SENSITIVE.contains(&key.as_str()) || (named && !key.ends_with("_file"))
}

/// What is shown instead of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Longest value that a message shows.
const MAX_SHOWN: usize = 100;

impl Tree {
    /// An empty table.
    pub(super) fn empty(file: Option<Arc<str>>) -> Self {
        Self { origin: Origin::Absent { file }, value: Value::Table(BTreeMap::new()) }
    }

    /// Parses TOML; with a syntax error, what could be understood and the first [`MAX_PROBLEMS`] errors.
    pub(super) fn parse(file: &Arc<str>, text: &str) -> (Self, Vec<Problem>) {
        let place = Place::new(file, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let problems = errors.iter().take(MAX_PROBLEMS).map(|error| Problem {
            origin: place.origin(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            value: None,
            // Not Display, which would quote the line, and with it maybe a password.
            message: format!("not TOML: {}", error.message()),
        });
        let root = Self { origin: place.origin(0), value: place.table(table.get_ref()) };
        (root, problems.collect())
    }

    /// The value at `path`, holes counted.
    pub(super) fn find(&self, path: &[Segment]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let child = match (&self.value, first) {
            (Value::Table(table), Segment::Key(key)) => table.get(key),
            (Value::List(list), Segment::Index(index)) => list.get(*index),
            _ => None,
        };
        child?.find(rest)
    }

    /// A path that does not count holes as one that does. What the tree does not have stays as it is.
    pub(super) fn past_holes(&self, path: &[Segment]) -> Vec<Segment> {
        let mut here = Some(self);
        let mut counted = Vec::with_capacity(path.len());
        for segment in path {
            let (segment, child) = match (here.map(|tree| &tree.value), segment) {
                (Some(Value::List(list)), Segment::Index(index)) => {
                    let mut kept =
                        list.iter().enumerate().filter(|(_, tree)| !matches!(tree.value, Value::Hole));
                    match kept.nth(*index) {
                        Some((at, tree)) => (Segment::Index(at), Some(tree)),
                        None => (segment.clone(), None),
                    }
                }
                (Some(Value::Table(table)), Segment::Key(key)) => (segment.clone(), table.get(key)),
                _ => (segment.clone(), None),
            };
            counted.push(segment);
            here = child;
        }
        counted
    }

    /// Takes out what stands at `path`, holes counted.
    pub(super) fn remove(&mut self, path: &[Segment]) -> Option<Self> {
        let (first, rest) = path.split_first()?;
        match (&mut self.value, first) {
            (Value::Table(table), Segment::Key(key)) if rest.is_empty() => table.remove(key),
            (Value::Table(table), Segment::Key(key)) => table.get_mut(key)?.remove(rest),
            (Value::List(list), Segment::Index(index)) => {
                let child = list.get_mut(*index)?;
                if rest.is_empty() {
                    let value = std::mem::replace(&mut child.value, Value::Hole);
                    Some(Self { origin: child.origin.clone(), value })
                } else {
                    child.remove(rest)
                }
            }
            _ => None,
        }
    }

    /// The value as a message shows it; `None` for tables.
    pub(super) fn shown(&self, path: &[Segment]) -> Option<String> {
        let hidden = path.iter().any(|segment| matches!(segment, Segment::Key(key) if is_sensitive(key)));
        if matches!(self.value, Value::Table(_) | Value::Hole) {
            return None;
        }
        if hidden {
            return Some(HIDDEN.into());
        }
        let text = self.to_string();
        Some(match text.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        })
    }
}

/// As it would be written in TOML.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Table(_) => f.write_str("{...}"),
            Value::List(list) => {
                f.write_str("[")?;
                for (index, tree) in list.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{tree}")?;
                }
                f.write_str("]")
            }
            Value::Text(text) | Value::Given(text) => write!(f, "{:?}", without_credentials(text)),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Datetime(text) => f.write_str(text),
            Value::Hole => f.write_str("..."),
        }
    }
}

/// `nats://user:password@host` without the middle part.
fn without_credentials(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://(hidden)@{host}"),
            None => format!("(hidden)@{host}"),
        },
        None => text.to_owned(),
    }
}

/// A file while it is taken over.
struct Place<'a> {
    file: &'a Arc<str>,
    /// Where each line but the first begins; counting them anew for every value would take seconds for a large file.
    lines: Vec<usize>,
}

impl<'a> Place<'a> {
    fn new(file: &'a Arc<str>, text: &str) -> Self {
        Self { file, lines: text.match_indices('\n').map(|(end, _)| end + 1).collect() }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = 1 + self.lines.partition_point(|begin| *begin <= offset);
        Origin::File { file: self.file.clone(), line }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let origin = self.origin(key.span().start);
            (key.get_ref().clone().into_owned(), Tree { origin, value: self.value(value.get_ref()) })
        };
        Value::Table(table.iter().map(entry).collect())
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Text(number.to_string()),
            },
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(list) => Value::List(
                list.iter()
                    .map(|item| Tree {
                        origin: self.origin(item.span().start),
                        value: self.value(item.get_ref()),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => self.table(table),
        }
    }
}
