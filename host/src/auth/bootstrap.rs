//! What a new gateway starts with: one tenant and one administrator, and no credential for anybody.

use sallyport_protocol::id::{TenantId, UserId};

use crate::clock::{Clock, Entropy};
use crate::db::user::User;
use crate::db::{Db, DbError};

/// The id of the tenant that every gateway has.
pub const DEFAULT_TENANT: &str = "default";
/// The name of the user that every gateway has.
pub const ADMIN: &str = "admin";

/// Creates tenant `default` and in it user `admin` with role `admin`, where they do not exist. The administrator holds no
/// credential until `gateway pat create --user admin` makes one.
pub async fn bootstrap(db: &Db, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<(), DbError> {
    let tenant = default_tenant();
    let now = clock.now();
    db.insert_tenant(&tenant, "Default", now).await?;
    let mut id = [0; 16];
    entropy.fill(&mut id);
    db.insert_user(&User {
        id: UserId::from_bytes(id),
        tenant,
        name: ADMIN.to_owned(),
        roles: vec![ADMIN.to_owned()],
        department: None,
        created_at: now,
        disabled_at: None,
    })
    .await?;
    Ok(())
}

#[expect(clippy::expect_used, reason = "a constant that is an id")]
fn default_tenant() -> TenantId {
    TenantId::parse(DEFAULT_TENANT).expect("the name of the default tenant is an id")
}
