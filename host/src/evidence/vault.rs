//! The vault: records and configurations go in sealed and come out opened, each under its tenant's data key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::record::{Recorded, Unknown};
use super::seal::{DataKey, SealError, SealedPlace};
use crate::auth::keys::SecretKey;
use crate::clock::{Clock, Entropy};
use crate::db::evidence::{SealedCall, WrappedKey};
use crate::db::{Db, DbError};

/// A configuration that is in use is said to be so as often as this, in milliseconds.
const STILL_USED_MS: i64 = 6 * 60 * 60 * 1000;
/// A configuration is kept so much longer than the calls that it belongs to, in milliseconds.
pub(super) const CONFIG_GRACE_MS: i64 = 24 * 60 * 60 * 1000;

/// Evidence as it is stored.
pub struct Vault {
    db: Db,
    key: SecretKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// When configurations were last said to be in use, by tenant, data key and digest.
    used: Mutex<HashMap<(String, String, String), i64>>,
}

/// Why something does not go in or come out.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// It cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It was written by another version.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

// === impl Vault ===

impl Vault {
    /// A vault in `db` under the gateway's evidence key.
    pub fn new(db: Db, key: SecretKey, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { db, key, clock, entropy, used: Mutex::default() }
    }

    /// Keeps a call and the configurations of those who were asked.
    pub async fn keep(&self, recorded: &Recorded) -> Result<(), VaultError> {
        let head = &recorded.head;
        let (tenant, trace) = (head.call.principal.tenant.as_ref(), head.call.trace.as_ref());
        let key = self.key_to_seal(tenant).await?;
        for step in &head.steps {
            if let Some(configuration) = &step.configuration {
                self.keep_config(&key, tenant, &step.config, configuration).await?;
            }
        }
        let row = [trace, head.request_id.as_str()];
        let call = SealedCall {
            tenant_id: tenant.to_owned(),
            trace_id: trace.to_owned(),
            request_id: head.request_id.clone(),
            recorded_ms: self.now_ms(),
            sealed: key.seal(call_place(tenant, &row), &recorded.write()?, self.entropy.as_ref())?,
        };
        self.db.insert_evidence(&call).await?;
        Ok(())
    }

    /// What a stored call holds.
    pub async fn open(&self, call: &SealedCall) -> Result<Recorded, VaultError> {
        let tenant = call.tenant_id.as_str();
        let key = self.key_to_open(tenant).await?;
        let row = [call.trace_id.as_str(), call.request_id.as_str()];
        let opened = key.open(call_place(tenant, &row), &call.sealed)?;
        Ok(Recorded::read(&opened)?)
    }

    /// A configuration of the tenant; `None` if it is not kept.
    pub async fn config(&self, tenant: &str, digest: &str) -> Result<Option<Value>, VaultError> {
        let Some(sealed) = self.db.evidence_config(tenant, digest).await? else { return Ok(None) };
        let key = self.key_to_open(tenant).await?;
        let opened = key.open(config_place(tenant, &[digest]), &sealed)?;
        serde_json::from_slice(&opened).map(Some).map_err(|_| Unknown.into())
    }

    /// Now, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// The database.
    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    async fn keep_config(
        &self,
        key: &DataKey,
        tenant: &str,
        digest: &str,
        configuration: &str,
    ) -> Result<(), VaultError> {
        let now = self.now_ms();
        let name = (tenant.to_owned(), key.id(), digest.to_owned());
        let said = self.used.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied();
        if configuration.is_empty() || said.is_some_and(|said| now - said < STILL_USED_MS) {
            return Ok(());
        }
        let row = [digest];
        let sealed = key.seal(config_place(tenant, &row), configuration.as_bytes(), self.entropy.as_ref())?;
        self.db.put_evidence_config(tenant, digest, now, &sealed).await?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name, now);
        Ok(())
    }

    /// The tenant's key, made where there is none. It is looked up each time: another gateway may have made or shredded it.
    async fn key_to_seal(&self, tenant: &str) -> Result<DataKey, VaultError> {
        if let Some(stored) = self.db.tenant_data_key(tenant).await? {
            return Ok(DataKey::unwrap(&stored.wrapped, tenant, &self.key)?);
        }
        let key = DataKey::random(self.entropy.as_ref());
        let wrapped = key.wrap(tenant, &self.key, self.entropy.as_ref())?;
        let row = WrappedKey { key_id: key.id(), wrapped };
        if self.db.insert_tenant_data_key(tenant, &row, self.clock.now()).await? {
            return Ok(key);
        }
        self.key_to_open(tenant).await
    }

    async fn key_to_open(&self, tenant: &str) -> Result<DataKey, VaultError> {
        let stored = self.db.tenant_data_key(tenant).await?.ok_or(SealError::Shredded)?;
        Ok(DataKey::unwrap(&stored.wrapped, tenant, &self.key)?)
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Vault").finish_non_exhaustive()
    }
}

// === private helpers ===

fn call_place<'a>(tenant: &'a str, row: &'a [&'a str]) -> SealedPlace<'a> {
    SealedPlace { table: "call_evidence", column: "sealed", tenant, row }
}

fn config_place<'a>(tenant: &'a str, row: &'a [&'a str]) -> SealedPlace<'a> {
    SealedPlace { table: "evidence_configs", column: "sealed", tenant, row }
}
