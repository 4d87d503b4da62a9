//! What a request must look like before anything runs.

use claudemesh_protocol::features::sql::limits::{
    MAX_CANCEL_KEY_CHARS, MAX_PAGE, MAX_PARAMS, MAX_SQL_BYTES, MAX_STATEMENTS, USUAL_PAGE,
};
use claudemesh_protocol::features::sql::{MeshExecute, Statement};

use crate::refusal::{Refusal, invalid};

/// One statement.
///
/// # Errors
/// `invalid_args`.
pub(super) fn statement(asked: &Statement) -> Result<(), Refusal> {
    if asked.sql.trim().is_empty() || asked.sql.len() > MAX_SQL_BYTES || asked.sql.contains('\0') {
        return Err(invalid(format!("`sql`: expected a statement of at most {MAX_SQL_BYTES} bytes without NUL")));
    }
    if asked.params.len() > MAX_PARAMS {
        return Err(invalid(format!("`params`: expected at most {MAX_PARAMS} values")));
    }
    Ok(())
}

/// The list of statements that a request means.
///
/// # Errors
/// `invalid_args`.
pub(super) fn statements(request: MeshExecute) -> Result<Vec<Statement>, Refusal> {
    let MeshExecute { sql, params, batch, statements, cancel_key: _ } = request;
    let alone = sql.is_empty() && params.is_empty() && batch.is_empty();
    let list = match (statements.is_empty(), batch.is_empty()) {
        (false, _) if alone => statements,
        (true, true) => vec![Statement { sql, params }],
        (true, false) if params.is_empty() => {
            batch.into_iter().map(|params| Statement { sql: sql.clone(), params }).collect()
        }
        _ => return Err(invalid("expected `sql` with `params`, or `sql` with `batch`, or `statements`")),
    };
    if list.len() > MAX_STATEMENTS {
        return Err(invalid(format!("expected at most {MAX_STATEMENTS} statements")));
    }
    for (index, one) in list.iter().enumerate() {
        statement(one).map_err(|refusal| match list.len() {
            1 => refusal,
            _ => Refusal { message: format!("statement {}: {}", index + 1, refusal.message), ..refusal },
        })?;
    }
    Ok(list)
}

/// Rows of a page.
///
/// # Errors
/// `invalid_args`.
pub(super) fn limit(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit.unwrap_or(USUAL_PAGE) {
        rows @ 1..=MAX_PAGE => Ok(rows as usize),
        _ => Err(invalid(format!("`limit`: expected 1 to {MAX_PAGE}"))),
    }
}

/// A name for `mesh_cancel`.
///
/// # Errors
/// `invalid_args`.
pub(super) fn cancel_key(key: Option<&str>) -> Result<(), Refusal> {
    match key {
        Some(key) if key.is_empty() || key.chars().count() > MAX_CANCEL_KEY_CHARS => {
            Err(invalid(format!("`cancelKey`: expected 1 to {MAX_CANCEL_KEY_CHARS} characters")))
        }
        _ => Ok(()),
    }
}

/// Rows that were told, and the version of the database then, as a cursor.
pub(super) fn cursor_of(told: u64, version: u64) -> String {
    format!("{told}.{version:x}")
}

/// Rows that were told, and the version of the database then.
///
/// # Errors
/// `invalid_args`.
pub(super) fn cursor(text: &str) -> Result<(u64, u64), Refusal> {
    let parts = || {
        let (told, version) = text.split_once('.')?;
        Some((told.parse().ok()?, u64::from_str_radix(version, 16).ok()?))
    };
    parts().ok_or_else(|| invalid("`cursor`: expected `next` of the page before"))
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::error::ErrorCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_means_one_statement_one_for_each_set_of_parameters_or_a_list() {
        let sql = || "INSERT INTO t VALUES (?)".to_owned();
        let one = MeshExecute { sql: sql(), params: vec![json!(1)], ..MeshExecute::default() };
        assert_eq!(statements(one.clone()).unwrap().len(), 1);
        let batch = MeshExecute { batch: vec![vec![json!(1)], vec![json!(2)]], ..MeshExecute::default() };
        let both = statements(MeshExecute { sql: sql(), ..batch.clone() }).unwrap();
        assert_eq!(both[1], Statement { sql: sql(), params: vec![json!(2)] });
        let list = vec![Statement { sql: sql(), params: vec![] }; 3];
        assert_eq!(statements(MeshExecute { statements: list.clone(), ..MeshExecute::default() }).unwrap(), list);
        for wrong in [
            MeshExecute::default(),
            batch.clone(),
            MeshExecute { batch: batch.batch, ..one.clone() },
            MeshExecute { statements: list.clone(), ..one.clone() },
            MeshExecute { statements: vec![Statement { sql: " ".into(), params: vec![] }], ..MeshExecute::default() },
            MeshExecute { params: vec![json!(1); MAX_PARAMS + 1], ..one.clone() },
            MeshExecute { sql: "x".repeat(MAX_SQL_BYTES + 1), ..one.clone() },
            MeshExecute { sql: "SELECT 1\0".into(), ..one },
        ] {
            assert_eq!(statements(wrong).unwrap_err().code, ErrorCode::InvalidArgs);
        }
    }

    #[test]
    fn a_cursor_is_read_back_and_another_text_is_refused() {
        assert_eq!(cursor(&cursor_of(1_000, u64::MAX)).unwrap(), (1_000, u64::MAX));
        for wrong in ["", "7", "7.", ".7", "-1.7", "7.g", "7.7.7"] {
            assert_eq!(cursor(wrong).unwrap_err().code, ErrorCode::InvalidArgs, "{wrong}");
        }
    }
}
