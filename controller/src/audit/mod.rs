//! The one audit trail: who did what, from where, and what came of it.
//!
//! A change writes its entry in its own transaction ([`note`]), so there is no change without an entry and no entry
//! without a change. What is refused changes nothing and is counted by the minute ([`Audit::refused`]). One controller at a
//! time seals what is new, once a second, as [`signet_common::trail`] describes.

mod author;
mod note;
mod refusals;
mod retain;
mod routes;
mod sealer;
mod store;

use std::sync::Arc;

pub use author::{Author, RequestId};
pub use note::{Action, Note, Subject, note};
pub use routes::routes;
pub use store::ALL as STATEMENTS;

use signet_common::time::Micros;

use self::refusals::Refusals;
use crate::error::Result;
use crate::keys::Keys;
use crate::loops::Loops;
use crate::store::Store;

/// The trail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    store: Store,
    refusals: Arc<Refusals>,
}

impl Audit {
    /// The trail in this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, refusals: Arc::default() }
    }

    /// Counts a refusal; it is written within a second or so, those like it together at the end of the minute.
    pub fn refused(&self, by: &Author, subject: Subject<'_>, status: u16, why: &str) {
        self.refusals.count(by, subject, status, why);
    }

    /// Deletes whole blocks from before `before`, a few at a time; says whether there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old(&self, before: Micros) -> Result<bool> {
        retain::forget_old(&self.store, before).await
    }

    /// Starts what writes refusals, and seals entries while that is this controller's work.
    pub fn run(&self, keys: Keys, loops: &mut Loops) {
        loops.spawn("the audit trail", sealer::run(self.clone(), keys, loops.stop()));
    }
}
