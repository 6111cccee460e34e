//! Leaders that stand still, operators who pause, hands that remove members, and drivers that fail, hang and lie.

use super::*;

/// Three run and one acts. It is stopped in the middle of a replacement; another finishes it, once, and the first does
/// nothing when it goes on.
#[test]
fn a_leader_that_stands_still_is_followed_and_acts_no_more() -> Result<()> {
    let stage = Stage::with("the leader of three stopped with SIGSTOP", plan("still"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scalers = Autoscaler::start(deployment, 3)?;
    let first = leader(&scalers)?;

    fs::write(yard.folder().join("hold"), "")?;
    deployment.node("web-b").kill()?;
    wait_until("a replacement has begun", SOON, || !yard.calls("began").is_empty())?;
    first.process.stop()?;
    let others = || scalers.iter().filter(|one| one.name() != first.name());
    let heirs = || others().filter(|one| one.leads().unwrap_or(false)).count();
    wait_until("another leads", SOON, || heirs() == 1)?;
    fs::remove_file(yard.folder().join("hold"))?;
    let standby = yard.wait_status("a new standby is ready", |status| {
        Some(status["groups"][0]["ready_standbys"][0].as_str()?.to_owned())
    })?;
    first.process.cont()?;
    wait_until("the first knows that it leads no more", SOON, || first.leads().is_ok_and(|leads| !leads))?;
    ensure!(heirs() == 1, "{} of the others lead", heirs());
    wait_until("nothing is left to do", SOON, || {
        yard.tend().ok()?;
        explained(deployment)?.contains("1 of 1 standbys are ready").then_some(())
    })?;
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    drop((scalers, yard));
    stage.end()
}

#[test]
fn a_group_that_is_paused_is_left_alone_until_it_is_resumed() -> Result<()> {
    let stage = Stage::with("a standby lost while the group is paused", plan("paused"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;
    let steer = |word: &str| {
        let output = deployment.understudy_as("operator", &["scaling", word, "--group", "web"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };

    let said = steer("pause")?;
    ensure!(said.contains("paused by "), "it does not say who has paused: {said}");
    deployment.node("web-b").kill()?;
    let missing = |text: &String| {
        text.contains("0 of 1 standbys ready") && text.contains("steering refused: paused by ")
    };
    let told = wait_until("the loss is seen, and why nothing is done", SOON, || {
        explained(deployment).filter(missing)
    })?;
    // Far more than the patience with a failed member, which is an interval here.
    let turns = || scaler.metric("understudy_decision_seconds_count");
    let enough = turns()? + 8.0;
    wait_until("more turns have passed", SOON, || turns().is_ok_and(|turns| turns >= enough))?;
    ensure!(yard.calls("").is_empty(), "paused, and yet: {:?} ({told})", yard.calls(""));

    steer("resume")?;
    yard.wait_status("a new standby is ready", |status| {
        status["groups"][0]["ready_standbys"].get(0).map(drop)
    })?;
    ensure!(yard.calls("made").len() == 1, "started: {:?}", yard.calls(""));
    drop((scaler, yard));
    stage.end()
}

/// Somebody takes a standby away behind the driver's back: one is missing, so one is started, and that is all.
#[test]
fn a_member_that_is_removed_by_hand_is_made_good_once() -> Result<()> {
    let stage = Stage::with("a standby removed by hand", plan("byhand"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;
    wait_until("nothing is wanted", SOON, || {
        explained(deployment)?.contains("1 of 1 standbys are ready").then_some(())
    })?;

    fs::remove_file(yard.folder().join("members/web-b"))?;
    let standby = yard.wait_status("a new standby is ready", |status| {
        let ready = status["groups"][0]["ready_standbys"][0].as_str()?;
        (ready != "web-b").then(|| ready.to_owned())
    })?;
    wait_until("nothing is left to do", SOON, || {
        yard.tend().ok()?;
        explained(deployment)?.contains("1 of 1 standbys are ready").then_some(())
    })?;
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    drop((scaler, yard));
    stage.end()
}

/// Each is survived and its reason told; the slot does not notice, and once the driver does what it says all is well.
#[test]
fn a_driver_that_fails_then_hangs_then_lies_is_survived_and_reported() -> Result<()> {
    let mut plan = plan("driver");
    let scaling = plan.scaling.as_mut().context("the plan is scaled")?;
    scaling.rules += "restart = false\nbackoff = \"1s\"\nbackoff_max = \"1s\"\nbudget = 1000\n";
    let timeout = ["scaler-1", "UNDERSTUDY_GROUP__WEB__SCALING__TEMPLATE__TIMEOUT", "2s"].map(str::to_owned);
    plan.environment.push(timeout.into());
    let stage = Stage::with("a driver that fails, hangs and lies", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;

    let since = stage.probe.mark();
    let file = |word: &str| yard.folder().join(word);
    fs::write(file("fails"), "")?;
    deployment.node("web-b").kill()?;
    for (word, next, reason) in [
        (
            "fails",
            Some("hangs"),
            "it cannot be started: /bin/sh ended with exit status: 3: the quota is spent",
        ),
        ("hangs", Some("lies"), "it cannot be started: starting: no answer within 2s"),
        (
            "lies",
            None,
            "it cannot be started: the driver has said 3 times that it is done, and does not list it",
        ),
    ] {
        // Each try that is not believed waits for six intervals.
        wait_until(&format!("a driver that {word} is reported"), SOON * 2, || {
            let output = deployment.understudy(&["scaling", "explain", "--group", "web"]).ok()?;
            String::from_utf8_lossy(&output.stdout).contains(reason).then_some(())
        })?;
        if let Some(next) = next {
            fs::write(file(next), "")?;
        }
        fs::remove_file(file(word))?;
    }
    yard.wait_status("a new standby is ready", |status| {
        status["groups"][0]["ready_standbys"].get(0).map(drop)
    })?;
    ensure!(yard.calls("made").len() == 1, "started: {:?}", yard.calls(""));
    let (gap, _) = stage.gap_since(since);
    ensure!(gap < 300.0, "the slot that was not concerned had a gap of {gap:.1} ms");
    drop((scaler, yard));
    stage.end()
}

/// The last repair of the hour has failed: that is told on NATS, with the cause, and nothing more is tried until an
/// operator gives the budget anew.
#[test]
fn a_budget_that_is_spent_is_told_and_nothing_is_tried_until_it_is_given_anew() -> Result<()> {
    let mut plan = plan("budget");
    let scaling = plan.scaling.as_mut().context("the plan is scaled")?;
    scaling.rules += "restart = false\nbackoff = \"1s\"\nbackoff_max = \"1s\"\nbudget = 2\n";
    let stage = Stage::with("a driver that always fails, the repair budget spent", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;

    fs::write(yard.folder().join("fails"), "")?;
    deployment.node("web-b").kill()?;
    let told = || {
        let events = stage.events().ok()?.into_iter().filter(|event| event["kind"] == "scaling");
        let findings =
            events.flat_map(|event| event["data"]["findings"].as_array().cloned().unwrap_or_default());
        let budget: Vec<_> = findings.filter(|finding| finding["rule"] == "SCALING_RULE_BUDGET").collect();
        (!budget.is_empty()).then_some(budget)
    };
    let spent = wait_until("the end of the budget is told", SOON, told)?;
    ensure!(spent[0]["outcome"] == "SCALING_OUTCOME_REFUSED", "{spent:?}");
    let cause = "it cannot be started: /bin/sh ended with exit status: 3: the quota is spent";
    ensure!(
        spent[0]["reason"] == format!("web: 2 replacements in 1 min, stopped; cause: {cause}").as_str(),
        "{spent:?}"
    );
    let turns = || scaler.metric("understudy_decision_seconds_count");
    let enough = turns()? + 8.0;
    wait_until("more turns have passed", SOON, || turns().is_ok_and(|turns| turns >= enough))?;
    ensure!(yard.calls("began").len() == 2, "started: {:?}", yard.calls(""));
    ensure!(told().is_some_and(|told| told.len() == 1), "told more than once: {:?}", told());

    fs::remove_file(yard.folder().join("fails"))?;
    let output = deployment.understudy_as("operator", &["scaling", "grant-budget", "--group", "web"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yard.wait_status("a new standby is ready", |status| {
        status["groups"][0]["ready_standbys"].get(0).map(drop)
    })?;
    ensure!(yard.calls("made").len() == 1, "started: {:?}", yard.calls(""));
    drop((scaler, yard));
    stage.end()
}

/// It says what it would do, neither stands for election nor does anything, and the one that does goes on beside it.
#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() -> Result<()> {
    let stage = Stage::with("an autoscaler that runs dry", plan("dry"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let dry = Autoscaler::start_dry(deployment)?;
    deployment.node("web-b").kill()?;
    wait_until("it says what it would do", SOON, || {
        dry.process.log_text().contains("dry run: would start web-1")
    })?;
    let turns = || dry.metric("understudy_decision_seconds_count");
    let enough = turns()? + 8.0;
    wait_until("more turns have passed", SOON, || turns().is_ok_and(|turns| turns >= enough))?;
    ensure!(yard.calls("").is_empty(), "a dry run, and yet: {:?}", yard.calls(""));
    ensure!(!dry.leads()?, "a dry run leads");

    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    let standby = yard.wait_status("a new standby is ready", |status| {
        Some(status["groups"][0]["ready_standbys"][0].as_str()?.to_owned())
    })?;
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    drop((dry, scaler, yard));
    stage.end()
}
