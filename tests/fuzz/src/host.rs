//! Files of the kernel, metrics of a workload, and values of the JetStream bucket.

use understudy_bus::store::{read_ceiling, read_maintenance, read_size};
use understudy_heartbeat::{load::of_texts, signals};
use understudy_scaling::Memory;

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

/// A page of metrics and the name of one, a NUL between them.
pub(crate) fn metric(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((metric, page)) = text.split_once('\0') else { return };
    // Whether it is a load at all (NaN and what is below 0 are none) is asked later. No line changes what another one
    // says; as text, since not a number equals nothing.
    let of_lines = page.lines().filter_map(|line| signals::sum(line, metric));
    let added = of_lines.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value));
    assert_eq!(format!("{:?}", signals::sum(page, metric)), format!("{added:?}"));
}

/// A ceiling, the maintenance set, the size of a group, or what one leader leaves to the next: the first byte says which.
pub(crate) fn store(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else { return };
    match kind {
        1 => maintenance(value),
        2 => size(value),
        3 => memory(value),
        _ => ceiling(value),
    }
}

fn ceiling(value: &[u8]) {
    match read_ceiling(Some(value)) {
        Ok(ceiling) => {
            // Half a block above it is the next thing that a seat computes (rule R6b).
            assert!(ceiling.0 < 1 << 62, "a ceiling of {ceiling}");
            let again = read_ceiling(Some(ceiling.to_string().as_bytes()));
            assert_eq!(again.ok(), Some(ceiling), "what is written is what was read");
        }
        Err(error) => assert_says(&error, &["ceiling"]),
    }
}

fn maintenance(value: &[u8]) {
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

fn size(value: &[u8]) {
    match read_size(value) {
        Ok(size) => {
            assert!(size.serving > 0 && size.serving <= size.open, "{size:?}");
            let written = serde_json::to_vec(&size).expect("a size has a JSON form");
            assert_eq!(read_size(&written).ok(), Some(size), "what is written is what was read");
        }
        Err(error) => assert_says(&error, &["size of a group"]),
    }
}

fn memory(value: &[u8]) {
    let Ok(memory) = serde_json::from_slice::<Memory>(value) else { return };
    let written = serde_json::to_vec(&memory).expect("a memory has a JSON form");
    let again = serde_json::from_slice::<Memory>(&written).expect("what is written can be read");
    assert_eq!(written, serde_json::to_vec(&again).expect("a memory has a JSON form"));
}
