//! `tenant`, `user` and `gateway`: who may use the gateway, and with what.
//!
//! Works on the database alone, beside a running gateway, which notices within two seconds.

use std::io::{BufRead as _, Read as _, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sallyport_protocol::id::{SessionId, TenantId, UserId};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{cell, pairs, table};

mod commands;
mod role;
mod subject;

pub use self::commands::{
    ClientCommand, GatewayCommand, IdentityCommand, InTenant, PatCommand, RoleCommand, SessionCommand,
    TenantCommand, TokenCommand, UserCommand,
};
use crate::audit::Action;
use crate::auth::keys::Keys;
use crate::auth::password;
use crate::auth::pat::{self, NewPat};
use crate::auth::{self, ADMIN, AuthSettings, DEFAULT_TENANT, form};
use crate::clock::{Clock, Entropy};
use crate::db::Db;
use crate::db::oauth::OauthClient;
use crate::db::pat::PatRecord;
use crate::db::revocation::Revocation;
use crate::db::tenant::Tenant;
use crate::db::user::User;

/// What the commands work with.
pub struct IdentityContext<'a> {
    /// The database.
    pub db: &'a Db,
    /// The directory of the gateway's keys.
    pub keys: &'a Path,
    /// What the gateway offers.
    pub settings: &'a AuthSettings,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Where secrets come from.
    pub entropy: &'a dyn Entropy,
    /// JSON rather than a table.
    pub json: bool,
    /// Where the answer goes.
    pub out: &'a mut (dyn Write + Send),
}

/// What a command changed, for the audit row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// The tenant it concerns; empty where it concerns none.
    pub tenant: String,
    /// The id of what was changed.
    pub subject: String,
    /// What else is worth knowing; never a secret.
    pub detail: Value,
}

/// Runs a command. Returns what it changed, if it changed anything.
pub async fn run(
    command: IdentityCommand,
    context: &mut IdentityContext<'_>,
) -> anyhow::Result<Option<Change>> {
    match command {
        IdentityCommand::Tenant(command) => context.tenant(command).await,
        IdentityCommand::User(command) => context.user(command).await,
        IdentityCommand::Role(command) => context.role(command).await,
        IdentityCommand::Gateway(GatewayCommand::Pat(command)) => context.pat(command).await,
        IdentityCommand::Gateway(GatewayCommand::Session(SessionCommand::Revoke { id })) => {
            let session = SessionId::parse(&id).context("not a session id")?;
            context.revoke(Revocation::Session(session), Action::SessionRevoke, &id).await
        }
        IdentityCommand::Gateway(GatewayCommand::Token(TokenCommand::Revoke { jti })) => {
            if !form::token_id(&jti) {
                bail!("not the id of an access token");
            }
            context.revoke(Revocation::Token(jti.clone()), Action::TokenRevoke, &jti).await
        }
        IdentityCommand::Gateway(GatewayCommand::Client(command)) => context.client(command).await,
        IdentityCommand::Gateway(GatewayCommand::Capabilities) => {
            let keys = Keys::load(context.keys)?;
            let told = auth::capabilities(context.db, context.settings, &keys, context.clock.now()).await?;
            context.show(&told, &["modes", "issuer", "key"])?;
            Ok(None)
        }
    }
}

// === impl IdentityContext ===

impl IdentityContext<'_> {
    async fn tenant(&mut self, command: TenantCommand) -> anyhow::Result<Option<Change>> {
        let (action, id) = match command {
            TenantCommand::List => {
                let tenants: Vec<_> = self.db.tenants().await?.iter().map(tenant_json).collect();
                self.list(tenants, &["id", "name", "min_auth_tier", "models", "created_at", "disabled_at"])?;
                return Ok(None);
            }
            TenantCommand::Create { id, name } => {
                let tenant =
                    TenantId::parse(&id).context("the id of a tenant has letters, digits, - _ and .")?;
                let name = name.unwrap_or_else(|| id.clone());
                if !form::label(&name) {
                    bail!("a name has 1 to 128 characters and no control characters");
                }
                if !self.db.insert_tenant(&tenant, &name, self.clock.now()).await? {
                    bail!("there is a tenant {id} already");
                }
                (Action::TenantCreate, tenant)
            }
            TenantCommand::Disable { id } => {
                let tenant = TenantId::parse(&id).context("not the id of a tenant")?;
                if !self.db.disable_tenant(&tenant, self.clock.now()).await? {
                    bail!("there is no tenant {id}");
                }
                (Action::TenantDisable, tenant)
            }
            TenantCommand::Enable { id } => {
                let tenant = TenantId::parse(&id).context("not the id of a tenant")?;
                if !self.db.enable_tenant(&tenant).await? {
                    bail!("there is no tenant {id}");
                }
                (Action::TenantEnable, tenant)
            }
            TenantCommand::SetTier { id, tier } => {
                let tenant = TenantId::parse(&id).context("not the id of a tenant")?;
                if !self.db.set_weakest_tier(&tenant, &tier).await? {
                    bail!("there is no tenant {id}");
                }
                (Action::TenantTier, tenant)
            }
            TenantCommand::SetModels { id, models } => {
                let tenant = TenantId::parse(&id).context("not the id of a tenant")?;
                if !self.db.set_tenant_models(&tenant, &models).await? {
                    bail!("there is no tenant {id}");
                }
                (Action::TenantModels, tenant)
            }
            TenantCommand::ShredEvidence { id } => {
                let tenant = TenantId::parse(&id).context("not the id of a tenant")?;
                if !self.db.delete_tenant_data_key(tenant.as_str()).await? {
                    bail!("nothing is sealed for the tenant {id}");
                }
                (Action::EvidenceShred, tenant)
            }
        };
        let tenant = self.db.tenant(&id).await?.context("the tenant is gone")?;
        self.show(
            &tenant_json(&tenant),
            &["id", "name", "min_auth_tier", "models", "created_at", "disabled_at"],
        )?;
        let detail = match action {
            Action::TenantTier => json!({ "min_auth_tier": tenant.min_auth_tier }),
            Action::TenantModels => json!({ "models": tenant.models }),
            _ => json!({}),
        };
        Ok(Some(Change { action, tenant: id.to_string(), subject: id.to_string(), detail }))
    }

    async fn user(&mut self, command: UserCommand) -> anyhow::Result<Option<Change>> {
        let columns = ["id", "name", "roles", "department", "created_at", "disabled_at"];
        let (action, tenant, id) = match command {
            UserCommand::List { tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                let users: Vec<_> = self.db.users(&tenant).await?.iter().map(user_json).collect();
                self.list(users, &columns)?;
                return Ok(None);
            }
            UserCommand::Create { name, tenant, roles, department } => {
                let tenant = self.known_tenant(&tenant).await?;
                let user = self.new_user(tenant, name, roles, department)?;
                if !self.db.insert_user(&user).await? {
                    bail!("there is a user {} in tenant {} already", user.name, user.tenant);
                }
                (Action::UserCreate, user.tenant, user.id)
            }
            UserCommand::Set { user, tenant, roles, department } => {
                let user = self.known_user(&tenant, &user).await?;
                if roles.is_empty() && department.is_none() {
                    bail!("say --role or --department");
                }
                let roles = if roles.is_empty() { user.roles } else { roles };
                let department = match department {
                    Some(text) => Some(text).filter(|text| !text.is_empty()),
                    None => user.department,
                };
                // Under the same rules as a new one.
                let (roles, department) = {
                    let checked = self.new_user(user.tenant.clone(), user.name, roles, department)?;
                    (checked.roles, checked.department)
                };
                let now = self.clock.now();
                self.db.change_user(&user.tenant, &user.id, &roles, department.as_deref(), now).await?;
                (Action::UserChange, user.tenant, user.id)
            }
            UserCommand::Disable { user, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                self.db.disable_user(&user.tenant, &user.id, self.clock.now()).await?;
                (Action::UserDisable, user.tenant, user.id)
            }
            UserCommand::Enable { user, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                self.db.enable_user(&user.tenant, &user.id).await?;
                (Action::UserEnable, user.tenant, user.id)
            }
            UserCommand::SetPassword { user, tenant, generate } => {
                let user = self.known_user(&tenant, &user).await?;
                return self.set_password(&user, generate).await.map(Some);
            }
            UserCommand::LinkCertificate { user, name, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                return self.link(&user, &name, Action::CertificateLink).await.map(Some);
            }
            UserCommand::UnlinkCertificate { user, name, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                return self.link(&user, &name, Action::CertificateUnlink).await.map(Some);
            }
            UserCommand::LinkSubject { user, provider, subject, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                return self.subject(&user, &provider, &subject, Action::SubjectLink).await.map(Some);
            }
            UserCommand::UnlinkSubject { user, provider, subject, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                return self.subject(&user, &provider, &subject, Action::SubjectUnlink).await.map(Some);
            }
            UserCommand::Revoke { user, tenant } => {
                let user = self.known_user(&tenant, &user).await?;
                let what = Revocation::User(user.tenant.clone(), user.id.clone());
                self.db.revoke(&what, self.clock.now()).await?;
                (Action::UserRevoke, user.tenant, user.id)
            }
        };
        let user = self.db.user(&tenant, &id).await?.context("the user is gone")?;
        self.show(&user_json(&user), &columns)?;
        let detail = json!({ "name": user.name, "roles": user.roles, "department": user.department });
        Ok(Some(Change { action, tenant: tenant.to_string(), subject: id.to_string(), detail }))
    }

    async fn pat(&mut self, command: PatCommand) -> anyhow::Result<Option<Change>> {
        let columns =
            ["id", "user", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at"];
        match command {
            PatCommand::Create { user, name, tenant, scopes, expires_days } => {
                let user = self.known_user(&tenant, &user).await?;
                let keys = Keys::load(self.keys)?;
                let lifetime = Duration::from_secs(u64::from(expires_days) * 24 * 3600);
                let new = NewPat { user: &user, name: &name, scopes, lifetime };
                let minted = pat::mint(self.db, keys.pat_pepper(), self.clock, self.entropy, new).await?;
                let mut shown = pat_json(&minted.record);
                if let Some(fields) = shown.as_object_mut() {
                    fields.insert("token".to_owned(), Value::from(minted.text.as_str()));
                }
                self.show(&shown, &["id", "user", "name", "scopes", "expires_at", "token"])?;
                Ok(Some(change_of(Action::PatCreate, &minted.record)))
            }
            PatCommand::List { user, tenant } => {
                let user = match user {
                    Some(user) => Some(self.known_user(&tenant, &user).await?.id),
                    None => None,
                };
                let tenant = self.known_tenant(&tenant).await?;
                let pats: Vec<_> = self.db.pats(&tenant, user.as_ref()).await?.iter().map(pat_json).collect();
                self.list(pats, &columns)?;
                Ok(None)
            }
            PatCommand::Revoke { id, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                let revoked = self.db.revoke_pat(&tenant, &id, self.clock.now()).await?;
                let record = revoked.with_context(|| format!("there is no token {id} in tenant {tenant}"))?;
                self.show(&pat_json(&record), &columns)?;
                Ok(Some(change_of(Action::PatRevoke, &record)))
            }
        }
    }

    async fn set_password(&mut self, user: &User, generate: bool) -> anyhow::Result<Change> {
        let password = if generate {
            password::generate(self.entropy)
        } else {
            let mut line = zeroize::Zeroizing::new(String::new());
            std::io::stdin().lock().take(4096).read_line(&mut line).context("no password could be read")?;
            zeroize::Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())
        };
        let hash = password::hash(&password, self.entropy)?;
        self.db.set_password(&user.tenant, &user.id, &hash, self.clock.now()).await?;
        let mut shown = json!({ "id": user.id, "name": user.name, "tenant": user.tenant });
        if let (true, Some(fields)) = (generate, shown.as_object_mut()) {
            fields.insert("password".to_owned(), password.as_str().into());
        }
        self.show(&shown, &["id", "name", "tenant", "password"])?;
        let (tenant, subject) = (user.tenant.to_string(), user.id.to_string());
        Ok(Change { action: Action::UserPassword, tenant, subject, detail: json!({ "name": user.name }) })
    }

    async fn client(&mut self, command: ClientCommand) -> anyhow::Result<Option<Change>> {
        let columns =
            ["id", "name", "tenant", "redirect_uris", "scope", "registered", "document", "confidential"];
        match command {
            ClientCommand::List => {
                let clients = self.db.oauth_clients().await?;
                self.list(clients.iter().map(client_json).collect(), &columns)?;
                Ok(None)
            }
            ClientCommand::Create { name, redirects, scopes, confidential, tenant } => {
                let tenant = match tenant {
                    Some(tenant) => self.known_tenant(&InTenant { tenant }).await?.to_string(),
                    None => String::new(),
                };
                let scope = scopes.join(" ");
                let (client, secret) = auth::new_client(
                    &name,
                    &tenant,
                    redirects,
                    &scope,
                    confidential,
                    self.clock,
                    self.entropy,
                )?;
                self.db.insert_oauth_client(&client).await?;
                let mut shown = client_json(&client);
                if let (Some(secret), Some(fields)) = (secret, shown.as_object_mut()) {
                    fields.insert("secret".to_owned(), secret.as_str().into());
                }
                self.show(&shown, &["id", "name", "tenant", "redirect_uris", "scope", "secret"])?;
                let detail = json!({ "name": client.name, "redirect_uris": client.redirect_uris, "scope": client.scope });
                Ok(Some(Change { action: Action::ClientCreate, tenant, subject: client.id, detail }))
            }
            ClientCommand::Delete { id } => {
                if !self.db.delete_oauth_client(&id, self.clock.now()).await? {
                    bail!("there is no client {id}");
                }
                self.show(&json!({ "deleted": id }), &["deleted"])?;
                Ok(Some(Change {
                    action: Action::ClientDelete,
                    tenant: String::new(),
                    subject: id,
                    detail: json!({}),
                }))
            }
        }
    }

    /// Links a name in certificates to a user, or takes it away.
    async fn link(&mut self, user: &User, name: &str, action: Action) -> anyhow::Result<Change> {
        let kinds = ["email:", "dns:", "uri:", "ip:"];
        let is_name = form::label(name)
            && kinds.iter().any(|kind| name.strip_prefix(kind).is_some_and(|it| !it.is_empty()));
        if !is_name {
            bail!("a name in certificates has its kind before it: email:, dns:, uri: or ip:");
        }
        let now = self.clock.now();
        if action == Action::CertificateLink {
            if !self.db.link_certificate(name, &user.tenant, &user.id, now).await? {
                bail!("{name} is linked already: take it from its user first");
            }
        } else if !self.db.unlink_certificate(name, &user.tenant, &user.id, now).await? {
            bail!("{name} is not linked to {}", user.name);
        }
        let names: Vec<String> =
            self.db.certificate_names(&user.tenant, &user.id).await?.into_iter().map(|it| it.name).collect();
        self.show(
            &json!({ "id": user.id, "name": user.name, "certificates": names }),
            &["id", "name", "certificates"],
        )?;
        let detail = json!({ "name": name });
        Ok(Change { action, tenant: user.tenant.to_string(), subject: user.id.to_string(), detail })
    }

    async fn revoke(
        &mut self,
        what: Revocation,
        action: Action,
        subject: &str,
    ) -> anyhow::Result<Option<Change>> {
        self.db.revoke(&what, self.clock.now()).await?;
        self.show(&json!({ "revoked": subject }), &["revoked"])?;
        Ok(Some(Change { action, tenant: String::new(), subject: subject.to_owned(), detail: json!({}) }))
    }

    fn new_user(
        &self,
        tenant: TenantId,
        name: String,
        roles: Vec<String>,
        department: Option<String>,
    ) -> anyhow::Result<User> {
        if !form::label(&name) || !department.as_deref().is_none_or(form::label) {
            bail!("a name has 1 to 128 characters and no control characters");
        }
        // An id names one user for ever; a name that looks like one would make `--user` ambiguous.
        if name.starts_with("u_") {
            bail!("a name does not start with u_: ids do");
        }
        if let Some(role) = roles.iter().find(|role| !form::role(role)) {
            bail!("role {role} is refused: a role has lower-case letters, digits, - and _");
        }
        if tenant.as_str() != DEFAULT_TENANT && roles.iter().any(|role| role == ADMIN) {
            bail!(
                "the role admin is the platform's and belongs to users of the tenant {DEFAULT_TENANT}: who administers {tenant} has the role tenant-admin"
            );
        }
        if roles.len() > form::MAX_ROLES {
            bail!("a user has at most {} roles", form::MAX_ROLES);
        }
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        Ok(User {
            id: UserId::from_bytes(id),
            tenant,
            name,
            roles,
            department,
            created_at: self.clock.now(),
            disabled_at: None,
        })
    }

    async fn known_tenant(&self, tenant: &InTenant) -> anyhow::Result<TenantId> {
        let id = TenantId::parse(&tenant.tenant).context("not the id of a tenant")?;
        let known = self.db.tenant(&id).await?;
        Ok(known.with_context(|| format!("there is no tenant {id}"))?.id)
    }

    async fn known_user(&self, tenant: &InTenant, user: &str) -> anyhow::Result<User> {
        let tenant = self.known_tenant(tenant).await?;
        let known = match UserId::parse(user) {
            Ok(id) => self.db.user(&tenant, &id).await?,
            Err(_) => self.db.user_by_name(&tenant, user).await?,
        };
        known.with_context(|| format!("there is no user {user} in tenant {tenant}"))
    }

    /// One object: `name  value` lines, or the object as JSON.
    fn show(&mut self, object: &Value, columns: &[&str]) -> anyhow::Result<()> {
        if self.json {
            writeln!(self.out, "{object:#}")?;
            return Ok(());
        }
        let lines: Vec<_> =
            columns.iter().map(|name| ((*name).to_owned(), cell(object.get(*name)))).collect();
        pairs(&lines, &mut *self.out)
    }

    /// Several objects: a table, or an array as JSON.
    fn list(&mut self, objects: Vec<Value>, columns: &[&str]) -> anyhow::Result<()> {
        if self.json {
            writeln!(self.out, "{:#}", Value::Array(objects))?;
            return Ok(());
        }
        let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> = objects
            .iter()
            .map(|object| columns.iter().map(|name| cell(object.get(*name))).collect())
            .collect();
        table(&head, &rows, &mut *self.out)
    }
}

fn tenant_json(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "created_at": stamp(Some(tenant.created_at)),
        "disabled_at": stamp(tenant.disabled_at),
        "min_auth_tier": tenant.min_auth_tier,
        "models": tenant.models,
    })
}

fn user_json(user: &User) -> Value {
    json!({
        "id": user.id,
        "tenant": user.tenant,
        "name": user.name,
        "roles": user.roles,
        "department": user.department,
        "created_at": stamp(Some(user.created_at)),
        "disabled_at": stamp(user.disabled_at),
    })
}

fn client_json(client: &OauthClient) -> Value {
    json!({
        "id": client.id,
        "name": client.name,
        "tenant": client.tenant,
        "redirect_uris": client.redirect_uris,
        "scope": client.scope,
        "registered": client.registered,
        "document": client.document,
        "confidential": client.secret.is_some(),
        "created_at": stamp(Some(client.created_at)),
    })
}

fn pat_json(pat: &PatRecord) -> Value {
    json!({
        "id": pat.id,
        "tenant": pat.tenant,
        "user": pat.user,
        "name": pat.name,
        "scopes": pat.scopes,
        "created_at": stamp(Some(pat.created_at)),
        "expires_at": stamp(Some(pat.expires_at)),
        "last_used_at": stamp(pat.last_used_at),
        "revoked_at": stamp(pat.revoked_at),
    })
}

fn change_of(action: Action, pat: &PatRecord) -> Change {
    let detail = json!({ "user": pat.user, "name": pat.name, "scopes": pat.scopes, "expires_at": stamp(Some(pat.expires_at)) });
    Change { action, tenant: pat.tenant.to_string(), subject: pat.id.clone(), detail }
}

fn stamp(at: Option<OffsetDateTime>) -> Option<String> {
    at.and_then(|at| at.format(&Rfc3339).ok())
}

#[cfg(test)]
mod tests;
