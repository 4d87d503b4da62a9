//! What the banner of a launch says about permissions: the mode that will be in force, and what that means for messages.

use super::LaunchArgs;
use crate::config::MessageMode;
use crate::context::Context;
use crate::features::inbound::Rules;
use crate::inbox::Verdict;
use crate::output::clean;
use crate::paths;
use crate::session::routes::permission_mode::{self, AUTO, BYPASS, Expected, SKIP_PERMISSIONS};

pub(super) fn text(cx: &Context, args: &LaunchArgs, messages: MessageMode) -> String {
    let mut words: Vec<String> = args
        .claude_args
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| word != SKIP_PERMISSIONS)
        .collect();
    if args.skip_permissions {
        words.push(SKIP_PERMISSIONS.into());
    }
    let expected = permission_mode::expected(&cx.env, &paths::project_dir(&cx.env), &words);
    let mode = expected.as_ref().map(|expected| expected.mode.as_str());
    let mut text = of_mode(expected.as_ref());
    if messages == MessageMode::Off {
        return text;
    }
    // Rules that cannot be read hold everything.
    let verdict = Rules::load(&cx.store).map_or(Verdict::Hold, |rules| rules.in_mode(Some(mode.unwrap_or(AUTO))));
    let fate = match verdict {
        Verdict::Accept => "what other people write reaches the session (`claudemesh inbound` changes that).",
        Verdict::Hold => "what other people write is held until you release it with `claudemesh held`.",
        Verdict::Refuse => "what other people write is refused (`claudemesh inbound` changes that).",
    };
    match mode {
        Some(BYPASS | AUTO) => text += &format!("\nTherefore {fate}"),
        None => text += &format!("\nIn auto mode {fate}"),
        Some(_) => {}
    }
    text
}

fn of_mode(expected: Option<&Expected>) -> String {
    let Some(Expected { mode, from }) = expected else {
        return "Claude Code starts in its own default mode: it asks before it acts, unless its footer says `auto mode on`.".into();
    };
    let (mode, from) = (clean(mode), clean(from));
    match &*mode {
        BYPASS if from.starts_with(".claude/") => {
            format!("Permission prompts are OFF where Claude Code obeys {from}: it then acts without asking you.")
        }
        BYPASS => format!("Permission prompts are OFF ({from}): Claude Code acts without asking you."),
        AUTO => format!("Claude Code starts in auto mode ({from}): it acts without asking you."),
        "acceptEdits" => format!(
            "Claude Code edits files without asking ({from}: acceptEdits) and asks before it does anything else."
        ),
        "plan" => format!("Claude Code starts in plan mode ({from}): it changes nothing before you approve its plan."),
        "dontAsk" => format!("Claude Code never asks ({from}: dontAsk): what your rules do not allow is refused."),
        _ => format!("Claude Code asks you before it acts ({from}: {mode}), also when a peer's message leads to it."),
    }
}
