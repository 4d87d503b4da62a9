//! `config get|set|unset|path`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Config, MessageMode};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::chosen_name;
use crate::features::notify::Notifier;
use crate::output::clean;
use crate::values::parse_groups;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// Read and change your settings on this machine.
    #[command(after_help = "Examples:\n  claudemesh config get\n  claudemesh config set name Ann\n  claudemesh config set message-mode inbox\n  claudemesh config unset groups\n  claudemesh config path")]
    pub struct ConfigArgs: enum ConfigVerb {
        Get => GetArgs,
        Set => SetArgs,
        Unset => UnsetArgs,
        Path => PathArgs,
    }
}

/// A setting: its name, what it is, and how it is read, changed and taken away.
struct Setting {
    key: &'static str,
    /// As it stands in `config.json`.
    field: &'static str,
    doc: &'static str,
    get: fn(&Config) -> Option<Value>,
    set: fn(&mut Config, &str) -> Result<(), CliError>,
    unset: fn(&mut Config),
}

const SETTINGS: [Setting; 6] = [
    Setting {
        key: "name",
        field: "displayName",
        doc: "your name in meshes that you make or join from now on",
        get: |config| config.display_name.clone().map(Value::String),
        set: |config, text| {
            config.display_name = Some(chosen_name(text)?);
            Ok(())
        },
        unset: |config| config.display_name = None,
    },
    Setting {
        key: "role",
        field: "role",
        doc: "what your sessions do, in any words (shown as their title); the role in the mesh is `claudemesh members role`",
        get: |config| config.role.clone().map(Value::String),
        set: |config, text| {
            let role = text.trim();
            if role.is_empty() || role.chars().count() > MAX_ROLE_CHARS || clean(role) != role {
                return Err(wrong("role", text, "1 to 64 printable characters, for example lead"));
            }
            config.role = Some(role.to_owned());
            Ok(())
        },
        unset: |config| config.role = None,
    },
    Setting {
        key: "groups",
        field: "groups",
        doc: "groups that your sessions join, such as frontend:lead,qa",
        get: |config| config.groups.as_ref().map(|groups| json!(groups)),
        set: |config, text| {
            let groups = parse_groups(text).map_err(|reason| wrong("groups", text, &reason))?;
            config.groups = Some(groups.0);
            Ok(())
        },
        unset: |config| config.groups = None,
    },
    Setting {
        key: "message-mode",
        field: "messageMode",
        doc: "how messages reach your sessions: push, inbox or off",
        get: |config| config.message_mode.map(|mode| mode.as_str().into()),
        set: |config, text| {
            let mode = <MessageMode as clap::ValueEnum>::from_str(text, true);
            config.message_mode = Some(mode.map_err(|_| wrong("message-mode", text, "push, inbox or off"))?);
            Ok(())
        },
        unset: |config| config.message_mode = None,
    },
    Setting {
        key: "notify",
        field: "notify",
        doc: "how you are notified outside Claude Code; `claudemesh notify` tries it out",
        get: |config| config.notify.clone().map(Value::String),
        set: |config, text| {
            config.notify = Notifier::parse(text).map(|notifier| notifier.setting().to_owned());
            Ok(())
        },
        unset: |config| config.notify = None,
    },
    Setting {
        key: "default-mesh",
        field: "defaultMesh",
        doc: "the mesh that commands use when they need one and none is named; the same as `claudemesh use`",
        get: |config| config.default_entry().map(|mesh| mesh.slug.clone().into()),
        set: |config, text| {
            config.default_mesh = Some(config.choose_joined(text)?.slug.clone());
            Ok(())
        },
        unset: |config| config.default_mesh = None,
    },
];

/// Longest role.
const MAX_ROLE_CHARS: usize = 64;

fn wrong(key: &str, value: &str, expected: &str) -> CliError {
    CliError::invalid_args(format!("'{}' is not a value of `{key}`.", clean(value)))
        .hint(format!("Expected {expected}."))
}

/// The setting of this name; the spelling of `config.json` is fine, too.
fn setting(name: &str) -> Result<&'static Setting, CliError> {
    if let Some(found) = SETTINGS.iter().find(|setting| setting.key == name || setting.field == name) {
        return Ok(found);
    }
    let nearest = SETTINGS.iter().min_by_key(|setting| distance(setting.key, name));
    let all = SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
    let hint = match nearest.filter(|setting| distance(setting.key, name) <= 1 + setting.key.len() / 3) {
        Some(setting) => format!("Did you mean `{}`? There are: {all}.", setting.key),
        None => format!("There are: {all}."),
    };
    Err(CliError::new(ExitCode::InvalidArgs, "unknown_setting", format!("There is no setting '{}'.", clean(name)))
        .hint(hint))
}

/// How many letters two words differ by (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, theirs) in other.iter().enumerate() {
            let change = diagonal + usize::from(letter != *theirs);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// Show one setting, or all of them.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh config get\n  claudemesh config get name")]
pub struct GetArgs {
    /// Name of the setting.
    pub key: Option<String>,
}

impl Verb for GetArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Row>(), Shape::one::<Row>().of("KEY")]
    }

    fn run(self, cx: &Context) -> Ran {
        get(cx, self.key.as_deref()).map(done)
    }
}

/// Change a setting.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh config set name Ann\n  claudemesh config set groups frontend:lead,qa")]
pub struct SetArgs {
    /// Name of the setting.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Verb for SetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Row>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let setting = setting(&self.key)?;
        change(cx, setting, |config| (setting.set)(config, &self.value)).map(done)
    }
}

/// Take a setting away, so that its default counts again.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh config unset groups")]
pub struct UnsetArgs {
    /// Name of the setting.
    pub key: String,
}

impl Verb for UnsetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Row>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let setting = setting(&self.key)?;
        change(cx, setting, |config| {
            (setting.unset)(config);
            Ok(())
        })
        .map(done)
    }
}

/// Print where the settings and keys are.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh config path")]
pub struct PathArgs {}

impl Verb for PathArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Place>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Place>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let place =
            Place { folder: cx.store.dir().display().to_string(), file: cx.store.config_path().display().to_string() };
        cx.out.answer(&place, |_| format!("{}\n", place.file)).map(done)
    }
}

/// One setting.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Row {
    key: String,
    /// `null` when it is not set.
    value: Option<String>,
    doc: String,
}

/// Where the config is.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Place {
    folder: String,
    file: String,
}

fn row(setting: &Setting, config: &Config) -> Row {
    let value = (setting.get)(config);
    Row { key: setting.key.into(), value: value.map(|value| shown(Some(&value))), doc: setting.doc.into() }
}

/// A value as a person writes it.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "-".into(),
        Some(Value::String(text)) => clean(text).into_owned(),
        Some(Value::Array(groups)) => {
            let name = |group: &Value| match group["role"].as_str() {
                Some(role) => format!("{}:{role}", group["name"].as_str().unwrap_or_default()),
                None => group["name"].as_str().unwrap_or_default().to_owned(),
            };
            clean(&groups.iter().map(name).collect::<Vec<_>>().join(",")).into_owned()
        }
        Some(other) => other.to_string(),
    }
}

/// Runs `config get`.
///
/// # Errors
/// Exit 3 for an unknown setting, 10 when the config is damaged.
fn get(cx: &Context, key: Option<&str>) -> Result<(), CliError> {
    let config = cx.store.load()?;
    if let Some(key) = key {
        let row = row(setting(key)?, &config);
        return cx.out.answer(&row, |_| format!("{}\n", row.value.as_deref().unwrap_or("-")));
    }
    let rows: Vec<Row> = SETTINGS.iter().map(|setting| row(setting, &config)).collect();
    cx.out.answer(&rows, |_| {
        rows.iter()
            .map(|row| format!("{:<13} {:<20} {}\n", row.key, row.value.as_deref().unwrap_or("-"), row.doc))
            .collect()
    })
}

fn change(
    cx: &Context,
    setting: &Setting,
    edit: impl FnOnce(&mut Config) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let row = cx.store.update(|config| {
        edit(config)?;
        Ok::<_, CliError>(row(setting, config))
    })?;
    cx.out.answer(&row, |out| format!("{} {} {}\n", out.tick(), row.key, row.value.as_deref().unwrap_or("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_setting_is_answered_with_the_nearest() {
        for (typed, meant) in
            [("nmae", "name"), ("message_mode", "message-mode"), ("group", "groups"), ("default-mish", "default-mesh")]
        {
            let hint = setting(typed).err().and_then(|error| error.hint).unwrap();
            assert!(hint.contains(&format!("Did you mean `{meant}`?")), "{typed}: {hint}");
        }
        assert!(setting("colour").err().and_then(|error| error.hint).unwrap().starts_with("There are: name,"));
        assert!(setting("displayName").is_ok(), "as it stands in the file");
    }

    #[test]
    fn values_are_checked() {
        let mut config = Config::default();
        for (key, bad) in
            [("name", "@all"), ("role", ""), ("groups", "a b"), ("message-mode", "loud"), ("default-mesh", "x")]
        {
            assert!((setting(key).unwrap().set)(&mut config, bad).is_err(), "{key} {bad}");
        }
        assert_eq!(config, Config::default(), "nothing was taken over");
        for (key, good, shows) in
            [("name", " Ann ", "Ann"), ("groups", "a:lead,b", "a:lead,b"), ("message-mode", "inbox", "inbox")]
        {
            let setting = setting(key).unwrap();
            (setting.set)(&mut config, good).unwrap();
            assert_eq!(shown((setting.get)(&config).as_ref()), shows, "{key}");
            (setting.unset)(&mut config);
            assert_eq!((setting.get)(&config), None, "{key}");
        }
    }
}
