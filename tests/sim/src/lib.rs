//! Deterministic simulation of the lease and detection crates under random faults.
