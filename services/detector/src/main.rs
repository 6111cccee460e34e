//! detector.

fn main() {}
