//! Members that the autoscaler makes on the real engine, in three groups at once: killed, taken away by hand, replaced
//! while the leader dies.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_compose::{
    Container, docker,
    yard::{Plan, Yard, each_once, three_containers},
};
use understudy_lab::wait_until;

const GROUPS: [&str; 3] = ["web", "api", "mail"];
/// For anything that must happen, but whose speed is not the point: engine and processors are shared.
const SOON: Duration = Duration::from_secs(120);

/// The last group is repaired by replacement alone.
fn plans(config: &std::path::Path) -> Vec<String> {
    let vips = [["172.29.78.10"], ["172.29.78.11"], ["172.29.78.12"]];
    let plan = |(group, vips): (&&str, [&str; 1])| {
        let scaling = format!(
            "start_up = \"30s\"\n[group.{group}.scaling.repair]\nafter = \"1s\"\nbackoff = \"1s\"\nrestart = {}",
            *group != "mail"
        );
        let template = three_containers(group, config, None);
        Plan { group, vips: &vips, scaling: &scaling, template: &template }.text()
    };
    GROUPS.iter().zip(vips).map(plan).collect()
}

/// The standby of a group.
fn standby(yard: &Yard, group: &str) -> Result<String> {
    yard.wait_whole(group, 1, 1)?.1.pop().with_context(|| format!("{group} has no standby"))
}

#[test]
fn members_of_three_groups_are_made_healed_and_replaced_once() -> Result<()> {
    let yard = Yard::up(plans)?;
    for group in GROUPS {
        yard.wait_whole(group, 1, 1)?;
        let members = yard.members(group)?;
        ensure!(members.len() == 2, "{group}: {members:?}");
        each_once(&members)?;
    }

    // A killed container of each, all at once: restarted in place, but for the group that only replaces.
    let standbys = GROUPS.map(|group| standby(&yard, group));
    let mut killed = Vec::new();
    for (group, standby) in GROUPS.into_iter().zip(standbys) {
        let workload = Container(yard.part(group, &standby?, "workload"));
        killed.push((group, workload.pid()?, workload.clone()));
        docker(&["kill", &workload.0])?;
    }
    for (group, before, workload) in &killed {
        // Restarted, or gone for good.
        let repaired = || workload.pid().map_or(workload.inspect().is_err(), |pid| pid != *before);
        wait_until("what was killed is repaired", SOON, repaired).with_context(|| workload.0.clone())?;
        ensure!(workload.inspect().is_ok() != (*group == "mail"), "{}: repaired in another way", workload.0);
        yard.wait_whole(group, 1, 1).with_context(|| format!("after {} was killed", workload.0))?;
        wait_until("two members, each whole", SOON, || {
            yard.members(group).is_ok_and(|members| members.len() == 2 && each_once(&members).is_ok())
        })
        .with_context(|| format!("{group}: {:?}", yard.members(group)))?;
    }

    // Taken away by hand, all of it.
    let gone = standby(&yard, "web")?;
    let parts = ["workload", "heartbeat", "executor"].map(|part| yard.part("web", &gone, part));
    docker(&["rm", "-f", &parts[0], &parts[1], &parts[2]])?;
    wait_until("another standby is made", SOON, || yard.members("web").is_ok_and(|now| now.len() == 2))?;
    yard.wait_whole("web", 1, 1).with_context(|| format!("after {gone} was taken away by hand"))?;

    replaced_once_though_the_leader_dies(&yard)?;
    yard.end();
    Ok(())
}

/// The leader dies when it has made one of the three containers of the member that takes a lost one's place.
fn replaced_once_though_the_leader_dies(yard: &Yard) -> Result<()> {
    let leader = yard.leader()?;
    let lost = standby(yard, "api")?;
    let parts = ["workload", "heartbeat", "executor"].map(|part| yard.part("api", &lost, part));
    docker(&["rm", "-f", &parts[2], &parts[1], &parts[0]])?;
    let begun = || yard.members("api").is_ok_and(|members| members.len() == 2);
    wait_until("a replacement has begun", SOON, begun)?;
    docker(&["kill", &leader.0])?;
    println!("{} was killed, there are {:?}", leader.0, yard.members("api"));
    let mut seen = BTreeSet::new();
    wait_until("the group is whole", SOON, || {
        let members = yard.members("api").ok()?;
        seen.extend(members.keys().cloned());
        (members.len() == 2 && each_once(&members).is_ok()).then_some(())
    })
    .with_context(|| format!("{lost} was lost; {:?}", yard.members("api")))?;
    yard.wait_whole("api", 1, 1)?;
    seen.extend(yard.members("api")?.into_keys());
    ensure!(seen.len() == 2, "for one that was lost there came two: {seen:?}");
    let other = yard.leader()?;
    ensure!(other != leader, "{} was killed and leads", leader.0);
    docker(&["start", &leader.0]).map(drop)
}
