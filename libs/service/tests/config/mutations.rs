//! No text panics the loader.

use proptest::prelude::*;

use crate::{FULL, examine};

proptest! {
    /// Whatever is done to a file, the loader answers, and a refusal has a reason.
    #[test]
    fn no_text_panics_the_loader(at in 0..FULL.len(), cut in 0usize..12, put in "\\PC{0,12}|[\\[\\]{}\"'=.,#0-9\n-]{0,12}") {
        let end = (at + cut).min(FULL.len());
        let text = format!("{}{put}{}", &FULL[..at], &FULL[end..]);
        let (config, report) = examine(&text, &[]);
        prop_assert_eq!(config.is_some(), report.errors.is_empty());
    }

    /// Nor does any value of any variable.
    #[test]
    fn no_variable_panics_the_loader(name in "(NODE|LEASE|GROUP|DNS|NATS|X)(__(NAME|WEB|SLOT|CHECK|KEY|0|9|DURATION|){1}){0,4}", value in "\\PC{0,20}") {
        let (config, report) = examine(FULL, &[(&format!("UNDERSTUDY_{name}"), &value)]);
        prop_assert_eq!(config.is_some(), report.errors.is_empty());
    }

    /// Nor does any span, however long.
    #[test]
    fn no_span_panics_the_loader(
        key in "LEASE__(INTERVAL|DURATION|MAX)|NATS__PING_INTERVAL|DETECTOR__DEVIATION_FLOOR|DNS__(TTL|TIMEOUT|RECHECK)|AUTOSCALER__INTERVAL|GROUP__WEB__(FAILBACK|FLAP__HALF_LIFE|CHECK__1__(INTERVAL|TIMEOUT)|HOOKS__PROMOTE__TIMEOUT)",
        seconds in any::<u64>(),
    ) {
        let (config, report) = examine(FULL, &[(&format!("UNDERSTUDY_{key}"), &format!("{seconds}s"))]);
        prop_assert_eq!(config.is_some(), report.errors.is_empty());
    }

    #[test]
    fn nor_does_any_text_at_all(text in any::<String>()) {
        let (config, report) = examine(&text, &[]);
        prop_assert_eq!(config.is_some(), report.errors.is_empty());
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let deep = format!("cluster = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(!examine(&deep, &[]).1.errors.is_empty());
    let dotted = format!("{} = 1", vec!["a"; 50_000].join("."));
    assert!(!examine(&dotted, &[]).1.errors.is_empty());
    let variable = format!("UNDERSTUDY_NODE{}", "__A".repeat(50_000));
    assert!(!examine(FULL, &[(&variable, "x")]).1.errors.is_empty());
}
