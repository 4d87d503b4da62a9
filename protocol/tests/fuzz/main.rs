//! The fuzz targets of `protocol/fuzz` with their seeds and a fixed number of changed ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

// The targets import their macro from `libfuzzer_sys`.
extern crate self as libfuzzer_sys;

#[path = "../../fuzz/replay.rs"]
mod replay;
use replay::{fuzz_target, replay_targets};

replay_targets! {
    "fuzz":
    envelope * 400 at "../../fuzz/fuzz_targets/envelope.rs",
    file * 4_000 at "../../fuzz/fuzz_targets/file.rs",
    frame * 20_000 at "../../fuzz/fuzz_targets/frame.rs",
    hello * 20_000 at "../../fuzz/fuzz_targets/hello.rs",
    http_body * 20_000 at "../../fuzz/fuzz_targets/http_body.rs",
    http_headers * 20_000 at "../../fuzz/fuzz_targets/http_headers.rs",
    invite * 20_000 at "../../fuzz/fuzz_targets/invite.rs",
    runner_frame * 20_000 at "../../fuzz/fuzz_targets/runner_frame.rs",
    target_spec * 20_000 at "../../fuzz/fuzz_targets/target_spec.rs",
}
