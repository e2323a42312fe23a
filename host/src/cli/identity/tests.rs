//! The commands as an administrator types them.

#![expect(clippy::string_slice, reason = "tokens are ASCII")]

use clap::Parser as _;
use sallyport_protocol::token::Pat;

use super::*;
use crate::auth::bootstrap;
use crate::clock::{ManualClock, SystemEntropy};
use crate::db::testing::Fresh;

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: IdentityCommand,
}

struct Office {
    fresh: Fresh,
    home: tempfile::TempDir,
    clock: ManualClock,
}

impl Office {
    async fn open() -> Self {
        let fresh = Fresh::sqlite().await;
        let home = tempfile::tempdir().unwrap();
        Keys::generate(&home.path().join("keys"), &SystemEntropy).unwrap();
        let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        bootstrap(&fresh.db, &clock, &SystemEntropy).await.unwrap();
        Self { fresh, home, clock }
    }

    async fn run(&self, json: bool, line: &[&str]) -> anyhow::Result<(String, Option<Change>)> {
        let command = Line::try_parse_from(std::iter::once(&"sallyport").chain(line))?.command;
        let mut out = Vec::new();
        let settings = AuthSettings::new("https://gateway.example");
        let mut context = IdentityContext {
            db: &self.fresh.db,
            keys: &self.home.path().join("keys"),
            settings: &settings,
            clock: &self.clock,
            entropy: &SystemEntropy,
            json,
            out: &mut out,
        };
        let change = run(command, &mut context).await?;
        Ok((String::from_utf8(out).unwrap(), change))
    }

    async fn json(&self, line: &[&str]) -> Value {
        serde_json::from_str(&self.run(true, line).await.unwrap().0).unwrap()
    }

    /// The table, with what is random made the same.
    async fn table(&self, line: &[&str]) -> String {
        let text = self.run(false, line).await.unwrap().0;
        let mask = |word: &str| {
            let hex = word.strip_prefix("u_").unwrap_or(word);
            let random = hex.len() >= 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
            if random { word.replace(hex, &"x".repeat(hex.len())) } else { word.to_owned() }
        };
        text.split_inclusive([' ', '\n'])
            .map(|word| mask(word.trim_end()) + &word[word.trim_end().len()..])
            .collect()
    }

    async fn error(&self, line: &[&str]) -> String {
        self.run(false, line).await.unwrap_err().to_string()
    }
}

#[tokio::test]
async fn tenants_and_users_are_listed_as_tables() {
    let office = Office::open().await;
    office.run(false, &["tenant", "create", "acme", "--name", "Acme Ltd"]).await.unwrap();
    office
        .run(false, &["user", "create", "alice", "--tenant", "acme", "--role", "author", "--role", "ring-1"])
        .await
        .unwrap();
    office
        .run(false, &["user", "create", "bob", "--tenant", "acme", "--department", "Finance"])
        .await
        .unwrap();
    office.run(false, &["user", "disable", "bob", "--tenant", "acme"]).await.unwrap();
    insta::assert_snapshot!(office.table(&["tenant", "list"]).await, @"
    ID       NAME      MIN_AUTH_TIER  MODELS  CREATED_AT            DISABLED_AT
    acme     Acme Ltd  pat            all     2027-01-15T08:00:00Z  -
    default  Default   pat            all     2027-01-15T08:00:00Z  -
    ");
    insta::assert_snapshot!(office.table(&["user", "list", "--tenant", "acme"]).await, @"
    ID                                  NAME   ROLES          DEPARTMENT  CREATED_AT            DISABLED_AT
    u_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  alice  author,ring-1  -           2027-01-15T08:00:00Z  -
    u_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  bob    member         Finance     2027-01-15T08:00:00Z  2027-01-15T08:00:00Z
    ");
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_without_its_secret() {
    let office = Office::open().await;
    let line =
        ["gateway", "pat", "create", "--user", "admin", "--name", "cowork laptop", "--expires-days", "7"];
    let made = office.json(&line).await;
    let pat = Pat::parse(made["token"].as_str().unwrap()).unwrap();
    assert_eq!(made["id"], pat.id());
    assert_eq!(made["expires_at"], "2027-01-22T08:00:00Z");

    let listed = office.json(&["gateway", "pat", "list"]).await;
    assert_eq!(listed[0]["id"], pat.id());
    assert!(!listed.to_string().contains("sp_pat_"));
    insta::assert_snapshot!(office.table(&["gateway", "pat", "list", "--user", "admin"]).await, @"
    ID                USER                                NAME           SCOPES     CREATED_AT            EXPIRES_AT            LAST_USED_AT  REVOKED_AT
    xxxxxxxxxxxxxxxx  u_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  cowork laptop  inference  2027-01-15T08:00:00Z  2027-01-22T08:00:00Z  -             -
    ");

    let (_, change) = office.run(true, &["gateway", "pat", "revoke", pat.id()]).await.unwrap();
    let change = change.unwrap();
    assert_eq!((change.action.as_str(), change.subject.as_str()), ("pat.revoke", pat.id()));
    let listed = office.json(&["gateway", "pat", "list"]).await;
    assert_eq!(listed[0]["revoked_at"], "2027-01-15T08:00:00Z");
}

#[tokio::test]
async fn what_a_command_changed_is_told_for_the_audit_row_without_secrets() {
    let office = Office::open().await;
    let (text, change) =
        office.run(false, &["gateway", "pat", "create", "--user", "admin", "--name", "ci"]).await.unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("token")).unwrap().trim();
    assert!(Pat::parse(secret).is_ok());
    assert!(!format!("{change:?}").contains(&secret[24..60]));
    assert_eq!(change.unwrap().action.as_str(), "pat.create");
    for (line, action) in [
        (&["tenant", "create", "acme"][..], "tenant.create"),
        (&["tenant", "disable", "acme"], "tenant.disable"),
        (&["tenant", "enable", "acme"], "tenant.enable"),
        (&["user", "create", "eve"], "user.create"),
        (&["user", "disable", "eve"], "user.disable"),
        (&["user", "enable", "eve"], "user.enable"),
        (&["user", "revoke", "eve"], "user.revoke"),
        (&["gateway", "session", "revoke", "sess_1"], "session.revoke"),
        (
            &["gateway", "token", "revoke", "0011223344556677.00112233445566778899aabbccddeeff"],
            "token.revoke",
        ),
    ] {
        assert_eq!(office.run(false, line).await.unwrap().1.unwrap().action.as_str(), action);
    }
    for line in [
        &["tenant", "list"][..],
        &["user", "list"],
        &["gateway", "pat", "list"],
        &["gateway", "capabilities"],
    ] {
        assert_eq!(office.run(true, line).await.unwrap().1, None, "{line:?} changes nothing");
    }
}

#[tokio::test]
async fn a_mistake_is_explained() {
    let office = Office::open().await;
    office.run(false, &["user", "create", "alice"]).await.unwrap();
    let mut told = String::new();
    for line in [
        &["user", "create", "alice"][..],
        &["user", "create", "u_alice"],
        &["user", "create", "al\nice"],
        &["user", "create", "carl", "--role", "Admin"],
        &["user", "create", "carl", "--tenant", "nowhere"],
        &["user", "disable", "carl"],
        &["tenant", "create", "default"],
        &["tenant", "create", "../x"],
        &["gateway", "pat", "create", "--user", "carl", "--name", "x"],
        &["gateway", "pat", "create", "--user", "alice", "--name", ""],
        &["gateway", "pat", "create", "--user", "alice", "--name", "x", "--scope", "root"],
        &["gateway", "pat", "revoke", "0011223344556677"],
        &["gateway", "session", "revoke", "nonsense"],
        &["gateway", "token", "revoke", "nonsense"],
    ] {
        told.push_str(&office.error(line).await);
        told.push('\n');
    }
    insta::assert_snapshot!(told, @"
    there is a user alice in tenant default already
    a name does not start with u_: ids do
    a name has 1 to 128 characters and no control characters
    role Admin is refused: a role has lower-case letters, digits, - and _
    there is no tenant nowhere
    there is no user carl in tenant default
    there is a tenant default already
    the id of a tenant has letters, digits, - _ and .
    there is no user carl in tenant default
    the name of a token has 1 to 128 characters and no control characters
    the scopes of a token are one or more of: inference, admin, openid
    there is no token 0011223344556677 in tenant default
    not a session id
    not the id of an access token
    ");
    for days in ["0", "367", "-1"] {
        let line = ["gateway", "pat", "create", "--user", "alice", "--name", "x", "--expires-days", days];
        assert!(office.error(&line).await.contains("invalid value") || days == "-1");
    }
}

#[tokio::test]
async fn a_disabled_user_gets_no_token() {
    let office = Office::open().await;
    office.run(false, &["user", "create", "alice"]).await.unwrap();
    office.run(false, &["user", "disable", "alice"]).await.unwrap();
    let line = ["gateway", "pat", "create", "--user", "alice", "--name", "x"];
    assert_eq!(office.error(&line).await, "the user is disabled");
}

#[tokio::test]
async fn capabilities_name_the_key_of_this_gateway() {
    let office = Office::open().await;
    let capabilities = office.json(&["gateway", "capabilities"]).await;
    assert_eq!(capabilities["modes"], json!(["pat", "session"]));
    assert_eq!(capabilities["issuer"], "https://gateway.example");
    assert_eq!(capabilities["key"].as_str().unwrap().len(), 43);
}
