//! Every file of the corpus holds what its target asserts, without any fuzzing engine.

use std::{fs, path::PathBuf};

use understudy_fuzz::{TARGETS, corpus};

/// The inputs of a target: seeds, what fuzzing found to reach something new, and what once failed.
fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Says which input a panic is about.
struct About<'a>(&'a PathBuf);

impl Drop for About<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input: {}", self.0.display());
        }
    }
}

fn replay(target: &str) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    understudy_fuzz::run(target, b"");
    for path in &inputs {
        let about = About(path);
        understudy_fuzz::run(target, &fs::read(path).unwrap());
        drop(about);
    }
}

macro_rules! replays {
    ($($target:ident)+) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })+

        #[test]
        fn every_target_is_replayed_and_every_corpus_has_a_target() {
            let replayed = [$(stringify!($target)),+];
            let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(replayed.as_slice(), targets, "replayed, and there");
            let mut folders: Vec<_> = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            folders.sort();
            let mut sorted = targets;
            sorted.sort_unstable();
            assert_eq!(folders, sorted, "folders of the corpus, and targets");
        }
    };
}

replays! {
    heartbeat release seat_message node_message lease node_link verdict command subject event config dns_read dns_update
    dns_mark dns_pointer gate_answer neighbours address http_check grpc_check exec_check load
    metric store
}
