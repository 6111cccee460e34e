//! Golden scenarios: each file holds a script, then `---`, then the whole trace it gives.
//!
//! A script line is a time and a command, in the words of the crate's [`Stage`]. With `UPDATE_SCENARIOS=1` the traces are
//! written anew, to be reviewed as a diff.

use std::{collections::BTreeSet, fs, path::Path};

/// What scripts are played on.
pub trait Stage {
    /// Time passes until `time`, in the stage's own unit.
    fn advance(&mut self, time: u64);

    /// One command of a script.
    fn command(&mut self, line: &str);

    /// All that was said.
    fn into_trace(self) -> String;
}

fn play<S: Stage>(mut stage: S, script: &str) -> String {
    for line in script.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (time, command) = line.trim().split_once(' ').expect("a line is a time and a command");
        stage.advance(time.parse().expect("a time is a whole number"));
        if command != "end" {
            stage.command(command);
        }
    }
    stage.into_trace()
}

/// Plays `name` of `folder` on a new stage, and fails if it gives another trace than the file has.
///
/// # Panics
/// When it does, or when the file is no scenario.
pub fn check(folder: &Path, name: &str, stage: impl Stage) {
    let path = folder.join(format!("{name}.txt"));
    let text = fs::read_to_string(&path).expect("the scenario is there");
    let (script, golden) = text.split_once("---\n").expect("script, ---, trace");
    let trace = play(stage, script);
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        fs::write(&path, format!("{script}---\n{trace}")).expect("the scenario can be written");
        return;
    }
    assert!(trace == golden, "{} gives another trace:\n{trace}", path.display());
}

/// Fails if `folder` has a scenario that no test plays.
///
/// # Panics
/// When it has.
pub fn check_all_played(folder: &Path, played: &[&str]) {
    let played: BTreeSet<_> = played.iter().copied().collect();
    let files = fs::read_dir(folder).expect("is a folder").map(|file| file.expect("is readable").path());
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "txt")) {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("is text");
        assert!(played.contains(stem), "{} is played by no test", file.display());
    }
}

/// A test for each scenario of `tests/scenarios`, played on what `$stage` makes, and one that none is forgotten.
#[macro_export]
macro_rules! scenarios {
    ($stage:expr; $($name:ident)*) => {
        fn folder() -> ::std::path::PathBuf {
            ::std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
        }

        $(#[test] fn $name() { $crate::check(&folder(), stringify!($name), $stage); })*

        #[test]
        fn every_file_is_played() {
            $crate::check_all_played(&folder(), &[$(stringify!($name)),*]);
        }
    };
}
