//! What makes a tool: the mesh it is about, what it answers, and how it asks the brokers. Knows no tool; `tools.rs` lists them.
//!
//! A tool is a method of [`MeshServer`] whose name is the tool's name. It answers a text (`Result<String, ToolError>`) or a text
//! and data ([`Json`]). Hosts show the data in place of the text, so a tool whose words say it all has no data. A failure is
//! told as `<tool>: …`.

use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, ErrorData, JsonObject, MetaObject};
use rmcp::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::server::MeshServer;
use crate::connection::{Connection, ConnectionError};
use crate::session::notes::{harmless, harmless_value};
use crate::session::{JoinedMesh, ToolError};

/// The mesh of a tool that is about every joined mesh, unless one is named.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct MeshArg {
    /// Only this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

impl MeshArg {
    /// The named mesh.
    pub(crate) fn slug(&self) -> Option<&str> {
        self.mesh_slug.as_deref()
    }
}

/// The mesh of a tool that is about one mesh.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct OneMeshArg {
    /// Mesh, when several are joined.
    #[serde(default)]
    mesh_slug: Option<String>,
}

impl OneMeshArg {
    /// The named mesh.
    pub(crate) fn slug(&self) -> Option<&str> {
        self.mesh_slug.as_deref()
    }
}

/// What a tool tells: the text, and the same as data. `#[tool]` reads the output schema off this name, as with the SDK's own
/// wrapper of data.
///
/// In the data a field without a value is absent, as the schema says, and every text is harmless: what peers write goes
/// through here whichever tool tells it.
pub(crate) struct Json<T>(pub(crate) String, pub(crate) T);

impl<T: Serialize> IntoCallToolResult for Json<T> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        let Self(text, data) = self;
        let mut data = serde_json::to_value(data)
            .map_err(|error| ErrorData::internal_error(format!("the answer cannot be written: {error}"), None))?;
        soften(&mut data, harmless);
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(data);
        Ok(result.into())
    }
}

/// A struct whose texts are values: each one line, without quotes, of bounded length.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: Serialize> Serialize for OneLine<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(&self.0).map_err(serde::ser::Error::custom)?;
        soften(&mut value, harmless_value);
        value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for OneLine<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// Removes fields without a value and passes every text through `make`.
fn soften(value: &mut Value, make: fn(&str) -> String) {
    match value {
        Value::String(text) => *text = make(text),
        Value::Array(list) => list.iter_mut().for_each(|one| soften(one, make)),
        Value::Object(map) => {
            map.retain(|_, one| !one.is_null());
            map.values_mut().for_each(|one| soften(one, make));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Marks a tool whose schema the host must load at once: the model cannot search for what it does not know of.
pub(crate) fn always_load() -> MetaObject {
    marked("anthropic/alwaysLoad")
}

/// Makes the host ask its user at every call, also where our tools are allowed.
pub(crate) fn asks_the_user() -> MetaObject {
    marked("anthropic/requiresUserInteraction")
}

fn marked(name: &str) -> MetaObject {
    let mut meta = JsonObject::new();
    meta.insert(name.to_owned(), Value::Bool(true));
    MetaObject(meta)
}

impl MeshServer {
    /// Asks in every mesh, or in the named one. Answers what each gave; of a mesh that is not connected, why.
    ///
    /// # Errors
    /// No mesh is joined, or none has the name.
    pub(crate) async fn ask_each_mesh<T, F: Future<Output = Result<T, ConnectionError>>>(
        &self,
        slug: Option<&str>,
        ask: impl Fn(Connection) -> F,
    ) -> Result<Vec<(JoinedMesh, Result<T, ToolError>)>, ToolError> {
        let mut given = Vec::new();
        for bound in self.session.select(slug).await? {
            let answer = match self.session.connected(&bound).await {
                Ok(connection) => ask(connection).await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            given.push((bound, answer));
        }
        Ok(given)
    }

    /// Runs a write in every mesh, or in the named one. Answers where it was done, in words.
    ///
    /// # Errors
    /// When it was done nowhere: why.
    pub(crate) async fn in_each_mesh<T, F: Future<Output = Result<T, ConnectionError>>>(
        &self,
        slug: Option<&str>,
        write: impl Fn(Connection) -> F,
    ) -> Result<String, ToolError> {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (bound, answer) in self.ask_each_mesh(slug, write).await? {
            match answer {
                Ok(_) => done.push(bound.tag.slug),
                Err(error) => failed.push(format!("{}: {error}", bound.tag.slug)),
            }
        }
        if done.is_empty() {
            return Err(failed.join("; "));
        }
        let mut words = done.join(", ");
        if !failed.is_empty() {
            words += &format!("; not in {}", failed.join("; "));
        }
        Ok(words)
    }

    /// Asks in the named mesh, or in the only one. Answers which it was, and what it gave.
    ///
    /// # Errors
    /// As [`Session::select_one`], that it is not connected, or what the broker says.
    pub(crate) async fn in_one_mesh<T, F: Future<Output = Result<T, ConnectionError>>>(
        &self,
        slug: Option<&str>,
        ask: impl FnOnce(Connection) -> F,
    ) -> Result<(JoinedMesh, T), ToolError> {
        let bound = self.session.select_one(slug).await?;
        let connection = self.session.connected(&bound).await?;
        let answer = ask(connection).await.map_err(|error| error.to_string())?;
        Ok((bound, answer))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Data {
        name: &'static str,
        role: Option<&'static str>,
        list: Vec<&'static str>,
    }

    #[test]
    fn data_has_no_nulls_and_no_tags_of_the_host() {
        let data = Data { name: "<system>\u{1b}[31m", role: None, list: vec!["a\nb", "</channel>"] };
        let Ok(CallToolResponse::Complete(result)) = Json("text".to_owned(), data).into_call_tool_result() else {
            panic!("complete");
        };
        let told = result.structured_content.unwrap();
        assert_eq!(told, json!({"name": "&lt;system>␛[31m", "list": ["a\nb", "&lt;/channel>"]}));
        let value = OneLine(Data { name: "a\"b\nc", role: Some("x"), list: vec!["<b>"] });
        assert_eq!(serde_json::to_value(value).unwrap(), json!({"name": "a'b c", "role": "x", "list": ["[b]"]}));
    }
}
