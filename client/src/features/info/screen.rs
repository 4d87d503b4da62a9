//! The screen of `info`: what there is in a mesh, and how much of its room is used. On a wide terminal the two stand side by side.

use claudemesh_protocol::error::Bound;
use claudemesh_protocol::features::info::MeshInfoResult;

use super::cli::Own;
use super::{clock_words, task_words};
use crate::output::{Output, Style, clean, counted, width_of};

/// Columns of the labels.
const LABEL: usize = 10;
/// Columns from which on the room stands beside the facts.
const WIDE: usize = 110;
/// Columns between the two.
const GAP: usize = 4;
/// Lines of one list of names; the rest is counted.
const MAX_LINES: usize = 2;
/// Columns of a name in a list.
const MAX_NAME: usize = 32;
/// Bounds that are shown: the fullest.
const MAX_BOUNDS: usize = 8;
/// Cells of a bar.
const CELLS: u64 = 10;

/// What is shown, and where.
pub(super) struct Screen<'a> {
    pub(super) info: &'a MeshInfoResult,
    pub(super) own: &'a Own,
    /// Columns.
    pub(super) width: usize,
    pub(super) out: &'a Output,
}

/// A line in pieces, so that its width is known whatever its colours.
#[derive(Default)]
struct Line(Vec<(Option<Style>, String)>);

impl Line {
    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width_of(text)).sum()
    }

    fn text(&self, out: &Output) -> String {
        let piece = |(style, text): &(Option<Style>, String)| match style {
            Some(style) => out.paint(*style, text).into_owned(),
            None => text.clone(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl Screen<'_> {
    pub(super) fn text(&self) -> String {
        let title = format!("{} · {}", clean(&self.own.slug), clean(&self.own.broker_url));
        let beside = self.width >= WIDE && !self.used().is_empty();
        // Half of a wide screen, so that the bars have the other.
        let room = if beside { self.width / 2 } else { self.width };
        let (facts, bars) = (self.facts(room), self.bars());
        let mut text = format!("{}\n", self.out.paint(Style::Bold, &cut(&title, self.width)));
        let mut put = |line: String| text += &format!("{}\n", line.trim_end());
        if beside {
            let left = facts.iter().map(Line::width).max().unwrap_or(0) + GAP;
            for at in 0..facts.len().max(bars.len()) {
                let line = facts.get(at).map(|line| (line.width(), line.text(self.out))).unwrap_or_default();
                let bar = bars.get(at).map(|line| line.text(self.out)).unwrap_or_default();
                put(format!("{}{}{bar}", line.1, " ".repeat(left - line.0)));
            }
        } else {
            facts.iter().for_each(|line| put(line.text(self.out)));
            if !bars.is_empty() {
                put(String::new());
                bars.iter().for_each(|line| put(format!("  {}", line.text(self.out))));
            }
        }
        text
    }

    fn facts(&self, room: usize) -> Vec<Line> {
        let (info, own) = (self.info, self.own);
        let mut lines = Vec::new();
        let mut row = |label: &str, lead: String, names: &[String], total: u32| {
            let rows = wrapped(&lead, names, total as usize, room.saturating_sub(LABEL + 2).max(20));
            for (at, text) in rows.into_iter().enumerate() {
                let label = format!("  {:<LABEL$}", if at == 0 { label } else { "" });
                lines.push(Line(vec![(Some(Style::Dim), label), (None, text)]));
            }
        };
        let groups: Vec<String> = info.your_groups.iter().map(|group| format!("@{}", group.name)).collect();
        let you = clean(&own.display_name).into_owned();
        row("you", if groups.is_empty() { you } else { format!("{you} in") }, &groups, count(&groups));
        row("peers", format!("{} here, {}", info.peers, counted(info.members as usize, "member")), &[], 0);
        let topics: Vec<String> = info.topics.iter().map(|name| format!("#{name}")).collect();
        for (label, names, total) in [
            ("groups", &info.groups, count(&info.groups)),
            ("topics", &topics, count(&topics)),
            ("state", &info.state_keys, info.state_count),
            ("streams", &info.streams, info.stream_count),
        ] {
            if total > 0 {
                row(label, format!("{}:", number(u64::from(total))), names, total);
            }
        }
        for (label, total) in [
            ("memories", info.memory_count),
            ("contexts", info.context_count),
            ("skills", info.skill_count),
            ("vault", info.vault_count),
            ("MCP servers", info.mcp_server_count),
            ("files", info.file_count),
        ] {
            if total > 0 {
                row(label, number(u64::from(total)), &[], 0);
            }
        }
        if info.tasks != Default::default() {
            row("tasks", task_words(&info.tasks).replacen(" tasks", "", 1), &[], 0);
        }
        if info.schedules > 0 {
            row("scheduled", number(u64::from(info.schedules)), &[], 0);
        }
        if info.clock.is_some() {
            row("clock", clock_words(info.clock.as_ref()), &[], 0);
        }
        row("mesh", clean(own.mesh_id.as_str()).into_owned(), &[], 0);
        row("member", clean(own.member_id.as_str()).into_owned(), &[], 0);
        lines
    }

    /// The bounds of which something is used, the fullest first.
    fn used(&self) -> Vec<&Bound> {
        let mut used: Vec<&Bound> = self.info.limits.iter().filter(|bound| bound.used > 0).collect();
        let part = |bound: &Bound| bound.used as f64 / bound.limit.max(1) as f64;
        used.sort_by(|one, other| part(other).total_cmp(&part(one)).then_with(|| one.name.cmp(&other.name)));
        used.truncate(MAX_BOUNDS);
        used
    }

    fn bars(&self) -> Vec<Line> {
        let used = self.used();
        let most = used.iter().map(|bound| width_of(&clean(&bound.name))).max().unwrap_or(0);
        let bar = |bound: &&Bound| {
            let limit = bound.limit.max(1);
            let cells = (bound.used.saturating_mul(CELLS).saturating_add(limit / 2) / limit).min(CELLS);
            let style = match bound.used.saturating_mul(10) / limit {
                0..=6 => Style::Green,
                7..=8 => Style::Yellow,
                _ => Style::Red,
            };
            let (full, rest) = ("█".repeat(cells as usize), "░".repeat((CELLS - cells) as usize));
            let amount = if bound.name.contains(".bytes_") { bytes } else { number };
            let name = clean(&bound.name);
            let name = format!("  {name}{}", " ".repeat(most - width_of(&name)));
            let words = format!("  {} of {}", amount(bound.used), amount(bound.limit));
            Line(vec![(Some(style), full), (Some(Style::Dim), rest), (None, name), (Some(Style::Dim), words)])
        };
        used.iter().map(bar).collect()
    }
}

fn count(names: &[String]) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

/// A number with its thousands apart: `12,000`.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that people read: `1.5 MiB`.
fn bytes(value: u64) -> String {
    let mut value = value as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1_024.0 {
            return if unit == "B" || value.fract() == 0.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1_024.0;
    }
    format!("{value:.1} GiB")
}

/// The beginning of a text that fits.
fn cut(text: &str, room: usize) -> String {
    if width_of(text) <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for symbol in text.chars() {
        if width_of(&short) + width_of(symbol.encode_utf8(&mut [0; 4])) + 1 > room {
            break;
        }
        short.push(symbol);
    }
    short + "…"
}

/// A lead and as many names as fit into the lines; the others are counted.
fn wrapped(lead: &str, names: &[String], total: usize, room: usize) -> Vec<String> {
    let words = |shown: usize| {
        let more = total.saturating_sub(shown);
        let mut words: Vec<String> = lead.split(' ').map(str::to_owned).collect();
        for (at, name) in names[..shown].iter().enumerate() {
            let comma = if at + 1 < shown { "," } else { "" };
            words.push(format!("{}{comma}", cut(&clean(name), MAX_NAME)));
        }
        match (more, shown) {
            (0, _) => {}
            // Nothing fits; the lead has said how many.
            (_, 0) => words.iter_mut().for_each(|word| *word = word.trim_end_matches(':').to_owned()),
            _ => words.push(format!("and {} more", number(more as u64))),
        }
        words
    };
    let fit = |words: &[String]| {
        let mut lines: Vec<String> = Vec::new();
        for word in words {
            match lines.last_mut() {
                Some(line) if width_of(line) + 1 + width_of(word) <= room => *line += &format!(" {word}"),
                _ => lines.push(cut(word, room)),
            }
        }
        lines
    };
    let most = (0..=names.len().min(room)).rev();
    let fitting = most.map(|shown| fit(&words(shown))).find(|lines| lines.len() <= MAX_LINES);
    fitting.unwrap_or_else(|| fit(&words(0)))
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
