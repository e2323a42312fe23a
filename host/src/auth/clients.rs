//! Clients of the authorization server: which one speaks, the ones that an administrator makes, and the ones that register themselves.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sallyport_protocol::canonical;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::browser::digest;
use super::oauth::{DEVICE_CLIENT, OauthFault, granted};
use super::{Auth, form, redirect, throttle};
use crate::clock::{Clock, Entropy};
use crate::db::oauth::OauthClient;

/// How many clients may register themselves, and how many from one address in an hour.
pub(super) const MOST_REGISTERED: i64 = 1_000;
pub(super) const REGISTRATIONS: u32 = 20;
const REGISTRATION_WINDOW: Duration = Duration::from_hours(1);
/// After so long a client that registered itself and was given nothing is forgotten.
const UNUSED: Duration = Duration::from_hours(24);
/// Most addresses of a client.
pub(super) const MOST_REDIRECTS: usize = 10;

// === impl Auth ===

impl Auth {
    /// The client that speaks. One with a secret has to say it; one without has none to say.
    pub async fn client(&self, id: &str, secret: Option<&str>) -> Result<OauthClient, OauthFault> {
        if id.is_empty() || id == DEVICE_CLIENT {
            return if secret.is_some() { Err(OauthFault::Client) } else { Ok(self.device_client()) };
        }
        let client = self.known_client(id).await?.ok_or(OauthFault::Client)?;
        let proven = match (&client.secret, secret) {
            (Some(kept), Some(said)) => bool::from(digest(said).as_slice().ct_eq(kept)),
            (None, None) => true,
            _ => false,
        };
        if proven { Ok(client) } else { Err(OauthFault::Client) }
    }

    /// Takes in a client that registers itself (RFC 7591), with the least that a client may.
    pub async fn register(
        &self,
        asked: &serde_json::Map<String, Value>,
        address: Option<std::net::IpAddr>,
    ) -> Result<Value, OauthFault> {
        if let Some(address) = address {
            let key = format!("register {}", throttle::place(address));
            let moment = self.clock.monotonic();
            self.throttle
                .attempt_within(&key, REGISTRATIONS, REGISTRATION_WINDOW, moment)
                .map_err(OauthFault::TooMany)?;
        }
        let redirect_uris = read_registration(asked)?;
        let now = self.clock.now();
        self.db.forget_unused_clients(now - UNUSED).await?;
        if self.db.count_registered_clients().await? >= MOST_REGISTERED {
            return Err(OauthFault::TooMany(UNUSED));
        }
        let name = asked.get("client_name").and_then(Value::as_str).unwrap_or("a client without a name");
        if !form::label(name) {
            return Err(OauthFault::ClientMetadata("client_name has 1 to 128 characters and none that hide"));
        }
        let client = OauthClient {
            id: self.client_id(),
            tenant: String::new(),
            name: name.to_owned(),
            redirect_uris,
            secret: None,
            scope: "inference openid".to_owned(),
            registered: true,
            document: None,
            created_at: now,
        };
        self.db.insert_oauth_client(&client).await?;
        Ok(json!({
            "client_id": client.id,
            "client_id_issued_at": now.unix_timestamp(),
            "client_name": client.name,
            "redirect_uris": client.redirect_uris,
            "scope": client.scope,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }))
    }

    fn client_id(&self) -> String {
        format!("sp_{}", canonical::hex(&self.random()))
    }
}

/// A client that an administrator makes; a secret only for one that can keep it.
pub fn new_client(
    name: &str,
    tenant: &str,
    redirect_uris: Vec<String>,
    scope: &str,
    keeps_secret: bool,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(OauthClient, Option<Zeroizing<String>>), OauthFault> {
    if !form::label(name) {
        return Err(OauthFault::ClientMetadata("a name has 1 to 128 characters and none that hide"));
    }
    if redirect_uris.len() > MOST_REDIRECTS
        || !redirect_uris.iter().all(|uri| redirect::may_be_registered(uri))
    {
        return Err(OauthFault::RedirectUri);
    }
    if redirect_uris.is_empty() && !keeps_secret {
        return Err(OauthFault::ClientMetadata(
            "a client needs a redirect_uri, or a secret for introspection",
        ));
    }
    let scopes = form::scopes(scope).filter(|scopes| scopes.iter().all(|it| it != form::SCIM));
    let scope = scopes.ok_or(OauthFault::Scope)?.join(" ");
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let secret = keeps_secret.then(|| {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
    });
    let client = OauthClient {
        id: format!("sp_{}", canonical::hex(&id)),
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        redirect_uris,
        secret: secret.as_ref().map(|secret| digest(secret).to_vec()),
        scope,
        registered: false,
        document: None,
        created_at: clock.now(),
    };
    Ok((client, secret))
}

// === private helpers ===

/// What a client says of itself: its addresses, if all the rest can be granted.
pub(super) fn read_registration(asked: &serde_json::Map<String, Value>) -> Result<Vec<String>, OauthFault> {
    let texts = |name: &str| -> Result<Option<Vec<String>>, OauthFault> {
        match asked.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                texts
                    .collect::<Option<_>>()
                    .map(Some)
                    .ok_or(OauthFault::ClientMetadata("a list holds text alone"))
            }
            Some(_) => Err(OauthFault::ClientMetadata("a list is not one")),
        }
    };
    let redirect_uris = texts("redirect_uris")?.unwrap_or_default();
    if redirect_uris.is_empty() || redirect_uris.len() > MOST_REDIRECTS {
        return Err(OauthFault::RedirectUri);
    }
    if !redirect_uris.iter().all(|uri| redirect::may_be_registered(uri)) {
        return Err(OauthFault::RedirectUri);
    }
    if asked.get("token_endpoint_auth_method").is_some_and(|it| it != "none") {
        return Err(OauthFault::ClientMetadata("token_endpoint_auth_method has to be none"));
    }
    let is_known = |it: &String| it == "authorization_code" || it == "refresh_token";
    if texts("grant_types")?.is_some_and(|it| !it.iter().all(is_known)) {
        return Err(OauthFault::ClientMetadata("grant_types are authorization_code and refresh_token"));
    }
    if texts("response_types")?.is_some_and(|it| it != ["code"]) {
        return Err(OauthFault::ClientMetadata("response_types is code"));
    }
    // Nothing is fetched for a client.
    if ["jwks_uri", "jwks", "sector_identifier_uri", "request_uris"]
        .iter()
        .any(|name| asked.contains_key(*name))
    {
        return Err(OauthFault::ClientMetadata("keys and addresses of a client are not taken"));
    }
    if let Some(scope) = asked.get("scope") {
        let scope = scope.as_str().ok_or(OauthFault::ClientMetadata("scope is text"))?;
        granted("inference openid", scope)
            .map_err(|_| OauthFault::ClientMetadata("the scope is not granted"))?;
    }
    Ok(redirect_uris)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_itself_is_taken_only_where_it_asks_for_the_least() {
        let read = |value: Value| read_registration(value.as_object().unwrap()).map_err(|fault| fault.code());
        let uri = "http://127.0.0.1/cb";
        assert_eq!(
            read(json!({ "redirect_uris": [uri], "application_type": "native" })),
            Ok(vec![uri.to_owned()])
        );
        let eleven: Vec<_> = (0..11).map(|number| format!("https://a.example/{number}")).collect();
        for bad in
            [json!([]), json!(eleven), json!(["javascript:alert(1)"]), json!([uri, "http://a.example/"])]
        {
            assert_eq!(read(json!({ "redirect_uris": bad })), Err("invalid_redirect_uri"), "{bad}");
        }
        for (name, bad) in [
            ("redirect_uris", json!(uri)),
            ("redirect_uris", json!([7])),
            ("token_endpoint_auth_method", json!("client_secret_basic")),
            ("grant_types", json!(["client_credentials"])),
            ("response_types", json!(["token"])),
            ("jwks_uri", json!("http://169.254.169.254/")),
            ("scope", json!("admin")),
        ] {
            let mut asked = json!({ "redirect_uris": [uri] });
            asked[name] = bad.clone();
            assert_eq!(read(asked), Err("invalid_client_metadata"), "{name}: {bad}");
        }
    }
}
