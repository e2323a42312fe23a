//! What stands on the command line after `tenant`, `user` and `gateway`.

use crate::auth::{self, form};

/// Commands about identity.
#[derive(Debug, clap::Subcommand)]
pub enum IdentityCommand {
    /// Organisations that share this gateway
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// People and services that may call
    #[command(subcommand)]
    User(UserCommand),
    /// What roles may do
    #[command(subcommand)]
    Role(RoleCommand),
    /// Credentials, and what the gateway offers
    #[command(subcommand)]
    Gateway(GatewayCommand),
}

/// `tenant ...`
#[derive(Debug, clap::Subcommand)]
pub enum TenantCommand {
    /// Create a tenant
    Create {
        /// Its id, for example acme
        id: String,
        /// Its name for people; the id unless given
        #[arg(long)]
        name: Option<String>,
    },
    /// List the tenants
    List,
    /// Refuse every call of a tenant, from now on
    Disable {
        /// Its id
        id: String,
    },
    /// Accept calls of a tenant again
    Enable {
        /// Its id
        id: String,
    },
    /// Say what the weakest way to sign in is that a tenant takes; holds for tokens that are out already too
    SetTier {
        /// Its id
        id: String,
        /// pat, session or mtls
        #[arg(value_parser = ["pat", "session", "mtls"])]
        tier: String,
    },
    /// Say which models users of a tenant may call: all, or those that are listed for their roles
    SetModels {
        /// Its id
        id: String,
        /// all, or listed
        #[arg(value_parser = ["all", "listed"])]
        models: String,
    },
    /// Make everything unreadable for good that was sealed for a tenant as evidence
    ShredEvidence {
        /// Its id
        id: String,
    },
}

/// `role ...`
#[derive(Debug, clap::Subcommand)]
pub enum RoleCommand {
    /// Let a role call models, where its tenant says that only those count which are listed
    AllowModels {
        /// The role
        role: String,
        /// A pattern as in routes: claude-opus-4-5, or claude-*
        pattern: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Take that back
    DisallowModels {
        /// The role
        role: String,
        /// The pattern, as it was listed
        pattern: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// List which models roles may call
    Models {
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Give a role to whoever is in a group that a provider keeps over SCIM
    GiveGroup {
        /// The role
        role: String,
        /// The group's name
        group: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Take that back
    TakeGroup {
        /// The role
        role: String,
        /// The group's name
        group: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// List which roles follow from which groups
    Groups {
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
}

/// `user ...`
#[derive(Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Create a user
    Create {
        /// Its name, unique within the tenant
        name: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
        /// A role; may be given several times
        #[arg(long = "role", default_value = "member")]
        roles: Vec<String>,
        /// Its department
        #[arg(long)]
        department: Option<String>,
    },
    /// List the users of a tenant
    List {
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Say what roles a user has, or its department; its access tokens and sign-ins end
    Set {
        /// Its name or id
        user: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
        /// A role; may be given several times. The roles that it has are replaced
        #[arg(long = "role")]
        roles: Vec<String>,
        /// Its department; an empty text takes it away
        #[arg(long)]
        department: Option<String>,
    },
    /// Refuse every call of a user, from now on
    Disable {
        /// Its name or id
        user: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Accept calls of a user again
    Enable {
        /// Its name or id
        user: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Give a user a password to sign in with at a browser; whoever signed in with an old one is signed out
    SetPassword {
        /// Its name or id
        user: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
        /// Make one and show it once, instead of reading a line of standard input
        #[arg(long)]
        generate: bool,
    },
    /// Have a name in certificates stand for a user, who then needs no other sign-in on a device that holds one
    LinkCertificate {
        /// Its name or id
        user: String,
        /// A subject alternative name with its kind before it: email:alice@example.org, dns:laptop-7.example.org, uri:spiffe://...
        name: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Take a name in certificates from a user, and revoke the user's access tokens
    UnlinkCertificate {
        /// Its name or id
        user: String,
        /// The name, as it was linked
        name: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Have what an identity provider calls somebody stand for a user, who then signs in there
    LinkSubject {
        /// Its name or id
        user: String,
        /// The provider's name in the configuration
        provider: String,
        /// `sub`, as the provider has it
        subject: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Take that from a user, and revoke the user's sessions and access tokens
    UnlinkSubject {
        /// Its name or id
        user: String,
        /// The provider's name in the configuration
        provider: String,
        /// `sub`, as it was linked
        subject: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Revoke everything issued to a user so far; the user may be given new credentials
    Revoke {
        /// Its name or id
        user: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
}

/// `gateway ...`
#[derive(Debug, clap::Subcommand)]
pub enum GatewayCommand {
    /// Personal access tokens
    #[command(subcommand)]
    Pat(PatCommand),
    /// Sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// OAuth clients
    #[command(subcommand)]
    Client(ClientCommand),
    /// Show which ways to sign in the gateway offers
    Capabilities,
}

/// `gateway client ...`
#[derive(Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Make a client
    Create {
        /// Its name, which its users see
        name: String,
        /// Where codes are sent; may be given several times
        #[arg(long = "redirect")]
        redirects: Vec<String>,
        /// What it may ask for; may be given several times
        #[arg(long = "scope", default_values_t = ["inference".to_owned(), "openid".to_owned()])]
        scopes: Vec<String>,
        /// Give it a secret, shown once, with which it may also ask about tokens
        #[arg(long)]
        confidential: bool,
        /// The tenant whose users may let it in; everybody's unless given
        #[arg(long)]
        tenant: Option<String>,
    },
    /// List the clients, without their secrets
    List,
    /// Delete a client, and end all that was granted to it
    Delete {
        /// Its id
        id: String,
    },
}

/// `gateway pat ...`
#[derive(Debug, clap::Subcommand)]
pub enum PatCommand {
    /// Make a token; it is shown once
    Create {
        /// Whose it will be: a name or an id
        #[arg(long)]
        user: String,
        /// What it is for, for example "cowork laptop"
        #[arg(long)]
        name: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
        /// What it may be used for; may be given several times
        #[arg(long = "scope", default_value = form::DEFAULT_SCOPE)]
        scopes: Vec<String>,
        /// In how many days it ends
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
        expires_days: u16,
    },
    /// List tokens, without their secrets
    List {
        /// Only those of this user: a name or an id
        #[arg(long)]
        user: Option<String>,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
    /// Revoke a token, and the sessions that were exchanged for it
    Revoke {
        /// Its id, as `list` shows it
        id: String,
        /// Where
        #[command(flatten)]
        tenant: InTenant,
    },
}

/// `gateway session ...`
#[derive(Debug, clap::Subcommand)]
pub enum SessionCommand {
    /// Revoke every access token of a session
    Revoke {
        /// Its id, as in the audit log
        id: String,
    },
}

/// `gateway token ...`
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Revoke one access token
    Revoke {
        /// Its `jti`, as in the audit log
        jti: String,
    },
}

/// `--tenant`
#[derive(Debug, clap::Args)]
pub struct InTenant {
    /// The tenant
    #[arg(long, default_value = auth::DEFAULT_TENANT)]
    pub tenant: String,
}
