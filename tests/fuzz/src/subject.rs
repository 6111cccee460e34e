//! NATS subjects.

use understudy_wire::{ClusterId, Subject, Subjects};

use crate::text::{assert_name, assert_says};

/// The client hands subjects over as text, so bytes that are none never get here.
pub(crate) fn subject(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let subjects = Subjects::new(&ClusterId::new("demo").expect("is a name"));
    match subjects.parse(text) {
        Ok(None) => {}
        Ok(Some(subject)) => {
            assert_eq!(subjects.of(&subject), text, "one thing has one subject");
            match &subject {
                Subject::Heartbeat(group, node)
                | Subject::Member(group, node)
                | Subject::Grant(group, node)
                | Subject::Release(group, node)
                | Subject::Verdict(group, node) => {
                    assert_name(group.as_str());
                    assert_name(node.as_str());
                }
                Subject::Event(group, last) | Subject::Command(group, last) => {
                    assert_name(group.as_str());
                    assert!(!last.contains('.'), "{last:?} is several tokens");
                }
                Subject::Detector(_) | Subject::Seat(_) => {}
            }
        }
        Err(error) => assert_says(&error, &["group name", "node name"]),
    }
}
