//! `topic set-member`, `remove-member`: what a lead does for others.

use clap::Args;
use claudemesh_protocol::features::topics::{TopicMemberSet, TopicRemoveMember, TopicSetMember};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::in_mesh;
use crate::context::Context;
use crate::features::topics::hashed;
use crate::output::{Output, clean};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Let a member into a topic, or give it another role there. For leads of the topic.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh topic set-member review Bob\n  claudemesh topic set-member plans Bob --as lead\n\n\
                        A private topic is seen by its members only, so this is how one gets in."
)]
pub struct SetMemberArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// Name, key or id of the member.
    member: String,
    /// lead, observer (reads and does not write), or any other word, which may do what a member may.
    #[arg(long = "as", value_name = "WORD", alias = "role", default_value = "member")]
    role: String,
}

/// End a member's subscription to a topic. For leads of the topic.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh topic remove-member review Bob")]
pub struct RemoveMemberArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// Name, key or id of the member.
    member: String,
}

/// What a member is in a topic now, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MemberNow {
    /// The topic, as it was named.
    topic: String,
    /// Id of the member.
    member_id: String,
    /// Its role; null when it does not belong to the topic any more.
    role: Option<String>,
}

fn now(set: TopicMemberSet) -> MemberNow {
    MemberNow { topic: set.topic, member_id: set.member_id.to_string(), role: set.role }
}

impl Verb for SetMemberArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<MemberNow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<MemberNow>>()]
    }

    /// Exit 5 for a topic that you may not see and for an unknown member, 7 when you are no lead of it.
    fn run(self, cx: &Context) -> Ran {
        let request = TopicSetMember { topic: self.topic, member: self.member.clone(), role: self.role };
        let (entry, set) = in_mesh(cx, |connection| async move { connection.request(request).await })?;
        let text = |out: &Output| {
            let role = set.role.as_deref().unwrap_or_default();
            format!("{} {} is {} in {}\n", out.tick(), clean(&self.member), clean(role), clean(&hashed(&set.topic)))
        };
        cx.out.answer(&InMesh::new(&entry.slug, now(set.clone())), text).map(done)
    }
}

impl Verb for RemoveMemberArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<MemberNow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<MemberNow>>()]
    }

    /// Exit 5 for a topic that you may not see and for an unknown member, 7 when you are no lead of it.
    fn run(self, cx: &Context) -> Ran {
        let request = TopicRemoveMember { topic: self.topic, member: self.member.clone() };
        let (entry, set) = in_mesh(cx, |connection| async move { connection.request(request).await })?;
        let text = |out: &Output| {
            format!("{} {} is not in {} any more\n", out.tick(), clean(&self.member), clean(&hashed(&set.topic)))
        };
        cx.out.answer(&InMesh::new(&entry.slug, now(set.clone())), text).map(done)
    }
}
