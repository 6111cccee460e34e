//! DNS UPDATE with TSIG, guarded by the epoch.
