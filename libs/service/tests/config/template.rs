//! How members are started: whose key is whose, and what an engine can be told.

use std::time::Duration;

use understudy_service::config::{Driver, Template, Workload};

use crate::{
    errors, good,
    scaling::{SCALED, one},
    warnings,
};

const TEMPLATE: &str = "group.web.scaling.template";

fn template(text: &str, env: &[(&str, &str)]) -> Template {
    let config = good(text, env);
    let group = config.groups.into_values().nth(1).unwrap();
    group.scaling.unwrap().template.unwrap()
}

#[test]
fn containers_are_read() {
    // The first path that is relative in a deployment comes from its environment.
    let volumes = "UNDERSTUDY_GROUP__WEB__SCALING__TEMPLATE__HEARTBEAT__VOLUMES";
    let template = template(SCALED, &[(volumes, "/a/heartbeat.{group}.{node}:/in:ro,b:/b")]);
    assert_eq!((template.driver, template.timeout), (Driver::Docker, Duration::from_secs(30)));
    assert_eq!(template.endpoint, "unix:///var/run/docker.sock");
    assert_eq!(template.labels["org.example.of"], "{cluster}");
    let workload = template.workload.container().unwrap();
    assert_eq!((workload.image.as_str(), workload.cpus, workload.read_only), ("web:1", 1.5, false));
    assert_eq!((workload.env["NAME"].as_str(), workload.volumes.len()), ("{node}", 2));
    assert_eq!(template.heartbeat.volumes, ["/a/heartbeat.{group}.{node}:/in:ro", "b:/b"]);
    assert_eq!(template.executor.stop_timeout, Some(Duration::from_secs(20)));
    assert_eq!(Template::of(Driver::Exec).workload, Workload::Object(String::new()));
}

#[test]
fn a_template_that_starts_nothing_is_refused() {
    one(
        "image = \"web:1\"\n",
        "",
        &format!(
            "understudy.toml:41: {TEMPLATE}.workload.image: missing; the driver \"docker\" needs it, such as image = \
             \"web:1\""
        ),
    );
    one(
        "[group.web.scaling.template.heartbeat]\nimage = \"understudy/heartbeat\"\n",
        "",
        &format!(
            "understudy.toml:38: {TEMPLATE}.heartbeat.image: missing; the driver \"docker\" needs it, such as image = \
             \"understudy/heartbeat\""
        ),
    );
    one(
        "driver = \"docker\"",
        "driver = \"podman\"",
        &format!(
            "understudy.toml:39: {TEMPLATE}.driver = \"podman\": must be one of \"docker\", \"swarm\", \"kubernetes\", \
             \"exec\""
        ),
    );
    let (before, _) = SCALED.split_once("[group.web.scaling.template.workload]").unwrap();
    let found = errors(before, &[]);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn keys_of_another_driver_are_refused() {
    one(
        "driver = \"docker\"",
        "driver = \"docker\"\nservice = \"web\"",
        &format!(
            "understudy.toml:40: {TEMPLATE}.service = \"web\": belongs to the driver \"swarm\", not to \"docker\""
        ),
    );
    let (before, _) = SCALED.split_once("driver = \"docker\"").unwrap();
    let exec = format!("{before}driver = \"exec\"\nlist = [\"a\"]\nstart = [\"a\"]\nremove = [\"a\"]\n");
    assert_eq!(template(&exec, &[]).list, ["a"]);
    let found = errors(&format!("{exec}endpoint = \"http://engine:2375\"\n"), &[]);
    let whose = "belongs to the drivers \"docker\" and \"swarm\", not to \"exec\"";
    assert_eq!(found, [format!("understudy.toml:43: {TEMPLATE}.endpoint = \"http://engine:2375\": {whose}")]);
    let swarm =
        format!("{before}driver = \"swarm\"\nservice = \"web\"\n[{TEMPLATE}.workload]\nimage = \"web:1\"\n");
    assert_eq!(template(&swarm, &[]).workload.container().unwrap().image, "web:1");
    let found = errors(&format!("{swarm}[{TEMPLATE}.executor]\nread_only = true\n"), &[]);
    assert_eq!(
        found,
        [format!(
            "understudy.toml:43: {TEMPLATE}.executor: belongs to the driver \"docker\", not to \"swarm\""
        )]
    );
    let named = format!("{before}driver = \"docker\"\nworkload = \"deployment/web\"\n");
    assert!(errors(&named, &[]).iter().any(|error| error.contains("belongs to the driver \"kubernetes\"")));
}

#[test]
fn what_an_engine_cannot_be_told_is_refused() {
    one(
        "NAME = \"{node}\"",
        "NAME = \"{nodes}\"",
        &format!(
            "understudy.toml:43: {TEMPLATE}.workload.env.NAME = (hidden): a word in braces stands for nothing; known here: \
             {{cluster}}, {{group}}, {{node}}"
        ),
    );
    one(
        "\"{cluster}\"",
        "\"{clusters}\"",
        &format!(
            "understudy.toml:40: {TEMPLATE}.labels.org.example.of: {{clusters}} stands for nothing; known here: \
             {{cluster}}, {{group}}, {{node}}"
        ),
    );
    let told = "must begin with an absolute path of the host or the name of a volume: the engine knows no other folder \
                that a path could be relative to";
    for relative in ["./in/{node}", "in/{node}", "~/in", "../in"] {
        one(
            "/srv/{group}/{node}:",
            &format!("{relative}:"),
            &format!("understudy.toml:44: {TEMPLATE}.workload.volumes[0] = \"{relative}:/in:ro\": {told}"),
        );
    }
    let shape = "must be source:target or source:target:ro, the target an absolute path";
    one(
        "data-{node}:/data",
        "data-{node}",
        &format!("understudy.toml:44: {TEMPLATE}.workload.volumes[1] = \"data-{{node}}\": {shape}"),
    );
    one(
        "stop_timeout = \"20s\"",
        "networks = [\"front\"]",
        &format!(
            "understudy.toml:52: {TEMPLATE}.executor.networks = [\"front\"]: must be left out: heartbeat and executor \
             share the network of the workload"
        ),
    );
    one(
        "driver = \"docker\"",
        "driver = \"docker\"\nendpoint = \"tcp://engine:2375\"",
        &format!(
            "understudy.toml:40: {TEMPLATE}.endpoint = \"tcp://engine:2375\": must be unix:///path or http://host:port, \
             such as unix:///var/run/docker.sock"
        ),
    );
    one(
        "[\"/tmp:size=16m\"]",
        "[\"tmp\"]",
        &format!(
            "understudy.toml:45: {TEMPLATE}.workload.tmpfs[0] = \"tmp\": must be an absolute path, with options behind a \
             colon: /tmp:mode=1777,size=16m"
        ),
    );
    one(
        "cpus = 1.5",
        "cpus = -1",
        &format!(
            "understudy.toml:47: {TEMPLATE}.workload.cpus = -1: must be a number of processors, such as 1.5; 0 is no \
             limit"
        ),
    );
}

#[test]
fn what_a_container_is_told_is_never_shown() {
    let env = "env = { MODE = \"member\", NAME = \"{node}\", LIST = \"{\\\"a\\\": {}}\" }";
    let place = format!("understudy.toml:43: {TEMPLATE}.workload");
    one(
        env,
        "env = { PGPASS = 4711 }",
        &format!("{place}.env.PGPASS = (hidden): must be a string in quotes"),
    );
    one(env, "env = [\"PGPASS=hunter2\"]", &format!("{place}.env = (hidden): must be a table"));
    let misspelt = errors(&SCALED.replacen(env, "environment = \"PGPASS=hunter2\"", 1), &[]);
    assert!(
        misspelt[0].starts_with(&format!("{place}.environment = (hidden): unknown key; known")),
        "{misspelt:?}"
    );
    let variable = "UNDERSTUDY_GROUP__WEB__SCALING__TEMPLATE__WORKLOAD__ENV";
    assert_eq!(
        errors(SCALED, &[(variable, "hunter2")]),
        [format!(
            "environment variable {variable}: {TEMPLATE}.workload.env = (hidden): must be key=value pairs with commas \
             between them"
        )]
    );
}

/// SCALED with another template, and what it is refused for.
#[track_caller]
fn kubernetes(template: &str, expected: &[&str]) {
    let (before, _) = SCALED.split_once("driver = \"docker\"").unwrap();
    let text = format!("{before}driver = \"kubernetes\"\n{template}");
    match expected {
        [] => assert_eq!(warnings(&text), [""; 0]),
        _ => assert_eq!(errors(&text, &[]), expected),
    }
}

#[test]
fn a_workload_whose_pods_cannot_be_the_members_is_refused() {
    kubernetes("namespace = \"shop\"\nworkload = \"statefulset/web\"\n", &[]);
    kubernetes(
        "namespace = \"shop\"\nworkload = \"statefulset/web\"\nkubeconfig = \"/etc/understudy/kubeconfig\"\n",
        &[],
    );
    kubernetes(
        "",
        &[
            "understudy.toml:38: group.web.scaling.template.namespace: missing; the driver \"kubernetes\" needs it, such as \
             namespace = \"default\"",
            "understudy.toml:38: group.web.scaling.template.workload: missing; the driver \"kubernetes\" needs it, such as \
             workload = \"statefulset/web\"",
        ],
    );
    let lasting =
        "must be \"statefulset/web\": only the pods of a StatefulSet have lasting names, and members must";
    for workload in ["deployment/web", "web", "replicaset/web"] {
        kubernetes(
            &format!("namespace = \"shop\"\nworkload = \"{workload}\"\n"),
            &[&format!(
                "understudy.toml:41: group.web.scaling.template.workload = \"{workload}\": {lasting}"
            )],
        );
    }
    for workload in ["statefulset/shop", "statefulset/", "statefulset/web/scale"] {
        let own = "must be \"statefulset/web\": members are named web-1, web-2, ..., and a StatefulSet names its pods \
                   after itself";
        kubernetes(
            &format!("namespace = \"shop\"\nworkload = \"{workload}\"\n"),
            &[&format!("understudy.toml:41: group.web.scaling.template.workload = \"{workload}\": {own}")],
        );
    }
    kubernetes(
        "namespace = \"shop/../x\"\nworkload = \"statefulset/web\"\nservice = \"web\"\n",
        &[
            "understudy.toml:42: group.web.scaling.template.service = \"web\": belongs to the driver \"swarm\", not to \
             \"kubernetes\"",
            "understudy.toml:40: group.web.scaling.template.namespace = \"shop/../x\": must be lower-case letters, digits and \
             hyphens",
        ],
    );
}
