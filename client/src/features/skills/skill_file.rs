//! `SKILL.md`: front matter and instructions, as Claude Code keeps skills. Read when one is shared, written when one is installed.
//!
//! Of YAML it reads what such files have: `key: value` with plain, quoted, folded and literal texts, and lists. What it does not
//! understand is an error with its line, and never a guess.

use super::Manifest;

/// Name of the file in the folder of a skill.
pub const FILE: &str = "SKILL.md";

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SkillFile {
    /// `name`
    pub name: Option<String>,
    /// `description`
    pub description: Option<String>,
    /// `tags`
    pub tags: Vec<String>,
    /// The other fields that are known.
    pub manifest: Manifest,
    /// What stands behind the front matter.
    pub instructions: String,
    /// Fields that skills of a mesh do not have.
    pub ignored: Vec<String>,
}

/// A value of the front matter.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Text(String),
    List(Vec<String>),
    /// Something else, which only a field may be that is ignored.
    Other(usize),
}

impl SkillFile {
    /// Reads the text of a file; without front matter all of it is the instructions.
    ///
    /// # Errors
    /// What is wrong, with the number of the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let Some(rest) = text.strip_prefix("---\n") else {
            return Ok(Self { instructions: text.trim().to_owned(), ..Self::default() });
        };
        let is_end = |line: &str| matches!(line.trim_end(), "---" | "...");
        let head: Vec<&str> = rest.lines().take_while(|line| !is_end(line)).collect();
        if head.len() == rest.lines().count() {
            return Err("line 1: the front matter has no end; expected a line `---` behind it".into());
        }
        let behind = rest.lines().skip(head.len() + 1).collect::<Vec<_>>().join("\n");
        let mut file = Self { instructions: behind.trim().to_owned(), ..Self::default() };
        for (name, field, line) in fields(&head)? {
            file.put(&name, field).map_err(|error| format!("line {line}: `{name}`: {error}"))?;
        }
        Ok(file)
    }

    fn put(&mut self, name: &str, field: Field) -> Result<(), String> {
        let manifest = &mut self.manifest;
        match name {
            "name" => self.name = said(field)?,
            "description" => self.description = said(field)?,
            "tags" => self.tags = list(field, |text| text.split(',').map(str::to_owned).collect())?,
            "when_to_use" | "when-to-use" => manifest.when_to_use = said(field)?,
            "allowed-tools" | "allowed_tools" => manifest.allowed_tools = list(field, split_tools)?,
            "model" => manifest.model = said(field)?,
            "context" => manifest.context = said(field)?,
            "agent" => manifest.agent = said(field)?,
            "argument-hint" | "argument_hint" => {
                manifest.argument_hint = Some(match field {
                    // `[file]` is a list in YAML, and the usual way to write a hint.
                    Field::List(items) => format!("[{}]", items.join(", ")),
                    other => text(other)?,
                });
            }
            "user-invocable" | "user_invocable" => {
                manifest.user_invocable = Some(match text(field)?.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => true,
                    "false" | "no" | "off" => false,
                    _ => return Err("expected true or false".into()),
                });
            }
            other => self.ignored.push(other.to_owned()),
        }
        Ok(())
    }
}

fn text(field: Field) -> Result<String, String> {
    match field {
        Field::Text(text) => Ok(text),
        Field::List(_) => Err("expected a text, found a list".into()),
        Field::Other(line) => Err(format!("expected a text, and line {line} is none")),
    }
}

/// A text, unless it is empty.
fn said(field: Field) -> Result<Option<String>, String> {
    text(field).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn list(field: Field, split: fn(&str) -> Vec<String>) -> Result<Vec<String>, String> {
    let items = match field {
        Field::List(items) => items,
        Field::Text(text) => split(&text),
        Field::Other(line) => return Err(format!("expected a list, and line {line} is no item of one")),
    };
    Ok(items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
}

/// `Bash(git add *), Read` and `Read Grep`: commas separate, or spaces where there are none; not within parentheses.
fn split_tools(text: &str) -> Vec<String> {
    let parts = |separator: fn(char) -> bool| {
        let mut depth = 0_usize;
        let mut parts = vec![String::new()];
        for symbol in text.chars() {
            match symbol {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && separator(symbol) {
                parts.push(String::new());
            } else if let Some(last) = parts.last_mut() {
                last.push(symbol);
            }
        }
        parts
    };
    let by_comma = parts(|symbol| symbol == ',');
    if by_comma.len() > 1 { by_comma } else { parts(char::is_whitespace) }
}

/// The fields with the lines that they begin at, counted in the file.
fn fields(lines: &[&str]) -> Result<Vec<(String, Field, usize)>, String> {
    let mut found: Vec<(String, Field, usize)> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (line, number) = (lines[at], at + 2);
        at += 1;
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let is_name = |name: &&str| {
            !name.is_empty() && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || "-_.".contains(symbol))
        };
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_name(name)) else {
            return Err(format!("line {number}: expected `name: value`"));
        };
        if !value.is_empty() && !value.starts_with([' ', '\t']) {
            return Err(format!("line {number}: expected a space behind `{name}:`"));
        }
        if found.iter().any(|(known, ..)| known == name) {
            return Err(format!("line {number}: `{name}` is there twice"));
        }
        // What belongs to it: lines that are further in, blank ones between them, and items of a list at its own margin.
        let value = value.trim();
        let goes_on = |line: &&&str| {
            line.trim().is_empty() || line.starts_with([' ', '\t']) || (value.is_empty() && line.starts_with("- "))
        };
        let more: Vec<&str> = lines[at..].iter().take_while(goes_on).copied().collect();
        at += more.len();
        let field = read(value, &more, number).map_err(|error| format!("line {number}: `{name}`: {error}"))?;
        found.push((name.to_owned(), field, number));
    }
    Ok(found)
}

fn read(value: &str, more: &[&str], number: usize) -> Result<Field, String> {
    let first = value.chars().next();
    match first {
        Some('|' | '>') => return Ok(Field::Text(block(value, more))),
        Some('&' | '*' | '!' | '%' | '@' | '`' | '{') => {
            return Err(format!("a value that begins with `{}` is not understood; put it in quotes", &value[..1]));
        }
        _ => {}
    }
    let filled = || more.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if value.is_empty() || value.starts_with('#') {
        let items = filled().map(|line| line.strip_prefix("- ")).collect::<Option<Vec<&str>>>();
        return match items {
            Some(items) if items.is_empty() => Ok(Field::Text(String::new())),
            Some(items) => items.into_iter().map(scalar).collect::<Result<_, _>>().map(Field::List),
            None => Ok(Field::Other(number + 1)),
        };
    }
    // A text that goes on in the next lines is one line.
    let whole = std::iter::once(value).chain(filled()).collect::<Vec<_>>().join(" ");
    if let Some(inner) = whole.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("the list has no end; expected `]`")?;
        return items(inner)?.into_iter().map(|item| scalar(&item)).collect::<Result<_, _>>().map(Field::List);
    }
    scalar(&whole).map(Field::Text)
}

/// `|` keeps the line ends, `>` joins the lines of a paragraph. The margin of the first line is cut off.
fn block(value: &str, more: &[&str]) -> String {
    let filled = |line: &&&str| !line.trim().is_empty();
    let margin = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let cut = more.iter().filter(filled).map(|line| margin(line)).min().unwrap_or(0);
    let lines: Vec<&str> = more.iter().map(|line| line.get(cut..).unwrap_or_default().trim_end()).collect();
    let text = if value.starts_with('|') {
        lines.join("\n")
    } else {
        let mut text = String::new();
        for line in lines {
            match (line.is_empty(), text.is_empty() || text.ends_with('\n')) {
                (true, _) => text.push('\n'),
                (false, true) => text += line,
                (false, false) => {
                    text.push(' ');
                    text += line;
                }
            }
        }
        text
    };
    text.trim_end().to_owned()
}

/// The items of a list in one line; commas in quotes and parentheses separate nothing.
fn items(inner: &str) -> Result<Vec<String>, String> {
    let (mut items, mut item, mut quote, mut depth, mut escaped) = (vec![], String::new(), None, 0_usize, false);
    for symbol in inner.chars() {
        match (symbol, quote) {
            (_, Some('"')) if escaped => escaped = false,
            ('\\', Some('"')) => escaped = true,
            (symbol, Some(open)) if symbol == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) if item.trim().is_empty() => quote = Some(symbol),
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(symbol);
    }
    if quote.is_some() {
        return Err("a quotation has no end".into());
    }
    items.push(item);
    items.retain(|item| !item.trim().is_empty());
    Ok(items)
}

/// A text in quotes, or as it stands without its remark.
fn scalar(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with('"') {
        // YAML has more escapes than JSON; the others are rare enough to be refused.
        return serde_json::from_str(text)
            .map_err(|_| format!("{text} is no text in double quotes that is understood"));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        let inner = inner.strip_suffix('\'').filter(|inner| inner.replace("''", "").find('\'').is_none());
        return inner.map(|inner| inner.replace("''", "'")).ok_or_else(|| format!("{text} is no text in quotes"));
    }
    let end = text.find(" #").unwrap_or(text.len());
    Ok(text[..end].trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_front_matter_is_read() {
        let file = SkillFile::parse(
            "---\r\nname: deploy  # the name\r\ndescription: >-\r\n  How we\r\n  deploy: on Fridays.\r\n\r\n  Never else.\r\n\
             tags: [ops, \"c,i\", 'it''s']\r\nwhen_to_use: \"before a \\\"release\\\"\"\r\nallowed-tools: Bash(git add, x), Read\r\n\
             argument-hint: [file]\r\nuser-invocable: no\r\nmodel:\r\ncontext: fork\r\nhooks:\r\n  Stop:\r\n    - x: 1\r\n---\r\n\r\n# Deploy\r\n---\r\nRun it.\r\n",
        )
        .unwrap();
        assert_eq!(
            (file.name.as_deref(), file.description.as_deref()),
            (Some("deploy"), Some("How we deploy: on Fridays.\nNever else."))
        );
        assert_eq!(file.tags, ["ops", "c,i", "it's"]);
        let manifest = file.manifest;
        assert_eq!(manifest.when_to_use.as_deref(), Some("before a \"release\""));
        assert_eq!(manifest.allowed_tools, ["Bash(git add, x)", "Read"]);
        assert_eq!((manifest.argument_hint.as_deref(), manifest.user_invocable), (Some("[file]"), Some(false)));
        assert_eq!((manifest.context.as_deref(), manifest.model), (Some("fork"), None));
        assert_eq!(file.ignored, ["hooks"]);
        assert_eq!(file.instructions, "# Deploy\n---\nRun it.");
    }

    #[test]
    fn lists_have_two_forms_and_texts_go_on() {
        let file = SkillFile::parse(
            "---\ndescription: one\n  two\ntags:\n- a\n- 'b c'\nallowed-tools:\n  - Bash(ls *)\n  - Read\n---\nx",
        )
        .unwrap();
        assert_eq!((file.description.as_deref(), file.tags), (Some("one two"), vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(file.manifest.allowed_tools, ["Bash(ls *)", "Read"]);
        assert_eq!(
            SkillFile::parse("---\nallowed-tools: Read Bash(a b)\n---\nx").unwrap().manifest.allowed_tools,
            ["Read", "Bash(a b)"]
        );
        let literal = SkillFile::parse("---\ndescription: |\n  one\n    two\n\n  three\n---\nx").unwrap();
        assert_eq!(literal.description.as_deref(), Some("one\n  two\n\nthree"));
        let plain = SkillFile::parse("just text\n").unwrap();
        assert_eq!(plain, SkillFile { instructions: "just text".into(), ..SkillFile::default() });
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        for (text, words) in [
            ("---\nname: x\n", "line 1: the front matter has no end"),
            ("---\nname: x\nname: y\n---\n", "line 3: `name` is there twice"),
            ("---\nname:x\n---\n", "line 2: expected a space"),
            ("---\n\nwhat is this\n---\n", "line 3: expected `name: value`"),
            ("---\nname: &a x\n---\n", "begins with `&`"),
            ("---\nname: \"x\n---\n", "no text in double quotes"),
            ("---\nname: 'it's'\n---\n", "no text in quotes"),
            ("---\ntags: [a\n---\n", "the list has no end"),
            ("---\ntags: [\"a]\n---\n", "a quotation has no end"),
            ("---\ndescription:\n  - a\n---\n", "expected a text, found a list"),
            ("---\ndescription:\n  a: b\n---\n", "line 3 is none"),
            ("---\nuser-invocable: maybe\n---\n", "expected true or false"),
        ] {
            let error = SkillFile::parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(---\n)?(.{0,12}(:|\n|- |\\[|\"|'|\\||>)){0,12}(---\n)?.{0,20}") {
            let _ = SkillFile::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(description in "\\PC{1,40}", tags in proptest::collection::vec("\\PC{1,12}", 0..4)) {
            let fields = [
                ("description", super::super::frame::text_value(&description)),
                ("tags", super::super::frame::list_value(&tags)),
            ];
            let text = super::super::frame::front_matter(fields) + "body\n";
            let file = SkillFile::parse(&text).unwrap();
            proptest::prop_assert_eq!(file.description.unwrap(), crate::session::notes::harmless(&description));
            let kept: Vec<String> = tags.iter().map(|tag| crate::session::notes::harmless(tag).trim().to_owned()).filter(|tag| !tag.is_empty()).collect();
            proptest::prop_assert_eq!(file.tags, kept);
        }
    }
}
