//! What actions on slots make of a group's size. Each names a state, so doing one twice changes nothing.

use understudy_scaling::ActionKind;
use understudy_service::config::Group;
use understudy_wire::v1;

/// The size of a group that nothing is stored of: as configured.
pub fn initial(group: &Group) -> v1::ScalingState {
    let active = u32::from(group.active);
    v1::ScalingState { open: active, serving: active, ..Default::default() }
}

/// Whether an action is one on slots.
pub fn is_slot(kind: &ActionKind) -> bool {
    use ActionKind::{Close, Drain, Open, Undrain};
    matches!(kind, Open { .. } | Drain { .. } | Undrain { .. } | Close { .. })
}

/// Does one action. Slots are taken back only while they are open, and closed only while they drain; one always serves.
pub fn apply(state: &mut v1::ScalingState, kind: &ActionKind) {
    match kind {
        ActionKind::Open { slot } => {
            state.open = state.open.max(u32::from(slot.0) + 1);
            state.serving = state.serving.max(u32::from(slot.0) + 1);
        }
        ActionKind::Undrain { slot } if u32::from(slot.0) < state.open => {
            state.serving = state.serving.max(u32::from(slot.0) + 1);
        }
        ActionKind::Drain { slot } => state.serving = state.serving.min(u32::from(slot.0)).max(1),
        ActionKind::Close { slot } if u32::from(slot.0) >= state.serving => {
            state.open = state.open.min(u32::from(slot.0)).max(state.serving);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::Slot;

    use super::*;

    fn after(open: u32, serving: u32, kinds: &[ActionKind]) -> (u32, u32) {
        let mut state = v1::ScalingState { open, serving, ..Default::default() };
        for kind in kinds {
            apply(&mut state, kind);
            let once = state.clone();
            apply(&mut state, kind);
            assert_eq!(state, once, "twice is once");
        }
        (state.open, state.serving)
    }

    #[test]
    fn slots_open_drain_and_close_in_order() {
        use ActionKind::{Close, Drain, Open, Undrain};
        let slot = Slot;
        assert_eq!(after(1, 1, &[Open { slot: slot(1) }, Open { slot: slot(2) }]), (3, 3));
        assert_eq!(after(3, 3, &[Drain { slot: slot(2) }]), (3, 2));
        assert_eq!(after(3, 3, &[Drain { slot: slot(2) }, Close { slot: slot(2) }]), (2, 2));
        assert_eq!(after(3, 2, &[Undrain { slot: slot(2) }]), (3, 3));
        assert_eq!(after(3, 3, &[Close { slot: slot(2) }]), (3, 3), "a slot that serves is not closed");
        assert_eq!(
            after(2, 2, &[Undrain { slot: slot(2) }]),
            (2, 2),
            "a slot that is closed is not taken back"
        );
        assert_eq!(after(1, 1, &[Drain { slot: slot(0) }, Close { slot: slot(0) }]), (1, 1), "one serves");
    }
}
