//! The fuzz targets of `client/fuzz` with their seeds and a fixed number of changed ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

// The targets import their macro from `libfuzzer_sys`.
extern crate self as libfuzzer_sys;

#[path = "../../../protocol/fuzz/replay.rs"]
mod replay;
use replay::{fuzz_target, replay_targets};

replay_targets! {
    "fuzz":
    broker_config * 3_000 at "../../fuzz/fuzz_targets/broker_config.rs",
    command_line * 300 at "../../fuzz/fuzz_targets/command_line.rs",
    hook_input * 10_000 at "../../fuzz/fuzz_targets/hook_input.rs",
    install_files * 1_000 at "../../fuzz/fuzz_targets/install_files.rs",
    json_span * 10_000 at "../../fuzz/fuzz_targets/json_span.rs",
    own_files * 10_000 at "../../fuzz/fuzz_targets/own_files.rs",
    sql_text * 10_000 at "../../fuzz/fuzz_targets/sql_text.rs",
    words * 10_000 at "../../fuzz/fuzz_targets/words.rs",
}
