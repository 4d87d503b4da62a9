//! What clients may say of a task.

use claudemesh_protocol::features::tasks::limits as wire;
use claudemesh_protocol::features::tasks::{CreateTask, UpdateTask};
use claudemesh_protocol::id::TaskId;

use super::store::{New, Patch, Refused};
use crate::refusal::{Refusal, invalid};

/// Characters of an id.
const ID_CHARS: usize = 32;
/// Characters of an id that name a task.
const MIN_ID_CHARS: usize = 8;
/// Characters of a former result that the history shows.
const MAX_DETAIL_CHARS: usize = 500;

/// An id or the beginning of one. What cannot be one names no task.
pub(super) fn id(id: &TaskId) -> Result<String, Refusal> {
    let text = id.as_str();
    let fits = (MIN_ID_CHARS..=ID_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits { Ok(text.to_owned()) } else { Err(Refused::Missing.into()) }
}

fn of_length(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    // PostgreSQL stores no NUL; the other control characters are no one's text either.
    let odd = |symbol: char| symbol.is_control() && !matches!(symbol, '\n' | '\r' | '\t');
    if text.chars().count() > most || text.chars().any(odd) {
        return Err(invalid(format!("`{field}`: expected at most {most} characters without control characters")));
    }
    Ok(())
}

/// A text to look for.
pub(super) fn text(field: &str, text: &str) -> Result<(), Refusal> {
    of_length(field, text, wire::MAX_ASSIGNEE_CHARS)
}

fn title(text: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(invalid("`title`: expected a text"));
    }
    of_length("title", text, wire::MAX_TITLE_CHARS)
}

fn description(text: Option<&str>) -> Result<(), Refusal> {
    text.map_or(Ok(()), |text| of_length("description", text, wire::MAX_DESCRIPTION_CHARS))
}

/// An assignee as it is kept; an empty one is none.
fn assignee(name: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(name) = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()) else { return Ok(None) };
    of_length("assignee", &name, wire::MAX_ASSIGNEE_CHARS)?;
    Ok(Some(name))
}

/// Each tag once, in the given order.
fn tags(given: Vec<String>) -> Result<Vec<String>, Refusal> {
    let mut tags: Vec<String> = Vec::new();
    for tag in given {
        of_length("tags", &tag, wire::MAX_TAG_CHARS)?;
        if tag.trim().is_empty() {
            return Err(invalid("`tags`: expected no empty tag"));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > wire::MAX_TAGS {
            return Err(invalid(format!("`tags`: expected at most {}", wire::MAX_TAGS)));
        }
    }
    Ok(tags)
}

fn depends_on(given: &[TaskId]) -> Result<Vec<String>, Refusal> {
    if given.len() > wire::MAX_DEPENDENCIES {
        return Err(invalid(format!("`depends_on`: expected at most {}", wire::MAX_DEPENDENCIES)));
    }
    let known = |one: &TaskId| id(one).map_err(|_| Refused::NoDependency(beginning(one.as_str())).into());
    given.iter().map(known).collect()
}

/// A result that can be stored.
pub(super) fn result(text: Option<&str>) -> Result<(), Refusal> {
    let Some(text) = text else { return Ok(()) };
    if text.len() > wire::MAX_RESULT_BYTES || text.contains('\0') {
        return Err(invalid(format!("`result`: expected at most {} bytes without NUL", wire::MAX_RESULT_BYTES)));
    }
    Ok(())
}

/// A task to create.
pub(super) fn new(request: CreateTask) -> Result<New, Refusal> {
    title(&request.title)?;
    description(request.description.as_deref())?;
    Ok(New {
        id: TaskId::random(&mut rand::thread_rng()).to_string(),
        title: request.title,
        description: request.description,
        assignee: assignee(request.assignee)?,
        priority: request.priority.unwrap_or_default(),
        tags: tags(request.tags.unwrap_or_default())?,
        depends_on: depends_on(&request.depends_on)?,
        due_at_ms: request.due_at.map(|due| due.0),
    })
}

/// What of a task is to be changed.
pub(super) fn patch(request: UpdateTask) -> Result<Patch, Refusal> {
    if let Some(text) = &request.title {
        title(text)?;
    }
    description(request.description.as_ref().and_then(|text| text.as_deref()))?;
    Ok(Patch {
        title: request.title,
        description: request.description,
        assignee: request.assignee.map(assignee).transpose()?,
        priority: request.priority,
        tags: request.tags.map(tags).transpose()?,
        depends_on: request.depends_on.as_deref().map(depends_on).transpose()?,
        due_at_ms: request.due_at.map(|due| due.map(|due| due.0)),
        // A version that no task can have is one that this task has not.
        expected_version: request.expected_version.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
    })
}

/// The beginning of a text, for the history and for errors.
pub(super) fn beginning(text: &str) -> String {
    if text.chars().count() <= MAX_DETAIL_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_DETAIL_CHARS).chain(['…']).collect()
}
