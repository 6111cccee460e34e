//! Compiles the protobuf files without protoc; services are left to the bus, so that this crate stays free of I/O.

use std::{env, error::Error, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = ["heartbeat", "lease", "direct", "event", "control", "scaling"];
    let files = files.map(|name| format!("understudy/v1/{name}.proto"));
    let descriptors = protox::compile(files, [&root])?;

    let bytes = descriptors.encode_to_vec();
    prost_build::Config::new().compile_fds(descriptors)?;
    // Readers of events may be a version older than who writes them.
    let mut json = pbjson_build::Builder::new();
    json.register_descriptors(&bytes)?.ignore_unknown_fields().build(&[".understudy.v1"])?;
    Ok(())
}
