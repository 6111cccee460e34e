//! What concerns several keys at once, or a range that types cannot say.

use super::{load::Loading, schema::Config};

mod timing;

pub use timing::{RoundTripTooLong, check_round_trip};

/// Checks the whole and fills in what follows from other keys.
pub(super) fn check(config: &mut Config, loading: &mut Loading) {
    let mut checker = Checker { loading };
    timing::check(config, &mut checker);
    complete(config);
}

/// Fills in the defaults that depend on other keys.
fn complete(config: &mut Config) {
    config.detector.deviation_floor = Some(config.detector.deviation_floor(config.lease.interval));
    for group in config.groups.values_mut() {
        group.slots.resize(usize::from(group.active), super::SlotConfig::default());
        for slot in &mut group.slots {
            slot.address = Some(slot.record_address());
        }
    }
}

struct Checker<'a> {
    loading: &'a mut Loading,
}
