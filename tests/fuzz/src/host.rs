//! Files of the kernel, and values of the JetStream bucket.

use understudy_bus::store::{read_ceiling, read_maintenance};
use understudy_heartbeat::load::of_texts;

use crate::text::{assert_name, assert_says};

/// `/proc/stat` twice, `/proc/meminfo`, `/proc/pressure/cpu`, `memory` and `io`, a NUL between them.
pub(crate) fn load(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut texts = text.split('\0');
    let mut next = || texts.next().unwrap_or_default();
    let before = next();
    let load = of_texts(before, [(); 5].map(|()| next()));
    let pressure = load.pressure;
    for figure in [load.cpu, load.memory, pressure.cpu, pressure.memory, pressure.io].into_iter().flatten() {
        assert!((0.0..=1.0).contains(&figure), "{load:?}");
    }
}

/// A ceiling or the maintenance set: the first byte says which.
pub(crate) fn store(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else { return };
    if kind.is_multiple_of(2) {
        match read_ceiling(Some(value)) {
            Ok(ceiling) => {
                // Half a block above it is the next thing that a seat computes (rule R6b).
                assert!(ceiling.0 < 1 << 62, "a ceiling of {ceiling}");
                let again = read_ceiling(Some(ceiling.to_string().as_bytes()));
                assert_eq!(again.ok(), Some(ceiling), "what is written is what was read");
            }
            Err(error) => assert_says(&error, &["ceiling"]),
        }
    } else {
        match read_maintenance(value) {
            Ok(set) => {
                for (group, node) in &set {
                    assert_name(group.as_str());
                    assert_name(node.as_str());
                }
                let written = serde_json::to_vec(&set).expect("a set has a JSON form");
                assert_eq!(read_maintenance(&written).ok(), Some(set), "what is written is what was read");
            }
            Err(error) => assert_says(&error, &["maintenance"]),
        }
    }
}
