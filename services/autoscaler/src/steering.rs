//! What operators ask: stored before it is answered.

use understudy_scaling::GroupRules;
use understudy_service::config::Group;
use understudy_wire::v1::{self, scaling_request::Steer};

/// Most standbys that may be asked for: more is a slip of the hand, as no group has so many.
const MAX_STANDBY: u32 = 1_000;

/// Why a request is refused; `Ok`: it may be stored.
///
/// # Errors
/// The reason, for whoever asked.
pub fn check(request: &v1::ScalingRequest, group: &Group, rules: &GroupRules) -> Result<(), String> {
    let Some(Steer::Size(size)) = &request.steer else { return Ok(()) };
    let (min, max) = (u32::from(rules.min), u32::from(rules.max));
    if let Some(active) = size.active
        && !(min..=max).contains(&active)
    {
        return Err(format!("active = {active}: must be from {min} to {max}, the min and max of the group"));
    }
    if let Some(standby) = size.standby
        && standby > MAX_STANDBY
    {
        return Err(format!("standby = {standby}: must be at most {MAX_STANDBY}"));
    }
    debug_assert!(group.scaling.is_some(), "only groups with rules are steered");
    Ok(())
}

/// Lays a request over what was asked for before. The same request again changes nothing.
pub fn steer(steering: &mut v1::ScalingSteering, request: &v1::ScalingRequest) {
    if !request.request.is_empty() && steering.request == request.request {
        return;
    }
    match &request.steer {
        None => return,
        Some(Steer::Pause(true)) => {
            steering.paused_by = if request.by.is_empty() { "an operator" } else { &request.by }.to_owned();
        }
        Some(Steer::Pause(false)) => steering.paused_by.clear(),
        Some(Steer::Size(size)) => {
            steering.pinned = size.active.unwrap_or_default();
            steering.standby = size.standby;
        }
        Some(Steer::GrantBudget(true)) => steering.budgets_granted += 1,
        Some(Steer::GrantBudget(false)) => return,
    }
    steering.request.clone_from(&request.request);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str, steer: Steer) -> v1::ScalingRequest {
        let (group, by) = ("web".into(), "anna@desk".into());
        v1::ScalingRequest { group, by, request: request.into(), steer: Some(steer) }
    }

    #[test]
    fn a_request_that_is_repeated_counts_once() {
        let mut steering = v1::ScalingSteering::default();
        let grant = asked("1", Steer::GrantBudget(true));
        steer(&mut steering, &grant);
        steer(&mut steering, &grant);
        assert_eq!(steering.budgets_granted, 1);
        steer(&mut steering, &asked("2", Steer::GrantBudget(true)));
        assert_eq!(steering.budgets_granted, 2);
    }

    #[test]
    fn a_size_replaces_the_one_before_and_a_pause_has_a_name() {
        let mut steering = v1::ScalingSteering::default();
        steer(&mut steering, &asked("1", Steer::Size(v1::ScalingSize { active: Some(3), standby: Some(2) })));
        assert_eq!((steering.pinned, steering.standby), (3, Some(2)));
        steer(&mut steering, &asked("2", Steer::Pause(true)));
        assert_eq!(steering.paused_by, "anna@desk");
        steer(&mut steering, &asked("3", Steer::Size(v1::ScalingSize { active: None, standby: None })));
        steer(&mut steering, &asked("4", Steer::Pause(false)));
        assert_eq!((steering.pinned, steering.standby, steering.paused_by.as_str()), (0, None, ""));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_with_the_reason() {
        let (group, rules) = (
            Group { scaling: Some(Default::default()), ..Group::default() },
            GroupRules { max: 4, ..GroupRules::fixed(2, 1) },
        );
        let size = |active, standby| asked("1", Steer::Size(v1::ScalingSize { active, standby }));
        assert_eq!(check(&size(Some(4), Some(0)), &group, &rules), Ok(()));
        for bad in [0, 1, 5, u32::MAX] {
            let why = check(&size(Some(bad), None), &group, &rules).unwrap_err();
            assert_eq!(why, format!("active = {bad}: must be from 2 to 4, the min and max of the group"));
        }
        assert!(check(&size(None, Some(u32::MAX)), &group, &rules).is_err());
    }
}
