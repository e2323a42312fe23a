//! `auth.client_documents`: which OAuth clients may be known by a document about themselves.

use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey, Form};
use super::node::Section;
use crate::auth::DocumentRules;

const HOSTS: ConfigKey = ConfigKey::list(
    "hosts",
    &Form::Text,
    "Hosts whose documents are taken, in small letters and with the port where it is not 443: `claude.ai`; `*` takes those of every host",
)
.required();
const ALLOW_PRIVATE: ConfigKey =
    ConfigKey::flag("allow_private", "Documents may be on this machine and its networks");

/// The key in `auth`.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "client_documents",
    &ConfigBlock {
        about: "OAuth clients that are [known by a document about themselves](../guide/sign-in.md#clients-that-describe-themselves).",
        keys: &[HOSTS, ALLOW_PRIVATE],
        notes: "",
    },
    "Which OAuth clients may be known by a document at their `client_id`, an https address (draft-ietf-oauth-client-id-metadata-document); without \
     it none. They may ask for `inference` and `openid` alone, and the consent page says who vouches for them: whoever has that address",
);

/// Reads it.
pub(super) fn read(auth: &Section<'_>) -> Option<DocumentRules> {
    let section = auth.get(&KEY).map(|_| auth.block(&KEY))?;
    let hosts = section.required(&HOSTS)?;
    let read: Vec<String> = hosts
        .items()
        .iter()
        .filter_map(|item| {
            item.parsed(|text| {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
                let is_host = text == "*" || text.bytes().all(plain);
                is_host.then(|| text.to_owned()).ok_or("must be a host, in small letters, or *")
            })
        })
        .collect();
    if hosts.items().is_empty() {
        hosts.error("leaves out every client: leave client_documents out instead");
    }
    Some(DocumentRules { hosts: read, allow_private: section.flag(&ALLOW_PRIVATE) })
}

/// As `sallyport config show` prints it.
pub(super) fn show(rules: &DocumentRules) -> Value {
    json!({ "hosts": rules.hosts, "allow_private": rules.allow_private })
}
