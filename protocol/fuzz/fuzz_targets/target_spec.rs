//! Target texts and group names.
#![no_main]

use claudemesh_protocol::target::{self, Target, TargetField};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(parsed) = Target::parse(text) {
        let _ = parsed.is_direct();
    }
    if let Ok(name) = target::group_name(text) {
        // A checked name is its own checked form, and a group covers itself.
        assert_eq!(target::group_name(&name).as_deref(), Ok(name.as_str()));
        assert!(target::group_covers(&name, &name));
    }
    let _ = serde_json::from_str::<TargetField>(text);
});
