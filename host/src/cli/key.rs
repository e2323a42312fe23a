//! `sallyport key ..`: keys that sign components. They belong to publishers, not to a gateway; a gateway is told which of
//! them it trusts. And the keys of access tokens, which are the gateway's own.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use sallyport_protocol::package::{Kind, Name};
use sallyport_protocol::signature::{KeyId, SigningKey, public_key_text, signing_key_text};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Ending;
use super::identity::Change;
use super::output::{cell, table};
use super::remote::{Remote, Where};
use crate::audit::Action;
use crate::auth::keys::{Keys, write_private};
use crate::auth::{self, RotationPace};
use crate::clock::{Entropy as _, SystemClock, SystemEntropy};
use crate::config::Config;
use crate::db::Db;

/// `sallyport key ..`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key that signs components of your namespace
    Generate(Generate),
    /// Have a gateway trust a publisher's key
    Trust(TrustKey),
    /// List the keys that a gateway trusts
    List(Where),
    /// Have the gateway sign access tokens with a new key
    Rotate(RotateKey),
}

/// What `key rotate` is asked.
#[derive(Debug, Args)]
pub struct RotateKey {
    /// End what the keys before signed: whoever has an access token needs another one at once
    #[arg(long)]
    pub at_once: bool,
}

/// What `key trust` is asked.
#[derive(Debug, Args)]
pub struct TrustKey {
    /// The public key, as key generate shows it
    pub public_key: String,
    /// The namespace whose components it may sign
    #[arg(long)]
    pub namespace: String,
    /// A kind of component that it may sign; can be given several times
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "hook")]
    pub kind: Vec<Kind>,
    /// Its name for people
    #[arg(long, default_value = "")]
    pub label: String,
    /// From when it may sign nothing new: a time (2027-01-01T00:00:00Z)
    #[arg(long)]
    pub expires: Option<String>,
    /// The id of the key whose place it takes; that one may sign nothing new from now on
    #[arg(long, value_name = "KEY")]
    pub replaces: Option<String>,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// What `key generate` is asked.
#[derive(Debug, Args)]
pub struct Generate {
    /// Where the key goes; a file that is there is not touched
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The namespace that the key is for: the part of a component's name before the slash
    #[arg(long, value_name = "NAMESPACE", default_value = "acme")]
    pub name: String,
    /// A kind of component that the key may sign; can be given several times
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "hook")]
    pub kind: Vec<Kind>,
}

/// Runs `sallyport key ..`.
pub async fn run(
    command: &KeyCommand,
    home: &Path,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    match command {
        KeyCommand::Generate(asked) => generate(asked, json, out),
        KeyCommand::Trust(asked) => {
            let mut body = json!({
                "public_key": asked.public_key,
                "namespace": asked.namespace,
                "kinds": asked.kind,
                "label": asked.label,
                "replaces": asked.replaces,
            });
            if let (Some(expires), Some(fields)) = (&asked.expires, body.as_object_mut()) {
                fields.insert("expires_at".to_owned(), expires.as_str().into());
            }
            let answer = Remote::open(&asked.at, home)?.post("publishers", &body).await?;
            let key = answer.get("key").and_then(Value::as_str).unwrap_or_default();
            if json {
                writeln!(out, "{answer}")?;
            } else {
                writeln!(out, "{key} is trusted for {}.", asked.namespace)?;
            }
            Ok(Ending::Done)
        }
        KeyCommand::List(at) => {
            let answer = Remote::open(at, home)?.get("publishers").await?;
            if json {
                writeln!(out, "{answer}")?;
                return Ok(Ending::Done);
            }
            let keys = answer.get("publishers").and_then(Value::as_array).into_iter().flatten();
            let rows: Vec<_> =
                keys.map(|key| ["key", "namespace", "label"].map(|name| cell(key.get(name)))).collect();
            table(&["KEY", "NAMESPACE", "LABEL"], &rows, out)?;
            Ok(Ending::Done)
        }
        KeyCommand::Rotate(_) => anyhow::bail!("works on the database of the gateway"),
    }
}

/// Runs `sallyport key rotate` on the gateway's database; a gateway that runs notices within two seconds.
pub async fn rotate(
    asked: &RotateKey,
    config: &Config,
    db: &Db,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Change> {
    let keys_dir = config.keys_dir();
    Keys::complete(&keys_dir, &SystemEntropy).context("cannot make the gateway's keys")?;
    let keys = Keys::load(&keys_dir)?;
    let pace = if asked.at_once { RotationPace::AtOnce } else { RotationPace::Orderly };
    let clock = SystemClock::default();
    let done = auth::rotate(db, &keys, pace, &clock, &SystemEntropy).await?;
    let time =
        |at: OffsetDateTime| at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    let (signs, until) = (time(done.signs_at), time(done.before_until));
    let detail = json!({ "kid": done.kid, "signs_at": signs, "before_until": until });
    if json {
        writeln!(out, "{detail:#}")?;
    } else {
        writeln!(out, "{} signs access tokens from {signs}.", done.kid)?;
        writeln!(out, "What the keys before signed is good until {until}.")?;
    }
    Ok(Change { action: Action::KeyRotate, tenant: String::new(), subject: done.kid, detail })
}

fn generate(asked: &Generate, json: bool, out: &mut dyn Write) -> anyhow::Result<Ending> {
    namespace(&asked.name)?;
    let mut seed = Zeroizing::new([0; 32]);
    SystemEntropy.fill(seed.as_mut());
    let key = SigningKey::from_bytes(&seed);
    let shown = asked.out.display();
    let text = Zeroizing::new(format!("{}\n", *signing_key_text(&key)));
    write_private(&asked.out, text.as_bytes())
        .with_context(|| format!("the key was not written to {shown}"))?;
    let (public, id) = (public_key_text(&key.verifying_key()), KeyId::of(&key.verifying_key()));
    if json {
        let answer = json!({ "file": asked.out, "public_key": public, "key_id": id, "namespace": asked.name, "kinds": asked.kind });
        writeln!(out, "{answer}")?;
        return Ok(Ending::Done);
    }
    let kinds: Vec<_> = asked.kind.iter().map(|kind| kind.as_str()).collect();
    writeln!(out, "The key is in {shown}: keep it, and show it to nobody.")?;
    writeln!(out, "public key  {public}\nkey id      {id}\n")?;
    writeln!(out, "A gateway trusts it with these lines in sallyport.yaml:\n")?;
    writeln!(out, "components:\n  publishers:\n    - key: \"{public}\"")?;
    writeln!(out, "      namespace: {}\n      kinds: [{}]", asked.name, kinds.join(", "))?;
    Ok(Ending::Done)
}

/// A kind by its name, for the command line.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    Kind::parse(text).ok_or_else(|| format!("a kind is one of {}", all.join(", ")))
}

/// Checks a namespace as a component's name would.
fn namespace(text: &str) -> anyhow::Result<()> {
    let name = Name::parse(&format!("{text}/x"));
    name.map(drop).with_context(|| format!("{text:?} is no namespace: 1 to 64 of a-z, 0-9 and hyphens"))
}
