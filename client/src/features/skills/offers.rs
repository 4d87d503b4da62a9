//! Skills as the host offers them to its user: a prompt each, and a resource `skill://claudemesh/<name>` each.
//!
//! Those of the first mesh have their own names; those of the others stand behind the slug (`other:deploy`, `?mesh=other`).

use std::fmt::Write as _;
use std::time::Duration;

use claudemesh_protocol::features::skills::{Skill, SkillEntry};
use rmcp::model::{
    ErrorData, GetPromptRequestParams, GetPromptResult, ListPromptsResult, ListResourcesResult, Prompt, PromptMessage,
    ReadResourceRequestParams, ReadResourceResult, Resource, ResourceContents, Role,
};

use super::Manifest;
use super::frame::{self, for_model, front_matter, list_value, text_value};
use crate::mcp::server::MeshServer;
use crate::session::JoinedMesh;
use crate::session::notes::{harmless, harmless_value};

/// How long a list waits for a mesh whose connection is being made. A host asks for it while it starts.
const PATIENCE: Duration = Duration::from_secs(2);
/// Skills of one mesh that are offered.
const MAX_OFFERED: usize = 500;
/// Characters of a description.
const MAX_DESCRIPTION_CHARS: usize = 500;
/// What every address of a skill begins with.
const SCHEME: &str = "skill://claudemesh/";
const MARKDOWN: &str = "text/markdown";

/// A skill that is offered.
struct Offer {
    slug: String,
    is_first: bool,
    entry: SkillEntry,
}

impl Offer {
    fn prompt_name(&self) -> String {
        if self.is_first { self.entry.name.clone() } else { format!("{}:{}", self.slug, self.entry.name) }
    }

    fn address(&self) -> String {
        let mut address = format!("{SCHEME}{}", encoded(&self.entry.name));
        if !self.is_first {
            let _ = write!(address, "?mesh={}", encoded(&self.slug));
        }
        address
    }

    /// What a person reads in a list: whose it is comes last.
    fn description(&self) -> String {
        let whole = harmless(&self.entry.description).replace('\n', " ");
        let mut text: String = whole.chars().take(MAX_DESCRIPTION_CHARS).collect();
        if text.len() < whole.len() {
            text.push('…');
        }
        format!("{text} (by {}, mesh {})", harmless_value(&self.entry.author), harmless_value(&self.slug))
    }
}

/// Percent encoding of all that is no letter, digit, `-`, `.`, `_` or `~`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The name and the mesh of an address.
fn parsed(address: &str) -> Option<(String, Option<String>)> {
    let rest = address.strip_prefix(SCHEME)?;
    match rest.split_once("?mesh=") {
        Some((name, slug)) => Some((decoded(name)?, Some(decoded(slug)?))),
        None => Some((decoded(rest)?, None)),
    }
}

impl MeshServer {
    /// All that is offered. Meshes that cannot be asked now are left out, and the host hears when they are there.
    async fn offers(&self) -> Vec<Offer> {
        let meshes = self.session.select(None).await.unwrap_or_default();
        if meshes.is_empty() {
            self.session.list_changes.was_incomplete();
        }
        let mut offers = Vec::new();
        for (place, bound) in meshes.iter().enumerate() {
            let asked = match bound.connection.ready(PATIENCE).await {
                Ok(_) => bound.connection.skills(None, &[], MAX_OFFERED, None).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(list) => {
                    let offer = |entry| Offer { slug: bound.tag.slug.clone(), is_first: place == 0, entry };
                    // A name that would have to be changed to be shown cannot be asked for; tools read such skills.
                    let shown = |entry: &SkillEntry| harmless_value(&entry.name) == entry.name;
                    offers.extend(list.skills.into_iter().filter(shown).map(offer));
                }
                Err(error) => {
                    tracing::debug!(mesh.slug = bound.tag.slug, %error, "its skills are not offered");
                    self.session.list_changes.was_incomplete();
                }
            }
        }
        offers
    }

    pub(crate) async fn prompts(&self) -> ListPromptsResult {
        let prompt = |offer: Offer| Prompt::new(offer.prompt_name(), Some(offer.description()), Some(vec![]));
        ListPromptsResult::with_all_items(self.offers().await.into_iter().map(prompt).collect())
    }

    pub(crate) async fn resources(&self) -> ListResourcesResult {
        let resource = |offer: Offer| {
            Resource::new(offer.address(), offer.prompt_name())
                .with_description(offer.description())
                .with_mime_type(MARKDOWN)
        };
        ListResourcesResult::with_all_items(self.offers().await.into_iter().map(resource).collect())
    }

    /// The skill of a mesh: the named one, else the first.
    async fn offered(&self, name: &str, slug: Option<&str>) -> Result<(JoinedMesh, Skill), ErrorData> {
        let trouble = |text: String| ErrorData::internal_error(text, None);
        let meshes = self.session.select(slug).await.map_err(trouble)?;
        let Some(bound) = meshes.into_iter().next() else { return Err(trouble("no mesh is joined".into())) };
        let connection = self.session.connected(&bound).await.map_err(trouble)?;
        let found = connection.skill(name, None).await.map_err(|error| trouble(error.to_string()))?;
        let missing = || {
            let text = format!("no skill '{}' in the mesh {}", harmless_value(name), bound.tag.slug);
            ErrorData::resource_not_found(text, None)
        };
        let skill = found.ok_or_else(missing)?;
        Ok((bound, skill))
    }

    pub(crate) async fn prompt(&self, request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
        let slugs: Vec<String> = self.session.meshes().iter().map(|bound| bound.tag.slug.clone()).collect();
        let of_mesh = request.name.split_once(':').filter(|(slug, _)| slugs.iter().any(|known| known == slug));
        let (slug, name) = of_mesh.map_or((None, request.name.as_str()), |(slug, name)| (Some(slug), name));
        let (bound, skill) = match self.offered(name, slug).await {
            // The first mesh may have a skill whose name begins like that of another mesh.
            Err(_) if slug.is_some() => self.offered(&request.name, None).await,
            found => found,
        }
        .map_err(|error| ErrorData::invalid_params(error.message, None))?;
        let fields = frame::metadata(&Manifest::of(skill.manifest.as_ref()), true);
        let mut quoted = String::new();
        if !fields.is_empty() {
            let description = ("description", text_value(&skill.description));
            quoted = front_matter(std::iter::once(description).chain(fields)) + "\n";
        }
        quoted += &skill.instructions;
        let text = for_model(&skill, &bound.tag.slug, bound.connection.state_of(&skill), &quoted);
        let result = GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]);
        Ok(result.with_description(harmless(&skill.description)))
    }

    pub(crate) async fn resource(&self, request: &ReadResourceRequestParams) -> Result<ReadResourceResult, ErrorData> {
        let unknown = || ErrorData::resource_not_found("expected skill://claudemesh/<name>", None);
        let (name, slug) = parsed(&request.uri).ok_or_else(unknown)?;
        let (bound, skill) = self.offered(&name, slug.as_deref()).await?;
        let state = bound.connection.state_of(&skill);
        let head = front_matter([
            ("name", text_value(&skill.name)),
            ("description", text_value(&skill.description)),
            ("tags", list_value(&skill.tags)),
            ("author", text_value(&skill.author)),
            ("mesh", text_value(&bound.tag.slug)),
            ("version", skill.version.to_string()),
            ("signature", text_value(state.as_str())),
        ]);
        let text = format!("{head}\n{}", for_model(&skill, &bound.tag.slug, state, &skill.instructions));
        let contents = ResourceContents::text(text, request.uri.clone()).with_mime_type(MARKDOWN);
        Ok(ReadResourceResult::new(vec![contents]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_skill_and_its_mesh() {
        let offer = |slug: &str, is_first, name: &str| Offer {
            slug: slug.into(),
            is_first,
            entry: SkillEntry { name: name.into(), ..SkillEntry::default() },
        };
        for (offer, address, prompt) in [
            (offer("team", true, "deploy"), "skill://claudemesh/deploy", "deploy"),
            (offer("team", true, "a b/ü?%"), "skill://claudemesh/a%20b%2F%C3%BC%3F%25", "a b/ü?%"),
            (offer("other", false, "deploy"), "skill://claudemesh/deploy?mesh=other", "other:deploy"),
        ] {
            assert_eq!((offer.address().as_str(), offer.prompt_name().as_str()), (address, prompt));
            let slug = (!offer.is_first).then(|| offer.slug.clone());
            assert_eq!(parsed(address), Some((offer.entry.name, slug)));
        }
        for bad in [
            "skill://other/x",
            "file:///etc/passwd",
            "skill://claudemesh/%",
            "skill://claudemesh/%zz",
            "skill://claudemesh/%ff",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
