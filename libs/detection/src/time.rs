//! Arithmetic between `u64` nanoseconds and `Duration` that saturates instead of wrapping.

use std::time::Duration;

/// A span in nanoseconds; spans beyond 584 years saturate.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// `at_ns + span`, saturating: a deadline past the end of time is never reached.
pub(crate) fn after(at_ns: u64, span: Duration) -> u64 {
    at_ns.saturating_add(nanos(span))
}
