//! The seven identity headers as a caller sends them: claims to check against the credential, never a source.

use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::id::{PolicyVersion, TraceId};

use super::Principal;

/// A header that does not say what the credential says, that stands twice, or that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{header} does not match the credential")]
pub struct Mismatch {
    /// Its name.
    pub header: &'static str,
}

/// Compares six headers, where present, with the principal. `x-trace-id` belongs to the call, not to the credential:
/// only its form is checked. A direct use of a personal access token carries no policy version, so the only version it
/// may state is `unversioned`.
pub fn check_headers(headers: &HeaderMap, principal: &Principal) -> Result<(), Mismatch> {
    let unversioned = PolicyVersion::unversioned();
    for (header, want) in [
        (headers::USER_ID, principal.user.as_str()),
        (headers::SESSION_ID, principal.session.as_str()),
        (headers::CLIENT_ID, principal.client.as_str()),
        (headers::TENANT_ID, principal.tenant.as_str()),
        (headers::POLICY_VERSION, principal.policy_version.as_ref().unwrap_or(&unversioned).as_str()),
        (headers::CALL_SOURCE, principal.source.as_str()),
    ] {
        if single(headers, header)?.is_some_and(|value| value != want.as_bytes()) {
            return Err(Mismatch { header });
        }
    }
    match single(headers, headers::TRACE_ID)?.map(|value| str::from_utf8(value).map(TraceId::parse)) {
        None | Some(Ok(Ok(_))) => Ok(()),
        Some(_) => Err(Mismatch { header: headers::TRACE_ID }),
    }
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
    use crate::auth::Credential;

    fn principal() -> Principal {
        Principal {
            user: UserId::parse("u_1").unwrap(),
            name: None,
            tenant: TenantId::parse("acme").unwrap(),
            session: SessionId::parse("sess_1").unwrap(),
            client: ClientId::cowork(),
            source: CallSource::Cowork,
            roles: vec!["member".into()],
            department: None,
            scopes: vec!["inference".into()],
            policy_version: Some(PolicyVersion::parse("sha256:00ff").unwrap()),
            credential: Credential::Jwt { jti: "j".into() },
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
            (headers::SESSION_ID, "sess_2"),
            (headers::TRACE_ID, "no-trace"),
            (headers::CLIENT_ID, "sp_cli"),
            (headers::TENANT_ID, "Acme"),
            (headers::POLICY_VERSION, "unversioned"),
            (headers::CALL_SOURCE, "COWORK"),
        ] {
            for wrong in [wrong, "", "a b"] {
                let mut map = all();
                map.insert(header, HeaderValue::from_str(wrong).unwrap());
                assert_eq!(check_headers(&map, &principal()), Err(Mismatch { header }), "{wrong:?}");
            }
        }
    }

    #[test]
    fn a_header_that_stands_twice_or_is_no_text_is_refused_even_if_it_is_right() {
        for header in headers::SEVEN {
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
