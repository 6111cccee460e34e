//! The library against real name servers (Knot DNS and BIND 9), started by each test for itself.

mod hostile;
mod lab;
mod refusals;
mod updater;
mod updates;
