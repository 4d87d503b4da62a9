//! `claudemesh notify`: shows, sets and tries the notification.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Notifier, Topic, VARIABLE};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::output::clean;
use crate::verb::{Audience, Effect, Ran, Shape, Verb, done};

/// Show or set how you are notified outside Claude Code of questions, messages, held messages and permission requests. Off by default.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh notify desktop --test\n  claudemesh notify 'tmux display-message \"$1: $2\"'\n  \
                        claudemesh notify --about questions,permissions\n  claudemesh notify off\n\nAt most one in 30 seconds; it names who wrote, never what. Running sessions take it up\n\
                        at their next start. CLAUDEMESH_NOTIFY decides instead of the setting."
)]
pub struct NotifyArgs {
    /// `desktop`, `off`, or a shell line that gets title and text as `$1` and `$2`; without it: show what is set.
    pub setting: Option<String>,
    /// What to be notified of: `questions`, `messages`, `held`, `permissions`, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub about: Option<Vec<Topic>>,
    /// Send one now and wait for it.
    #[arg(long)]
    pub test: bool,
}

impl Verb for NotifyArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        if self.setting.is_none() && self.about.is_none() && !self.test { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Setting>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Setting>()]
    }

    fn run(self, cx: &Context) -> Ran {
        run(cx, &self).map(done)
    }
}

/// What is set now.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Setting {
    notify: String,
    about: Vec<Topic>,
    by_variable: bool,
    tested: bool,
}

/// Runs the verb.
///
/// # Errors
/// Exit 10 when the config cannot be written or the notifier cannot be started, exit 1 when it fails.
fn run(cx: &Context, args: &NotifyArgs) -> Result<(), CliError> {
    if let Some(setting) = &args.setting {
        let notifier = Notifier::parse(setting);
        cx.store.update(|config| {
            config.notify = notifier.as_ref().map(|notifier| notifier.setting().to_owned());
            Ok::<_, CliError>(())
        })?;
    }
    if let Some(about) = &args.about {
        let words = about.iter().map(|topic| topic.as_str().to_owned()).collect();
        cx.store.update(|config| {
            config.notify_about = Some(words);
            Ok::<_, CliError>(())
        })?;
    }
    let notifier = Notifier::of(&cx.env, &cx.store);
    let by_variable = cx.env.text(VARIABLE).is_some();
    if args.test {
        let notifier = notifier.as_ref().ok_or_else(|| {
            CliError::invalid_args("Notifications are off.").hint("Turn them on with `claudemesh notify desktop`.")
        })?;
        try_it(cx, notifier)?;
    }
    if let Some(trouble) = notifier.as_ref().and_then(|notifier| notifier.trouble(&cx.env)) {
        cx.out.warn(&format!("no notification can be shown: {trouble}"));
    }
    let setting = notifier.as_ref().map_or("off", Notifier::setting);
    let about = Topic::chosen(&cx.store);
    let answer = Setting { notify: setting.to_owned(), about, by_variable, tested: args.test };
    cx.out.answer(&answer, |_| {
        let because = if by_variable { format!("  ({VARIABLE} is set)") } else { String::new() };
        let words: Vec<&str> = answer.about.iter().map(|topic| topic.as_str()).collect();
        let about = match words.len() == Topic::ALL.len() {
            true => String::new(),
            false => format!("about: {}\n", words.join(", ")),
        };
        format!("notify: {}{because}\n{about}", clean(setting))
    })
}

fn try_it(cx: &Context, notifier: &Notifier) -> Result<(), CliError> {
    let started = notifier.command(&cx.env, "claudemesh", "This is what a question looks like.");
    let status = started.and_then(|mut command| command.status()).map_err(|error| {
        CliError::io(format!("The notification cannot be shown: {error}."))
            .hint("Install notify-send (libnotify-bin), or set a line of your own: claudemesh notify '<line>'.")
    })?;
    if status.success() {
        return Ok(());
    }
    let message = format!("The notifier ended with {status}.");
    Err(CliError::new(ExitCode::Cancelled, "notifier_failed", message).hint("Run its line by hand to see why."))
}
