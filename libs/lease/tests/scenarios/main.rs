//! Golden scenarios, one for each rule: see `understudy_golden`. Times are in ms, commands in `stage.rs`.

mod stage;

understudy_golden::scenarios! {
    stage::Stage::new();
    r01_r03_crash
    r02_deaf_holder
    r02_new_incarnation
    r03_flapping
    r03_flapping_to_some
    r03_nobody
    r06_restart
    r06_store_down
    r07_unheard
    r08_switchover
    r08_late_release
    r08_overtaken
    r09_split_vote
    r10_unhealthy
    r10_nobody_better
    r11_fenced
    r13_away_for_t
    r13_late_seats
    r14_closed
    r14_unknown
    seat_rival
}
