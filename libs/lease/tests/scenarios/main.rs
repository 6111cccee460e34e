//! Golden scenarios, one for each rule: `*.txt` here holds a script, then `---`, then the whole trace it gives.
//!
//! A script line is a time in ms and a command (see `stage.rs`). With `UPDATE_SCENARIOS=1` the traces are written anew,
//! to be reviewed as a diff.

mod stage;

use std::{fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn play(script: &str) -> String {
    let mut stage = stage::Stage::new();
    for line in script.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (time, command) = line.trim().split_once(' ').expect("a line is a time and a command");
        stage.advance(time.parse().expect("a time in ms"));
        if command != "end" {
            stage.command(command);
        }
    }
    stage.into_trace()
}

fn check(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = fs::read_to_string(&path).expect("the scenario is there");
    let (script, golden) = text.split_once("---\n").expect("script, ---, trace");
    let trace = play(script);
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        fs::write(&path, format!("{script}---\n{trace}")).expect("the scenario can be written");
        return;
    }
    assert!(trace == golden, "{} gives another trace:\n{trace}", path.display());
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_file_is_played() {
            let played = [$(stringify!($name)),*];
            let files = fs::read_dir(folder()).expect("is a folder").map(|file| file.expect("is readable").path());
            for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "txt")) {
                let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("is text").to_owned();
                assert!(played.contains(&stem.as_str()), "{} is played by no test", file.display());
            }
        }
    };
}

scenarios! {
    r01_r03_crash
    r02_deaf_holder
    r02_new_incarnation
    r03_nobody
    r06_restart
    r06_store_down
    r08_switchover
    r08_late_release
    r09_split_vote
    r10_unhealthy
    r10_nobody_better
    r11_fenced
    r13_away_for_t
    r13_late_seats
    seat_rival
}
