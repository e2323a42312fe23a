//! `sallyport component verify`: whether a package is to be trusted, by one key or by a gateway's configuration, and why.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, MAX_PACKAGE, Package, Publisher};
use sallyport_protocol::signature::{KeyId, VerifyingKey, public_key};
use serde_json::json;

use super::{CommandContext, project};
use crate::causes::Causes;
use crate::cli::Ending;
use crate::clock::{Clock as _, SystemClock};
use crate::component::sample::Samples;
use crate::config::Config;
use crate::shipped::first_party_publisher;

/// What `component verify` is asked.
#[derive(Debug, Args)]
pub struct Verify {
    /// The package
    pub package: PathBuf,
    /// The public key that should have signed it; without one, the publishers of the configuration are asked
    #[arg(long, value_name = "KEY", value_parser = |text: &str| public_key(text))]
    pub publisher: Option<VerifyingKey>,
    /// The namespace that the key may sign in; without it, whatever namespace the package names
    #[arg(long, requires = "publisher")]
    pub namespace: Option<String>,
    /// The tenant that shall run it
    #[arg(long, value_parser = |text: &str| TenantId::parse(text).map_err(|error| error.to_string()))]
    pub tenant: Option<TenantId>,
}

/// Runs `component verify`.
pub(super) fn run(asked: &Verify, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let bytes = project::read(&asked.package, MAX_PACKAGE)?;
    let package =
        Package::parse(bytes).with_context(|| format!("{} is no package", asked.package.display()))?;
    let said = package.statement();
    let (publishers, by) = publishers(asked, said.name.namespace(), context)?;
    let now = SystemClock::default().now();
    let host = semver::Version::parse(env!("CARGO_PKG_VERSION")).context("the version of this binary")?;
    let verified = package.verify(&publishers, now, &host, asked.tenant.as_ref(), None);
    let samples = Samples::carried(package.component())?.len();
    let (trusted, why) = match &verified {
        Ok(verified) => {
            let mut why = vec![
                format!("signed by {}, {by}", verified.key()),
                format!("which may sign a {} in the namespace {}", said.kind, said.name.namespace()),
                format!("{} bytes with the digest that was signed, {}", said.size, said.digest),
                format!("valid from {} to {}", said.not_before.date(), said.expires.date()),
                format!("content with sallyport {} or later", said.min_host),
            ];
            why.extend(verified.tenant().map(|tenant| format!("for the tenant {tenant} alone")));
            if verified.is_development() {
                why.push("a development key: a gateway takes it on loopback alone".to_owned());
            }
            if asked.publisher.is_some() && asked.namespace.is_none() {
                why.push("not asked: whether the key may sign in this namespace (--namespace)".to_owned());
            }
            (true, why)
        }
        Err(error) => (false, vec![Causes(error).to_string()]),
    };
    if context.json {
        let key = verified.as_ref().ok().map(|verified| verified.key().clone());
        let claimed: Option<&KeyId> = package.envelope().signatures.first().map(|signature| &signature.keyid);
        let answer = json!({
            "trusted": trusted, "why": why, "key_id": key, "claimed_key_id": claimed, "statement": said, "samples": samples,
        });
        writeln!(context.out, "{answer}")?;
    } else {
        let verdict = if trusted { "is to be trusted" } else { "is NOT to be trusted" };
        writeln!(context.out, "{} {} {verdict}:", said.name, said.version)?;
        for line in &why {
            writeln!(context.out, "  {line}")?;
        }
    }
    Ok(if trusted { Ending::Done } else { Ending::Failed })
}

/// Whose word counts, and whose list it is.
fn publishers(
    asked: &Verify,
    signed: &str,
    context: &CommandContext<'_>,
) -> anyhow::Result<(Vec<Publisher>, String)> {
    let Some(key) = asked.publisher else {
        let mut publishers = Config::load(context.config)?.components.publishers;
        publishers.extend(first_party_publisher());
        return Ok((publishers, format!("a publisher of {}", context.config.display())));
    };
    let namespace = asked.namespace.clone().unwrap_or_else(|| signed.to_owned());
    let kinds = Kind::ALL.to_vec();
    let publisher = Publisher { key, namespace, kinds, tenant: None, development: false, revoked: false };
    Ok((vec![publisher], "the key given".to_owned()))
}
