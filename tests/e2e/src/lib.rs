//! End-to-end tests on real namespaces, NATS and Knot.
