//! libFuzzer's entry: one program for all targets, since each would link the same code. `UNDERSTUDY_FUZZ` names the
//! target; `scripts/fuzz` sets it.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("UNDERSTUDY_FUZZ").expect("UNDERSTUDY_FUZZ names a target"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_fuzz::run(&TARGET, data));
