//! What a call prints with `--json`, as a JSON Schema that is made of the types that are printed.
//!
//! One shape per call, however many meshes there are: a list stays a list, and each row names its mesh.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How the objects of an answer are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object.
    One,
    /// An array of objects.
    List,
    /// One object per line, for as long as the call runs.
    Lines,
}

impl Form {
    /// The word in the reference page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "object",
            Self::List => "array",
            Self::Lines => "lines",
        }
    }
}

/// What one call prints.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The call: verb, verbs below it, and the flag that chooses this answer. Empty: the verb that tells it.
    pub call: String,
    /// How the objects are put together.
    pub form: Form,
    row: fn() -> Value,
}

impl Shape {
    /// One object.
    pub fn one<T: JsonSchema>() -> Self {
        Self { call: String::new(), form: Form::One, row: row::<T> }
    }

    /// An array of objects.
    pub fn list<T: JsonSchema>() -> Self {
        Self { form: Form::List, ..Self::one::<T>() }
    }

    /// One object per line.
    pub fn lines<T: JsonSchema>() -> Self {
        Self { form: Form::Lines, ..Self::one::<T>() }
    }

    /// The same for a call with more words: a verb below, or the flag that chooses this answer.
    #[must_use]
    pub fn of(mut self, words: &str) -> Self {
        self.call = if self.call.is_empty() { words.to_owned() } else { format!("{words} {}", self.call) };
        self
    }

    /// The schema of the whole answer; of lines, that of each line.
    pub fn schema(&self) -> Value {
        let row = (self.row)();
        let title = format!("claudemesh {} --json", self.call);
        let mut schema = match self.form {
            Form::List => json!({"$schema": row["$schema"], "title": title, "type": "array", "items": row}),
            Form::One | Form::Lines => {
                let mut row = row;
                row["title"] = title.into();
                row
            }
        };
        if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
            items.remove("$schema");
        }
        schema
    }

    /// Names of the fields of each object, those of all alternatives.
    pub fn fields(&self) -> Vec<String> {
        let row = (self.row)();
        let mut names: Vec<String> = vec![];
        let alternatives = ["anyOf", "oneOf"].iter().filter_map(|word| row[*word].as_array()).flatten();
        for object in std::iter::once(&row).chain(alternatives) {
            for name in object["properties"].as_object().into_iter().flat_map(|fields| fields.keys()) {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }
}

fn row<T: JsonSchema>() -> Value {
    // As it is written, with everything in its place: a reader needs no second document.
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// A row with the mesh that it is of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InMesh<T> {
    /// Short name of the mesh on this machine.
    pub mesh: String,
    /// The row.
    #[serde(flatten)]
    pub row: T,
}

impl<T> InMesh<T> {
    /// A row of this mesh.
    pub fn new(mesh: &str, row: T) -> Self {
        Self { mesh: mesh.to_owned(), row }
    }

    /// The rows of one mesh.
    pub fn all(mesh: &str, rows: impl IntoIterator<Item = T>) -> Vec<Self> {
        rows.into_iter().map(|row| Self::new(mesh, row)).collect()
    }
}

/// The fields of [`InMesh`].
pub fn in_mesh<T: Deserialize<'static>>() -> Vec<&'static str> {
    super::json_fields::joined([vec!["mesh"], super::json_fields::of::<T>()])
}

/// A failure among the rows of a list; whole answers that fail have the same fields.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = true))]
pub struct Failed {
    /// Always `false`.
    pub ok: bool,
    /// Stable code.
    pub error: String,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Row {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        seen: Option<u32>,
    }

    #[test]
    fn a_shape_says_how_the_rows_come_and_which_fields_are_always_there() {
        let list = Shape::list::<InMesh<Row>>().of("--all").of("rows");
        assert_eq!((list.call.as_str(), list.form), ("rows --all", Form::List));
        let schema = list.schema();
        assert_eq!((&schema["type"], &schema["title"]), (&json!("array"), &json!("claudemesh rows --all --json")));
        assert!(schema["$schema"].is_string() && schema["items"]["$schema"].is_null());
        let mut required: Vec<&str> =
            schema["items"]["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        required.sort_unstable();
        assert_eq!(required, ["mesh", "name", "seen"], "what may be left out is not required, `null` is a value");
        assert_eq!(list.fields(), ["mesh", "name", "note", "seen"]);
        assert_eq!(in_mesh::<Row>(), ["mesh", "name", "note", "seen"]);
        assert_eq!(Shape::one::<Row>().of("row").schema()["type"], "object");
    }
}
