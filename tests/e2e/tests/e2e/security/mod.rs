//! TLS, credentials and permissions: with them on everything works as before, and whoever is not allowed to is refused.

mod attempts;
mod intruder;
mod keys;
mod leaks;
mod refusals;
mod works;
