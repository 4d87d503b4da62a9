//! Skills: instructions that members share. The client signs what it shares and checks what it reads; what others wrote is shown as
//! data, with whose it is and whether that is proved.

use claudemesh_protocol::features::skills::{
    GetSkill, ListSkills, NOT_FOUND, RemoveSkill, ShareSkill, SignatureState, Skill, SkillAck, SkillList,
};
use claudemesh_protocol::name;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod frame;
pub mod install;
pub mod list_changes;
pub mod offers;
pub mod skill_file;
pub mod tools;

impl Connection {
    /// Signs a skill with the member's key and shares it.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn share_skill(&self, skill: ShareSkill) -> Result<SkillAck, ConnectionError> {
        // The form in which names are kept; a name that cannot be is the broker's to refuse.
        let name = name::visible(&skill.name).unwrap_or(skill.name);
        let (identity, now_ms) = (self.identity(), crate::clock::now_ms());
        let skill = ShareSkill { name, ..skill }.signed(&identity.mesh_id, &identity.member, now_ms);
        self.request(skill).await
    }

    /// A skill with its newest text or that of a version; `None`: the mesh has no such skill or version.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn skill(&self, name: &str, version: Option<u32>) -> Result<Option<Skill>, ConnectionError> {
        Ok(self.request(GetSkill { name: name.to_owned(), version }).await?.skill)
    }

    /// Skills by name: at most `most`, behind a cursor. `next` of the answer says that there are more.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn skills(
        &self,
        query: Option<&str>,
        tags: &[String],
        most: usize,
        cursor: Option<String>,
    ) -> Result<SkillList, ConnectionError> {
        let mut read = SkillList { skills: vec![], next: cursor };
        loop {
            let wanted = most.saturating_sub(read.skills.len());
            let limit = Some(u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, 500));
            let (query, tags) = (query.map(str::to_owned), tags.to_vec());
            let page = self.request(ListSkills { query, tags, limit, cursor: read.next.take() }).await?;
            read.skills.extend(page.skills);
            read.next = page.next;
            if read.next.is_none() || read.skills.len() >= most {
                return Ok(read);
            }
        }
    }

    /// Removes a skill with all its versions; `false` when there is none.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn remove_skill(&self, name: &str) -> Result<bool, ConnectionError> {
        Ok(self.request(RemoveSkill { name: name.to_owned() }).await?.action != NOT_FOUND)
    }

    /// Whether a skill of this mesh is what its author signed.
    pub fn state_of(&self, skill: &Skill) -> SignatureState {
        skill.signature_state(&self.identity().mesh_id)
    }
}

/// The fields of a manifest that hosts know. Others are kept by the broker and ignored here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// When a model should use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_to_use: Option<String>,
    /// Tools that it may use without a question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
    /// Model that it runs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `inline` or `fork`: in a sub-agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Kind of the sub-agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// A person may start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_invocable: Option<bool>,
    /// What stands behind its name when a person starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument_hint: Option<String>,
}

impl Manifest {
    /// The known fields of a manifest, as far as they have the type that they should have.
    pub fn of(manifest: Option<&Value>) -> Self {
        let empty = Map::new();
        let fields = manifest.and_then(Value::as_object).unwrap_or(&empty);
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let tools = fields.get("allowed_tools").and_then(Value::as_array).into_iter().flatten();
        Self {
            when_to_use: text("when_to_use"),
            allowed_tools: tools.filter_map(Value::as_str).map(str::to_owned).collect(),
            model: text("model"),
            context: text("context"),
            agent: text("agent"),
            user_invocable: fields.get("user_invocable").and_then(Value::as_bool),
            argument_hint: text("argument_hint"),
        }
    }

    /// As the wire has it; `None` when nothing is said.
    pub fn to_wire(&self) -> Option<Value> {
        let value = serde_json::to_value(self).ok()?;
        value.as_object().is_some_and(|fields| !fields.is_empty()).then_some(value)
    }

    /// Whether it is to run in a sub-agent.
    pub fn forks(&self) -> bool {
        self.context.as_deref() == Some("fork")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_of_other_types_says_nothing() {
        let wire = json!({"when_to_use": "w", "allowed_tools": ["Bash", 7], "context": "fork", "user_invocable": false, "x": 1});
        let manifest = Manifest::of(Some(&wire));
        assert_eq!((manifest.when_to_use.as_deref(), manifest.allowed_tools.len()), (Some("w"), 1));
        assert!(manifest.forks() && manifest.user_invocable == Some(false));
        assert_eq!(Manifest::of(Some(&manifest.to_wire().unwrap())), manifest);
        for nothing in
            [json!(null), json!("x"), json!([]), json!({"model": 7, "allowed_tools": "Bash", "user_invocable": "no"})]
        {
            assert_eq!(Manifest::of(Some(&nothing)), Manifest::default(), "{nothing}");
        }
        assert_eq!(Manifest::default().to_wire(), None);
    }
}
