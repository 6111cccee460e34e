//! Defaults, file and environment to one checked [`Config`].

use std::{io, path::Path, sync::Arc};

use serde::Deserialize;

use super::{
    check,
    de::{Fault, FaultKind},
    group::{CHECK_KEYS, CHECK_KINDS},
    problem::{ConfigErrors, MAX_PROBLEMS, Origin, Problem, Report},
    schema::Config,
    tree::{HIDDEN, Path as KeyPath, Segment, Tree, Value},
};

/// Longest file that is read: a configuration has some kilobytes, so this is another file by mistake.
const MAX_FILE: u64 = 1 << 20;

impl Config {
    /// Reads defaults < file < environment and checks the whole.
    ///
    /// # Errors
    /// Every mistake that was found, in file, environment and their combination.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (config, report) = Self::examine(path, env);
        config.ok_or(ConfigErrors(report.errors))
    }

    /// Like [`Config::load`], with the warnings. There is a config exactly if there are no errors.
    pub fn examine(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> (Option<Self>, Report) {
        let Some(path) = path else { return Self::examine_text(None, env) };
        let file = path.display().to_string();
        match read(path) {
            Ok(text) => Self::examine_text(Some((&file, &text)), env),
            Err(error) => {
                let origin = Origin::Absent { file: Some(file.into()) };
                let message = format!("cannot be read: {error}");
                let problem = Problem { origin, key: String::new(), value: None, message };
                (None, Report { errors: vec![problem], warnings: Vec::new() })
            }
        }
    }

    /// Like [`Config::examine`] for a file (name, text) that is in memory.
    pub fn examine_text(
        file: Option<(&str, &str)>,
        env: impl Iterator<Item = (String, String)>,
    ) -> (Option<Self>, Report) {
        let mut loading = match file {
            Some((name, text)) => {
                let name: Arc<str> = name.into();
                let (tree, problems) = Tree::parse(&name, text);
                let report = Report { errors: problems, warnings: Vec::new() };
                Loading { file: Some(name), tree, report, broken: Vec::new() }
            }
            None => {
                Loading { file: None, tree: Tree::empty(None), report: Report::default(), broken: Vec::new() }
            }
        };
        // What follows a syntax error would be guesses.
        if !loading.report.errors.is_empty() {
            return (None, loading.report);
        }
        loading.tree.overlay(env);
        loading.finish()
    }
}

/// Examines a file alone, without the environment of this process: `understudy validate FILE`.
pub fn validate(path: &Path) -> Report {
    Config::examine(Some(path), std::iter::empty()).1
}

fn read(path: &Path) -> io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE {
        return Err(io::Error::other(format!("{length} bytes; a configuration has at most {MAX_FILE}")));
    }
    std::fs::read_to_string(path)
}

/// A configuration on its way.
pub(super) struct Loading {
    pub(super) file: Option<Arc<str>>,
    pub(super) tree: Tree,
    pub(super) report: Report,
    /// Keys that were refused and taken out: what follows from their absence is not said as well.
    pub(super) broken: Vec<String>,
}

impl Loading {
    fn finish(mut self) -> (Option<Config>, Report) {
        self.check_kinds();
        let mut config = self.build();
        if let Some(config) = &mut config {
            check::check(config, &mut self);
        }
        let config = config.filter(|_| self.report.errors.is_empty());
        (config, self.report)
    }

    /// Reads the schema; a mistake is noted and taken out, and the rest is read again, so that all are found.
    fn build(&mut self) -> Option<Config> {
        while self.report.errors.len() < MAX_PROBLEMS {
            match Config::deserialize(&self.tree) {
                Ok(config) => return Some(config),
                Err(fault) => self.amend(&fault)?,
            }
        }
        None
    }

    /// Notes a mistake and takes it out; `None` when nothing is left to go on with.
    fn amend(&mut self, fault: &Fault) -> Option<()> {
        let path = fault.path();
        match &fault.kind {
            FaultKind::Wrong(message) => self.take_out(&path, message, false),
            FaultKind::WrongBesideSecret(message) => self.take_out(&path, message, true),
            FaultKind::Missing(field) => {
                let mut missing = path.clone();
                missing.push(Segment::Key((*field).to_owned()));
                let key = KeyPath(&missing).to_string();
                if !self.broken.contains(&key) {
                    let place = self.tree_at(&path);
                    let origin = place.filter(|_| !path.is_empty()).map(|tree| tree.origin.clone());
                    let origin = origin.unwrap_or_else(|| Origin::Absent { file: self.file.clone() });
                    let message = missing_message(&key, field);
                    self.report.errors.push(Problem { origin, key: key.clone(), value: None, message });
                }
                self.broken.push(key);
                if path.is_empty() {
                    return self.stand_in(field);
                }
                self.broken.push(KeyPath(&path).to_string());
                self.tree.remove(&path).map(drop)
            }
        }
    }

    /// Lets reading go on without the one key that has no default.
    fn stand_in(&mut self, field: &str) -> Option<()> {
        let Value::Table(table) = &mut self.tree.value else { return None };
        let origin = Origin::Absent { file: self.file.clone() };
        table.insert(field.to_owned(), Tree { origin, value: Value::Text("missing".into()) });
        Some(())
    }

    fn take_out(&mut self, path: &[Segment], message: &str, hidden: bool) -> Option<()> {
        let removed = self.tree.remove(path)?;
        let key = KeyPath(path).to_string();
        let value = removed.shown(path).map(|value| if hidden { HIDDEN.to_owned() } else { value });
        // Errors of names repeat the value, which the line shows already.
        let quoted = value.as_ref().map(|value| format!("{value}: "));
        let message = quoted.and_then(|quoted| message.split_once(&quoted)).map_or(message, |(_, rest)| rest);
        let message = message.to_owned();
        self.report.errors.push(Problem { origin: removed.origin, key: key.clone(), value, message });
        self.broken.push(key);
        Some(())
    }

    fn tree_at(&self, path: &[Segment]) -> Option<&Tree> {
        self.tree.find(path)
    }

    /// Refuses keys of a check that do not belong to its kind, each at its own line.
    fn check_kinds(&mut self) {
        let Some(Tree { value: Value::Table(groups), .. }) = self.tree.find(&super::tree::path("group"))
        else {
            return;
        };
        let mut wrong = Vec::new();
        for (group, tree) in groups {
            let key = |name: &str| Segment::Key(name.to_owned());
            let Some(Tree { value: Value::List(checks), .. }) = tree.find(&[key("check")]) else { continue };
            for (index, check) in checks.iter().enumerate() {
                let base = [key("group"), key(group), key("check"), Segment::Index(index)];
                wrong.extend(wrong_keys(check).into_iter().map(|(name, message)| {
                    let path: Vec<_> = base.iter().cloned().chain([Segment::Key(name)]).collect();
                    (path, message)
                }));
            }
        }
        for (path, message) in wrong {
            self.take_out(&path, &message, false);
        }
    }
}

fn missing_message(key: &str, field: &str) -> String {
    match key {
        "cluster" => "missing; add a line such as cluster = \"demo\" before the first section".into(),
        "dns.servers" => "missing; add such as servers = [\"10.77.0.31:53\"]".into(),
        "dns.zone" => "missing; add the zone that holds the names, such as zone = \"ha.test.\"".into(),
        _ => match field {
            "kind" => format!("missing; must be one of {}", kinds()),
            "command" => {
                "missing; add the program and its arguments, such as command = [\"/usr/bin/true\"]".into()
            }
            _ => format!("missing; add {field} = ..."),
        },
    }
}

fn kinds() -> String {
    let names: Vec<_> = CHECK_KINDS.iter().map(|(kind, _)| format!("\"{kind}\"")).collect();
    names.join(", ")
}

/// The keys of one check that must not be there, each with what would be right.
fn wrong_keys(check: &Tree) -> Vec<(String, String)> {
    let Value::Table(keys) = &check.value else { return Vec::new() };
    let Some(Value::Text(kind) | Value::Given(kind)) = keys.get("kind").map(|tree| &tree.value) else {
        return Vec::new();
    };
    let Some((_, own)) = CHECK_KINDS.iter().find(|(name, _)| name == kind) else {
        return vec![("kind".into(), format!("must be one of {}", kinds()))];
    };
    let belongs = |key: &str| own.contains(&key) || CHECK_KEYS.contains(&key);
    let message = format!(
        "does not belong to a check of kind {kind:?}, which takes: {}, {}",
        own.join(", "),
        CHECK_KEYS.join(", ")
    );
    keys.keys().filter(|key| !belongs(key)).map(|key| (key.clone(), message.clone())).collect()
}
