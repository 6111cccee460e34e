//! `certs` and `nats-auth`: what they write, and that a real NATS server takes it.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tempfile::TempDir;
use understudy_lab::tool;

use crate::support::run;

const CONFIG: &str = "cluster = \"demo\"\n[nats]\nservers = [\"nats://10.77.0.11:4222\", \"tls://nats-2:4222\", \"[fd77::13]:4222\"]\n\
                      [group.web]\nmembers = [\"web-a\"]\n[[group.web.slot]]\nvips = [\"10.77.0.100/24\"]\n";

/// Name, mode and text of every file.
fn files(folder: &Path) -> BTreeMap<String, (u32, String)> {
    let read = |entry: fs::DirEntry| {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        (entry.file_name().into_string().unwrap(), (mode, fs::read_to_string(entry.path()).unwrap()))
    };
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn credentials_are_made_once_and_for_new_members_only() {
    let dir = TempDir::new().unwrap();
    let (config, folder) = (dir.path().join("ha.toml"), dir.path().join("certs"));
    fs::write(&config, CONFIG).unwrap();
    let certs = || run(&["certs", text(&config), "--dir", text(&folder)]);
    let ended = certs();
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let first = files(&folder);
    for (name, (mode, _)) in &first {
        let public = name.ends_with(".pem") || name.ends_with(".pub");
        assert_eq!(*mode, if public { 0o644 } else { 0o600 }, "{name}");
    }
    assert!(first.contains_key("detector.3.key") && first.contains_key("operator.nk"));
    assert!(!first.contains_key("viewer.pem"), "who does not listen needs no certificate");

    fs::write(&config, CONFIG.replace("\"web-a\"", "\"web-a\", \"web-b\"")).unwrap();
    assert_eq!(certs().code, 0);
    let mut second = files(&folder);
    let added: Vec<_> = second.keys().filter(|name| !first.contains_key(*name)).cloned().collect();
    assert_eq!(added.len(), 8, "{added:?}");
    assert!(added.iter().all(|name| name.contains(".web.web-b.")), "{added:?}");
    second.retain(|name, _| first.contains_key(name));
    assert!(second == first, "what was there is in use and stays");
}

#[test]
fn a_nats_server_takes_the_accounts() {
    let dir = TempDir::new().unwrap();
    let (config, folder) = (dir.path().join("ha.toml"), dir.path().join("certs"));
    fs::write(&config, CONFIG).unwrap();
    let auth = || run(&["nats-auth", text(&config), "--keys", text(&folder)]);
    let ended = auth();
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("has no heartbeat.web.web-a.pub: run understudy certs"), "{}", ended.err);
    assert_eq!(run(&["certs", text(&config), "--dir", text(&folder)]).code, 0);
    let ended = auth();
    assert_eq!(ended.code, 0, "{}", ended.err);
    fs::write(dir.path().join("nats-auth.conf"), ended.out).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let server = format!(
        "listen: \"127.0.0.1:4222\"\njetstream {{ store_dir: {:?} }}\ntls {{\n  cert_file: {:?}\n  key_file: {:?}\n  ca_file: {:?}\n}}\n\
         include \"nats-auth.conf\"\n",
        dir.path().join("store"),
        file("nats.pem"),
        file("nats.key"),
        file("nats-ca.pem"),
    );
    let conf = dir.path().join("nats.conf");
    fs::write(&conf, server).unwrap();
    let tested = Command::new(tool("nats-server").unwrap()).arg("-t").arg("-c").arg(conf).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[test]
fn a_group_without_members_is_told() {
    let dir = TempDir::new().unwrap();
    let (config, folder) = (dir.path().join("ha.toml"), dir.path().join("certs"));
    fs::write(&config, CONFIG.replace("members = [\"web-a\"]\n", "")).unwrap();
    let ended = run(&["certs", text(&config), "--dir", text(&folder)]);
    assert_eq!(ended.code, 0);
    assert!(ended.err.contains("no node has a credential: set group.<name>.members"), "{}", ended.err);
}

#[test]
fn a_command_comes_as_who_may_do_it() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("ha.toml");
    let files = format!("nkey_file = \"{}/{{owner}}.nk\"\n[group.web]", dir.path().display());
    fs::write(&config, CONFIG.replace("[group.web]", &files)).unwrap();
    let member = ["--group", "web", "--node", "web-a"];
    for (owner, command) in [
        ("viewer", &["status"][..]),
        ("viewer", &["events"]),
        ("viewer", &["maintenance", "list"]),
        ("operator", &["switchover", "--group", "web"]),
        ("operator", &[&["maintenance", "on"], &member[..]].concat()),
    ] {
        let ended = run(&[command, &["--config", text(&config)]].concat());
        let file = format!("reading nats.nkey_file = \"{}/{owner}.nk\"", dir.path().display());
        assert!(ended.code == 1 && ended.err.contains(&file), "{command:?}: {}", ended.err);
    }
}
