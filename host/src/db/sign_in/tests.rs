//! Sessions, codes, grants and devices on both databases: what may happen once happens once, and what was taken back is gone.

use std::time::Duration;

use sallyport_protocol::id::UserId;
use time::OffsetDateTime;

use super::*;
use crate::db::oauth::{AuthorizationCode, DeviceRequest, OauthClient, OauthGrant, Once};
use crate::db::revocation::Revocation;
use crate::db::testing::on_both;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

async fn user(db: &Db, tenant: &str, name: &str) -> User {
    let tenant = TenantId::parse(tenant).unwrap();
    db.insert_tenant(&tenant, tenant.as_str(), at(0)).await.unwrap();
    let user = User {
        id: UserId::parse(&format!("u_{name}")).unwrap(),
        tenant,
        name: name.to_owned(),
        roles: vec!["member".to_owned()],
        department: None,
        created_at: at(0),
        disabled_at: None,
    };
    assert!(db.insert_user(&user).await.unwrap());
    user
}

fn session(text: &str) -> SessionId {
    SessionId::parse(&format!("sess_{text}")).unwrap()
}

fn sign_in(name: &str, since: i64) -> SignIn {
    SignIn {
        session: session(name),
        device: name.to_owned(),
        created_at: at(since),
        expires_at: at(since + 1000),
    }
}

fn code(user: &User, name: &str) -> AuthorizationCode {
    AuthorizationCode {
        client: "sp_notebook".to_owned(),
        redirect_uri: "http://127.0.0.1:1/cb".to_owned(),
        challenge: "C".repeat(43),
        session: session(name),
        tenant: user.tenant.clone(),
        user: user.id.clone(),
        scope: "inference".to_owned(),
        resource: String::new(),
        nonce: "n".to_owned(),
        device: "Notebook".to_owned(),
        expires_at: at(60),
    }
}

fn grant(name: &str) -> OauthGrant {
    OauthGrant {
        session: session(name),
        client: "sp_notebook".to_owned(),
        scope: "inference".to_owned(),
        resource: String::new(),
        expires_at: at(1000),
    }
}

on_both! {
    async fn a_session_is_good_until_it_ends_or_is_ended_in_any_way(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        let ben = user(&db, "acme", "ben").await;
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let since = i64::try_from(number).unwrap();
            db.insert_sign_in(name.as_bytes(), &ann, &sign_in(name, since), 50).await.unwrap();
        }
        let is_good = async |secret: &str, now| db.signed_in(secret.as_bytes(), at(now)).await.unwrap().is_some();
        let (who, which) = db.signed_in(b"a", at(10)).await.unwrap().unwrap();
        assert_eq!((&who, &which), (&ann, &sign_in("a", 0)));
        assert!(!is_good("x", 10).await);
        assert!(is_good("a", 999).await && !is_good("a", 1000).await, "it ends");

        assert!(!db.end_session(&ben.tenant, &ben.id, &session("b"), at(10)).await.unwrap(), "another's");
        assert!(db.end_session(&ann.tenant, &ann.id, &session("b"), at(10)).await.unwrap());
        assert!(!is_good("b", 10).await && is_good("c", 10).await);
        db.revoke(&Revocation::Session(session("c")), at(11)).await.unwrap();
        assert!(!is_good("c", 12).await && is_good("d", 12).await);
        assert_eq!(db.sign_ins(&ann.tenant, &ann.id, at(12)).await.unwrap(), [sign_in("d", 3), sign_in("a", 0)]);

        db.revoke(&Revocation::User(ann.tenant.clone(), ann.id.clone()), at(20)).await.unwrap();
        assert!(!is_good("a", 21).await && !is_good("d", 21).await);
        db.insert_sign_in(b"e", &ann, &sign_in("e", 21), 50).await.unwrap();
        assert!(is_good("e", 22).await, "what came after is not concerned");
        db.disable_tenant(&ann.tenant, at(30)).await.unwrap();
        assert!(!is_good("e", 31).await);
    }

    async fn the_oldest_of_too_many_sessions_goes_and_those_that_are_over_are_forgotten(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let since = i64::try_from(number).unwrap();
            db.insert_sign_in(name.as_bytes(), &ann, &sign_in(name, since), 3).await.unwrap();
        }
        let left = db.sign_ins(&ann.tenant, &ann.id, at(5)).await.unwrap();
        assert_eq!(left, [sign_in("d", 3), sign_in("c", 2), sign_in("b", 1)]);
        db.insert_sign_in(b"e", &ann, &sign_in("e", 2000), 3).await.unwrap();
        assert_eq!(db.sign_ins(&ann.tenant, &ann.id, at(5)).await.unwrap(), [sign_in("e", 2000)]);
    }

    async fn a_new_password_ends_what_began_with_the_old_one(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        assert_eq!(db.password(&ann.tenant, "ann").await.unwrap(), None);
        assert!(db.set_password(&ann.tenant, &ann.id, "one", at(0)).await.unwrap());
        let epoch = db.auth_epoch().await.unwrap();
        assert_eq!(db.password(&ann.tenant, "ann").await.unwrap(), Some((ann.clone(), "one".to_owned(), false)));
        db.insert_sign_in(b"a", &ann, &sign_in("a", 1), 50).await.unwrap();
        db.insert_grant(&grant("g"), &ann.tenant, &ann.id, b"r", at(1), 9).await.unwrap();
        assert!(db.set_password(&ann.tenant, &ann.id, "two", at(2)).await.unwrap());
        assert_eq!(db.signed_in(b"a", at(3)).await.unwrap(), None);
        assert_eq!(db.grant_of(b"r", at(3)).await.unwrap(), None);
        assert!(db.auth_epoch().await.unwrap() > epoch, "access tokens end too");
        db.disable_user(&ann.tenant, &ann.id, at(4)).await.unwrap();
        assert!(db.password(&ann.tenant, "ann").await.unwrap().unwrap().2, "it may not sign in");
        let other = TenantId::parse("other").unwrap();
        assert!(!db.set_password(&other, &ann.id, "three", at(5)).await.unwrap());
    }

    async fn a_code_goes_to_whoever_has_all_that_it_is_bound_to_and_once(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        let made = code(&ann, "one");
        db.insert_code(b"s", &made, at(0), 9).await.unwrap();
        let (client, uri, challenge) = (made.client.as_str(), made.redirect_uri.as_str(), made.challenge.as_str());
        let other = "D".repeat(43);
        for (secret, client, uri, challenge, now) in [
            (b"x".as_slice(), client, uri, challenge, 10),
            (b"s", "sp_other", uri, challenge, 10),
            (b"s", client, "http://127.0.0.1:2/cb", challenge, 10),
            (b"s", client, uri, other.as_str(), 10),
            (b"s", client, uri, challenge, 60),
        ] {
            assert_eq!(db.use_code(secret, client, uri, challenge, at(now)).await.unwrap(), Once::Unknown);
        }
        let racing = (0..20).map(|_| db.use_code(b"s", client, uri, challenge, at(10)));
        let all = futures_util::future::join_all(racing).await;
        let firsts = all.iter().filter(|it| matches!(it, Ok(Once::First(code)) if *code == made)).count();
        let seconds = all.iter().filter(|it| matches!(it, Ok(Once::Again(it)) if *it == session("one"))).count();
        assert_eq!((firsts, seconds), (1, 19));
        // What the first one began is over, although it is stored only now.
        db.insert_grant(&grant("one"), &ann.tenant, &ann.id, b"r", at(11), 9).await.unwrap();
        assert_eq!(db.grant_of(b"r", at(12)).await.unwrap(), None);
        db.insert_code(b"t", &code(&ann, "two"), at(100), 9).await.unwrap();
        assert_eq!(db.use_code(b"s", client, uri, challenge, at(10)).await.unwrap(), Once::Unknown, "it was forgotten");
    }

    async fn a_refresh_token_is_used_once_and_its_family_ends_with_the_second_use(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        db.insert_grant(&grant("g"), &ann.tenant, &ann.id, b"1", at(0), 9).await.unwrap();
        assert_eq!(db.grant_of(b"1", at(1)).await.unwrap(), Some((grant("g"), ann.clone())));
        assert_eq!(db.rotate(b"1", b"2", at(1), 9).await.unwrap(), Once::First(()));
        assert_eq!(db.grant_of(b"2", at(2)).await.unwrap(), Some((grant("g"), ann.clone())));
        assert_eq!(db.rotate(b"x", b"3", at(2), 9).await.unwrap(), Once::Unknown);
        assert_eq!(db.rotate(b"1", b"3", at(3), 9).await.unwrap(), Once::Again(session("g")));
        for secret in [b"1", b"2", b"3"] {
            assert_eq!(db.grant_of(secret, at(4)).await.unwrap(), None);
        }
        db.insert_grant(&grant("h"), &ann.tenant, &ann.id, b"4", at(5), 9).await.unwrap();
        let names: Vec<Vec<u8>> = (0..20_u8).map(|number| vec![100, number]).collect();
        let racing = names.iter().map(|next| db.rotate(b"4", next, at(6), 9));
        let all = futures_util::future::join_all(racing).await;
        assert_eq!(all.iter().filter(|it| matches!(it, Ok(Once::First(())))).count(), 1);
        assert_eq!(db.grant_of(b"4", at(2000)).await.unwrap(), None, "and it ends");
    }

    async fn a_user_holds_so_many_codes_grants_and_used_tokens_and_no_more(fresh: Fresh) {
        let db = fresh.db;
        let (ann, ben) = (user(&db, "acme", "ann").await, user(&db, "acme", "ben").await);
        db.insert_grant(&grant("ben"), &ben.tenant, &ben.id, b"ben", at(0), 2).await.unwrap();
        for (name, since) in [("a", 1), ("b", 2), ("c", 3)] {
            db.insert_grant(&grant(name), &ann.tenant, &ann.id, name.as_bytes(), at(since), 2).await.unwrap();
        }
        assert_eq!(db.grant_of(b"a", at(4)).await.unwrap(), None, "the oldest ended");
        assert!(db.grant_of(b"b", at(4)).await.unwrap().is_some());
        assert!(db.grant_of(b"c", at(4)).await.unwrap().is_some());
        assert!(db.grant_of(b"ben", at(4)).await.unwrap().is_some(), "others keep theirs");
        let ended = db.revocations(at(0)).await.unwrap();
        assert!(ended.iter().any(|it| it.kind == "session" && it.subject == "sess_a"), "its access tokens end too");

        for (used, next, now) in [(b"c", b"d", 5), (b"d", b"e", 6), (b"e", b"f", 7)] {
            assert_eq!(db.rotate(used, next, at(now), 2).await.unwrap(), Once::First(()));
        }
        assert_eq!(db.rotate(b"c", b"x", at(8), 2).await.unwrap(), Once::Unknown, "it is forgotten");
        assert!(db.grant_of(b"f", at(8)).await.unwrap().is_some(), "and ended nothing");
        assert_eq!(db.rotate(b"d", b"x", at(9), 2).await.unwrap(), Once::Again(session("c")));

        for (secret, name, since) in [(b"1", "one", 0), (b"2", "two", 1), (b"3", "three", 2)] {
            let made = AuthorizationCode { expires_at: at(60 + since), ..code(&ann, name) };
            db.insert_code(secret, &made, at(0), 2).await.unwrap();
        }
        let made = code(&ann, "one");
        let (client, uri, challenge) = (made.client.as_str(), made.redirect_uri.as_str(), made.challenge.as_str());
        assert_eq!(db.use_code(b"1", client, uri, challenge, at(10)).await.unwrap(), Once::Unknown);
        assert!(matches!(db.use_code(b"2", client, uri, challenge, at(10)).await.unwrap(), Once::First(_)));
    }

    async fn a_device_waits_is_decided_once_and_is_used_once(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        let waiting = |name: &str| DeviceRequest {
            client: "sp_cli".to_owned(),
            scope: "inference".to_owned(),
            session: session(name),
            state: "pending".to_owned(),
            expires_at: at(600),
            polled_at: None,
            by: None,
        };
        assert!(db.insert_device(b"1", "AAAA", &waiting("a"), at(0), 2).await.unwrap());
        assert!(!db.insert_device(b"2", "AAAA", &waiting("b"), at(0), 2).await.unwrap(), "the code is taken");
        assert!(db.insert_device(b"2", "BBBB", &waiting("b"), at(0), 2).await.unwrap());
        assert!(!db.insert_device(b"3", "CCCC", &waiting("c"), at(0), 2).await.unwrap(), "there are enough");

        assert_eq!(db.poll_device(b"1", at(10)).await.unwrap(), Some(waiting("a")));
        assert_eq!(db.poll_device(b"1", at(11)).await.unwrap().unwrap().polled_at, Some(at(10)));
        assert_eq!(db.waiting_device("AAAA", at(600)).await.unwrap(), None, "it is over");
        assert!(!db.use_device(b"1").await.unwrap(), "nobody has decided");
        assert!(db.decide_device("AAAA", "approved", &ann, at(20)).await.unwrap());
        assert!(!db.decide_device("AAAA", "denied", &ann, at(21)).await.unwrap());
        assert!(!db.decide_device("BBBB", "approved", &ann, at(600)).await.unwrap());
        let decided = db.poll_device(b"1", at(22)).await.unwrap().unwrap();
        assert_eq!((decided.state.as_str(), decided.by), ("approved", Some((ann.tenant.clone(), ann.id.clone()))));
        let racing = (0..20).map(|_| db.use_device(b"1"));
        let all = futures_util::future::join_all(racing).await;
        assert_eq!(all.iter().filter(|it| matches!(it, Ok(true))).count(), 1);
        assert!(db.insert_device(b"3", "CCCC", &waiting("c"), at(600), 2).await.unwrap(), "those that are over made room");
    }

    async fn a_client_that_is_deleted_takes_along_what_it_was_granted(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        let client = |id: &str, registered: bool| OauthClient {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            name: id.to_owned(),
            redirect_uris: vec!["https://a.example/cb".to_owned()],
            secret: registered.then(|| vec![7; 32]),
            scope: "inference".to_owned(),
            registered,
            document: None,
            created_at: at(0),
        };
        for (id, registered) in [("sp_notebook", false), ("sp_b", true), ("sp_c", true)] {
            assert!(db.insert_oauth_client(&client(id, registered)).await.unwrap());
        }
        assert!(!db.insert_oauth_client(&client("sp_b", false)).await.unwrap());
        assert_eq!(db.oauth_client("sp_b").await.unwrap(), Some(client("sp_b", true)));
        assert_eq!(db.oauth_clients().await.unwrap().len(), 3);
        let mut used = code(&ann, "used");
        used.client = "sp_c".to_owned();
        db.insert_code(b"c", &used, at(0), 9).await.unwrap();
        assert_eq!(db.count_registered_clients().await.unwrap(), 2);
        assert_eq!(db.forget_unused_clients(at(10)).await.unwrap(), 1, "sp_b; the others were used or made by hand");
        assert_eq!(db.oauth_client("sp_b").await.unwrap(), None);

        db.insert_grant(&grant("g"), &ann.tenant, &ann.id, b"r", at(1), 9).await.unwrap();
        assert_eq!(db.session_of_refresh(b"r").await.unwrap(), Some(("sess_g".to_owned(), "sp_notebook".to_owned())));
        assert!(db.delete_oauth_client("sp_notebook", at(2)).await.unwrap());
        assert_eq!(db.grant_of(b"r", at(3)).await.unwrap(), None);
        let ended = db.revocations(at(0)).await.unwrap();
        assert!(ended.iter().any(|row| row.kind == "session" && row.subject == "sess_g"), "{ended:?}");
        assert!(!db.delete_oauth_client("sp_notebook", at(2)).await.unwrap());
    }

    async fn a_name_in_certificates_is_one_users(fresh: Fresh) {
        let db = fresh.db;
        let ann = user(&db, "acme", "ann").await;
        let ben = user(&db, "other", "ben").await;
        assert!(db.link_certificate("dns:laptop", &ann.tenant, &ann.id, at(0)).await.unwrap());
        assert!(!db.link_certificate("dns:laptop", &ben.tenant, &ben.id, at(0)).await.unwrap());
        assert_eq!(db.user_of_certificate("dns:laptop").await.unwrap(), Some((ann.clone(), false)));
        assert_eq!(db.user_of_certificate("email:laptop").await.unwrap(), None);
        assert!(!db.unlink_certificate("dns:laptop", &ben.tenant, &ben.id, at(1)).await.unwrap());
        db.disable_tenant(&ann.tenant, at(1)).await.unwrap();
        assert_eq!(db.user_of_certificate("dns:laptop").await.unwrap(), Some((ann.clone(), true)));
        assert!(db.unlink_certificate("dns:laptop", &ann.tenant, &ann.id, at(2)).await.unwrap());
        assert_eq!(db.user_of_certificate("dns:laptop").await.unwrap(), None);
        assert!(db.set_weakest_tier(&ann.tenant, "mtls").await.unwrap());
        assert_eq!(db.weakest_tiers().await.unwrap(), [("acme".to_owned(), "mtls".to_owned())]);
        assert!(db.set_weakest_tier(&ann.tenant, "root").await.is_err(), "the table knows three");
    }

    async fn what_a_user_spent_is_that_users_since_then(fresh: Fresh) {
        let db = fresh.db;
        for (user, tenant, cost, hour) in [("u_a", "acme", 5, 1), ("u_a", "acme", 7, 3), ("u_b", "acme", 9, 3), ("u_a", "other", 11, 3)] {
            let when = at(0) + Duration::from_secs(hour * 3600);
            let stored = crate::db::writing!(&db, pool => sqlx::query(
                "INSERT INTO audit_events (occurred_at, kind, user_id, session_id, trace_id, client_id, tenant_id, policy_ver, \
                     call_source, cost_micro, outcome, payload, replica, sequence) \
                 VALUES ($1, 'cost', $2, '-', '-', '-', $3, '-', '-', $4, 'allowed', $5, $6, $7)")
                .bind(crate::db::audit::At(when)).bind(user).bind(tenant).bind(cost)
                .bind(sqlx::types::Json(serde_json::json!({}))).bind(format!("{user}{tenant}{cost}")).bind(1_i64)
                .execute(pool).await.unwrap().rows_affected());
            assert_eq!(stored, 1);
        }
        // The moments stand in no order: a week may begin before a month.
        let since = [at(2 * 3600), at(0), at(4 * 3600)];
        assert_eq!(db.spent_since("acme", "u_a", since).await.unwrap(), [7, 12, 0]);
        assert_eq!(db.spent_since("acme", "u_c", since).await.unwrap(), [0; 3]);
    }
}
