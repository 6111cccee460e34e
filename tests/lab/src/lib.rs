//! Network namespaces, real servers, faults and probes for demo and end-to-end tests.
