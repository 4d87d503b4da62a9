//! `topics` and `topic_members`: named channels, who follows them, and how far each has read. What happens to their messages lies
//! in [`posts`], mentions in [`notifications`].

mod notifications;
mod posts;
#[cfg(test)]
mod tests;

use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::id::{MemberId, MeshId, TopicId};
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use serde_json::json;

pub use notifications::{
    NewNotification, NotificationsPart, Notified, Wanted, mark_notified, notified, notified_by, unread_notified,
};
pub use posts::{Act, Change, Decorations, Mark, Refused, change, clean, decorations, pinned};

use super::schema::{topic_members, topics};
use crate::audit::{Audit, By};
use crate::db::columns::Text;
use crate::db::{DbError, MeshDb};
use crate::features::messaging::schema::messages;
use crate::features::messaging::store::HISTORY_KEPT_MS;
use crate::journal::MeshStore;
use crate::{tx_write, with_conn};

/// A topic as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = topics, treat_none_as_default_value = false)]
pub struct Topic {
    /// Row id.
    #[diesel(serialize_as = Text<TopicId>, deserialize_as = Text<TopicId>)]
    pub id: TopicId,
    /// Mesh.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub mesh_id: MeshId,
    /// Without `#`, unique in the mesh.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Who may see it.
    #[diesel(serialize_as = Text<Visibility>, deserialize_as = Text<Visibility>)]
    pub visibility: Visibility,
    /// Member who made it.
    #[diesel(serialize_as = Text<MemberId>, deserialize_as = Text<MemberId>)]
    pub created_by: MemberId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// How long it keeps its messages; `None` for the usual time.
    pub retention_ms: Option<i64>,
}

/// A member's place in a topic.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = topic_members, treat_none_as_default_value = false)]
pub struct Subscription {
    /// Topic.
    #[diesel(serialize_as = Text<TopicId>, deserialize_as = Text<TopicId>)]
    pub topic_id: TopicId,
    /// Member.
    #[diesel(serialize_as = Text<MemberId>, deserialize_as = Text<MemberId>)]
    pub member_id: MemberId,
    /// `lead`, `member`, …
    pub role: String,
    /// Unix milliseconds.
    pub joined_at_ms: i64,
    /// Messages up to this one are read.
    pub last_read_seq: i64,
    /// Unix milliseconds.
    pub last_read_at_ms: Option<i64>,
}

/// Creates a topic with its creator as `lead`, or finds the one of that name. Returns it and whether it is new.
///
/// # Errors
/// Storage fails.
pub async fn create(store: &MeshStore, topic: &Topic) -> Result<(Topic, bool), DbError> {
    let topic = Topic { mesh_id: store.mesh().clone(), ..topic.clone() };
    Ok(tx_write!(store, (topic), |conn, mesh| {
        let created = diesel::insert_into(topics::table)
            .values(topic.clone())
            .on_conflict((topics::mesh_id, topics::name))
            .do_nothing()
            .execute(conn)
            .await?
            == 1;
        if created {
            let lead = Subscription {
                topic_id: topic.id.clone(),
                member_id: topic.created_by.clone(),
                role: "lead".into(),
                joined_at_ms: topic.created_at_ms,
                last_read_seq: 0,
                last_read_at_ms: None,
            };
            diesel::insert_into(topic_members::table).values(lead).execute(conn).await?;
        }
        let found = topics::table
            .filter(topics::mesh_id.eq(mesh.as_str()))
            .filter(topics::name.eq(&topic.name))
            .select(Topic::as_select())
            .first(conn)
            .await?;
        let payload = || json!({"topic": topic.id, "name": topic.name, "visibility": topic.visibility});
        let entry = || Audit::entry("topic_created", Some(&topic.created_by), payload(), topic.created_at_ms);
        Ok(((found, created), Audit::when(created, entry)))
    })?)
}

/// All topics of a mesh by name.
///
/// # Errors
/// Storage fails.
pub async fn load_all(db: &MeshDb) -> Result<Vec<Topic>, DbError> {
    Ok(with_conn!(db.db(), |conn| topics::table
        .filter(topics::mesh_id.eq(db.mesh().as_str()))
        .order(topics::name)
        .select(Topic::as_select())
        .load(conn)
        .await?))
}

/// The topics of a mesh, for a condition: a subscription has no column for its mesh. A macro, because the type of the
/// expression has no short name.
macro_rules! topics_of {
    ($mesh:expr) => {
        topics::table.filter(topics::mesh_id.eq($mesh.as_str())).select(topics::id)
    };
}

/// All subscriptions to the topics of a mesh, by topic, then in joining order.
///
/// # Errors
/// Storage fails.
pub async fn load_subscriptions(db: &MeshDb) -> Result<Vec<Subscription>, DbError> {
    Ok(with_conn!(db.db(), |conn| topic_members::table
        .filter(topic_members::topic_id.eq_any(topics_of!(db.mesh())))
        .order((topic_members::topic_id, topic_members::joined_at_ms, topic_members::member_id))
        .select(Subscription::as_select())
        .load(conn)
        .await?))
}

/// Subscribers of one topic in joining order.
///
/// # Errors
/// Storage fails.
pub async fn members(db: &MeshDb, topic: &TopicId) -> Result<Vec<Subscription>, DbError> {
    Ok(with_conn!(db.db(), |conn| topic_members::table
        .filter(topic_members::topic_id.eq(topic.as_str()))
        .filter(topic_members::topic_id.eq_any(topics_of!(db.mesh())))
        .order((topic_members::joined_at_ms, topic_members::member_id))
        .select(Subscription::as_select())
        .load(conn)
        .await?))
}

/// Why following, leaving and reading a topic have no entry in the audit log.
const FOLLOWING: Audit = Audit::Unaudited("who reads which topic changes nothing for others");

/// Subscribes a member, or changes its role; the cursor and joining time of a subscriber stay. A new subscriber starts
/// with everything up to `read_up_to` read.
///
/// # Errors
/// [`DbError::NotFound`] when the mesh has no such topic.
pub async fn join(
    store: &MeshStore,
    topic: &TopicId,
    member: &MemberId,
    role: Option<&str>,
    read_up_to: i64,
    now_ms: i64,
) -> Result<(), DbError> {
    let (again, role) = (role.map(str::to_owned), role.unwrap_or("member").to_owned());
    let row = Subscription {
        topic_id: topic.clone(),
        member_id: member.clone(),
        role,
        joined_at_ms: now_ms,
        last_read_seq: read_up_to,
        last_read_at_ms: None,
    };
    Ok(tx_write!(store, (row, again), |conn, mesh| {
        // Fails when the topic is not among them.
        topics_of!(mesh).filter(topics::id.eq(row.topic_id.as_str())).first::<String>(conn).await?;
        let joined = diesel::insert_into(topic_members::table)
            .values(row.clone())
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
        // A member that joins again without a role keeps its role.
        if joined == 0
            && let Some(role) = again
        {
            diesel::update(topic_members::table.find((row.topic_id.as_str(), row.member_id.as_str())))
                .set(topic_members::role.eq(role))
                .execute(conn)
                .await?;
        }
        Ok(((), FOLLOWING))
    })?)
}

/// Ends a subscription; `false` when there was none.
///
/// # Errors
/// Storage fails.
pub async fn leave(store: &MeshStore, topic: &TopicId, member: &MemberId) -> Result<bool, DbError> {
    let (topic, member) = (topic.clone(), member.clone());
    Ok(tx_write!(store, (topic, member), |conn, mesh| {
        let row = topic_members::table
            .find((topic.as_str(), member.as_str()))
            .filter(topic_members::topic_id.eq_any(topics_of!(mesh)));
        Ok((diesel::delete(row).execute(conn).await? == 1, FOLLOWING))
    })?)
}

/// Moves a subscriber's cursor, forward only; `false` when the member is not subscribed.
///
/// # Errors
/// Storage fails.
pub async fn mark_read(
    store: &MeshStore,
    topic: &TopicId,
    member: &MemberId,
    up_to_seq: i64,
    now_ms: i64,
) -> Result<bool, DbError> {
    let (topic, member) = (topic.clone(), member.clone());
    Ok(tx_write!(store, (topic, member, up_to_seq, now_ms), |conn, mesh| {
        let row = topic_members::table
            .find((topic.as_str(), member.as_str()))
            .filter(topic_members::topic_id.eq_any(topics_of!(mesh)));
        diesel::update(row.filter(topic_members::last_read_seq.lt(*up_to_seq)))
            .set(topic_members::last_read_seq.eq(*up_to_seq))
            .execute(conn)
            .await?;
        let found = diesel::update(row).set(topic_members::last_read_at_ms.eq(*now_ms)).execute(conn).await?;
        Ok((found == 1, FOLLOWING))
    })?)
}

/// Stores what a topic is for, who sees it and how long it keeps its messages: all three as in `topic`. `None` when there is no
/// such topic.
///
/// # Errors
/// Storage fails.
pub async fn update(store: &MeshStore, topic: &Topic, by: &By) -> Result<Option<Topic>, DbError> {
    let (topic, by) = (topic.clone(), by.clone());
    Ok(tx_write!(store, (topic, by), |conn, mesh| {
        let row = topics::table.find(topic.id.as_str()).filter(topics::mesh_id.eq(mesh.as_str()));
        let before: Option<Topic> = row.select(Topic::as_select()).first(conn).await.optional()?;
        let Some(before) = before else {
            return Ok((None, Audit::when(false, || by.entry("topic_updated", json!({})))));
        };
        diesel::update(row)
            .set((
                topics::description.eq(topic.description.clone()),
                topics::visibility.eq(topic.visibility.as_str()),
                topics::retention_ms.eq(topic.retention_ms),
            ))
            .execute(conn)
            .await?;
        let after = Topic {
            description: topic.description.clone(),
            visibility: topic.visibility,
            retention_ms: topic.retention_ms,
            ..before.clone()
        };
        let payload = json!({"topic": after.id, "name": after.name, "visibility": after.visibility,
                             "retentionMs": after.retention_ms});
        Ok((Some(after.clone()), Audit::when(after != before, || by.entry("topic_updated", payload))))
    })?)
}

/// Lets a member in with a role, or changes its role. A new subscriber starts with everything up to `read_up_to` read.
///
/// # Errors
/// [`DbError::NotFound`] when the mesh has no such topic.
pub async fn set_member(
    store: &MeshStore,
    topic: &TopicId,
    member: &MemberId,
    role: &str,
    read_up_to: i64,
    by: &By,
) -> Result<(), DbError> {
    let row = Subscription {
        topic_id: topic.clone(),
        member_id: member.clone(),
        role: role.to_owned(),
        joined_at_ms: by.at_ms,
        last_read_seq: read_up_to,
        last_read_at_ms: None,
    };
    let by = by.clone();
    Ok(tx_write!(store, (row, by), |conn, mesh| {
        // Fails when the topic is not among them.
        topics_of!(mesh).filter(topics::id.eq(row.topic_id.as_str())).first::<String>(conn).await?;
        let joined = diesel::insert_into(topic_members::table)
            .values(row.clone())
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
        let place = topic_members::table.find((row.topic_id.as_str(), row.member_id.as_str()));
        let other = place.filter(topic_members::role.ne(&row.role));
        let changed = diesel::update(other).set(topic_members::role.eq(&row.role)).execute(conn).await?;
        let payload = || json!({"topic": row.topic_id, "member": row.member_id, "role": row.role});
        Ok(((), Audit::when(joined + changed > 0, || by.entry("topic_member_set", payload()))))
    })?)
}

/// Ends the subscription of a member; `false` when there was none.
///
/// # Errors
/// Storage fails.
pub async fn remove_member(store: &MeshStore, topic: &TopicId, member: &MemberId, by: &By) -> Result<bool, DbError> {
    let (topic, member, by) = (topic.clone(), member.clone(), by.clone());
    Ok(tx_write!(store, (topic, member, by), |conn, mesh| {
        let row = topic_members::table
            .find((topic.as_str(), member.as_str()))
            .filter(topic_members::topic_id.eq_any(topics_of!(mesh)));
        let removed = diesel::delete(row).execute(conn).await? == 1;
        let payload = || json!({"topic": topic, "member": member});
        Ok((removed, Audit::when(removed, || by.entry("topic_member_removed", payload()))))
    })?)
}

/// How many messages of others a member has not read in each topic it follows; topics without any are left out.
///
/// # Errors
/// Storage fails.
pub async fn unread(db: &MeshDb, member: &MemberId, now_ms: i64) -> Result<Vec<(TopicId, i64)>, DbError> {
    // What its topic keeps no more has no place in a count. Raw SQL, see `kept_no_more` of messages.
    let kept = format!(
        "messages.created_at_ms > {now_ms} - COALESCE((SELECT topics.retention_ms FROM topics \
         WHERE topics.id = messages.topic_id), {HISTORY_KEPT_MS})"
    );
    let newer = messages::topic_id
        .eq(topic_members::topic_id.nullable())
        .and(messages::seq.gt(topic_members::last_read_seq))
        .and(messages::mesh_id.eq(db.mesh().as_str()));
    let rows: Vec<(String, i64)> = with_conn!(db.db(), |conn| topic_members::table
        .inner_join(messages::table.on(newer))
        .filter(topic_members::member_id.eq(member.as_str()))
        .filter(topic_members::topic_id.eq_any(topics_of!(db.mesh())))
        .filter(messages::sender_member_id.ne(member.as_str()))
        .filter(sql::<Bool>(&kept))
        .group_by(topic_members::topic_id)
        .select((topic_members::topic_id, count_star()))
        .load(conn)
        .await?);
    Ok(rows.into_iter().map(|(topic, count)| (topic.into(), count)).collect())
}
