//! The seven identity headers as a caller sends them: claims to check against the credential, never a source.

use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TraceId};

use super::{Credential, Principal};

/// A header that does not say what the credential says, that stands twice, or that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{header} does not match the credential")]
pub struct Mismatch {
    /// Its name.
    pub header: &'static str,
}

/// Compares the identity headers, where present, with the principal. A direct use of a personal access token carries no policy
/// version, so the only version it may state is `unversioned`, and no session, so that there is none to contradict.
///
/// Other software has headers of its own under four of the names: a session, a trace, a client or a source in a form that the
/// gateway never gives out claims nothing, and is passed over. [`foreign_headers`] names them for the row. `x-trace-id` belongs to
/// the call and not to the credential.
pub fn check_headers(headers: &HeaderMap, principal: &Principal) -> Result<(), Mismatch> {
    let version = principal.policy_version.as_ref().map_or(PolicyVersion::NONE, PolicyVersion::as_str);
    for (header, want) in [
        (headers::USER_ID, principal.user.as_str()),
        (headers::TENANT_ID, principal.tenant.as_str()),
        (headers::POLICY_VERSION, version),
    ] {
        if single(headers, header)?.is_some_and(|value| value != want.as_bytes()) {
            return Err(Mismatch { header });
        }
    }
    let has_session = !matches!(principal.credential, Credential::Pat { .. });
    for (header, want) in [
        (headers::SESSION_ID, has_session.then_some(principal.session.as_str())),
        (headers::CLIENT_ID, Some(principal.client.as_str())),
        (headers::CALL_SOURCE, Some(principal.source.as_str())),
    ] {
        let mut claims = headers.get_all(header).iter().filter_map(|value| claim(header, value.as_bytes()));
        if want.is_some_and(|want| claims.any(|claimed| claimed != want)) {
            return Err(Mismatch { header });
        }
    }
    // Two traces would leave open which one the call belongs to.
    let traces = headers.get_all(headers::TRACE_ID).iter();
    if traces.filter(|value| claim(headers::TRACE_ID, value.as_bytes()).is_some()).count() > 1 {
        return Err(Mismatch { header: headers::TRACE_ID });
    }
    Ok(())
}

/// The identity headers of a request that claim nothing, since their values are not in a form that the gateway gives out.
pub fn foreign_headers(headers: &HeaderMap) -> Vec<&'static str> {
    [headers::SESSION_ID, headers::CLIENT_ID, headers::CALL_SOURCE, headers::TRACE_ID]
        .into_iter()
        .filter(|header| {
            headers.get_all(*header).iter().any(|value| claim(header, value.as_bytes()).is_none())
        })
        .collect()
}

/// What a header's value claims, if it is in a form that the gateway gives out.
fn claim<'a>(header: &str, value: &'a [u8]) -> Option<&'a str> {
    let text = str::from_utf8(value).ok()?;
    let is_ours = match header {
        headers::SESSION_ID => SessionId::parse(text).is_ok(),
        headers::CLIENT_ID => ClientId::parse(text).is_ok(),
        headers::CALL_SOURCE => CallSource::parse(text).is_ok(),
        _ => TraceId::parse(text).is_ok(),
    };
    is_ours.then_some(text)
}

fn single<'a>(headers: &'a HeaderMap, header: &'static str) -> Result<Option<&'a [u8]>, Mismatch> {
    let mut values = headers.get_all(header).iter();
    let first = values.next().map(http::HeaderValue::as_bytes);
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Mismatch { header }),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use sallyport_protocol::id::{CallSource, ClientId, SessionId, TenantId, UserId};

    use super::*;

    fn principal() -> Principal {
        Principal {
            user: UserId::parse("u_1").unwrap(),
            name: None,
            tenant: TenantId::parse("acme").unwrap(),
            session: SessionId::parse("sess_1").unwrap(),
            client: ClientId::cowork(),
            source: CallSource::Cowork,
            roles: vec!["member".into()].into(),
            department: None,
            scopes: vec!["inference".into()].into(),
            policy_version: Some(PolicyVersion::parse("sha256:00ff").unwrap()),
            credential: Credential::Jwt { jti: "j".into(), tier: crate::auth::Tier::Pat, bound_to: None },
            models: crate::auth::UsableModels::All,
        }
    }

    fn all() -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers::SEVEN.into_iter().zip([
            "u_1",
            "sess_1",
            "t_1",
            "sp_cowork",
            "acme",
            "sha256:00ff",
            "cowork",
        ]) {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn headers_that_say_what_the_token_says_pass_and_absent_ones_too() {
        assert_eq!(check_headers(&all(), &principal()), Ok(()));
        assert_eq!(check_headers(&HeaderMap::new(), &principal()), Ok(()));
        for header in headers::SEVEN {
            let mut map = all();
            map.remove(header);
            assert_eq!(check_headers(&map, &principal()), Ok(()), "without {header}");
        }
    }

    #[test]
    fn a_header_that_contradicts_the_token_is_named() {
        for (header, wrong) in [
            (headers::USER_ID, "u_2"),
            (headers::USER_ID, ""),
            (headers::USER_ID, "a b"),
            (headers::SESSION_ID, "sess_2"),
            (headers::CLIENT_ID, "sp_cli"),
            (headers::TENANT_ID, "Acme"),
            (headers::TENANT_ID, ""),
            (headers::POLICY_VERSION, "unversioned"),
            (headers::POLICY_VERSION, "a b"),
            (headers::CALL_SOURCE, "api"),
        ] {
            let mut map = all();
            map.insert(header, HeaderValue::from_str(wrong).unwrap());
            assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header }), "{wrong:?}");
        }
    }

    #[test]
    fn what_other_software_puts_under_these_names_claims_nothing() {
        for (header, foreign) in [
            (headers::SESSION_ID, "ses_6a1bf8d2fffe"),
            (headers::SESSION_ID, ""),
            (headers::TRACE_ID, "3a3828d5-0cad-4840-bf74-e3c4d76f3981"),
            (headers::CLIENT_ID, "my-tool"),
            (headers::CALL_SOURCE, "COWORK"),
        ] {
            let mut map = all();
            map.insert(header, HeaderValue::from_str(foreign).unwrap());
            assert_eq!(check_headers(&map, &principal()), Ok(()), "{header}: {foreign:?}");
            assert_eq!(foreign_headers(&map), [header], "{foreign:?}");
            // A claim beside it is still a claim.
            if header == headers::SESSION_ID {
                map.append(header, HeaderValue::from_static("sess_2"));
                assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header }));
            }
        }
        assert!(foreign_headers(&all()).is_empty());
    }

    #[test]
    fn a_personal_access_token_has_no_session_to_contradict() {
        let pat = Principal { credential: Credential::Pat { id: "p".into() }, ..principal() };
        let mut map = all();
        map.insert(headers::SESSION_ID, HeaderValue::from_static("sess_2"));
        assert_eq!(check_headers(&map, &pat), Ok(()));
        assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header: headers::SESSION_ID }));
    }

    #[test]
    fn a_header_that_stands_twice_or_is_no_text_is_refused_even_if_it_is_right() {
        for header in [headers::USER_ID, headers::TENANT_ID, headers::POLICY_VERSION] {
            let mut map = all();
            let right = map.get(header).unwrap().clone();
            map.append(header, right.clone());
            assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header }));

            let mut map = all();
            let mut bytes = right.as_bytes().to_vec();
            bytes.push(0xff);
            map.insert(header, HeaderValue::from_bytes(&bytes).unwrap());
            assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header }));
        }
    }

    #[test]
    fn a_direct_personal_access_token_states_no_policy_version() {
        let direct = Principal { policy_version: None, ..principal() };
        assert_eq!(check_headers(&all(), &direct), Err(Mismatch { header: headers::POLICY_VERSION }));
        let mut map = all();
        map.insert(headers::POLICY_VERSION, HeaderValue::from_static("unversioned"));
        assert_eq!(check_headers(&map, &direct), Ok(()));
    }
}
