//! What a statement of a mesh may do in SQLite: everything in its own tables, nothing beside them.
//!
//! SQLite asks for each action while it compiles a statement, so comments, spelling and nesting change nothing. What can only be
//! known while it runs (reads only?) is decided by `sqlite3_stmt_readonly`.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// Pragmas that only tell something, without a value.
const TELLING: &[&str] = &[
    "collation_list",
    "data_version",
    "encoding",
    "foreign_key_check",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "integrity_check",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "schema_version",
    "table_list",
    "user_version",
    "application_id",
];
/// Pragmas whose value names what to tell about.
const TELLING_ABOUT: &[&str] = &[
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Functions that reach out of the database, or into SQLite itself.
const FORBIDDEN_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer", "sqlite_log", "optimize"];
/// Kinds of virtual tables that keep what they have in tables of the mesh.
const MODULES: &[&str] = &["fts5", "rtree", "rtree_i32"];

/// What is said of it.
const TEMP: &str = "TEMP; it would be gone with the next request";

/// Whose statements are compiled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Ours.
    Own = 0,
    /// A query of the mesh.
    Reads = 1,
    /// A change of the mesh.
    Writes = 2,
}

/// The switch of one connection, and what was refused last.
#[derive(Clone, Default)]
pub(super) struct Guard {
    mode: Arc<AtomicU8>,
    refused: Arc<Mutex<Option<String>>>,
}

impl Guard {
    /// Watches over a connection. Our own statements are not asked until [`Guard::set`] says whose come next.
    pub(super) fn watch(connection: &Connection) -> rusqlite::Result<Self> {
        let guard = Self::default();
        let asked = guard.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| asked.decide(&context)))?;
        Ok(guard)
    }

    /// From now on these are compiled.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }

    /// What was refused since the last call, in words.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        let writes = match self.mode.load(Ordering::Acquire) {
            0 => return Authorization::Allow,
            mode => mode == Mode::Writes as u8,
        };
        let in_temp = context.database_name.is_some_and(|name| name.eq_ignore_ascii_case("temp"));
        match verdict(&context.action, writes, in_temp) {
            Ok(()) => Authorization::Allow,
            Err(what) => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
                Authorization::Deny
            }
        }
    }
}

/// Whether an action is allowed.
///
/// # Errors
/// What is not, in words.
fn verdict(action: &AuthAction<'_>, writes: bool, in_temp: bool) -> Result<(), String> {
    let listed = |list: &[&str], name: &str| list.iter().any(|known| known.eq_ignore_ascii_case(name));
    let fails = |what: String| Err(what);
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Ok(()),
        AuthAction::Function { function_name } if listed(FORBIDDEN_FUNCTIONS, function_name) => {
            fails(format!("the function {function_name}()"))
        }
        AuthAction::Function { .. } => Ok(()),
        AuthAction::Pragma { pragma_name, pragma_value } => {
            let known = if pragma_value.is_some() { TELLING_ABOUT } else { TELLING };
            if listed(known, pragma_name) { Ok(()) } else { fails(format!("PRAGMA {pragma_name}")) }
        }
        AuthAction::Attach { .. } => fails("ATTACH".into()),
        AuthAction::Detach { .. } => fails("DETACH".into()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            fails("a transaction of your own; statements of one list are one".into())
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => fails(TEMP.into()),
        // As `temp.name` they are not told apart by their action.
        AuthAction::CreateIndex { .. }
        | AuthAction::CreateTable { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateVtable { .. }
            if in_temp =>
        {
            fails(TEMP.into())
        }
        AuthAction::CreateVtable { module_name, .. } if !listed(MODULES, module_name) => {
            fails(format!("virtual tables of the kind {module_name}"))
        }
        AuthAction::CreateIndex { .. }
        | AuthAction::CreateTable { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::DropVtable { .. }
        | AuthAction::Delete { .. }
        | AuthAction::DropIndex { .. }
        | AuthAction::DropTable { .. }
        | AuthAction::DropTrigger { .. }
        | AuthAction::DropView { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::AlterTable { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Analyze { .. } => {
            if writes {
                Ok(())
            } else {
                fails("a change; it needs mesh_execute".into())
            }
        }
        // New actions of a later SQLite are refused until someone has thought about them.
        _ => fails("this".into()),
    }
}
