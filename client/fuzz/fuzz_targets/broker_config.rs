//! The operator's TOML file: refused with a reason, or read so that it can be shown and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

// As source: one file of plain data is no reason to build the whole broker with instrumentation.
#[path = "../../../broker/src/config.rs"]
#[allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "the rest of the file is for the broker")]
mod config;
use config::Config;

fuzz_target!(|text: &str| {
    let Ok(config) = Config::parse(text, "broker.toml".as_ref()) else { return };
    if config.validate().is_err() {
        return;
    }
    let _ = (config.effective_limits(), config.loopback_only(), config.database_url());
    let shown = toml::to_string(&config).expect("a valid configuration can be shown");
    assert_eq!(Config::parse(&shown, "broker.toml".as_ref()).expect("what is shown can be read"), config);
});
