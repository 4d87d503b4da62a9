//! Every request of every feature that changes something leaves one entry in the audit log, which names who and what; no other request
//! leaves any. A request that is new and stands in none of the two lists fails the test.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::features::audit::{AuditEntry, AuditPage};
use claudemesh_protocol::message::ClientMessage;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Requests that change what a mesh keeps for others.
const CHANGING: &[&str] = &[
    "set_state",
    "delete_state",
    "create_task",
    "claim_task",
    "unclaim_task",
    "complete_task",
    "reopen_task",
    "update_task",
    "delete_task",
    "next_task",
    "create_stream",
    "delete_stream",
    "publish",
    "set_clock",
    "pause_clock",
    "resume_clock",
    "stop_clock",
    "remember",
    "forget",
    "share_context",
    "share_skill",
    "remove_skill",
    "vault_set",
    "vault_delete",
    "mesh_execute",
    "mcp_register",
    "mcp_unregister",
    "finish_upload",
    "grant_file_access",
    "revoke_file_access",
    "delete_file",
    "schedule",
    "edit_scheduled",
    "pause_scheduled",
    "resume_scheduled",
    "cancel_scheduled",
    "topic_create",
    "topic_update",
    "topic_set_member",
    "topic_remove_member",
    "apikey_create",
    "apikey_revoke",
    "join_group",
    "leave_group",
    "set_permissions",
    "ban",
    "unban",
    "rename_member",
    "rename_session",
    "set_member_role",
    "remove_member",
    "transfer_mesh",
];

/// Requests that change nothing of the kind, with a frame, or why there is none.
fn unchanging() -> Vec<(&'static str, Result<Value, &'static str>)> {
    let plain = [
        "inbox_pull",
        "echo",
        "list_peers",
        "list_groups",
        "whoami",
        "list_members",
        "topic_list",
        "notification_list",
        "apikey_list",
        "list_state",
        "list_tasks",
        "list_streams",
        "get_clock",
        "list_memories",
        "list_contexts",
        "list_skills",
        "vault_list",
        "mesh_schema",
        "mcp_list",
        "mcp_catalog",
        "list_files",
        "list_scheduled",
        "mesh_info",
        "list_bans",
        "get_permissions",
        "audit_query",
        "audit_verify",
        "audit_heads",
        "audit_export",
    ];
    let framed = [
        json!({"type": "resolve_target", "targetSpec": "alice"}),
        json!({"type": "client_ack", "brokerMessageId": "abcdefgh12345678abcdefgh12345678"}),
        json!({"type": "set_status", "status": "working"}),
        json!({"type": "set_summary", "summary": "tests"}),
        json!({"type": "set_stats", "stats": {"messagesIn": 1}}),
        json!({"type": "set_visible", "visible": true}),
        json!({"type": "set_profile", "title": "QA"}),
        json!({"type": "topic_join", "topic": "standing"}),
        json!({"type": "topic_mark_read", "topic": "standing"}),
        json!({"type": "topic_members", "topic": "standing"}),
        json!({"type": "topic_history", "topic": "standing"}),
        json!({"type": "topic_search", "text": "word"}),
        json!({"type": "topic_follow", "topic": "standing"}),
        json!({"type": "notification_read", "all": true}),
        json!({"type": "topic_leave", "topic": "elsewhere"}),
        json!({"type": "get_state", "key": "k0"}),
        json!({"type": "subscribe", "stream": "standing"}),
        json!({"type": "unsubscribe", "stream": "standing"}),
        json!({"type": "read_stream", "stream": "standing"}),
        json!({"type": "ack_stream", "stream": "standing", "consumer": "ci", "offset": 0}),
        json!({"type": "recall", "query": "word"}),
        json!({"type": "get_context", "query": "word"}),
        json!({"type": "get_skill", "name": "deploy"}),
        json!({"type": "vault_get", "keys": ["TOKEN"]}),
        json!({"type": "mesh_query", "sql": "SELECT 1 AS one"}),
        json!({"type": "mesh_cancel", "cancelKey": "none"}),
        json!({"type": "share_folder", "shared": true}),
        json!({"type": "mcp_schema", "server_name": "none"}),
        json!({"type": "mcp_scope", "server_name": "none"}),
        json!({"type": "mcp_cancel", "call": "none"}),
        json!({"type": "mcp_part", "call": "none", "part": 0}),
        json!({"type": "mcp_call_response", "callId": "none"}),
        json!({"type": "mcp_progress", "callId": "none", "progress": 1}),
        json!({"type": "mcp_part_response", "callId": "none", "part": 0}),
        json!({"type": "start_upload", "client_upload_id": "standing", "name": "standing", "size": 9}),
    ];
    let without = [
        ("send", "counted, and written once a minute"),
        ("mcp_call", "counted, and written once a minute"),
        ("mcp_deploy", "needs a host; one entry each, see services.rs"),
        ("mcp_update", "needs a host; one entry each, see services.rs"),
        ("mcp_undeploy", "of a service that is there; one entry, see services.rs"),
        ("mcp_logs", "of a service that is there; it reads"),
        ("message_status", "of a message that is there; it reads"),
        ("topic_edit", "of a message that is there; its entry, see topics.rs"),
        ("topic_delete_message", "of a message that is there; its entry, see topics.rs"),
        ("topic_pin", "of a message that is there; its entry, see topics.rs"),
        ("topic_react", "of a message that is there; a reaction is no change of consequence"),
        ("get_task", "of a task that is there; it reads"),
        ("peer_file_request", "asks another peer; its answer has the entry, see peer_files.rs"),
        ("peer_dir_request", "asks another peer; its answer has the entry, see peer_files.rs"),
        ("peer_file_response", "answers another peer; one entry, see peer_files.rs"),
        ("peer_dir_response", "answers another peer; one entry, see peer_files.rs"),
        ("get_file", "of a file that is there; it reads"),
        ("file_status", "of a file that is there; it reads"),
        ("file_readers", "of a file that is there; it reads"),
        ("upload_status", "of an upload that is there, which no one else sees; it reads"),
        ("cancel_upload", "of an upload that is there, which no one else sees"),
        ("disconnect", "closes connections, which is no change of what is kept"),
        ("kick", "closes connections, which is no change of what is kept"),
        ("hello", "opens a connection"),
        ("session_hello", "opens a connection"),
    ];
    let plain = plain.map(|tag| (tag, Ok(json!({ "type": tag }))));
    let framed = framed.map(|frame| {
        let tag = unchanging_tag(frame["type"].as_str().unwrap_or_default());
        (tag, Ok(frame))
    });
    let without = without.map(|(tag, why)| (tag, Err(why)));
    plain.into_iter().chain(framed).chain(without).collect()
}

/// The tag as the protocol's table has it.
fn unchanging_tag(tag: &str) -> &'static str {
    ClientMessage::rows().into_iter().map(|(_, row)| row.tag).find(|known| *known == tag).unwrap_or("unknown")
}

/// One entry that is expected: the event, and what its payload says.
type Expected = (&'static str, Value);

/// A request, who makes it, and what it leaves.
struct Step {
    who: usize,
    frame: Value,
    leaves: Vec<Expected>,
}

#[derive(Clone, Copy, PartialEq)]
enum Status {
    Open,
    Claimed(usize),
    Done,
}

/// What the test knows of the mesh.
#[derive(Default)]
struct World {
    random: Option<StdRng>,
    made: usize,
    keys: BTreeMap<String, u64>,
    tasks: BTreeMap<String, (Status, u64)>,
    streams: BTreeSet<String>,
    memories: Vec<String>,
    /// Names and versions.
    skills: BTreeMap<String, u64>,
    /// Names of vault entries of the owner.
    vault: BTreeSet<String>,
    /// Names of MCP servers.
    servers: BTreeSet<String>,
    /// Whether Bob was let in, by id.
    files: BTreeMap<String, bool>,
    /// An upload of the owner that can be finished.
    upload: String,
    bob_key: String,
    /// Whether each is paused, by id.
    scheduled: BTreeMap<String, bool>,
    clock: Option<bool>,
    groups: BTreeSet<String>,
    /// Ids of keys that are not revoked.
    api_keys: Vec<String>,
    /// Bob follows the topic.
    in_topic: bool,
    banned: bool,
    admin: bool,
    denied: bool,
    /// Names of members that may be removed.
    spare: Vec<(String, String)>,
    ids: Vec<String>,
    /// Name and key of the member that is banned and promoted.
    victim: (String, String, String),
}

const OWNER: usize = 0;
const ALICE: usize = 1;
const BOB: usize = 2;

impl World {
    fn any<T: Clone>(&mut self, all: Vec<T>) -> Option<T> {
        all.choose(self.random.as_mut()?).cloned()
    }

    fn who(&mut self) -> usize {
        self.any(vec![ALICE, BOB]).unwrap_or(ALICE)
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{}", self.made)
    }

    fn task(&mut self, wanted: fn(Status) -> bool) -> Option<(String, Status, u64)> {
        let fitting = self.tasks.iter().filter(|(_, (status, _))| wanted(*status));
        let fitting = fitting.map(|(id, (status, version))| (id.clone(), *status, *version)).collect();
        self.any(fitting)
    }

    /// A step of a task that is there, made by the owner when no one else may.
    fn of_task(&mut self, kind: &str, event: &'static str, wanted: fn(Status) -> bool, now: Status) -> Option<Step> {
        let (id, status, version) = self.task(wanted)?;
        let who = match status {
            Status::Claimed(holder) => holder,
            Status::Open | Status::Done => OWNER,
        };
        let now = if let Status::Claimed(_) = now { Status::Claimed(who) } else { now };
        self.tasks.insert(id.clone(), (now, version + 1));
        let frame = json!({"type": kind, "taskId": id});
        Some(Step { who, frame, leaves: vec![(event, json!({"task": id, "version": version + 1}))] })
    }

    /// A step that lets Bob read a file, or no longer.
    fn of_file(&mut self, kind: &str, event: &'static str, lets_in: bool) -> Option<Step> {
        let fitting = self.files.iter().filter(|(_, is_in)| **is_in != lets_in);
        let id = self.any(fitting.map(|(id, _)| id.clone()).collect())?;
        self.files.insert(id.clone(), lets_in);
        let payload = json!({"file": id, "owner": self.ids[OWNER], "member": self.ids[BOB]});
        let frame = json!({"type": kind, "fileId": id, "peerPubkey": self.bob_key});
        Some(Step { who: OWNER, frame, leaves: vec![(event, payload)] })
    }

    /// A step of a scheduled message that is there.
    fn of_scheduled(&mut self, kind: &str, event: &'static str, wanted: fn(bool) -> bool) -> Option<Step> {
        let fitting = self.scheduled.iter().filter(|(_, paused)| wanted(**paused));
        let id = self.any(fitting.map(|(id, _)| id.clone()).collect())?;
        let payload = json!({"scheduleId": id, "of": self.ids[OWNER]});
        Some(Step { who: OWNER, frame: json!({"type": kind, "scheduledId": id}), leaves: vec![(event, payload)] })
    }

    /// The next request of a kind, if it has something to change now.
    fn step(&mut self, kind: &str) -> Option<Step> {
        let who = self.who();
        let frame = |more: Value| merged(json!({"type": kind}), more);
        let one = |who, frame, event, payload| Some(Step { who, frame, leaves: vec![(event, payload)] });
        match kind {
            "set_state" => {
                let key = format!("k{}", self.random.as_mut()?.gen_range(0..3));
                let version = self.keys.get(&key).copied().unwrap_or_default();
                // A deleted key goes on counting.
                let version = if version % 1_000 == 0 { version / 1_000 } else { version } + 1;
                self.keys.insert(key.clone(), version);
                one(
                    who,
                    frame(json!({"key": key, "value": 7})),
                    "state_set",
                    json!({"key": key, "version": version, "size": 1}),
                )
            }
            "delete_state" => {
                let there = self.keys.iter().filter(|(_, version)| *version % 1_000 != 0);
                let there = there.map(|(key, version)| (key.clone(), *version)).collect();
                let (key, version) = self.any(there)?;
                self.keys.insert(key.clone(), (version + 1) * 1_000);
                one(who, frame(json!({"key": key})), "state_deleted", json!({"key": key, "version": version + 1}))
            }
            "create_task" => one(who, frame(json!({"title": "t"})), "task_created", json!({"version": 1})),
            "claim_task" => self.of_task(kind, "task_claimed", |status| status == Status::Open, Status::Claimed(OWNER)),
            "unclaim_task" => {
                self.of_task(kind, "task_unclaimed", |status| matches!(status, Status::Claimed(_)), Status::Open)
            }
            "complete_task" => self.of_task(kind, "task_completed", |status| status != Status::Done, Status::Done),
            "reopen_task" => self.of_task(kind, "task_reopened", |status| status == Status::Done, Status::Open),
            "update_task" => {
                let title = self.fresh("title ");
                let mut step = self.of_task(kind, "task_updated", |status| status == Status::Open, Status::Open)?;
                step.frame["title"] = json!(title);
                step.leaves[0].1["fields"] = json!("title");
                Some(step)
            }
            "delete_task" => {
                let (id, _, version) = self.task(|_| true)?;
                self.tasks.remove(&id);
                one(OWNER, frame(json!({"taskId": id})), "task_deleted", json!({"task": id, "version": version}))
            }
            // The oldest one is claimed; which that is, the answer says.
            "next_task" => {
                self.task(|status| status == Status::Open)?;
                one(OWNER, frame(json!({"claim": true})), "task_claimed", json!({}))
            }
            "create_stream" => {
                let name = self.fresh("s");
                self.streams.insert(name.clone());
                one(OWNER, frame(json!({"name": name})), "stream_created", json!({"name": name}))
            }
            "publish" => {
                // Only the first entry makes the stream.
                let old = self.any(self.streams.iter().cloned().collect());
                let (name, leaves) = match old.filter(|_| self.made.is_multiple_of(2)) {
                    Some(name) => (name, vec![]),
                    None => {
                        let name = self.fresh("s");
                        (name.clone(), vec![("stream_created", json!({"name": name}))])
                    }
                };
                self.streams.insert(name.clone());
                Some(Step { who: OWNER, frame: frame(json!({"stream": name, "data": 1})), leaves })
            }
            "delete_stream" => {
                let name = self.any(self.streams.iter().cloned().collect())?;
                self.streams.remove(&name);
                one(OWNER, frame(json!({"stream": name})), "stream_deleted", json!({"name": name}))
            }
            "set_clock" => {
                self.clock = Some(self.clock.unwrap_or(false));
                one(who, frame(json!({"speed": 10})), "clock_set", json!({"speedThousandths": 10_000}))
            }
            "pause_clock" | "resume_clock" => {
                let paused = kind == "pause_clock";
                self.clock = self.clock.map(|_| paused);
                self.clock?;
                one(
                    who,
                    frame(json!({})),
                    if paused { "clock_paused" } else { "clock_resumed" },
                    json!({"speedThousandths": 10_000}),
                )
            }
            "stop_clock" => {
                self.clock.take()?;
                one(who, frame(json!({})), "clock_stopped", json!({}))
            }
            "remember" => {
                let content = self.fresh("word ");
                let size = content.len();
                one(who, frame(json!({"content": content})), "memory_stored", json!({"size": size, "tags": 0}))
            }
            "forget" => {
                let id = self.any(self.memories.clone())?;
                self.memories.retain(|one| *one != id);
                one(OWNER, frame(json!({"memoryId": id})), "memory_forgotten", json!({"memory": id}))
            }
            "share_context" => {
                let summary = self.fresh("word ");
                let size = summary.len();
                one(who, frame(json!({"summary": summary})), "context_shared", json!({"size": size}))
            }
            "share_skill" => {
                let name = format!("skill-{}", self.random.as_mut()?.gen_range(0..3));
                let version = self.skills.entry(name.clone()).or_default();
                *version += 1;
                let (version, text) = (*version, self.fresh("text "));
                one(
                    OWNER,
                    frame(json!({"name": name, "description": "d", "instructions": text.clone()})),
                    "skill_shared",
                    json!({"name": name, "version": version, "signed": false, "size": text.len() + 1}),
                )
            }
            "remove_skill" => {
                let (name, version) = self.any(self.skills.clone().into_iter().collect())?;
                self.skills.remove(&name);
                one(
                    OWNER,
                    frame(json!({"name": name})),
                    "skill_removed",
                    json!({"name": name, "version": version, "owner": self.ids[OWNER]}),
                )
            }
            "vault_set" => {
                let name = format!("TOKEN_{}", self.random.as_mut()?.gen_range(0..3));
                let replaced = !self.vault.insert(name.clone());
                // The broker sees no more than the form of a sealed value.
                let sealed = json!({"ciphertext": "A".repeat(32), "nonce": "A".repeat(32), "sealed_key": format!("{}A=", "A".repeat(106))});
                let entry = merged(json!({"key": name, "entry_type": "env"}), sealed);
                one(OWNER, frame(entry), "vault_stored", json!({"key": name, "type": "env", "replaced": replaced}))
            }
            "vault_delete" => {
                let name = self.any(self.vault.iter().cloned().collect())?;
                self.vault.remove(&name);
                one(OWNER, frame(json!({"key": name})), "vault_deleted", json!({"key": name, "of": self.ids[OWNER]}))
            }
            "mesh_execute" => {
                let sql = format!("CREATE TABLE {} (n INTEGER)", self.fresh("t").replace('-', "_"));
                let digest = sha256_hex(format!("{}\n", json!({"sql": sql})).as_bytes());
                let payload = json!({"digest": digest, "statements": 1, "rows": 0});
                one(OWNER, frame(json!({"sql": sql})), "sql_executed", payload)
            }
            "mcp_register" => {
                let (name, persistent) = (self.fresh("server-"), self.made.is_multiple_of(2));
                self.servers.insert(name.clone());
                one(
                    ALICE,
                    frame(
                        json!({"serverName": name, "description": "d", "tools": [{"name": "t"}], "persistent": persistent}),
                    ),
                    "mcp_registered",
                    json!({"server": name, "tools": 1, "persistent": persistent}),
                )
            }
            "mcp_unregister" => {
                let name = self.any(self.servers.iter().cloned().collect())?;
                self.servers.remove(&name);
                let owner = self.ids[ALICE].clone();
                one(
                    OWNER,
                    frame(json!({"serverName": name})),
                    "mcp_unregistered",
                    json!({"server": name, "owner": owner}),
                )
            }
            "finish_upload" => {
                let id = std::mem::take(&mut self.upload);
                self.files.insert(id.clone(), false);
                let frame = frame(json!({"fileId": id, "sha256": sha256_hex(b"")}));
                one(OWNER, frame, "file_shared", json!({"file": id, "size": 0, "encrypted": false}))
            }
            "grant_file_access" => self.of_file(kind, "file_granted", true),
            "revoke_file_access" => self.of_file(kind, "file_revoked", false),
            "delete_file" => {
                let id = self.any(self.files.keys().cloned().collect())?;
                self.files.remove(&id);
                let payload = json!({"file": id, "owner": self.ids[OWNER], "expired": false});
                one(OWNER, frame(json!({"fileId": id})), "file_deleted", payload)
            }
            "schedule" => {
                let text = self.fresh("text ");
                one(
                    OWNER,
                    frame(json!({"to": "*", "message": text, "deliverAt": 0, "cron": "@yearly", "tz": "UTC"})),
                    "schedule_created",
                    json!({"cron": "@yearly"}),
                )
            }
            "edit_scheduled" => {
                let message = self.fresh("text ");
                let mut step = self.of_scheduled(kind, "schedule_edited", |_| true)?;
                step.frame["message"] = json!(message);
                Some(step)
            }
            "pause_scheduled" => {
                let step = self.of_scheduled(kind, "schedule_paused", |paused| !paused)?;
                self.scheduled.insert(step.leaves[0].1["scheduleId"].as_str()?.to_owned(), true);
                Some(step)
            }
            "resume_scheduled" => {
                let step = self.of_scheduled(kind, "schedule_resumed", |paused| paused)?;
                self.scheduled.insert(step.leaves[0].1["scheduleId"].as_str()?.to_owned(), false);
                Some(step)
            }
            "cancel_scheduled" => {
                let step = self.of_scheduled(kind, "schedule_cancelled", |_| true)?;
                self.scheduled.remove(step.leaves[0].1["scheduleId"].as_str()?);
                Some(step)
            }
            "topic_create" => {
                let name = self.fresh("topic-");
                one(who, frame(json!({"name": name})), "topic_created", json!({"name": name}))
            }
            "apikey_create" => {
                let label = self.fresh("key ");
                let of = json!({"of": self.ids[OWNER], "capabilities": ["read"]});
                one(OWNER, frame(json!({"label": label, "capabilities": ["read"]})), "api_key_created", of)
            }
            "apikey_revoke" => {
                let id = self.api_keys.pop()?;
                one(OWNER, frame(json!({"id": id})), "api_key_revoked", json!({"key": id}))
            }
            "topic_update" => {
                let text = self.fresh("about ");
                one(
                    OWNER,
                    frame(json!({"topic": "standing", "description": text})),
                    "topic_updated",
                    json!({"name": "standing"}),
                )
            }
            "topic_set_member" => {
                let (role, member) = (self.fresh("role "), self.ids[BOB].clone());
                self.in_topic = true;
                one(
                    OWNER,
                    frame(json!({"topic": "standing", "member": member, "role": role})),
                    "topic_member_set",
                    json!({"member": member, "role": role}),
                )
            }
            "topic_remove_member" => {
                if !std::mem::take(&mut self.in_topic) {
                    return None;
                }
                let member = self.ids[BOB].clone();
                one(
                    OWNER,
                    frame(json!({"topic": "standing", "member": member})),
                    "topic_member_removed",
                    json!({"member": member}),
                )
            }
            "join_group" => {
                let group = self.fresh("group-");
                self.groups.insert(group.clone());
                let member = self.ids[ALICE].clone();
                one(
                    ALICE,
                    frame(json!({"name": group, "asMember": true})),
                    "group_joined",
                    json!({"group": group, "member": member}),
                )
            }
            "leave_group" => {
                let group = self.any(self.groups.iter().cloned().collect())?;
                self.groups.remove(&group);
                let member = self.ids[ALICE].clone();
                one(
                    ALICE,
                    frame(json!({"name": group, "asMember": true})),
                    "group_left",
                    json!({"group": group, "member": member}),
                )
            }
            "set_permissions" => {
                if self.banned {
                    return None;
                }
                self.denied = !self.denied;
                let (name, _, id) = self.victim.clone();
                let permissions = json!({"canSend": if self.denied { json!(false) } else { Value::Null }});
                one(
                    OWNER,
                    frame(json!({"member": name, "permissions": permissions})),
                    "permissions_changed",
                    json!({"member": id}),
                )
            }
            "ban" | "unban" => {
                if self.banned == (kind == "ban") || self.admin {
                    return None;
                }
                self.banned = !self.banned;
                let (_, key, id) = self.victim.clone();
                let event = if self.banned { "member_banned" } else { "member_unbanned" };
                one(OWNER, frame(json!({"target": key})), event, json!({"member": id}))
            }
            "rename_member" => {
                let name = self.fresh("alice ");
                let member = self.ids[ALICE].clone();
                one(ALICE, frame(json!({"name": name})), "member_changed", json!({"member": member}))
            }
            "rename_session" => {
                let name = self.fresh("session ");
                one(BOB, frame(json!({"name": name})), "session_renamed", json!({"to": name}))
            }
            "set_member_role" => {
                if self.banned {
                    return None;
                }
                self.admin = !self.admin;
                let ((name, _, id), role) = (self.victim.clone(), if self.admin { "admin" } else { "member" });
                one(
                    OWNER,
                    frame(json!({"member": name, "role": role})),
                    "member_changed",
                    json!({"member": id, "role": role}),
                )
            }
            "remove_member" => {
                let (name, id) = self.spare.pop()?;
                one(OWNER, frame(json!({"member": name})), "member_removed", json!({"member": id}))
            }
            // Once, at the end.
            _ => None,
        }
    }

    /// What only the answer says.
    fn learn(&mut self, kind: &str, who: usize, answer: &Value) {
        match kind {
            "create_task" => {
                let id = answer["id"].as_str().unwrap_or_default().to_owned();
                self.tasks.insert(id, (Status::Open, 1));
            }
            "next_task" => {
                let (id, version) =
                    (answer["task"]["id"].as_str().unwrap_or_default(), answer["task"]["version"].as_u64());
                self.tasks.insert(id.to_owned(), (Status::Claimed(who), version.unwrap_or_default()));
            }
            "schedule" => {
                self.scheduled.insert(answer["scheduledId"].as_str().unwrap_or_default().to_owned(), false);
            }
            "apikey_create" => self.api_keys.push(answer["id"].as_str().unwrap_or_default().to_owned()),
            "remember" => self.memories.push(answer["id"].as_str().unwrap_or_default().to_owned()),
            _ => {}
        }
    }
}

/// Reads the log on, as the owner.
struct Reader {
    peer: TestPeer,
    seq: i64,
}

impl Reader {
    async fn new_entries(&mut self) -> Result<Vec<AuditEntry>> {
        let frame = json!({"type": "audit_export", "after": self.seq});
        let page: AuditPage = serde_json::from_value(self.peer.call(frame, "audit_page").await?)?;
        ensure!(page.next.is_none(), "one request left a whole page of entries");
        self.seq = page.entries.last().map_or(self.seq, |last| last.seq);
        Ok(page.entries)
    }

    /// The entries since the last look are these, and their actor is this member.
    async fn expects(&mut self, what: &Value, leaves: &[Expected], actor: &str) -> Result<()> {
        let found = self.new_entries().await?;
        let events: Vec<&str> = found.iter().map(|entry| entry.event_type.as_str()).collect();
        let expected: Vec<&str> = leaves.iter().map(|(event, _)| *event).collect();
        ensure!(events == expected, "{what} left {events:?}, and should leave {expected:?}");
        for (entry, (_, payload)) in found.iter().zip(leaves) {
            let told: Value = serde_json::from_str(&entry.payload)?;
            let fields = payload.as_object().context("a payload is an object")?;
            ensure!(
                fields.iter().all(|(name, value)| told[name] == *value),
                "{what} left {told}, and should say {payload}"
            );
            let by = entry.actor.as_ref().map(|actor| actor.as_str());
            ensure!(by == Some(actor), "{what} was done by {actor}, and the entry says {by:?}");
        }
        Ok(())
    }
}

#[test]
fn every_request_of_the_wire_is_in_one_of_the_lists() {
    let known: BTreeSet<&str> = ClientMessage::rows().into_iter().map(|(_, row)| row.tag).collect();
    let unchanging: Vec<&str> = unchanging().into_iter().map(|(tag, _)| tag).collect();
    let listed: BTreeSet<&str> = CHANGING.iter().copied().chain(unchanging.iter().copied()).collect();
    assert_eq!(listed, known);
    assert_eq!(listed.len(), CHANGING.len() + unchanging.len(), "none is in both");
}

broker_suite! {
    async fn every_change_of_every_feature_leaves_its_entry(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob, victim) = (mesh.member("alice")?, mesh.member("bob")?, mesh.member("victim")?);
        let spare = mesh.members("spare", 3)?;
        let mut peers = [
            broker.connect(&mesh.creator.session("owner")).await?,
            broker.join(&alice).await?,
            broker.join(&bob).await?,
        ];
        let mut reader = Reader { peer: broker.connect(&mesh.creator.session("reader")).await?, seq: 0 };
        for name in ["standing", "elsewhere"] {
            peers[OWNER].call(json!({"type": "topic_create", "name": name}), "topic_created").await?;
        }
        peers[OWNER].call(json!({"type": "publish", "stream": "standing", "data": 1, "confirm": true}), "done").await?;
        let mut world = World {
            random: Some(StdRng::seed_from_u64(7)),
            ids: vec![mesh.creator.id.to_string(), alice.id.to_string(), bob.id.to_string()],
            bob_key: bob.pubkey(),
            victim: ("victim".into(), victim.pubkey(), victim.id.to_string()),
            spare: spare.iter().map(|member| (member.name.clone(), member.id.to_string())).collect(),
            ..World::default()
        };
        reader.new_entries().await?;

        let mut left: BTreeSet<&str> = CHANGING.iter().copied().filter(|kind| *kind != "transfer_mesh").collect();
        let mut rest = unchanging();
        for round in 0..600 {
            if left.is_empty() && round >= 200 {
                break;
            }
            let kind = world.any(CHANGING.to_vec()).context("a kind")?;
            if kind == "finish_upload" {
                let name = world.fresh("file ");
                let start = json!({"type": "start_upload", "client_upload_id": name, "name": name, "size": 0});
                let started = peers[OWNER].call(start, "upload_started").await?;
                world.upload = started["fileId"].as_str().unwrap_or_default().to_owned();
            }
            if let Some(Step { who, frame, leaves }) = world.step(kind) {
                let answer = peers[who].ask(merged(frame.clone(), json!({"confirm": true}))).await?;
                ensure!(answer["type"] != "error", "{frame} was refused: {answer}");
                let actor = world.ids[who].clone();
                reader.expects(&frame, &leaves, &actor).await?;
                world.learn(kind, who, &answer);
                left.remove(kind);
            }
            // In between, what changes nothing, and what is refused.
            if let Some((_, Ok(frame))) = rest.pop() {
                peers[OWNER].ask(merged(frame.clone(), json!({"confirm": true}))).await?;
                reader.expects(&frame, &[], "").await?;
            }
        }
        assert!(left.is_empty() && rest.is_empty(), "not tried: {left:?}, {rest:?}");
        for frame in [
            json!({"type": "set_state", "key": "k", "value": 1, "expected_version": 99}),
            json!({"type": "delete_state", "key": "none"}),
            json!({"type": "claim_task", "taskId": "none"}),
            json!({"type": "delete_stream", "stream": "none"}),
            json!({"type": "edit_scheduled", "scheduledId": "none", "message": "x"}),
            json!({"type": "schedule", "to": "*", "message": "x", "deliverAt": 0, "cron": "no cron"}),
            json!({"type": "ban", "target": "alice"}),
            json!({"type": "set_permissions", "member": "bob", "permissions": {"canSend": false}}),
            json!({"type": "transfer_mesh", "member": "bob"}),
        ] {
            peers[ALICE].refused(frame.clone()).await?;
            reader.expects(&frame, &[], "").await?;
        }
        let (frame, new_owner) = (json!({"type": "transfer_mesh", "member": world.ids[BOB]}), json!({"to": world.ids[BOB]}));
        peers[OWNER].call(frame.clone(), "member_changed").await?;
        reader.peer = broker.connect(&bob.session("reader")).await?;
        reader.expects(&frame, &[("mesh_transferred", new_owner)], &world.ids[OWNER].clone()).await
    }
}
