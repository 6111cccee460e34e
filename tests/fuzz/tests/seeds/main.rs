//! The seeds of the corpus are real messages, made here: fuzzing starts from what the decoders accept.
//!
//! `UPDATE_SEEDS=1 cargo test -p understudy-fuzz --test seeds` writes them after a change of the formats.

mod kernel;
mod messages;
mod network;
mod texts;

use std::fs;

/// Name and bytes of one input.
type Seed = (&'static str, Vec<u8>);

fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "heartbeat" => messages::heartbeats(),
        "release" => messages::releases(),
        "seat_message" => messages::seat_messages(),
        "node_message" => messages::node_messages(),
        "lease" => messages::scripts(),
        "node_link" => messages::node_link(),
        "verdict" => messages::verdicts(),
        "command" => messages::commands(),
        "subject" => texts::subjects(),
        "event" => texts::events(),
        "config" => texts::configurations(),
        "load" => texts::loads(),
        "metric" => texts::metrics(),
        "store" => texts::values(),
        "exec_check" => texts::outputs(),
        "http_check" => network::http(),
        "grpc_check" => network::grpc(),
        "dns_read" => network::reads(),
        "dns_update" => network::updates(),
        "dns_mark" => network::marks(),
        "dns_pointer" => network::pointers(),
        "gate_answer" => kernel::gate_answers(),
        "neighbours" => kernel::neighbours(),
        "address" => kernel::addresses(),
        other => panic!("{other} has no seeds"),
    }
}

/// A piece of an input with its length before it.
fn piece(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a seed is small");
    [&length.to_be_bytes(), bytes].concat()
}

#[test]
fn every_target_has_its_seeds_in_the_corpus() {
    let update = std::env::var_os("UPDATE_SEEDS").is_some();
    for target in understudy_fuzz::TARGETS {
        let folder = understudy_fuzz::corpus().join(target.name);
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (name, bytes) in seeds {
            let path = folder.join(format!("seed-{name}"));
            if update {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, bytes).unwrap();
            } else {
                let kept = fs::read(&path).unwrap_or_default();
                assert!(kept == bytes, "{} is out of date: UPDATE_SEEDS=1 writes it", path.display());
            }
        }
    }
}
