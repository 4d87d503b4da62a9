//! Columns of domain types, once for both backends: `#[diesel(deserialize_as = Text<TopicId>, serialize_as = Text<TopicId>)]` on
//! a field makes the domain struct the row.
//!
//! [`Text`] holds what has one text form (ids, keys, small enums), [`Json`] anything serde writes, [`OptionalText`] and
//! [`OptionalJson`] the same in a nullable column. A value that cannot be read back is [`DbError::Corrupt`](super::DbError).

use std::collections::BTreeMap;
use std::fmt::Debug;
#[cfg(feature = "postgres")]
use std::io::Write;

use claudemesh_protocol::features::enrolment::InvitePreset;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::members::Grants;
use claudemesh_protocol::features::presence::{PeerStatus, Profile, Stats};
use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::id::{InviteId, MemberId, MeshId, MessageId, PublicKey, TopicId};
use claudemesh_protocol::session::SelfEditable;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::internal::derives::as_expression::Bound;
#[cfg(feature = "postgres")]
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{self, Nullable};
#[cfg(feature = "sqlite")]
use diesel::sqlite::Sqlite;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type with one text form.
pub trait TextColumn: Sized {
    /// The stored text.
    fn text(&self) -> String;
    /// Reads it; `None` when it is no such text.
    fn read(text: String) -> Option<Self>;
}

macro_rules! text_ids {
    ($($id:ty),*) => {$(
        impl TextColumn for $id {
            fn text(&self) -> String {
                self.as_str().to_owned()
            }

            fn read(text: String) -> Option<Self> {
                Some(text.into())
            }
        }
    )*};
}

text_ids!(InviteId, MemberId, MeshId, MessageId, TopicId);

impl TextColumn for PublicKey {
    fn text(&self) -> String {
        self.to_hex()
    }

    fn read(text: String) -> Option<Self> {
        Self::parse(&text)
    }
}

impl TextColumn for Visibility {
    fn text(&self) -> String {
        self.as_str().to_owned()
    }

    fn read(text: String) -> Option<Self> {
        [Self::Public, Self::Private, Self::Dm].into_iter().find(|one| one.as_str() == text)
    }
}

impl TextColumn for PeerStatus {
    fn text(&self) -> String {
        self.as_str().to_owned()
    }

    fn read(text: String) -> Option<Self> {
        [Self::Idle, Self::Working, Self::Dnd].into_iter().find(|one| one.as_str() == text)
    }
}

/// A required text column.
#[derive(Clone, Debug, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Text)]
pub struct Text<T: TextColumn>(pub T);

/// A nullable text column.
#[derive(Clone, Debug, FromSqlRow)]
pub struct OptionalText<T: TextColumn>(pub Option<T>);

/// A type that serde writes as JSON.
pub trait JsonColumn: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> JsonColumn for T {}

/// A required column of JSON text.
#[derive(Clone, Debug, FromSqlRow, AsExpression)]
#[diesel(sql_type = sql_types::Text)]
pub struct Json<T: JsonColumn>(pub T);

/// A nullable column of JSON text.
#[derive(Clone, Debug, FromSqlRow)]
pub struct OptionalJson<T: JsonColumn>(pub Option<T>);

fn read_text<T: TextColumn>(text: String) -> deserialize::Result<T> {
    T::read(text).ok_or_else(|| "expected a value that this broker writes".into())
}

fn read_json<T: JsonColumn>(text: String) -> deserialize::Result<T> {
    Ok(serde_json::from_str(&text)?)
}

/// What a wrapper needs: reading, writing to both backends, and conversion from the field.
macro_rules! column {
    ($required:ident, $optional:ident, $bound:ident, $read:path, $write:expr) => {
        impl<T: $bound, DB: Backend> FromSql<sql_types::Text, DB> for $required<T>
        where
            String: FromSql<sql_types::Text, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
                $read(<String as FromSql<sql_types::Text, DB>>::from_sql(bytes)?).map(Self)
            }
        }

        impl<T: $bound, DB: Backend> FromSql<Nullable<sql_types::Text>, DB> for $optional<T>
        where
            String: FromSql<sql_types::Text, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
                $read(<String as FromSql<sql_types::Text, DB>>::from_sql(bytes)?).map(|value| Self(Some(value)))
            }

            fn from_nullable_sql(bytes: Option<DB::RawValue<'_>>) -> deserialize::Result<Self> {
                bytes.map_or_else(|| Ok(Self(None)), Self::from_sql)
            }
        }

        #[cfg(feature = "sqlite")]
        impl<T: $bound + Debug> ToSql<sql_types::Text, Sqlite> for $required<T> {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value($write(&self.0));
                Ok(IsNull::No)
            }
        }

        #[cfg(feature = "postgres")]
        impl<T: $bound + Debug> ToSql<sql_types::Text, Pg> for $required<T> {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all($write(&self.0).as_bytes())?;
                Ok(IsNull::No)
            }
        }

        #[cfg(feature = "sqlite")]
        impl<T: $bound + Debug> ToSql<Nullable<sql_types::Text>, Sqlite> for $optional<T> {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                let Some(value) = &self.0 else { return Ok(IsNull::Yes) };
                out.set_value($write(value));
                Ok(IsNull::No)
            }
        }

        #[cfg(feature = "postgres")]
        impl<T: $bound + Debug> ToSql<Nullable<sql_types::Text>, Pg> for $optional<T> {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                let Some(value) = &self.0 else { return Ok(IsNull::Yes) };
                out.write_all($write(value).as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl<T: $bound> AsExpression<Nullable<sql_types::Text>> for $optional<T> {
            type Expression = Bound<Nullable<sql_types::Text>, Self>;

            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }

        impl<T: $bound> From<T> for $required<T> {
            fn from(value: T) -> Self {
                Self(value)
            }
        }

        impl<T: $bound> From<Option<T>> for $optional<T> {
            fn from(value: Option<T>) -> Self {
                Self(value)
            }
        }
    };
}

column!(Text, OptionalText, TextColumn, read_text, TextColumn::text);
column!(Json, OptionalJson, JsonColumn, read_json, super::convert::to_json);

/// Back from the wrapper to the field, type by type: Rust allows no such impl for all types at once.
macro_rules! fields {
    ($($wrapper:ident => $field:ty;)*) => {$(
        impl From<$wrapper<$field>> for $field {
            fn from(column: $wrapper<$field>) -> Self {
                column.0
            }
        }
    )*};
    (optional $($wrapper:ident => $field:ty;)*) => {$(
        impl From<$wrapper<$field>> for Option<$field> {
            fn from(column: $wrapper<$field>) -> Self {
                column.0
            }
        }
    )*};
}
pub(crate) use fields;

fields! {
    Text => InviteId;
    Text => MemberId;
    Text => MeshId;
    Text => MessageId;
    Text => PeerStatus;
    Text => PublicKey;
    Text => TopicId;
    Text => Visibility;
    Json => BTreeMap<String, u64>;
    Json => Grants;
    Json => Profile;
    Json => SelfEditable;
    Json => Stats;
    Json => Vec<Group>;
}

fields! { optional
    OptionalText => MemberId;
    OptionalText => TopicId;
    OptionalJson => InvitePreset;
}
