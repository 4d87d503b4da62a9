//! The operator's TOML file: refused with a reason, or read so that it can be shown and read again.
#![no_main]

use claudemesh_broker::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(config) = Config::parse(text, "broker.toml".as_ref()) else { return };
    if config.validate().is_err() {
        return;
    }
    let _ = (config.effective_limits(), config.loopback_only(), config.database_url());
    let shown = toml::to_string(&config).expect("a valid configuration can be shown");
    assert_eq!(Config::parse(&shown, "broker.toml".as_ref()).expect("what is shown can be read"), config);
});
