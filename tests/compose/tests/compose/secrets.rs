//! `make secrets`: what it makes, for whom, and as whom.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Gid, Uid, chown};

/// nobody, who may not give files away.
const NOBODY: u32 = 65534;

/// A clone with what the script needs, owned by `user`; with the program that was built here, or without any.
fn clone(folder: &Path, user: u32, built: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["scripts/make-secrets", "deploy/understudy.toml"] {
        let to = folder.join(name);
        fs::create_dir_all(to.parent().context("in a folder")?)?;
        fs::copy(root.join(name), to)?;
    }
    if built {
        fs::create_dir_all(folder.join("target/debug"))?;
        fs::copy(root.join("target/debug/understudy"), folder.join("target/debug/understudy"))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    chown(folder, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
    Ok(())
}

fn make(folder: &Path, user: u32) -> Result<()> {
    let mut command = Command::new("setpriv");
    let user = user.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    let output = command.arg(folder.join("scripts/make-secrets")).output().context("running setpriv")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Path, mode, owner and text of every file.
fn files(folder: &Path) -> Result<BTreeMap<String, (u32, u32, String)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name().to_string_lossy().into_owned())
        };
        let about = path.metadata()?;
        if about.is_dir() {
            let below = files(&path)?.into_iter().map(|(below, file)| (format!("{name}/{below}"), file));
            found.extend(below);
        } else {
            found.insert(name, (about.mode() & 0o777, about.uid(), fs::read_to_string(path)?));
        }
    }
    Ok(found)
}

#[test]
fn secrets_are_made_once_for_each_container_by_whoever_sets_it_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    clone(folder.path(), NOBODY, true)?;
    make(folder.path(), NOBODY)?;
    let secrets = folder.path().join("secrets");
    ensure!(secrets.metadata()?.mode() & 0o777 == 0o700, "others get into the folder");
    ensure!(secrets.join("authority").metadata()?.mode() & 0o777 == 0o700, "others get at the authority");
    let first = files(&secrets)?;
    for (name, (mode, ..)) in &first {
        // Containers run as other users, and nobody else can get there.
        ensure!(name.starts_with("authority/") || *mode == 0o444, "{name}: {mode:o}");
    }
    let has = |name: &str| first.contains_key(name);
    ensure!(has("heartbeat.web.web-c/heartbeat.web.web-c.nk") && has("executor.web.web-c/tsig"), "{first:?}");
    ensure!(has("detector/observer.key") && has("detector/detector.3.key"), "{first:?}");
    ensure!(
        has("autoscaler/autoscaler.web-scaler.web-scaler-2.nk") && has("executor.web.web-6/tsig"),
        "{first:?}"
    );
    for name in first.keys() {
        let (owner, file) = name.split_once('/').context("in a folder")?;
        let key = file.strip_suffix(".nk").or_else(|| file.strip_suffix(".key"));
        let own = match (owner, key) {
            ("authority", _) | (_, None) => true,
            ("detector", Some(key)) => key.starts_with("detector.") || key == "observer",
            ("autoscaler", Some(key)) => key.starts_with("autoscaler.web-scaler."),
            ("operator", Some(key)) => ["operator", "viewer"].contains(&key),
            (owner, Some(key)) => owner == key,
        };
        ensure!(own, "{owner} is given {file}");
        ensure!(owner == "authority" || !file.starts_with("operator.token"), "{owner} is given {file}");
    }
    make(folder.path(), NOBODY)?;
    ensure!(files(&secrets)? == first, "what was there is in use and stays");
    Ok(())
}

/// As whoever only has an engine: the program comes from its image.
#[test]
fn secrets_made_by_root_with_the_image_belong_to_those_who_read_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    clone(folder.path(), 0, false)?;
    make(folder.path(), 0)?;
    let made = files(&folder.path().join("secrets"))?;
    let readers = |folder: &str| match folder {
        "nats" => 0,
        "dns" => 53,
        "prometheus" => 65534,
        _ => 65532,
    };
    for (name, (mode, user, _)) in &made {
        let (owner, _) = name.split_once('/').context("in a folder")?;
        if owner != "authority" {
            ensure!((*mode, *user) == (0o440, readers(owner)), "{name}: {mode:o} of {user}");
        }
    }
    ensure!(made.contains_key("nats/nats-auth.conf") && made.contains_key("viewer/viewer.nk"), "{made:?}");
    Ok(())
}
