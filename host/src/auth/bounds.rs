//! What one person, client or address may take of sign-in, as a part of the table of limits.

use super::{browser, client_document, clients, entitlement, oauth, oidc, throttle, token_keys};
use crate::limits::Limit;

/// The limits of sign-in.
pub fn limits() -> Vec<Limit> {
    const PART: &str = "sign-in";
    const WAIT: &str = "429, until the window is over";
    let tries = |name, most: u32| Limit::count(PART, name, most.into(), WAIT);
    let kept = |name, most: i64, beyond| Limit::count(PART, name, u64::try_from(most).unwrap_or(0), beyond);
    vec![
        Limit::time(PART, "window in which attempts are counted", throttle::WINDOW, "they are forgotten"),
        tries("wrong passwords for one user, in a window", browser::TRIES_PER_USER),
        tries("wrong passwords from one address, in a window", browser::TRIES_PER_ADDRESS),
        tries("codes of devices that one user types in, in a window", oauth::DEVICE_TRIES),
        tries("devices that begin to wait from one address, in a window", oauth::DEVICE_REQUESTS),
        tries("clients that register themselves from one address, in an hour", clients::REGISTRATIONS),
        tries(
            "documents of clients that are fetched for one user, in a window",
            client_document::FETCHES_PER_USER,
        ),
        Limit::count(
            PART,
            "documents of clients that are fetched at once",
            u64::try_from(client_document::MOST_FETCHES).unwrap_or(0),
            "400",
        ),
        Limit::bytes(PART, "document of a client", client_document::LONGEST_DOCUMENT, "400"),
        Limit::time(PART, "until a client's document is there", client_document::DOCUMENT_TIMEOUT, "400"),
        kept("devices that wait", oauth::MOST_WAITING, "429"),
        tries("people sent to identity providers from one address, in a window", oidc::VISITS_PER_ADDRESS),
        kept("people who are at identity providers", oidc::MOST_VISITS, "429"),
        Limit::count(
            PART,
            "answers of identity providers that are looked at, at once",
            u64::try_from(oidc::MOST_EXCHANGES).unwrap_or(0),
            "429",
        ),
        kept(
            "patterns of models that the roles of a tenant list",
            entitlement::MOST_PATTERNS,
            "the command is refused",
        ),
        kept("clients that registered themselves", clients::MOST_REGISTERED, "429"),
        Limit::count(
            PART,
            "addresses of a client",
            u64::try_from(clients::MOST_REDIRECTS).unwrap_or(0),
            "400 `invalid_client_metadata`",
        ),
        kept("browsers and devices in which a user is signed in", browser::MOST_SIGN_INS, "the oldest ends"),
        kept("codes of a user", browser::MOST_CODES, "the oldest is good no more"),
        kept("grants of a user", oauth::MOST_GRANTS, "the oldest ends, with its tokens"),
        kept(
            "used refresh tokens of a grant that are remembered",
            oauth::MOST_USED_TOKENS,
            "an older one is refused, and ends nothing",
        ),
        kept("keys of access tokens that count at once", token_keys::MOST_KEYS, "the exchange is refused"),
        Limit::time(PART, "life of a code", browser::CODE_LIFETIME, "400 `invalid_grant`"),
        Limit::time(
            PART,
            "wait of a device for its user",
            oauth::DEVICE_CODE_LIFETIME,
            "400 `expired_token`",
        ),
        Limit::time(
            PART,
            "stay of a browser at an identity provider",
            oidc::VISIT_LIFETIME,
            "it begins again",
        ),
        Limit::time(PART, "life of a grant", oauth::GRANT_LIFETIME, "its user signs in again"),
    ]
}
