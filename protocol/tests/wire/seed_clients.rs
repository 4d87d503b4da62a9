//! The shapes that the oldest clients send, word for word: no field of ours may be required.

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::features::{messaging, presence};
use claudemesh_protocol::message::ClientMessage;
use claudemesh_protocol::session;

use crate::read_client;

/// Minimal frames of clients that know nothing of capabilities, sessions or receipts.
const SHAPES: &[&str] = &[
    r#"{"type":"hello","meshId":"m1","memberId":"u1","pubkey":"aa","sessionId":"s1","pid":1,"cwd":"/","timestamp":1775641983000,"signature":"bb"}"#,
    r#"{"type":"hello","meshId":"m1","memberId":"u1","pubkey":"aa","sessionPubkey":"cc","displayName":"Al","sessionId":"s1","pid":4194304,"cwd":"C:\\x","hostname":"h","peerType":"bridge","channel":"telegram","model":"opus","groups":[{"name":"g","role":"lead"},{"name":"h"}],"timestamp":1775641983000,"signature":"bb"}"#,
    r#"{"type":"send","targetSpec":"*","priority":"now","nonce":"","ciphertext":""}"#,
    r#"{"type":"send","id":"1","targetSpec":"@team","priority":"low","nonce":"AAAA","ciphertext":"AAAA"}"#,
    r#"{"type":"set_status","status":"idle"}"#,
    r#"{"type":"list_peers"}"#,
    r#"{"type":"list_peers","_reqId":"1"}"#,
    r#"{"type":"set_summary"}"#,
    r#"{"type":"set_summary","summary":"x"}"#,
    r#"{"type":"set_stats"}"#,
    r#"{"type":"set_stats","stats":{"messagesIn":1,"messagesOut":0,"toolCalls":2,"uptime":61,"errors":0}}"#,
    r#"{"type":"set_visible","visible":false,"_reqId":"2"}"#,
    r#"{"type":"set_profile","_reqId":"3"}"#,
    r#"{"type":"set_profile","avatar":"x","title":"t","bio":"b","capabilities":["c"]}"#,
    r#"{"type":"join_group","name":"team"}"#,
    r#"{"type":"join_group","name":"team","role":"lead"}"#,
    r#"{"type":"leave_group","name":"team"}"#,
    r#"{"type":"message_status","messageId":"0123456789abcdef0123456789abcdef","_reqId":"4"}"#,
    r#"{"type":"mesh_info","_reqId":"5"}"#,
];

/// Minimal frames that came later, still without anything of ours.
const LATER: &[&str] = &[
    r#"{"type":"session_hello","meshId":"m1","parentMemberId":"","parentMemberPubkey":"aa","sessionPubkey":"bb","parentAttestation":{"sessionPubkey":"bb","parentMemberPubkey":"aa","expiresAt":1775685183000,"signature":"cc"},"sessionId":"s1","pid":1,"cwd":"/","role":"session","timestamp":1775641983000,"signature":"dd"}"#,
    r#"{"type":"session_hello","meshId":"m1","parentMemberId":"u1","parentMemberPubkey":"aa","sessionPubkey":"bb","sessionId":"s1","pid":1,"cwd":"/","timestamp":1775641983000,"signature":"dd"}"#,
    r#"{"type":"client_ack","clientMessageId":"c1","brokerMessageId":"b1"}"#,
    r#"{"type":"client_ack"}"#,
    r##"{"type":"send","targetSpec":"#t1","priority":"next","nonce":"","ciphertext":"","client_message_id":"c1","request_fingerprint":"ff","mentions":["a"],"replyToId":"m","bodyVersion":2}"##,
    r#"{"type":"topic_create","name":"general","_reqId":"1"}"#,
    r#"{"type":"topic_list","_reqId":"1"}"#,
    r#"{"type":"topic_join","topic":"general"}"#,
    r#"{"type":"topic_leave","topic":"general"}"#,
    r#"{"type":"topic_members","topic":"general"}"#,
    r#"{"type":"topic_history","topic":"general","limit":50}"#,
    r#"{"type":"topic_mark_read","topic":"general"}"#,
    r#"{"type":"disconnect","target":"bob"}"#,
    r#"{"type":"kick","stale":600000}"#,
    r#"{"type":"kick","all":true}"#,
    r#"{"type":"kick"}"#,
    r#"{"type":"ban","target":"bob"}"#,
    r#"{"type":"unban","target":"bob"}"#,
    r#"{"type":"list_bans"}"#,
];

#[test]
fn frames_of_older_clients_are_understood() {
    for text in SHAPES.iter().chain(LATER) {
        if let Err(error) = read_client(text) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn what_older_clients_leave_out_has_its_old_meaning() {
    let Ok(ClientMessage::Messaging(messaging::Request::Send(send))) = read_client(SHAPES[2]) else { panic!("a send") };
    assert_eq!(send.priority, Priority::Now);
    assert_eq!((send.id, send.client_message_id, send.trace, send.expires_in_ms), (None, None, None, None));
    assert!(send.exclude.is_empty() && send.mentions.is_empty());
    let Ok(ClientMessage::Session(session::Request::Hello(hello))) = read_client(SHAPES[0]) else { panic!("a hello") };
    assert_eq!(hello.description, session::PeerDescription::default());
    assert!(!hello.description.can("client_ack"));
    assert_eq!(hello.timestamp.to_string(), "1775641983000", "signed as it was written");
    let Ok(ClientMessage::Presence(presence::Request::SetStatus(status))) = read_client(SHAPES[4]) else {
        panic!("a set_status")
    };
    assert_eq!(status.target, presence::WriteTarget::default());
    let Ok(ClientMessage::Presence(presence::Request::SetSummary(summary))) = read_client(SHAPES[7]) else {
        panic!("a set_summary")
    };
    assert_eq!(summary.summary, "");
}

#[test]
fn null_stands_for_absent_in_optional_fields() {
    let text = r#"{"type":"hello","meshId":"m1","memberId":"u1","pubkey":"aa","sessionPubkey":null,"displayName":null,
        "groups":null,"sessionId":"s1","pid":1,"cwd":"/","timestamp":1,"signature":"bb"}"#;
    let Ok(ClientMessage::Session(session::Request::Hello(hello))) = read_client(text) else { panic!("a hello") };
    assert_eq!((hello.session_pubkey, hello.description.groups), (None, None));
}
