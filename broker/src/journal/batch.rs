//! What one transaction writes for its own sake: parts of several kinds, each with the rows of many meshes.
//!
//! The journal knows no feature: it keeps one [`Part`] per type and lets it write itself. A part holds all rows of its kind
//! in plain vectors, so that merging the batches of many meshes costs no box per row and a part can write many rows at once.

use std::any::Any;

#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
#[cfg(feature = "postgres")]
use futures_util::future::BoxFuture;

use crate::db::DbError;

/// Rows of one kind. Writing them twice changes nothing the second time, unless [`Part::once`] says otherwise.
pub trait Part: Any + Default + Send + Sync {
    /// Rows it touches.
    fn rows(&self) -> usize;

    /// Adds the rows of another mesh's batch.
    fn merge(&mut self, other: &Self);

    /// Whether it has rows that must not be written twice, such as increments. Then a batch whose outcome is unknown is looked
    /// up by its id before it is written again.
    fn once(&self) -> bool {
        false
    }

    /// Writes all of it in the open transaction.
    ///
    /// # Errors
    /// The transaction is rolled back.
    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError>;

    /// Writes all of it in the open transaction.
    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>>;
}

/// [`Part`] without its type.
trait AnyPart: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn rows(&self) -> usize;
    fn once(&self) -> bool;
    fn merge_into(&self, batch: &mut Batch);
    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError>;
    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>>;
}

impl<P: Part> AnyPart for P {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn rows(&self) -> usize {
        Part::rows(self)
    }

    fn once(&self) -> bool {
        Part::once(self)
    }

    fn merge_into(&self, batch: &mut Batch) {
        batch.part::<P>().merge(self);
    }

    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError> {
        Part::write_sqlite(self, conn)
    }

    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>> {
        Part::write_postgres(self, conn)
    }
}

/// What a mesh hands over at once, or what one transaction writes for many meshes.
#[derive(Default)]
pub struct Batch {
    /// Names the batch, so that what counts only once is found when it is written again. Empty: not checked.
    pub id: String,
    parts: Vec<Box<dyn AnyPart>>,
}

impl Batch {
    /// A batch of one part.
    pub fn of<P: Part>(part: P) -> Self {
        Self { id: String::new(), parts: vec![Box::new(part)] }
    }

    /// The part of this type, made when the batch has none yet.
    #[expect(clippy::expect_used, reason = "the lines above find or make a part of this type")]
    pub fn part<P: Part>(&mut self) -> &mut P {
        let place = self.parts.iter().position(|part| (**part).as_any().is::<P>()).unwrap_or_else(|| {
            self.parts.push(Box::<P>::default());
            self.parts.len() - 1
        });
        (*self.parts[place]).as_any_mut().downcast_mut().expect("the place is that of a part of this type")
    }

    /// Adds what another batch has.
    pub fn merge(&mut self, other: &Self) {
        for part in &other.parts {
            part.merge_into(self);
        }
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Rows it touches.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows()).sum()
    }

    /// Whether something in it must not be written twice.
    pub(super) fn once(&self) -> bool {
        self.parts.iter().any(|part| part.once())
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError> {
        self.parts.iter().try_for_each(|part| part.write_sqlite(conn))
    }

    #[cfg(feature = "postgres")]
    pub(super) async fn write_postgres(&self, conn: &mut AsyncPgConnection) -> Result<(), DbError> {
        for part in &self.parts {
            part.write_postgres(conn).await?;
        }
        Ok(())
    }
}
