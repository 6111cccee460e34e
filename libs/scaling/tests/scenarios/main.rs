//! Golden scenarios: every decision that is news, see `understudy_golden`. Times are in seconds, commands in `stage.rs`.

mod stage;

understudy_golden::scenarios! {
    stage::Stage::new();
    budget_spent
    comes_back
    failover_freezes
    forecast
    from_nothing
    half_made
    missing_metrics
    new_leader
    name_used_again
    only_the_highest_goes
    promote_then_refill
    removed_on_purpose
    restart_then_replace
    scale_in_drains
    schedule
    shared_resource
    steering
    two_targets
}
