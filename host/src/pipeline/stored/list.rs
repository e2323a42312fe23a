//! The lists of a tenant's batches and files. They come from the database: the upstream's own have those of every tenant, and are asked about
//! nothing but batches that it may have done something with.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::passage::StoredPassage;
use super::{ListPage, StoredAnswer, StoredKind};
use crate::db::stored::{StoredObject, StoredPart};
use crate::pipeline::Refusal;

/// Longest time in which the upstream is asked about the batches of one list.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(10);

// === impl StoredPassage ===

impl StoredPassage {
    pub(super) async fn list(&mut self, kind: StoredKind, page: &ListPage) -> Result<StoredAnswer, Refusal> {
        let tenant = self.inbound.principal.tenant.as_str().to_owned();
        let (after, before) = match (&page.after_id, &page.before_id) {
            (Some(id), _) => (Some(self.own(kind, id).await?), None),
            (None, Some(id)) => (None, Some(self.own(kind, id).await?)),
            (None, None) => (None, None),
        };
        let part = match (&after, &before) {
            (Some(after), _) => StoredPart::After(after),
            (None, Some(before)) => StoredPart::Before(before),
            (None, None) => StoredPart::First,
        };
        // One more says whether there is more.
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1);
        let found = self.db().stored_part(&tenant, kind.as_str(), part, limit.saturating_add(1)).await;
        let mut found = found.map_err(Refusal::Store)?;
        let has_more = found.len() > page.limit;
        if has_more && before.is_some() {
            found.remove(0);
        }
        found.truncate(page.limit);
        self.look_again(&mut found).await;
        let end = |stored: Option<&StoredObject>| json!(stored.map(|stored| stored.id.as_str())).to_string();
        let objects: Vec<&str> = found.iter().map(|stored| stored.object.as_str()).collect();
        Ok(StoredAnswer::json(format!(
            r#"{{"data":[{}],"has_more":{has_more},"first_id":{},"last_id":{}}}"#,
            objects.join(","),
            end(found.first()),
            end(found.last()),
        )))
    }

    /// Asks the upstream what became of those that it was not done with; what it does not say in time stays as it was.
    async fn look_again(&mut self, found: &mut [StoredObject]) {
        let looking = async {
            for stored in found.iter_mut().filter(|stored| stored.settled == 0) {
                let known = stored.clone();
                let Ok(answer) = self.ask_about(&known, "GET", "").await else { continue };
                let Ok(StoredAnswer { status: 200, bytes, .. }) = self.heard(&known, answer).await else {
                    continue;
                };
                stored.object = text(&bytes);
            }
        };
        drop(tokio::time::timeout(LONGEST_LOOK, Box::pin(looking)).await);
    }
}

// === private helpers ===

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
