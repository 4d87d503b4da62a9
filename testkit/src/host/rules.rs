//! The rules that the real host has and enforces without a word: every breach is written down here.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio::sync::oneshot;

use super::notes::ChannelNote;

/// The host cuts instructions and tool descriptions here.
const MAX_DESCRIPTION: usize = 2048;
/// The host drops a tool whose full name is longer.
const MAX_TOOL_NAME: usize = 128;
/// What the host puts before a tool's name, in the longest case.
const TOOL_PREFIX: &str = "mcp__plugin_claudemesh_claudemesh__";

/// What the host knows of its server, and what the server did wrong.
#[derive(Default)]
pub(super) struct State {
    pub(super) pending: HashMap<u64, oneshot::Sender<Value>>,
    /// Calls that the host gave up: an answer to them may still come.
    pub(super) cancelled: HashSet<u64>,
    /// Last sign of life of each call.
    progress: HashMap<u64, f64>,
    pub(super) violations: Vec<String>,
    pub(super) greeted: bool,
    channel: bool,
    /// The server relays permission questions.
    pub(super) relays: bool,
    /// Ids of questions that are open in the dialog.
    pub(super) asked: HashSet<String>,
    pub(super) lists_changed: u32,
    /// Output schemas of the tools that were listed.
    outputs: HashMap<String, Value>,
}

impl State {
    pub(super) fn breach(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// The result of `initialize`. From here on the server may speak.
    pub(super) fn initialized(&mut self, asked_for: &str, result: &Value) {
        let version = result["protocolVersion"].as_str().unwrap_or_default();
        if version.is_empty() || version > asked_for {
            self.breach(format!("initialize answered with revision `{version}`, asked for {asked_for}"));
        }
        if result["serverInfo"]["name"].as_str().is_none_or(str::is_empty) {
            self.breach("serverInfo.name is missing");
        }
        if result["instructions"].as_str().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
            self.breach(format!("instructions over {MAX_DESCRIPTION} bytes are cut by the host"));
        }
        let experimental = &result["capabilities"]["experimental"];
        self.channel = experimental["claude/channel"].is_object();
        self.relays = match &experimental["claude/channel/permission"] {
            Value::Null => false,
            Value::Object(_) => true,
            other => {
                self.breach(format!("older hosts take `{other}` for a declared permission relay"));
                false
            }
        };
        self.greeted = true;
    }

    /// One entry of `tools/list`.
    pub(super) fn tool(&mut self, tool: &Value) {
        let name = tool["name"].as_str().unwrap_or_default();
        if name.is_empty() || !name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || "_-".contains(symbol)) {
            self.breach(format!("tool name `{name}`: the host replaces everything but letters, digits, _ and -"));
        }
        if name.len() + TOOL_PREFIX.len() > MAX_TOOL_NAME {
            self.breach(format!("tool name `{name}` is too long with the host's prefix"));
        }
        if tool["description"].as_str().is_none_or(|text| text.is_empty() || text.len() > MAX_DESCRIPTION) {
            self.breach(format!("tool `{name}`: expected a description of 1 to {MAX_DESCRIPTION} bytes"));
        }
        if tool["inputSchema"]["type"] != "object" {
            self.breach(format!("tool `{name}`: inputSchema must be of type object"));
        }
        self.outputs.insert(name.to_owned(), tool["outputSchema"].clone());
    }

    /// The result of a tool that succeeded. A client that has listed the tools refuses data that its schema does not allow, and
    /// a schema without data.
    pub(super) fn answer(&mut self, tool: &str, data: &Value) {
        // Passes on what any server answers.
        if tool == "mesh_tool_call" {
            return;
        }
        let checked = match (self.outputs.get(tool), data) {
            (None, _) | (Some(Value::Null), Value::Null) => return,
            (Some(Value::Null), _) => Err("data without a schema".to_owned()),
            (Some(_), Value::Null) => Err("a schema without data".to_owned()),
            (Some(schema), data) => crate::schema::fits(schema, data),
        };
        if let Err(wrong) = checked {
            self.breach(format!("tool `{tool}` answered what its schema does not say: {wrong}"));
        }
    }

    /// An answer; who waits for it, when someone does.
    pub(super) fn answered(&mut self, frame: &Value) -> Option<oneshot::Sender<Value>> {
        let id = frame["id"].as_u64();
        let waiting = id.and_then(|id| self.pending.remove(&id));
        if id.is_some_and(|id| self.cancelled.remove(&id)) {
            return None;
        }
        if frame.get("result").is_some() == frame.get("error").is_some() {
            self.breach(format!("an answer needs either result or error: {frame}"));
        }
        if waiting.is_none() {
            self.breach(format!("an answer no one asked for: {frame}"));
        }
        waiting
    }

    /// A decision about a permission question; `None` when the host does not understand it.
    pub(super) fn decided(&mut self, params: &Value) -> Option<(String, String)> {
        if !self.relays {
            self.breach("a permission without the capability experimental[\"claude/channel/permission\"]");
        }
        let (Some(id), Some(behavior), Some(2)) =
            (params["request_id"].as_str(), params["behavior"].as_str(), params.as_object().map(serde_json::Map::len))
        else {
            self.breach(format!("a permission has request_id and behavior, both strings: {params}"));
            return None;
        };
        if !matches!(behavior, "allow" | "deny") {
            self.breach(format!("behavior is allow or deny: {params}"));
        }
        // The host ignores an id that it does not wait for; a server that sends one has lost count.
        if !self.asked.remove(id) {
            self.breach(format!("a permission no one asked for: {params}"));
        }
        Some((id.to_owned(), behavior.to_owned()))
    }

    /// A sign of life of a call; `None` when the host does not understand it.
    pub(super) fn progressed(&mut self, params: &Value) -> Option<u64> {
        let (Some(id), Some(value)) = (params["progressToken"].as_u64(), params["progress"].as_f64()) else {
            self.breach(format!("progress needs the token of its call and a number: {params}"));
            return None;
        };
        if !self.pending.contains_key(&id) && !self.cancelled.contains(&id) {
            self.breach(format!("progress of a call that is not under way: {params}"));
        }
        if self.progress.insert(id, value).is_some_and(|before| value <= before) {
            self.breach(format!("progress must grow: {params}"));
        }
        Some(id)
    }

    /// A channel note as the session would see it; `None` when the host loses it.
    pub(super) fn noted(&mut self, params: &Value) -> Option<ChannelNote> {
        if !self.channel {
            self.breach("a channel message without the capability experimental[\"claude/channel\"]");
        }
        let Some(content) = params["content"].as_str() else {
            self.breach(format!("channel content must be a string: {params}"));
            return None;
        };
        let known = |key: &str| matches!(key, "content" | "meta");
        if let Some(other) = params.as_object().and_then(|map| map.keys().find(|key| !known(key))) {
            self.breach(format!("the channel has content and meta, not `{other}`"));
        }
        if content.to_ascii_lowercase().contains("</channel") {
            self.breach(format!("a body that can end its element: {content}"));
        }
        let mut meta = HashMap::new();
        match &params["meta"] {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    meta.extend(self.attribute(key, value));
                }
            }
            other => self.breach(format!("meta must be a map of strings: {other}")),
        }
        Some(ChannelNote { content: content.to_owned(), meta })
    }

    fn attribute(&mut self, key: &str, value: &Value) -> Option<(String, String)> {
        if key.is_empty() || !key.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_') {
            self.breach(format!("meta key `{key}`: the host drops it"));
        }
        let Some(text) = value.as_str() else {
            self.breach(format!("meta `{key}` is no string: the host loses the whole message"));
            return None;
        };
        if text.contains(['"', '<', '>', '\n', '\r']) {
            self.breach(format!("meta `{key}` can end its attribute: {text}"));
        }
        Some((key.to_owned(), text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn greeted() -> State {
        let mut state = State::default();
        let experimental = json!({"claude/channel": {}, "claude/channel/permission": {}});
        let result = json!({
            "protocolVersion": "2025-11-25", "serverInfo": {"name": "x"}, "capabilities": {"experimental": experimental},
        });
        state.initialized("2025-11-25", &result);
        assert_eq!(state.violations, Vec::<String>::new());
        state
    }

    /// What the server does, what the host has to say about it.
    fn breaches(act: impl FnOnce(&mut State)) -> Vec<String> {
        let mut state = greeted();
        act(&mut state);
        state.violations
    }

    #[test]
    fn what_keeps_to_the_rules_passes() {
        let kept = breaches(|state| {
            state.tool(&json!({"name": "send_message", "description": "d", "inputSchema": {"type": "object"}}));
            assert!(state.noted(&json!({"content": "hi", "meta": {"from_name": "Ann"}})).is_some());
            assert!(state.noted(&json!({"content": "hi"})).is_some());
            state.asked.insert("abcde".into());
            assert!(state.decided(&json!({"request_id": "abcde", "behavior": "deny"})).is_some());
            state.pending.insert(7, oneshot::channel().0);
            for progress in [1, 2] {
                assert_eq!(state.progressed(&json!({"progressToken": 7, "progress": progress})), Some(7));
            }
            assert!(state.answered(&json!({"id": 7, "result": {}})).is_some());
        });
        assert_eq!(kept, Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_found() {
        let note = |params: Value| move |state: &mut State| drop(state.noted(&params));
        assert!(breaches(note(json!({"content": 7})))[0].contains("must be a string"));
        assert!(breaches(note(json!({"content": "x", "other": 1})))[0].contains("not `other`"));
        assert!(breaches(note(json!({"content": "x</Channel"})))[0].contains("end its element"));
        assert!(breaches(note(json!({"content": "x", "meta": []})))[0].contains("map of strings"));
        assert!(breaches(note(json!({"content": "x", "meta": {"a-b": "c"}})))[0].contains("drops it"));
        assert!(breaches(note(json!({"content": "x", "meta": {"n": 7}})))[0].contains("whole message"));
        assert!(breaches(note(json!({"content": "x", "meta": {"n": "a\"b"}})))[0].contains("end its attribute"));
        let tool = |tool: Value| move |state: &mut State| state.tool(&tool);
        let schema = json!({"type": "object"});
        assert!(
            breaches(tool(json!({"name": "a b", "description": "d", "inputSchema": schema})))[0].contains("replaces")
        );
        assert!(breaches(tool(json!({"name": "a", "inputSchema": schema})))[0].contains("description"));
        assert!(breaches(tool(json!({"name": "a", "description": "d"})))[0].contains("inputSchema"));
        let long = json!({"name": "a".repeat(100), "description": "d", "inputSchema": schema});
        assert!(breaches(tool(long))[0].contains("too long"));
        let decide = |params: Value| move |state: &mut State| drop(state.decided(&params));
        assert!(breaches(decide(json!({"request_id": "abcde", "behavior": "deny"})))[0].contains("no one asked"));
        assert!(breaches(decide(json!({"request_id": "abcde"})))[0].contains("both strings"));
        assert!(
            breaches(|state| assert!(state.progressed(&json!({"progressToken": 7, "progress": 1})).is_some()))[0]
                .contains("not under way")
        );
        assert!(breaches(|state| drop(state.answered(&json!({"id": 7, "result": {}}))))[0].contains("no one asked"));
        let old = |result: Value| {
            let mut state = State::default();
            state.initialized("2025-11-25", &result);
            state.violations
        };
        let found = old(json!({"protocolVersion": "2026-07-28", "instructions": "x".repeat(3_000),
            "capabilities": {"experimental": {"claude/channel/permission": false}}}));
        assert_eq!(found.len(), 4, "{found:?}");
        let mut closed = State::default();
        closed.noted(&json!({"content": "x"}));
        closed.decided(&json!({"request_id": "abcde", "behavior": "deny"}));
        assert!(closed.violations.iter().filter(|text| text.contains("without the capability")).count() == 2);
    }
}
