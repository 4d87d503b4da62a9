//! Quotas: what a mesh may keep in its database, and what one request may cost.

use crate::quota::Quota;

/// A large spreadsheet, or a year of measurements.
pub const BYTES_PER_MESH: Quota =
    Quota::new("sql.bytes_per_mesh", 268_435_456, "Bytes of the SQL database of a mesh.").at_most(1 << 40);
/// Each has a page of the file, and `mesh_schema` tells all of them.
pub const TABLES_PER_MESH: Quota =
    Quota::new("sql.tables_per_mesh", 500, "Tables and views of the SQL database of a mesh.").at_most(10_000);
/// Ten a second: what a program needs that works with the tables.
pub const REQUESTS_PER_MINUTE: Quota =
    Quota::new("sql.requests_per_minute", 600, "SQL requests of one member in a minute.");
/// Long enough for a report over all rows; a mistake ends soon.
pub const SECONDS_PER_REQUEST: Quota =
    Quota::new("sql.seconds_per_request", 5, "Seconds that one SQL request may take; at most 20.").at_most(20);
/// A sort of all rows of a database of the usual size.
pub const MEMORY_PER_REQUEST: Quota = Quota::new(
    "sql.memory_per_request",
    134_217_728,
    "Bytes that the memory of the broker may grow by during one SQL request, with SQLite on Linux.",
);
/// What fits into an answer.
pub const BYTES_PER_VALUE: Quota =
    Quota::new("sql.bytes_per_value", 1_048_576, "Bytes of one value or row, with SQLite; at most 16777216.")
        .at_most(1 << 24);

/// All of them.
pub const ALL: &[&Quota] = &[
    &BYTES_PER_MESH,
    &TABLES_PER_MESH,
    &REQUESTS_PER_MINUTE,
    &SECONDS_PER_REQUEST,
    &MEMORY_PER_REQUEST,
    &BYTES_PER_VALUE,
];
