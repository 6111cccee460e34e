//! Compiles the gRPC services without protoc. The messages are those of `understudy-wire`, so none is made twice.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(["understudy/v1/direct.proto"], [&root])?;
    tonic_prost_build::configure()
        .extern_path(".understudy.v1", "::understudy_wire::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
