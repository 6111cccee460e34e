//! What a pod says of the member in it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::driver::State;

/// Failure domain of a pod that its labels do not name: the machine it runs on.
const HOST: &str = "kubernetes.io/hostname";
/// Characters that are kept of a cause.
const MAX_CAUSE: usize = 200;
/// What a container waits for when nothing is wrong.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// How far a member is.
pub(super) fn state(pod: &Pod) -> State {
    if pod.metadata.deletion_timestamp.is_some() {
        return State::Ended("it is being deleted".into());
    }
    let Some(status) = &pod.status else { return State::Starting };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let first = status.init_container_statuses.as_deref().unwrap_or_default();
    let trouble = first.iter().find_map(|container| trouble(container, true));
    let trouble = trouble.or_else(|| containers.iter().find_map(|container| self::trouble(container, false)));
    if let "Failed" | "Succeeded" = status.phase.as_deref().unwrap_or_default() {
        // Evicted, or lost with its machine: said of the pod, not of a container.
        let reason = status.reason.as_deref().map(|reason| with_message(reason, status.message.as_deref()));
        let cause = reason.or(trouble).unwrap_or_else(|| "it has ended".into());
        return State::Ended(super::short(&cause, MAX_CAUSE));
    }
    if let Some(cause) = trouble {
        return State::Ended(super::short(&cause, MAX_CAUSE));
    }
    let runs =
        |container: &ContainerStatus| container.state.as_ref().is_some_and(|state| state.running.is_some());
    if !containers.is_empty() && containers.iter().all(runs) { State::Running } else { State::Starting }
}

/// Why a container does not run, if it should: "container web exited with 127 (CrashLoopBackOff)". Those that only
/// prepare the pod (`initial`) are to end well.
fn trouble(container: &ContainerStatus, initial: bool) -> Option<String> {
    let state = container.state.as_ref()?;
    let name = &container.name;
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().filter(|reason| !["Error", "Completed"].contains(reason));
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let well = initial && ended.exit_code == 0;
        return (!well).then(|| format!("container {name} exited with {}{reason}", ended.exit_code));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !USUAL.contains(reason))?;
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    Some(match last {
        Some(ended) => format!("container {name} exited with {} ({reason})", ended.exit_code),
        None => format!("container {name}: {}", with_message(reason, waiting.message.as_deref())),
    })
}

fn with_message(reason: &str, message: Option<&str>) -> String {
    message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"))
}

/// Failure domains: the labels of the pod, and the machine.
pub(super) fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    if let Some(host) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
        labels.entry(HOST.to_owned()).or_insert(host);
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: &serde_json::Value) -> State {
        state(&serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap())
    }

    #[track_caller]
    fn ended(status: &serde_json::Value, cause: &str) {
        assert_eq!(of(status), State::Ended(cause.into()));
    }

    #[test]
    fn a_pod_runs_when_all_its_containers_do() {
        let running = json!({ "name": "web", "state": { "running": {} } });
        let waits =
            |reason: &str| json!({ "name": "executor", "state": { "waiting": { "reason": reason } } });
        assert_eq!(of(&json!({ "containerStatuses": [running, running] })), State::Running);
        assert_eq!(
            of(&json!({ "containerStatuses": [running, waits("ContainerCreating")] })),
            State::Starting
        );
        assert_eq!(of(&json!({ "phase": "Pending" })), State::Starting, "no machine has room for it");
        let prepared = json!({ "name": "copy", "state": { "terminated": { "exitCode": 0 } } });
        let status = json!({ "initContainerStatuses": [prepared], "containerStatuses": [running] });
        assert_eq!(of(&status), State::Running);
        let prepares = json!({ "name": "copy", "state": { "running": {} } });
        let status =
            json!({ "initContainerStatuses": [prepares], "containerStatuses": [waits("PodInitializing")] });
        assert_eq!(of(&status), State::Starting);
    }

    #[test]
    fn why_it_does_not_run_is_said() {
        let one = |state: serde_json::Value, last: serde_json::Value| json!({ "containerStatuses": [{ "name": "web", "state": state, "lastState": last }] });
        let pull = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image \"web:2\"" } });
        ended(&one(pull, json!({})), "container web: ImagePullBackOff: Back-off pulling image \"web:2\"");
        let back_off = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } });
        let last = json!({ "terminated": { "exitCode": 127, "reason": "Error" } });
        ended(&one(back_off, last), "container web exited with 127 (CrashLoopBackOff)");
        let error = json!({ "terminated": { "exitCode": 127, "reason": "Error" } });
        ended(&one(error, json!({})), "container web exited with 127");
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        ended(&one(killed, json!({})), "container web exited with 137 (OOMKilled)");
        // It is to serve for ever.
        let done = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
        ended(&one(done, json!({})), "container web exited with 0");
        let evicted =
            json!({ "phase": "Failed", "reason": "Evicted", "message": "the node was low on memory" });
        ended(&evicted, "Evicted: the node was low on memory");
        ended(&json!({ "phase": "Failed" }), "it has ended");
        let copy = json!({ "name": "copy", "state": { "terminated": { "exitCode": 2 } } });
        ended(&json!({ "initContainerStatuses": [copy] }), "container copy exited with 2");
    }

    #[test]
    fn a_pod_on_its_way_out_is_no_member_any_more() {
        let pod = json!({
            "metadata": { "deletionTimestamp": "2026-01-05T08:00:00Z" },
            "status": { "containerStatuses": [{ "name": "web", "state": { "running": {} } }] }
        });
        let state = state(&serde_json::from_value(pod).unwrap());
        assert_eq!(state, State::Ended("it is being deleted".into()));
    }

    #[test]
    fn failure_domains_are_labels_and_the_machine() {
        let pod = json!({ "metadata": { "labels": { "rack": "r1" } }, "spec": { "nodeName": "n7", "containers": [] } });
        let labels = labels(&serde_json::from_value(pod).unwrap());
        assert_eq!(labels, BTreeMap::from([("rack".into(), "r1".into()), (HOST.into(), "n7".into())]));
    }
}
