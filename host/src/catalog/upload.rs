//! Uploads: a package is looked at, verified, compiled and tried before it is kept. Kept, it is staged: nothing asks it yet.

use sallyport_protocol::package::{Kind, Package};
use serde_json::{Value, json};

use super::assemble::listed_publishers;
use super::packages::NAMESPACE;
use super::quota::no_room;
use super::state::CatalogState;
use super::{Actor, Catalog, CatalogError, ShownComponent};
use crate::audit::Action;
use crate::causes::Causes;
use crate::component::contract::no_egress;
use crate::component::{Admission, AdmitError, Structure};
use crate::db::catalog::{Kept, Version, scope};
use crate::trust::Requirement;

impl Catalog {
    /// Keeps a package. The same bytes again change nothing.
    pub async fn upload(&self, actor: &Actor, bytes: Vec<u8>) -> Result<ShownComponent, CatalogError> {
        let tenant = actor.tenant.as_ref();
        let package = Package::parse(bytes.clone())?;
        let statement = package.statement();
        if tenant.is_some() && matches!(statement.kind, Kind::Provider | Kind::Predicate) {
            return Err(CatalogError::Forbidden("what routes name belongs to the platform"));
        }
        if tenant.is_some() && statement.name.namespace() == NAMESPACE {
            return Err(CatalogError::Forbidden("that namespace belongs to the gateway"));
        }
        let name = statement.name.as_str();
        let version = statement.version.to_string();
        if let Some(kept) = self.db.component_package(tenant, name, &version).await? {
            if kept != bytes {
                return Err(CatalogError::OtherBytes(format!("{name}@{version}")));
            }
            return self.show(tenant, name).await;
        }
        let snapshot = CatalogState::read(&self.db, &self.trust).await?;
        let config = self.config.load_full().ok_or(CatalogError::NotYet)?;
        let room = self.check_room(tenant, bytes.len()).await?;
        let now = self.clock.now();
        let publishers = listed_publishers(&config);
        let purpose =
            Requirement { tenant, publishers: &publishers, signed_by: now, valid_at: now, rollback: None };
        let verified = snapshot.trust.verify(&package, purpose).await?;
        self.check_siblings(actor, &package, verified.is_development()).await?;
        let tier = snapshot.tier(&config, statement.kind, tenant);
        let admission = Admission::new(tier, tenant).granted(no_egress(&statement.capabilities));
        let (structure, configured) = match self.admit_knowing(&verified, &json!({}), admission).await {
            Ok(component) => (component.structure().clone(), Value::from("ready")),
            // It wants a configuration, which it gets when it is put in force.
            Err(error) if error.is_about_configuration() => {
                (Structure::default(), Causes(&error).to_string().into())
            }
            Err(error) => return Err(CatalogError::Admit(error)),
        };
        let missing = snapshot.missing(tenant, statement, now);
        let row = json!({
            "component": name,
            "version": version,
            "serial": statement.serial,
            "kind": statement.kind.as_str(),
            "digest": statement.digest.hex(),
            "size": statement.size,
            "publisher": verified.key().as_str(),
            "capabilities": statement.capabilities,
            "needs_grant": missing,
            "imports": structure.imports,
            "without_configuration": configured,
        });
        self.record(actor, Action::ComponentUpload, row).await?;
        let stored = Version {
            tenant_id: scope(tenant).to_owned(),
            name: name.to_owned(),
            version: version.clone(),
            serial: i64::try_from(statement.serial)
                .map_err(|_| CatalogError::Invalid("the serial is too large".to_owned()))?,
            kind: statement.kind.as_str().to_owned(),
            digest: statement.digest.hex().to_owned(),
            uploaded_at: now,
            uploaded_by: actor.who.user_id.as_ref().to_owned(),
        };
        match (self.db.insert_component_version(&stored, &bytes, room.as_ref()).await?, room) {
            (Kept::Yes, _) => self.show(tenant, name).await,
            (Kept::NoRoom(used), Some(room)) => {
                Err(no_room(&room, &used, bytes.len()).unwrap_or(CatalogError::Changed))
            }
            (Kept::Already | Kept::NoRoom(_), _) => Err(CatalogError::Changed),
        }
    }

    /// A name is of one kind, and a serial is one release, also among those that were never in force.
    async fn check_siblings(
        &self,
        actor: &Actor,
        package: &Package,
        development: bool,
    ) -> Result<(), CatalogError> {
        let statement = package.statement();
        let versions = self.db.component_versions(actor.tenant.as_ref()).await?;
        let siblings: Vec<_> =
            versions.iter().filter(|version| version.name == statement.name.as_str()).collect();
        if let Some(other) = siblings.iter().find(|it| it.kind != statement.kind.as_str()) {
            let what = format!("{} is a {}, and a name keeps its kind", statement.name, other.kind);
            return Err(CatalogError::Invalid(what));
        }
        let clashes = siblings.iter().any(|it| {
            u64::try_from(it.serial).ok() == Some(statement.serial) && it.digest != statement.digest.hex()
        });
        if clashes && !development {
            let what = format!("the serial {} of {}", statement.serial, statement.name);
            return Err(CatalogError::OtherBytes(what));
        }
        Ok(())
    }
}

impl From<AdmitError> for CatalogError {
    fn from(error: AdmitError) -> Self {
        Self::Admit(error)
    }
}
