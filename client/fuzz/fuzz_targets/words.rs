//! The small languages of the command line: durations, groups, recipients, slugs, addresses.
#![no_main]

use claudemesh::config::broker_http;
use claudemesh::features::enrolment;
use claudemesh::features::messaging::cli::args::SendArgs;
use claudemesh::values;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(duration) = values::parse_duration(text) {
        // What is used of it: whole seconds of an invite, milliseconds of a silence.
        assert!(duration.as_secs() >= 1 && duration.as_secs() <= 366 * 86_400);
    }
    if let Ok(groups) = values::parse_groups(text) {
        assert!(groups.0.iter().all(|group| !group.name.is_empty()));
    }
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let send = SendArgs { words, ..SendArgs::default() };
    if let Ok((recipients, body)) = send.recipients_and_text() {
        assert!(!recipients.is_empty() && recipients.iter().all(|name| !name.is_empty()));
        assert!(body.is_none_or(|body| !body.is_empty()));
    }
    let _ = enrolment::check_slug(text);
    assert!(enrolment::broker_ws(text).starts_with("ws"));
    assert!(broker_http(text).starts_with("http"));
    let _ = enrolment::is_exposed(text);
});
