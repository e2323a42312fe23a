//! What vendors' providers were shown to carry: tried once for each component and configuration, and kept, so that a restart and another
//! gateway know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_protocol::canonical;
use sallyport_protocol::level::{Level, Levels};
use sallyport_protocol::package::{Kind, Verified};
use serde_json::Value;

use super::Catalog;
use crate::causes::Causes;
use crate::component::conformance::corpus_version;
use crate::component::{Admission, AdmitError, Component};
use crate::db::DbError;
use crate::db::catalog::StoredLevels;

impl Catalog {
    /// Admits a component as it was shown before, where it was: then the corpus is not run again. A database that does not say costs a trial.
    pub(super) async fn admit_knowing(
        &self,
        verified: &Verified,
        config: &Value,
        admission: Admission,
    ) -> Result<Arc<Component>, AdmitError> {
        let statement = verified.statement();
        let tries = statement.kind == Kind::Provider && statement.upstream.is_some();
        let Some(corpus) = corpus_version().filter(|_| tries) else {
            return self.components.admit(verified, config, admission).await;
        };
        let (digest, config_digest) = (statement.digest.hex(), canonical::digest(config));
        let stored = match self.db.component_levels(digest, &config_digest, &corpus).await {
            Ok(stored) => stored,
            Err(error) => {
                let name = statement.name.as_str();
                tracing::warn!(
                    component.name = name,
                    "what it was shown to carry cannot be read: {}",
                    Causes(&error)
                );
                None
            }
        };
        let known = stored.and_then(|stored| serde_json::from_str::<Levels>(&stored.levels).ok());
        let component = self.components.admit(verified, config, admission.knowing(known)).await?;
        if let Some(levels) = component.tried_levels() {
            // It is in force all the same; another gateway tries it again.
            let not_kept = |error: &dyn std::error::Error| {
                let name = component.name();
                tracing::warn!(
                    component.name = name,
                    "what it was shown to carry is not kept: {}",
                    Causes(error)
                );
            };
            match serde_json::to_string(levels) {
                Ok(levels) => {
                    let shown =
                        StoredLevels { digest: digest.to_owned(), config: config_digest, corpus, levels };
                    if let Err(error) = self.db.keep_component_levels(&shown, self.clock.now()).await {
                        not_kept(&error);
                    }
                }
                Err(error) => not_kept(&error),
            }
        }
        Ok(component)
    }

    /// What was shown of every provider, by the digests of component and configuration.
    pub(super) async fn shown_levels(
        &self,
    ) -> Result<BTreeMap<(String, String), BTreeMap<String, String>>, DbError> {
        let Some(corpus) = corpus_version() else { return Ok(BTreeMap::new()) };
        let all = self.db.all_component_levels(&corpus).await?;
        let told = |levels: Levels| {
            let told = Level::ALL.map(|level| (level.to_string(), levels.of(level).as_str().to_owned()));
            BTreeMap::from(told)
        };
        let one = |shown: StoredLevels| {
            let levels = serde_json::from_str(&shown.levels).ok()?;
            Some(((shown.digest, shown.config), told(levels)))
        };
        Ok(all.into_iter().filter_map(one).collect())
    }
}
