//! `/metrics` for readers of Prometheus' older text format (0.0.4), such as `promtool check metrics`: OpenMetrics names
//! the family of a counter without the `_total` of its samples, the older format with it.

/// Media type of the older text format.
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of OpenMetrics text.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the reader takes OpenMetrics. Prometheus says so, with weights of which none is zero.
pub(crate) fn takes_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|kind| kind.trim().starts_with("application/openmetrics-text"))
}

/// OpenMetrics text in the older format.
pub(crate) fn text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The line before tells no kind yet, and the kind tells its name.
    let mut help: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = Some(told);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let kind = if kind == "unknown" { "untyped" } else { kind };
            if let Some((_, told)) = help.take().and_then(|help| help.split_once(' ')) {
                text.push_str(&format!("# HELP {name}{suffix} {told}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_are() {
        let open = "# HELP us_takeovers Slots taken over.\n# TYPE us_takeovers counter\nus_takeovers_total 3\n\
                    # HELP us_late_seconds How late.\n# TYPE us_late_seconds histogram\n\
                    # UNIT us_late_seconds seconds\nus_late_seconds_count 0\n# EOF\n";
        let older = "# HELP us_takeovers_total Slots taken over.\n# TYPE us_takeovers_total counter\n\
                     us_takeovers_total 3\n# HELP us_late_seconds How late.\n# TYPE us_late_seconds histogram\n\
                     us_late_seconds_count 0\n";
        assert_eq!(text(open), older);
    }

    #[test]
    fn prometheus_is_given_open_metrics_and_a_person_the_older_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(takes_open_metrics(prometheus));
        assert!(takes_open_metrics("text/plain;q=0.5, application/openmetrics-text"));
        assert!(!takes_open_metrics("*/*"));
        assert!(!takes_open_metrics(""));
    }
}
