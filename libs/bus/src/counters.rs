//! What the bus counts. Services export it with their own metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A number that only rises; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter as Prometheus would show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Metric name with its `_total`.
    pub name: &'static str,
    /// Label name and value, where several counters share a name.
    pub label: Option<(&'static str, &'static str)>,
    /// One line for people.
    pub help: &'static str,
    /// How many so far.
    pub value: u64,
}

macro_rules! counters {
    ($($field:ident: $name:literal $({ $label:literal = $value:literal })?, $help:literal;)*) => {
        /// Every counter of the bus of one process.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Counters {
            /// All of them, equal names side by side.
            pub fn samples(&self) -> Vec<Sample> {
                vec![$(Sample {
                    name: $name,
                    label: None$(.or(Some(($label, $value))))?,
                    help: $help,
                    value: self.$field.value(),
                }),*]
            }
        }
    };
}

counters! {
    nats_connects: "understudy_bus_nats_connects_total", "Connections made to a NATS server.";
    nats_disconnects: "understudy_bus_nats_disconnects_total", "Connections lost to a NATS server.";
    nats_errors: "understudy_bus_nats_errors_total", "Errors that NATS servers or the client reported.";
    nats_denied: "understudy_bus_nats_denied_total", "Publications and subscriptions that NATS servers did not allow us.";
    nats_slow: "understudy_bus_nats_slow_consumer_total", "Messages lost since a subscription was not read in time.";
    nats_sent: "understudy_bus_sent_total" { "path" = "nats" }, "Messages handed to a path.";
    direct_sent: "understudy_bus_sent_total" { "path" = "direct" }, "Messages handed to a path.";
    nats_received: "understudy_bus_received_total" { "path" = "nats" }, "Messages taken from a path.";
    direct_received: "understudy_bus_received_total" { "path" = "direct" }, "Messages taken from a path.";
    nats_full: "understudy_bus_dropped_total" { "reason" = "nats queue full" }, "Messages dropped by a full queue or by age.";
    nats_stale: "understudy_bus_dropped_total" { "reason" = "nats too old" }, "Messages dropped by a full queue or by age.";
    direct_full: "understudy_bus_dropped_total" { "reason" = "direct queue full" }, "Messages dropped by a full queue or by age.";
    inbound_full: "understudy_bus_dropped_total" { "reason" = "inbound queue full" }, "Messages dropped by a full queue or by age.";
    events_full: "understudy_bus_dropped_total" { "reason" = "event queue full" }, "Messages dropped by a full queue or by age.";
    superseded: "understudy_bus_superseded_total", "Heartbeats replaced by a newer one before they were sent.";
    duplicates: "understudy_bus_duplicates_total", "Heartbeats that the other path had brought already.";
    malformed: "understudy_bus_refused_total" { "reason" = "malformed" }, "Messages refused.";
    too_large: "understudy_bus_refused_total" { "reason" = "too large" }, "Messages refused.";
    other_cluster: "understudy_bus_refused_total" { "reason" = "other cluster" }, "Messages refused.";
    wrong_name: "understudy_bus_refused_total" { "reason" = "wrong name" }, "Messages refused.";
    not_allowed: "understudy_bus_refused_total" { "reason" = "not allowed" }, "Messages refused.";
    direct_connects: "understudy_bus_direct_connects_total", "Direct streams opened.";
    direct_disconnects: "understudy_bus_direct_disconnects_total", "Direct streams lost.";
    events_stored: "understudy_bus_events_stored_total", "Events that JetStream acknowledged.";
    events_retried: "understudy_bus_events_retried_total", "Publications of an event after the first.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_samples_share_name_and_label() {
        let counters = Counters::default();
        counters.wrong_name.add(2);
        let samples = counters.samples();
        let keys: BTreeSet<_> = samples.iter().map(|sample| (sample.name, sample.label)).collect();
        assert_eq!(keys.len(), samples.len());
        let wrong = samples.iter().find(|sample| sample.label == Some(("reason", "wrong name"))).unwrap();
        assert_eq!(wrong.value, 2);
    }
}
