//! The pure crates stay pure: nothing that does I/O, keeps time or rolls dice may enter their dependencies.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const PURE: [&str; 3] = ["understudy-lease", "understudy-detection", "understudy-scaling"];
const IMPURE: [&str; 9] =
    ["tokio", "async-nats", "tonic", "rand", "rand_core", "getrandom", "socket2", "nix", "rtnetlink"];

/// Names of everything that `package` is built with, dev-dependencies and build scripts left out.
fn closure(metadata: &Metadata, package: &PackageId) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().expect("cargo resolves the workspace").nodes;
    let mut names = BTreeSet::new();
    let mut open = vec![package.clone()];
    while let Some(id) = open.pop() {
        let node = nodes.iter().find(|node| node.id == id).expect("every dependency has a node");
        if names.insert(metadata[&id].name.to_string()) {
            let normal = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            });
            open.extend(normal.map(|dependency| dependency.pkg.clone()));
        }
    }
    names
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let metadata = MetadataCommand::new().exec().expect("cargo metadata runs");
    for name in PURE {
        let package = metadata.packages.iter().find(|package| package.name == name).expect("is a member");
        let names = closure(&metadata, &package.id);
        let found: Vec<_> = IMPURE.iter().filter(|impure| names.contains(**impure)).collect();
        assert!(found.is_empty(), "{name} depends on {found:?}");
    }
}

#[test]
fn pure_crates_use_no_clock_no_files_and_no_unordered_maps() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    for name in PURE {
        let package = metadata.packages.iter().find(|package| package.name == name).expect("is a member");
        let sources = package.manifest_path.parent().expect("has a folder").join("src");
        for file in std::fs::read_dir(&sources).expect("has sources") {
            let path = file.expect("is readable").path();
            let text = std::fs::read_to_string(&path).expect("is text");
            for word in
                ["Instant::now", "SystemTime", "HashMap", "HashSet", "std::fs", "std::net", "std::thread"]
            {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}
