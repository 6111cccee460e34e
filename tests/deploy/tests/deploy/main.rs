//! The files in `deploy/`, a module for each tool that reads them.

mod monitoring;
mod units;
