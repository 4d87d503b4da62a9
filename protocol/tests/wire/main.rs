//! The wire, frame by frame: every message has a sample, its JSON is pinned, and reading never panics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod generated;
mod properties;
mod seed_clients;
mod strategies;

use std::collections::BTreeSet;

use claudemesh_protocol::call::{Done, Nothing, ServerBody, Sessions};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::moderation::BanAck;
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{ClientMessage, ReadError, ServerMessage};
use claudemesh_protocol::testing::{client_samples, http_samples, nulls as testing_nulls, server_samples};
use serde_json::Value;

pub(crate) fn read_client(text: &str) -> Result<ClientMessage, ReadError> {
    let head = Head::read(text).map_err(ReadError::BadJson)?;
    ClientMessage::read(&head, text)
}

pub(crate) fn read_server(text: &str) -> Result<ServerMessage, ReadError> {
    let head = Head::read(text).map_err(ReadError::BadJson)?;
    ServerMessage::read(&head, text)
}

/// Name and JSON of every sample of both directions.
fn all_texts() -> Vec<(String, String)> {
    let client = client_samples().into_iter().map(|(name, message)| (name, message.write(None)));
    client.chain(server_samples().into_iter().map(|(name, message)| (name, message.write(None)))).collect()
}

#[test]
fn every_tag_has_a_sample_and_every_name_is_unique() {
    let client: Vec<_> = client_samples().into_iter().map(|(name, message)| (name, message.tag())).collect();
    let server: Vec<_> = server_samples().into_iter().map(|(name, message)| (name, message.tag())).collect();
    for (samples, tags) in [(client, ClientMessage::tags()), (server, ServerMessage::tags())] {
        let names: BTreeSet<_> = samples.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names.len(), samples.len(), "names are unique");
        let have: BTreeSet<_> = samples.iter().map(|(_, tag)| *tag).collect();
        let want: BTreeSet<_> = tags.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(have, want);
    }
}

#[test]
fn the_table_says_how_every_request_is_answered() {
    let want: BTreeSet<_> = ClientMessage::tags().into_iter().map(|(tag, _)| tag).collect();
    let have: BTreeSet<_> = ClientMessage::rows().into_iter().map(|(_, row)| row.tag).collect();
    assert_eq!(have, want);
    let answers: BTreeSet<_> = ServerMessage::tags().into_iter().map(|(tag, _)| tag).collect();
    for (feature, row) in ClientMessage::rows() {
        let tag = row.tag;
        assert!(answers.contains(row.answer), "{tag} is answered by {}, which the broker cannot send", row.answer);
        assert_eq!(row.silent, row.answer == "done", "{tag}: a silent request is confirmed by `done`");
        assert!(row.doc.trim().ends_with('.'), "{tag} of {feature} has a sentence");
    }
    for (name, message) in client_samples() {
        assert_eq!(message.row().tag, message.tag(), "{name}");
    }
}

#[test]
fn an_answer_is_read_as_its_type_and_anything_else_is_given_back() {
    let done = Done::of(&Sessions { sessions: 2 }).into_message();
    assert_eq!(done.write(Some("1")), r#"{"type":"done","sessions":2,"_reqId":"1"}"#);
    assert_eq!(Sessions::from_message(done.clone()).unwrap(), Sessions { sessions: 2 });
    assert_eq!(Nothing::from_message(done.clone()).unwrap(), Nothing {});
    assert_eq!(*BanAck::from_message(done.clone()).unwrap_err(), done);
    let empty = Done::default().into_message();
    assert_eq!(*Sessions::from_message(empty.clone()).unwrap_err(), empty, "a field is missing");
    let ack = BanAck { banned: "mallory".into() };
    assert_eq!(BanAck::from_message(ack.clone().into_message()).unwrap(), ack);
}

#[test]
fn only_events_are_events() {
    for (name, message) in server_samples() {
        let told = [
            "peer_dir_request_forward",
            "peer_file_request_forward",
            "mcp_call_cancel",
            "mcp_call_forward",
            "mcp_call_progress",
            "mcp_deploy_progress",
            "mcp_part_forward",
            "file_change",
            "file_key_wanted",
            "push",
            "skills_changed",
            "state_change",
            "state_missed",
            "stream_data",
            "stream_deleted",
            "stream_gap",
            "task_change",
            "tasks_waiting",
            "topic_message_changed",
            "topic_notification",
            "topic_posted",
        ]
        .contains(&message.tag());
        assert_eq!(message.is_event(), told, "{name}");
    }
}

#[test]
fn a_confirmation_is_asked_for_in_the_head() {
    for (name, message) in client_samples() {
        let text = message.write_confirmed("r-7");
        let head = Head::read(&text).unwrap();
        assert!(head.confirm, "{name}");
        assert_eq!(ClientMessage::read(&head, &text).unwrap(), message, "{name}");
        assert!(!Head::read(&message.write(Some("r-7"))).unwrap().confirm, "{name}");
    }
}

#[test]
fn json_of_client_messages() {
    let text: String =
        client_samples().iter().map(|(name, message)| format!("{name}\n  {}\n", message.write(None))).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn json_of_broker_messages() {
    let text: String =
        server_samples().iter().map(|(name, message)| format!("{name}\n  {}\n", message.write(None))).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn json_of_http_bodies() {
    let text: String = http_samples().iter().map(|(route, what, body)| format!("{route} {what}\n  {body}\n")).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn error_codes() {
    let text: String = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retry = if code.retryable() { "retry" } else { "-" };
            format!("{:<26} {:<12} {} {retry}\n", code.as_str(), format!("{:?}", code.class()), code.http_status())
        })
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn error_codes_are_unique_and_parse() {
    let texts: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(texts.len(), ErrorCode::ALL.len());
    for &code in ErrorCode::ALL {
        assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        assert!((400..600).contains(&code.http_status()), "{code:?}");
        assert!(code.doc().ends_with('.'), "{code:?}");
    }
    assert_eq!(ErrorCode::parse("no_such_code"), None);
}

#[test]
fn samples_are_read_back_as_they_were_written() {
    for (name, message) in client_samples() {
        assert_eq!(read_client(&message.write(None)).unwrap(), message, "{name}");
    }
    for (name, message) in server_samples() {
        assert_eq!(read_server(&message.write(None)).unwrap(), message, "{name}");
    }
}

#[test]
fn the_request_id_travels_beside_any_body() {
    for (name, message) in client_samples() {
        let text = message.write(Some("r-7 \"é\""));
        let head = Head::read(&text).unwrap();
        assert_eq!(head.tag.as_deref(), Some(message.tag()), "{name}");
        assert_eq!(head.req_id.as_deref(), Some("r-7 \"é\""), "{name}");
        assert_eq!(ClientMessage::read(&head, &text).unwrap(), message, "{name}");
        assert_eq!(text.matches("\"_reqId\"").count(), 1, "{name}");
        assert!(text.starts_with(&format!("{{\"type\":\"{}\"", message.tag())), "{name}: type comes first");
    }
    for (name, message) in server_samples() {
        let text = message.write(Some("r-7"));
        assert_eq!(text.matches("\"_reqId\"").count(), 1, "{name}");
        assert_eq!(read_server(&text).unwrap(), message, "{name}");
    }
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let add = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        value["aFieldOfALaterVersion"] = serde_json::json!({"type": "nested", "list": [1, null]});
        value.to_string()
    };
    for (name, message) in client_samples() {
        assert_eq!(read_client(&add(&message.write(None))).unwrap(), message, "{name}");
    }
    // `done` hands every field on to the feature that reads it.
    for (name, message) in server_samples().into_iter().filter(|(_, message)| message.tag() != "done") {
        assert_eq!(read_server(&add(&message.write(None))).unwrap(), message, "{name}");
    }
}

#[test]
fn a_field_keeps_its_meaning_in_any_order() {
    for (name, message) in client_samples() {
        let value: serde_json::Map<String, Value> = serde_json::from_str(&message.write(None)).unwrap();
        let reversed: serde_json::Map<String, Value> = value.into_iter().rev().collect();
        assert_eq!(read_client(&Value::Object(reversed).to_string()).unwrap(), message, "{name}");
    }
}

#[test]
fn absent_is_not_null() {
    let samples: Vec<(String, Value)> =
        all_texts().into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect();
    let find = |name: &str| &samples.iter().find(|(own, _)| own == name).expect("a sample").1;
    let expected = testing_nulls();
    for (name, pointer) in &expected {
        assert_eq!(find(name).pointer(pointer), Some(&Value::Null), "{name}{pointer}");
    }
    for (name, value) in &samples {
        let mut found = Vec::new();
        nulls(value, String::new(), &mut found);
        for pointer in found {
            let known = expected.iter().any(|(own, known)| own == name && *known == pointer);
            assert!(known, "{name}{pointer} is null: leave the key out, or list it with its reason");
        }
    }
}

fn nulls(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(at),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                nulls(item, format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                nulls(item, format!("{at}/{key}"), found);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn counters_are_written_as_other_clients_write_them() {
    let (_, stats) = client_samples().into_iter().find(|(name, _)| name == "set_stats/full").unwrap();
    let text = stats.write(None);
    assert!(text.contains(r#"{"messagesIn":3,"messagesOut":5,"toolCalls":7,"uptime":12.5,"errors":0}"#), "{text}");
}

#[test]
fn bad_frames_say_what_is_wrong() {
    let code = |text: &str| read_client(text).unwrap_err().code();
    for text in
        ["", " ", "[]", "7", "null", "\"send\"", "{", "{}", r#"{"type":7}"#, r#"{"type":null}"#, "{\"type\":\"x\"}}"]
    {
        assert_eq!(code(text), ErrorCode::BadJson, "{text}");
    }
    for tag in ["", "Send", "send ", "push", "no_such_request", "ack"] {
        assert_eq!(code(&serde_json::json!({ "type": tag }).to_string()), ErrorCode::UnknownType, "{tag}");
    }
    let error = read_client(r#"{"type":"set_status","status":"busy","_reqId":"1"}"#).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgs);
    let text = error.to_string();
    assert!(text.starts_with("`set_status`: ") && text.contains("expected one of `idle`, `working`, `dnd`"), "{text}");
    let error =
        read_client(r#"{"type":"send","targetSpec":"*","priority":"next","nonce":""}"#).unwrap_err().to_string();
    assert!(error.contains("missing field `ciphertext`"), "{error}");
    let long = serde_json::json!({ "type": "x".repeat(5_000) }).to_string();
    assert!(read_client(&long).unwrap_err().to_string().len() < 120, "the answer does not repeat a long tag");
}

#[test]
fn removing_any_required_field_is_an_error_and_never_a_panic() {
    for (name, message) in client_samples() {
        let value: serde_json::Map<String, Value> = serde_json::from_str(&message.write(None)).unwrap();
        for key in value.keys() {
            let mut less = value.clone();
            less.shift_remove(key);
            match read_client(&Value::Object(less).to_string()) {
                Ok(read) => assert_eq!(read.tag(), message.tag(), "{name} without {key}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(key == "type" || text.contains(key.as_str()) || text.contains("flatten"), "{name}: {text}");
                }
            }
        }
    }
}
