//! `understudy nats-auth FILE --keys DIR`: accounts, users and permissions for the NATS servers' configuration.

use std::fmt::Write as _;

use anyhow::Context as _;
use nkeys::KeyPair;
use understudy_bus::{Identity, Permissions};
use understudy_service::exit;
use understudy_wire::ClusterId;

use crate::{
    args::NatsAuth,
    credentials::{Folder, configuration, owners},
    output,
};

pub(super) fn run(args: &NatsAuth) -> anyhow::Result<u8> {
    let config = configuration(&args.file)?;
    let folder = Folder::at(&args.keys);
    let users = owners(&config).into_iter().map(|owner| {
        let file = format!("{owner}.pub");
        let key = folder
            .read(&file)?
            .with_context(|| format!("{} has no {file}: run understudy certs", args.keys.display()))?;
        let key = KeyPair::from_public_key(key.trim()).with_context(|| format!("reading {file}"))?;
        anyhow::Ok((owner, key.public_key()))
    });
    let users: Vec<_> = users.collect::<Result<_, _>>()?;
    output::print(&describe(&config.cluster, &users))?;
    Ok(exit::OK)
}

/// The servers' configuration: an account of the deployment's own, so that other users of the same servers see nothing
/// of it.
fn describe(cluster: &ClusterId, users: &[(Identity, String)]) -> String {
    let mut text = format!(
        "# Made by understudy nats-auth for cluster {cluster}. Do not edit: change the configuration and make it anew.\n\
         accounts {{\n  \"understudy_{cluster}\" {{\n    jetstream: enabled\n    users: [\n"
    );
    for (owner, key) in users {
        let permissions = Permissions::of(owner, cluster, key);
        let answers = if permissions.answers {
            "          allow_responses: { max: 1, expires: \"10s\" }\n"
        } else {
            ""
        };
        let _ = write!(
            text,
            "      # {owner}\n      {{\n        nkey: \"{key}\"\n        permissions: {{\n          publish: [\n{}          ]\n          \
             subscribe: [\n{}          ]\n{answers}        }}\n      }}\n",
            list(&permissions.publish),
            list(&permissions.subscribe),
        );
    }
    text + "    ]\n  }\n}\n"
}

fn list(subjects: &[String]) -> String {
    subjects.iter().map(|subject| format!("            \"{subject}\"\n")).collect()
}

#[cfg(test)]
mod tests {
    use understudy_wire::{GroupId, NodeId};

    use super::*;

    #[test]
    fn a_heartbeat_may_speak_for_its_node_and_hear_where_detectors_are() {
        let owner = Identity::Heartbeat(GroupId::new("web").unwrap(), NodeId::new("web-a").unwrap());
        let golden = r#"# Made by understudy nats-auth for cluster demo. Do not edit: change the configuration and make it anew.
accounts {
  "understudy_demo" {
    jetstream: enabled
    users: [
      # heartbeat.web.web-a
      {
        nkey: "UKEY"
        permissions: {
          publish: [
            "understudy.demo.heartbeat.web.web-a"
            "understudy.demo.member.web.web-a"
            "understudy.demo.release.web.web-a"
          ]
          subscribe: [
            "understudy.demo.detector.*"
            "understudy.demo.heartbeat.web.web-a"
            "_INBOX.UKEY.>"
          ]
        }
      }
    ]
  }
}
"#;
        let cluster = ClusterId::new("demo").unwrap();
        assert_eq!(describe(&cluster, &[(owner, "UKEY".to_owned())]), golden);
        let detector = describe(&cluster, &[(Identity::Detector(1), "UKEY".to_owned())]);
        assert!(detector.contains("allow_responses: { max: 1, expires: \"10s\" }"), "{detector}");
    }
}
