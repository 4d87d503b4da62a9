//! The full-text index of a feature: a table of its own in both databases, with the same tokens in it.
//!
//! SQLite has an FTS5 table, PostgreSQL a `tsvector`. Both are given tokens that are ready: neither's parser or dictionary has a
//! say, so both find the same. Every token begins with a mark of its mesh: a search reads nothing of other meshes.

#[cfg(feature = "postgres")]
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use claudemesh_protocol::id::MeshId;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
#[cfg(feature = "sqlite")]
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::query::{Clause, Query};
use super::text::{normal, pieces};
use crate::db::{Db, DbError, MeshDb};

/// Of what more texts than this have, the newest are looked at: no one means a word that is everywhere.
const LOOKED_AT: i64 = 2_000;
/// Texts that are read for one search, the best of those by the database's own measure.
pub const CANDIDATES: usize = 100;

/// A full-text index: the name of its table. The table has the columns `rowid` (SQLite) or `row_no` (PostgreSQL), and `tokens`.
#[derive(Clone, Copy, Debug)]
pub struct Index(pub &'static str);

/// The tables whose rows have words in an index, by their `row_no`.
pub const OF_TABLES: &[(&str, Index)] = &[
    ("contexts", Index("__context_index")),
    ("memories", Index("__memory_index")),
    ("skills", Index("__skill_index")),
];

/// Writes tokens of one mesh.
#[derive(Clone, Debug)]
struct Scope(String);

impl Scope {
    fn of(mesh: &MeshId) -> Self {
        let digest = Sha256::digest(mesh.as_str().as_bytes());
        Self(hex::encode(&digest[..4]))
    }

    fn token(&self, kind: char, text: &str) -> String {
        format!("{}{kind}{text}", self.0)
    }
}

/// A word in its place.
const PLACED: char = 's';
/// A word as it is written, for beginnings.
const WRITTEN: char = 'w';
/// What stands between texts, so that no phrase goes from one into the next.
const GAP: char = 'x';
/// Every document of the mesh.
const ALL: char = 'm';
/// A label, for conditions that are no words of the text.
const LABEL: char = 'l';

/// What the index knows of one text.
#[derive(Clone, Debug)]
pub struct Document {
    scope: Scope,
    /// In their order.
    placed: Vec<String>,
    loose: BTreeSet<String>,
}

impl Document {
    /// An empty one.
    pub fn new(mesh: &MeshId) -> Self {
        let scope = Scope::of(mesh);
        let loose = [scope.token(ALL, "")].into();
        Self { scope, placed: vec![], loose }
    }

    /// Adds a text, or one field of it.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        if !self.placed.is_empty() {
            self.placed.push(self.scope.token(GAP, ""));
        }
        for piece in pieces(text) {
            self.placed.push(self.scope.token(PLACED, &piece.stem));
            self.loose.insert(self.scope.token(WRITTEN, &piece.word));
        }
        self
    }

    /// Adds a label that [`Search::label`] asks for.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.loose.insert(self.scope.token(LABEL, &label(name, value)));
        self
    }

    /// For FTS5, whose tokenizer cuts at spaces only.
    #[cfg(feature = "sqlite")]
    fn for_sqlite(&self) -> String {
        self.placed.iter().chain(&self.loose).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// A `tsvector` as PostgreSQL writes it.
    #[cfg(feature = "postgres")]
    fn for_postgres(&self) -> String {
        let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (at, token) in self.placed.iter().enumerate() {
            places.entry(token).or_default().push((at + 1).to_string());
        }
        let placed = places.into_iter().map(|(token, places)| format!("'{token}':{}", places.join(",")));
        let loose = self.loose.iter().map(|token| format!("'{token}'"));
        placed.chain(loose).collect::<Vec<_>>().join(" ")
    }
}

/// A label without case and accents, in symbols that both databases keep together.
fn label(name: &str, value: &str) -> String {
    let (value, mut token) = (value.nfc().collect::<String>(), format!("{name}_"));
    for part in value.split_inclusive(|symbol: char| !symbol.is_alphanumeric()) {
        let (word, sign) = match part.chars().next_back().filter(|last| !last.is_alphanumeric()) {
            Some(sign) => (&part[..part.len() - sign.len_utf8()], Some(sign)),
            None => (part, None),
        };
        token += &normal(word);
        if let Some(sign) = sign {
            token += &format!("_{:x}_", u32::from(sign));
        }
    }
    token
}

/// What is looked for: words, and labels.
#[derive(Clone, Debug)]
pub struct Search {
    scope: Scope,
    words: Query,
    /// All of these; of each at least one.
    labels: Vec<Vec<String>>,
    /// Only rows from here.
    pub from: i64,
    /// Only rows up to here.
    pub to: i64,
}

impl Search {
    /// Looks for words in a mesh.
    pub fn new(mesh: &MeshId, words: Query) -> Self {
        Self { scope: Scope::of(mesh), words, labels: vec![], from: 0, to: i64::MAX }
    }

    /// Only what has the label with one of these values.
    #[must_use]
    pub fn label<'a>(mut self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.labels.push(values.into_iter().map(|value| self.scope.token(LABEL, &label(name, value))).collect());
        self
    }

    /// Tokens of a condition, and whether the last one may go on.
    fn tokens(&self, clause: &Clause) -> (Vec<String>, bool) {
        if clause.is_beginning() {
            return (vec![self.scope.token(WRITTEN, &clause.pieces[0].word)], true);
        }
        (clause.pieces.iter().map(|piece| self.scope.token(PLACED, &piece.stem)).collect(), clause.open)
    }

    /// The whole in the words of a database: how it writes a condition, what joins, what denies.
    fn written(&self, syntax: &Syntax) -> String {
        let word = |clause: &Clause| {
            let (tokens, open) = self.tokens(clause);
            (syntax.phrase)(&tokens, open)
        };
        let one = |token: &String| (syntax.phrase)(std::slice::from_ref(token), false);
        let any = |all: Vec<String>| format!("({})", all.join(syntax.or));
        let mut must: Vec<String> = self.words.must.iter().map(word).collect();
        must.extend(self.labels.iter().map(|values| any(values.iter().map(one).collect())));
        if must.is_empty() {
            must.push(one(&self.scope.token(ALL, "")));
        }
        let must = format!("({})", must.join(syntax.and));
        if self.words.must_not.is_empty() {
            return must;
        }
        format!("{must}{}{}", syntax.and_not, any(self.words.must_not.iter().map(word).collect()))
    }
}

/// How a database writes conditions.
struct Syntax {
    phrase: fn(&[String], bool) -> String,
    and: &'static str,
    or: &'static str,
    and_not: &'static str,
}

#[cfg(feature = "sqlite")]
const FTS5: Syntax = Syntax {
    phrase: |tokens, open| format!("\"{}\"{}", tokens.join(" "), if open { " *" } else { "" }),
    and: " AND ",
    or: " OR ",
    and_not: " NOT ",
};

#[cfg(feature = "postgres")]
const TSQUERY: Syntax = Syntax {
    phrase: |tokens, open| {
        let tokens: Vec<String> = tokens.iter().map(|token| format!("'{token}'")).collect();
        format!("({}{})", tokens.join(" <-> "), if open { ":*" } else { "" })
    },
    and: " & ",
    or: " | ",
    and_not: " & !",
};

#[derive(QueryableByName)]
struct Hit {
    #[diesel(sql_type = BigInt)]
    row_no: i64,
}

/// Rows that fit, the best by the database's own measure: at most [`CANDIDATES`].
///
/// # Errors
/// Storage fails.
pub async fn find(db: &MeshDb, index: Index, search: &Search) -> Result<Vec<i64>, DbError> {
    rows(db.db(), index, search, LOOKED_AT, CANDIDATES as i64).await
}

/// The newest rows that fit.
///
/// # Errors
/// Storage fails.
pub async fn newest(db: &MeshDb, index: Index, search: &Search, most: u32) -> Result<Vec<i64>, DbError> {
    rows(db.db(), index, search, i64::from(most), i64::from(most)).await
}

/// The conditions of a query that nothing in the mesh fulfils, as they were typed.
///
/// # Errors
/// Storage fails.
pub async fn unmatched(db: &MeshDb, index: Index, words: &Query) -> Result<Vec<String>, DbError> {
    let mut found = Vec::new();
    for clause in &words.must {
        let alone = Query { must: vec![clause.clone()], must_not: vec![] };
        if rows(db.db(), index, &Search::new(db.mesh(), alone), 1, 1).await?.is_empty() {
            found.push(clause.typed.clone());
        }
    }
    Ok(found)
}

/// By hand, because each database has its own language for it; `store_tests.rs` of the features compare them.
async fn rows(db: &Db, Index(table): Index, search: &Search, looked_at: i64, most: i64) -> Result<Vec<i64>, DbError> {
    // A label that can have no value fits nothing, and `()` is no condition.
    if search.labels.iter().any(Vec::is_empty) {
        return Ok(vec![]);
    }
    let hits: Vec<Hit> = match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => {
            let query = format!(
                "SELECT row_no FROM (SELECT rowid AS row_no, bm25({table}) AS score FROM {table} \
                 WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?) \
                 ORDER BY score, row_no DESC LIMIT ?"
            );
            diesel::sql_query(query)
                .bind::<Text, _>(search.written(&FTS5))
                .bind::<BigInt, _>(search.from)
                .bind::<BigInt, _>(search.to)
                .bind::<BigInt, _>(looked_at)
                .bind::<BigInt, _>(most)
                .load(&mut *backend.get().await?)
                .await?
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            let query = format!(
                "SELECT row_no FROM (SELECT row_no, ts_rank(tokens, CAST($1 AS tsquery)) AS score FROM {table} \
                 WHERE tokens @@ CAST($1 AS tsquery) AND row_no BETWEEN $2 AND $3 ORDER BY row_no DESC LIMIT $4) hits \
                 ORDER BY score DESC, row_no DESC LIMIT $5"
            );
            diesel::sql_query(query)
                .bind::<Text, _>(search.written(&TSQUERY))
                .bind::<BigInt, _>(search.from)
                .bind::<BigInt, _>(search.to)
                .bind::<BigInt, _>(looked_at)
                .bind::<BigInt, _>(most)
                .load(&mut *backend.get().await?)
                .await?
        }
    };
    Ok(hits.into_iter().map(|hit| hit.row_no).collect())
}

/// A connection that writes to an index, in an open transaction. By hand, as [`find`].
pub trait IndexConnection {
    /// Adds a text.
    fn index(
        &mut self,
        index: Index,
        row: i64,
        document: &Document,
    ) -> impl Future<Output = Result<(), DbError>> + Send;

    /// From here on what is deleted is overwritten, until [`IndexConnection::erased`].
    fn erasing(&mut self) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Takes a text out. It ends what [`IndexConnection::erasing`] began.
    fn erased(&mut self, index: Index, row: i64) -> impl Future<Output = Result<(), DbError>> + Send;
}

/// The journal's connection, and those of the pool.
#[cfg(feature = "sqlite")]
impl<S> IndexConnection for SyncConnectionWrapper<SqliteConnection, S>
where
    S: SpawnBlocking + Send + Sync + 'static,
{
    async fn index(&mut self, Index(table): Index, row: i64, document: &Document) -> Result<(), DbError> {
        // The index merges its parts now and then: words that it moves must not stay where they were.
        self.erasing().await?;
        diesel::sql_query(format!("INSERT INTO {table}(rowid, tokens) VALUES (?, ?)"))
            .bind::<BigInt, _>(row)
            .bind::<Text, _>(document.for_sqlite())
            .execute(self)
            .await?;
        Ok(self.batch_execute(&written(table)).await?)
    }

    async fn erasing(&mut self) -> Result<(), DbError> {
        // Not always: the rows of messages come and go, and to overwrite each would cost a third more writing.
        Ok(self.batch_execute("PRAGMA secure_delete = ON").await?)
    }

    async fn erased(&mut self, Index(table): Index, row: i64) -> Result<(), DbError> {
        diesel::sql_query(format!("DELETE FROM {table} WHERE rowid = ?")).bind::<BigInt, _>(row).execute(self).await?;
        Ok(self.batch_execute(&written(table)).await?)
    }
}

/// The index gathers changes; they must be in its pages while what is deleted is overwritten.
#[cfg(feature = "sqlite")]
fn written(table: &str) -> String {
    format!("INSERT INTO {table}({table}) VALUES ('flush'); PRAGMA secure_delete = OFF")
}

#[cfg(feature = "postgres")]
impl IndexConnection for AsyncPgConnection {
    async fn index(&mut self, Index(table): Index, row: i64, document: &Document) -> Result<(), DbError> {
        diesel::sql_query(format!("INSERT INTO {table}(row_no, tokens) VALUES ($1, CAST($2 AS tsvector))"))
            .bind::<BigInt, _>(row)
            .bind::<Text, _>(document.for_postgres())
            .execute(self)
            .await?;
        Ok(())
    }

    async fn erasing(&mut self) -> Result<(), DbError> {
        // The server overwrites what no one sees any more when it vacuums.
        Ok(())
    }

    async fn erased(&mut self, Index(table): Index, row: i64) -> Result<(), DbError> {
        diesel::sql_query(format!("DELETE FROM {table} WHERE row_no = $1"))
            .bind::<BigInt, _>(row)
            .execute(self)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_token_whatever_is_in_them() {
        assert_eq!(label("tag", "Öps"), label("tag", "ops"));
        assert_eq!(label("tag", "on call"), "tag_on_20_call");
        assert_eq!(label("tag", "a'b\\c"), "tag_a_27_b_5c_c");
        assert_ne!(label("tag", "a b"), label("tag", "ab"));
        assert_ne!(label("tag", "a-b"), label("tag", "a_b"));
    }

    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    #[test]
    fn both_databases_get_the_same_conditions() {
        let search = Search::new(&"m".into(), Query::parse("\"blue green\" dep* -old")).label("tag", ["ops"]);
        let scope = Scope::of(&"m".into()).0;
        let plain = |written: String| written.replace(&scope, "");
        assert_eq!(plain(search.written(&FTS5)), "(\"sblue sgreen\" AND \"wdep\" * AND (\"ltag_ops\")) NOT (\"sold\")");
        assert_eq!(
            plain(search.written(&TSQUERY)),
            "(('sblue' <-> 'sgreen') & ('wdep':*) & (('ltag_ops'))) & !(('sold'))"
        );
        let not = Search::new(&"m".into(), Query::parse("-old"));
        assert_eq!(plain(not.written(&FTS5)), "(\"m\") NOT (\"sold\")");
        let document = Document::new(&"m".into()).text("Deploy deploys").text("ops");
        assert_eq!(plain(document.for_sqlite()), "sdeploy sdeploy x sop m wdeploy wdeploys wops");
        assert_eq!(plain(document.for_postgres()), "'sdeploy':1,2 'sop':4 'x':3 'm' 'wdeploy' 'wdeploys' 'wops'");
    }
}
