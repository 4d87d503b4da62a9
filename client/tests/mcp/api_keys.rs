//! API keys at the shell, against a real broker.

use anyhow::Result;
use serde_json::{Value, json};

use super::team::{Team, stderr, stdout};

#[tokio::test]
async fn keys_are_made_listed_and_revoked() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["topic", "create", "builds", "--json"])?;
    let create =
        ["apikey", "create", "ci", "--cap", "send", "--cap", "read", "--topic", "builds", "--expires", "30d", "--json"];
    let made = team.bob.json(&create)?;
    let secret = made["secret"].as_str().unwrap_or_default();
    assert!(secret.starts_with("cm_") && secret.len() == 46, "{made}");
    assert_eq!((&made["capabilities"], &made["topicScopes"]), (&json!(["send", "read"]), &json!(["builds"])));
    let listed = team.bob.json(&["apikey", "list", "--json"])?;
    assert_eq!((&listed[0]["label"], &listed[0]["prefix"]), (&json!("ci"), &made["prefix"]));
    assert!(listed[0]["expiresAt"].is_string() && !listed.to_string().contains(secret), "{listed}");
    let shown = stdout(&team.bob.run(&["apikey", "list"])?);
    assert!(shown.contains("send, read") && shown.contains("#builds") && !shown.contains(secret), "{shown}");
    // The owner sees it, and makes one for him; he makes none for her.
    assert_eq!(team.ann.json(&["apikey", "list", "--json"])?[0]["memberName"], "Bob");
    team.ann.json(&["apikey", "create", "backup", "--member", "Bob", "--json"])?;
    let refused = team.bob.run(&["apikey", "create", "x", "--member", "Ann"])?;
    assert_eq!(refused.status.code(), Some(7), "{}", stderr(&refused));
    let labels = |keys: &Value| -> Vec<Value> {
        keys.as_array().into_iter().flatten().map(|key| key["label"].clone()).collect()
    };
    assert_eq!(labels(&team.bob.json(&["apikey", "list", "--json"])?).len(), 2);
    let prefix = made["prefix"].as_str().unwrap_or_default();
    assert_eq!(team.bob.json(&["apikey", "revoke", prefix, "--json"])?["status"], "revoked");
    let listed = team.bob.json(&["apikey", "list", "--json"])?;
    assert_eq!(listed.as_array().into_iter().flatten().filter(|key| key["revokedAt"].is_string()).count(), 1);
    assert_eq!(team.bob.run(&["apikey", "revoke", "cm_"])?.status.code(), Some(3));
    assert_eq!(team.bob.run(&["apikey", "revoke", "no-such-key"])?.status.code(), Some(5));
    let several = team.bob.run(&["apikey", "create", "x", "--topic", "nowhere"])?;
    assert_eq!(several.status.code(), Some(5), "{}", stderr(&several));
    Ok(())
}
