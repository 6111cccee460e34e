//! What every error and every reason owes to people.

use std::error::Error;

/// Longer texts flood a log that a hostile sender may write to as often as it likes.
const LONGEST: usize = 1_024;

/// An error has a short text that names one of `things`.
pub(crate) fn assert_says(error: &dyn Error, things: &[&str]) {
    let text = error.to_string();
    assert!(things.iter().any(|thing| text.contains(thing)), "{text:?} names none of {things:?}");
    assert!(text.len() <= LONGEST, "an error of {} bytes: {text:.100}", text.len());
}

/// A reason is one short line.
pub(crate) fn assert_one_line(reason: &str) {
    assert!(!reason.is_empty(), "a failure without a reason");
    assert!(reason.chars().count() <= 256, "a reason of {} characters", reason.chars().count());
    assert!(!reason.contains(char::is_control), "control characters in {reason:?}");
}

/// The rule of names: a DNS label that changes no NATS subject.
pub(crate) fn assert_name(name: &str) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!((1..=63).contains(&name.len()) && name.bytes().all(allowed), "{name:?} was taken for a name");
}
