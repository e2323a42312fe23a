//! `auth.providers`: identity providers at which people sign in, and what they may say of whom.

use std::sync::Arc;

use sallyport_protocol::id::TenantId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::credential::url::TokenUrl;
use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::node::{Node, Section};
use super::secrets::{Secrets, secret_named};
use crate::auth::form;
use crate::auth::{GroupRule, OidcProvider, role_fits};

/// Most providers: each has a button.
const MOST_PROVIDERS: usize = 16;

const NAME: ConfigKey = ConfigKey::text(
    "name",
    "Names it in addresses and rows: at most 32 lower-case letters, digits and dashes. The provider has to send people back to \
     `<server.public_url>/sign-in/callback/<name>`",
)
.required();
const LABEL: ConfigKey = ConfigKey::text("label", "What its button says").or(Absent::Derived("`name`"));
const ISSUER: ConfigKey = ConfigKey::text(
    "issuer",
    "Its issuer, to the letter; below it is `/.well-known/openid-configuration`. `https`, or `http` on this machine",
)
.required();
const CLIENT_ID: ConfigKey = ConfigKey::text("client_id", "Who the gateway is there").required();
const SECRET: ConfigKey = ConfigKey::text(
    "secret",
    "Name in the secrets file of what proves it; without it the gateway is a client without a secret, with PKCE alone",
);
const SCOPES: ConfigKey = ConfigKey::list("scopes", &Form::Text, "What it is asked for")
    .or(Absent::Derived("`openid`, `profile` and `email`"));
const NAME_CLAIM: ConfigKey = ConfigKey::text(
    "name_claim",
    "The claim that becomes the name of a new user. An `email` that the provider says it did not verify is refused",
)
.or(Absent::Text("email"));
const GROUPS_CLAIM: ConfigKey =
    ConfigKey::text("groups_claim", "The claim of the ID token that lists groups").or(Absent::Text("groups"));
const ROLES: ConfigKey = ConfigKey::list("roles", &Form::Text, "Roles of everybody who comes from there")
    .or(Absent::Derived("`member`"));
const TENANT: ConfigKey = ConfigKey::text("tenant", "The tenant of whoever no group puts elsewhere")
    .or(Absent::Text(crate::auth::DEFAULT_TENANT));
const GROUPS_ONLY: ConfigKey = ConfigKey::flag("groups_only", "Whoever is in none of `groups` stays out");
const CREATE_USERS: ConfigKey = ConfigKey::flag(
    "create_users",
    "Whoever comes for the first time becomes a user. Otherwise only those come in whom `sallyport user link-subject` links to one",
);
const EMAIL_DOMAINS: ConfigKey = ConfigKey::list(
    "email_domains",
    &Form::Text,
    "Only those come in whose verified `email` is of one of these domains; without the key the address does not matter",
);

const GROUP: ConfigKey = ConfigKey::text("group", "The group, as the claim has it").required();
const GROUP_ROLES: ConfigKey = ConfigKey::list("roles", &Form::Text, "Roles of its members");
const GROUP_DEPARTMENT: ConfigKey = ConfigKey::text("department", "Their department");
const GROUP_TENANT: ConfigKey = ConfigKey::text("tenant", "Their tenant");

const RULE: ConfigBlock = ConfigBlock {
    about: "What follows from being in a group. Roles add up; of departments and tenants the first counts.",
    keys: &[GROUP, GROUP_ROLES, GROUP_DEPARTMENT, GROUP_TENANT],
    notes: "",
};
const GROUPS: ConfigKey = ConfigKey::list(
    "groups",
    &Form::Mapping(&RULE),
    "What follows from being in a group. With it, roles are what the provider says each time that somebody signs in, and so are departments where \
     an entry names one",
);

/// An entry of the list.
const ENTRY: ConfigBlock = ConfigBlock {
    about: "Identity providers (OpenID Connect) at which people [sign in](../guide/sign-in.md#identity-providers), a list. A reload may change it.",
    keys: &[
        NAME,
        LABEL,
        ISSUER,
        CLIENT_ID,
        SECRET,
        SCOPES,
        NAME_CLAIM,
        GROUPS_CLAIM,
        GROUPS,
        GROUPS_ONLY,
        ROLES,
        TENANT,
        CREATE_USERS,
        EMAIL_DOMAINS,
    ],
    notes: "```yaml
auth:
  providers:
    - name: okta
      label: Okta
      issuer: https://acme.okta.com
      client_id: 0oa1b2c3
      secret: okta_client
      scopes: [openid, profile, email, groups]
      create_users: true
      email_domains: [acme.example]
      groups:
        - { group: gateway-admins, roles: [admin] }
        - { group: finance, department: Finance }
```",
};

/// The list in the block.
pub(super) const KEY: ConfigKey =
    ConfigKey::list("providers", &Form::Mapping(&ENTRY), "Identity providers at which people sign in");

/// Reads the list.
pub(super) fn read(auth: &Section<'_>, secrets: &Secrets) -> Vec<Arc<OidcProvider>> {
    let items = auth.items(&KEY);
    if let Some(beyond) = items.get(MOST_PROVIDERS) {
        beyond.error(format!("there are at most {MOST_PROVIDERS} providers"));
    }
    let mut providers: Vec<Arc<OidcProvider>> = Vec::new();
    for item in &items {
        let Some(provider) = entry(item, secrets) else { continue };
        if providers.iter().any(|it| it.name == provider.name) {
            item.error_below(".name", format!("there are two providers {}", provider.name));
        }
        // Two clients of one issuer would let the laxer of two entries speak of the other's users.
        if providers.iter().any(|it| it.issuer == provider.issuer) {
            item.error_below(".issuer", "is that of another provider");
        }
        providers.push(Arc::new(provider));
    }
    providers
}

/// As `sallyport config show` prints one.
pub(super) fn show(provider: &OidcProvider) -> Value {
    let rule = |it: &GroupRule| json!({ "group": it.group, "roles": it.roles, "department": it.department, "tenant": it.tenant });
    json!({
        "name": provider.name,
        "label": provider.label,
        "issuer": provider.issuer,
        "client_id": provider.client_id,
        "secret": provider.client_secret.as_ref().map(|_| super::file::MASK),
        "scopes": provider.scopes,
        "name_claim": provider.name_claim,
        "groups_claim": provider.groups_claim,
        "groups": provider.groups.iter().map(rule).collect::<Vec<_>>(),
        "groups_only": provider.groups_only,
        "roles": provider.roles,
        "tenant": provider.tenant,
        "create_users": provider.creates_users,
        "email_domains": provider.email_domains,
    })
}

// === private helpers ===

fn entry(item: &Node<'_>, secrets: &Secrets) -> Option<OidcProvider> {
    let section = item.section(&ENTRY);
    let name = section.required(&NAME).and_then(|node| node.parsed(plain_name));
    let issuer = section.required(&ISSUER).and_then(|node| {
        let issuer = node.text()?;
        node.parsed(TokenUrl::parse)?;
        // RFC 8414, section 2, and OpenID Connect Discovery, section 3.
        if issuer.contains('?') {
            node.error("must have no query");
        }
        Some(issuer.to_owned())
    });
    let client_id = section.required(&CLIENT_ID).and_then(|node| node.text().map(str::to_owned));
    let secret_node = section.get(&SECRET);
    let client_secret = secret_node.as_ref().and_then(|node| {
        let secret = secret_named(node, node.text()?, secrets)?;
        Some(Zeroizing::new(secret.expose_secret().to_owned()))
    });
    let scopes = match section.get(&SCOPES) {
        None => ["openid", "profile", "email"].map(str::to_owned).to_vec(),
        Some(list) => {
            let scopes: Vec<String> = list.items().iter().filter_map(|it| it.parsed(scope)).collect();
            if !scopes.iter().any(|it| it == "openid") {
                list.error("needs openid: without it no ID token comes");
            }
            scopes
        }
    };
    let tenant = tenant(section.get(&TENANT)).or_else(|| TenantId::parse(crate::auth::DEFAULT_TENANT).ok());
    let roles = match section.get(&ROLES) {
        None => vec!["member".to_owned()],
        Some(list) => list.items().iter().filter_map(|it| it.parsed(role)).collect(),
    };
    let groups: Vec<GroupRule> = section.items(&GROUPS).iter().filter_map(rule).collect();
    let groups_only = section.flag(&GROUPS_ONLY);
    if groups_only && groups.is_empty() {
        item.error_below(".groups_only", "lets nobody in where there are no groups");
    }
    let email_domains: Vec<String> =
        section.items(&EMAIL_DOMAINS).iter().filter_map(|it| it.parsed(domain)).collect();
    let tenant = tenant?;
    // Of groups only those may say it that leave the tenant alone: which of several counts is known when somebody comes.
    let misplaced = roles.iter().any(|role| !role_fits(role, &tenant));
    if misplaced
        || groups.iter().any(|it| {
            let tenant = it.tenant.as_ref().unwrap_or(&tenant);
            it.roles.iter().any(|role| !role_fits(role, tenant))
        })
    {
        item.error(
            "gives the role admin, which is the platform's, in another tenant than default: use tenant-admin",
        );
    }
    let label = section.get(&LABEL).map_or_else(
        || name.clone(),
        |node| {
            node.parsed(|text| {
                if form::label(text) { Ok(text.to_owned()) } else { Err("is no name that can be shown") }
            })
        },
    );
    Some(OidcProvider {
        label: label?,
        name: name?,
        issuer: issuer?,
        client_id: client_id?,
        client_secret,
        scopes,
        name_claim: section.text(&NAME_CLAIM).unwrap_or_else(|| "email".to_owned()),
        groups_claim: section.text(&GROUPS_CLAIM).unwrap_or_else(|| "groups".to_owned()),
        groups,
        roles,
        tenant,
        groups_only,
        creates_users: section.flag(&CREATE_USERS),
        email_domains,
    })
}

fn rule(item: &Node<'_>) -> Option<GroupRule> {
    let section = item.section(&RULE);
    let group = section.required(&GROUP)?.text()?.to_owned();
    let roles = section.items(&GROUP_ROLES).iter().filter_map(|it| it.parsed(role)).collect();
    let department = section.get(&GROUP_DEPARTMENT).and_then(|node| {
        node.parsed(
            |text| if form::label(text) { Ok(text.to_owned()) } else { Err("is no name of a department") },
        )
    });
    Some(GroupRule { group, roles, department, tenant: tenant(section.get(&GROUP_TENANT)) })
}

fn tenant(node: Option<Node<'_>>) -> Option<TenantId> {
    node?.parsed(|text| TenantId::parse(text).map_err(|_| "is not the id of a tenant"))
}

fn role(text: &str) -> Result<String, &'static str> {
    if form::role(text) {
        Ok(text.to_owned())
    } else {
        Err("is no role: lower-case letters, digits, - and _, a letter first")
    }
}

fn scope(text: &str) -> Result<String, &'static str> {
    // RFC 6749, section 3.3.
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.bytes().all(legal) { Ok(text.to_owned()) } else { Err("is no scope") }
}

fn domain(text: &str) -> Result<String, &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if text.contains('.') && text.bytes().all(legal) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("is no domain, such as acme.example")
    }
}

fn plain_name(text: &str) -> Result<String, &'static str> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.len() <= 32 && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("has at most 32 lower-case letters, digits and dashes")
    }
}
