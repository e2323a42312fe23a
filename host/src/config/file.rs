//! The file as a whole: its blocks, in the order in which they are read and shown.

use std::path::Path;
use std::time::Duration;

use sallyport_protocol::facts::FactTable;
use serde_json::{Value, json};

use super::claude_code::ClaudeSettings;
use super::components::ComponentSettings;
use super::database::DatabaseSettings;
use super::deny::Deny;
use super::gateway::Gateway;
use super::hooks::HookSettings;
use super::key::ConfigBlock;
use super::known::Known;
use super::node::{self, Node};
use super::report::{Problems, Report};
use super::server::Server;
use super::telemetry::TelemetrySettings;
use super::{
    BundleEntry, Config, EgressSettings, Secrets, audit, auth, bundle, claude_code, components, database,
    deny, egress, evidence, gateway, hooks, prices, secrets, server, telemetry, tls,
};

/// What is shown instead of a secret.
pub(super) const MASK: &str = "********";

/// The file: every block that may stand in it.
pub(super) const FILE: ConfigBlock = ConfigBlock {
    about: "",
    keys: &[
        server::KEY,
        tls::KEY,
        deny::KEY,
        database::KEY,
        secrets::KEY,
        gateway::KEY,
        bundle::KEY,
        hooks::KEY,
        egress::KEY,
        components::KEY,
        audit::KEY,
        evidence::KEY,
        auth::KEY,
        claude_code::KEY,
        telemetry::KEY,
        prices::KEY,
    ],
    notes: "",
};

/// Reads and checks everything. `given`: instead of the secrets file.
pub(super) fn read(text: &str, home: &Path, given: Option<Secrets>) -> Result<Config, Report> {
    let tree = node::parse(text).map_err(|message| Report::single(super::FILE, message))?;
    let problems = Problems::default();
    let top = Node::root(&tree, &problems).section(&FILE);

    let secrets = given.unwrap_or_else(|| Secrets::read(&top, home, &problems));
    let mut known = Known::shipped();
    let components = ComponentSettings::read(&top, home, &mut known);
    let tls = tls::read(&top, home);
    let server = Server::read(&top, &components, tls.as_ref());
    let prices = prices::read(&top, home);
    let gateway = Gateway::read(&top, &known, &secrets, prices.as_ref());
    let bundle = bundle::read(&top, home, &known);
    let egress = egress::read(&top, &secrets);
    let audit = audit::read(&top, home);
    let evidence = evidence::read(&top);
    let auth = auth::read(&top, &server, tls.as_ref(), &secrets);
    let mut claude_code = ClaudeSettings::read(&top);
    let telemetry = telemetry::read(&top, &secrets);
    if telemetry.as_ref().is_some_and(|it| it.point_clients) {
        claude_code.point_telemetry_at(&server.public_url);
    }
    let deny = Deny::read(&top);
    let database = DatabaseSettings::read(&top, home, &secrets);
    let hooks = HookSettings::read(&top);

    let warnings = problems.finish()?;
    let facts = FactTable::shipped().map_err(|_| Report::single("model_facts", "cannot be read"))?;
    let prices = prices.ok_or_else(|| Report::single("prices", "cannot be read"))?;
    Ok(Config {
        server,
        tls,
        home: home.to_path_buf(),
        database,
        gateway,
        bundle,
        egress,
        components,
        audit,
        evidence,
        auth,
        claude_code,
        telemetry,
        prices,
        facts,
        deny,
        hooks,
        secrets,
        warnings,
    })
}

/// The configuration in force, in the shape of the file, defaults filled in: everything but the values of secrets.
pub(super) fn show(config: &Config) -> Value {
    json!({
        "home": config.home,
        "server": config.server.show(),
        "tls": config.tls.as_ref().map(tls::show),
        "deny": config.deny.show(),
        "database": config.database.show(),
        "secrets": config.secrets.show(),
        "gateway": config.gateway.show(),
        "bundle": config.bundle.iter().map(BundleEntry::show).collect::<Vec<_>>(),
        "hooks": config.hooks.show(),
        "egress": config.egress.values().map(EgressSettings::show).collect::<Vec<_>>(),
        "components": config.components.show(),
        "audit": audit::show(&config.audit),
        "evidence": evidence::show(&config.evidence),
        "auth": auth::show(&config.auth),
        "claude_code": config.claude_code.show(),
        "telemetry": config.telemetry.as_deref().map(TelemetrySettings::show),
        "prices": prices::show(&config.prices),
    })
}

/// A time in whole milliseconds, as it was read from the file.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
