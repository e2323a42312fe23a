//! Browsers that come back once, and subjects that stand for one user, on both databases.

use sallyport_protocol::id::SessionId;

use super::*;
use crate::db::sign_in::SignIn;
use crate::db::testing::on_both;

const ISSUER: &str = "https://id.example";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

async fn tenant(db: &Db, id: &str) -> TenantId {
    let tenant = TenantId::parse(id).unwrap();
    db.insert_tenant(&tenant, id, at(0)).await.unwrap();
    tenant
}

fn user(tenant: &TenantId, name: &str) -> User {
    User {
        id: UserId::parse(&format!("u_{}{name}", tenant.as_str())).unwrap(),
        tenant: tenant.clone(),
        name: name.to_owned(),
        roles: vec!["member".to_owned()],
        department: None,
        created_at: at(0),
        disabled_at: None,
    }
}

fn visit(since: i64) -> ProviderVisit {
    ProviderVisit {
        provider: "okta".to_owned(),
        next: "/device?user_code=BCDF-GHJK".to_owned(),
        created_at: at(since),
        expires_at: at(since + 600),
    }
}

fn sign_in(name: &str, since: i64) -> SignIn {
    SignIn {
        session: SessionId::parse(&format!("sess_{name}")).unwrap(),
        device: name.to_owned(),
        created_at: at(since),
        expires_at: at(since + 1000),
    }
}

on_both! {
    async fn a_browser_comes_back_once_in_time_and_to_the_provider_that_it_was_sent_to(fresh: Fresh) {
        let db = fresh.db;
        assert!(db.insert_provider_visit(b"state", b"ann", &visit(0), 2).await.unwrap());
        let end = async |state: &[u8], browser: &[u8], provider: &str, now| {
            db.end_provider_visit(state, browser, provider, at(now)).await.unwrap()
        };
        assert_eq!(end(b"other", b"ann", "okta", 1).await, VisitEnd::Unknown);
        assert_eq!(end(b"state", b"ann", "entra", 1).await, VisitEnd::Unknown);
        assert_eq!(end(b"state", b"eve", "okta", 1).await, VisitEnd::OtherBrowser);
        assert_eq!(end(b"state", b"ann", "okta", 600).await, VisitEnd::Unknown, "too late");
        assert_eq!(end(b"state", b"ann", "okta", 599).await, VisitEnd::Back(visit(0)));
        assert_eq!(end(b"state", b"ann", "okta", 599).await, VisitEnd::Unknown, "a second time");
    }

    async fn so_many_browsers_are_away_and_those_that_stay_away_make_room(fresh: Fresh) {
        let db = fresh.db;
        for state in [b"one", b"two"] {
            assert!(db.insert_provider_visit(state, b"ann", &visit(0), 2).await.unwrap());
        }
        assert!(!db.insert_provider_visit(b"three", b"ann", &visit(599), 2).await.unwrap());
        assert!(db.insert_provider_visit(b"three", b"ann", &visit(600), 2).await.unwrap());
    }

    async fn a_subject_stands_for_one_user_and_a_name_is_never_enough(fresh: Fresh) {
        let db = fresh.db;
        let (acme, other) = (tenant(&db, "acme").await, tenant(&db, "other").await);
        let ann = user(&acme, "ann");
        assert!(db.insert_user_of_subject(&ann, ISSUER, "1").await.unwrap());
        assert_eq!(db.user_of_subject(ISSUER, "1").await.unwrap(), Some((ann.clone(), false)));
        assert_eq!(db.user_of_subject("https://id.example/", "1").await.unwrap(), None);
        assert_eq!(db.user_of_subject(ISSUER, "2").await.unwrap(), None);

        // The name is taken, then the subject: neither leaves half of it behind.
        let twin = User { id: UserId::parse("u_twin").unwrap(), ..ann.clone() };
        assert!(!db.insert_user_of_subject(&twin, ISSUER, "2").await.unwrap());
        let ben = user(&other, "ben");
        assert!(!db.insert_user_of_subject(&ben, ISSUER, "1").await.unwrap());
        assert_eq!(db.user_by_name(&other, "ben").await.unwrap(), None);
        assert!(db.insert_user(&ben).await.unwrap());
        assert!(!db.link_subject(ISSUER, "1", &other, &ben.id, at(0)).await.unwrap());
        assert!(db.link_subject(ISSUER, "2", &other, &ben.id, at(0)).await.unwrap());
        let names: Vec<_> = db.subjects_of(&other, &ben.id).await.unwrap();
        assert_eq!(names, [LinkedSubject { issuer: ISSUER.to_owned(), subject: "2".to_owned(), created_at: at(0) }]);

        db.disable_tenant(&acme, at(1)).await.unwrap();
        assert!(db.user_of_subject(ISSUER, "1").await.unwrap().unwrap().1);

        db.insert_sign_in(b"cookie", &ben, &sign_in("a", 2), 50).await.unwrap();
        assert!(!db.unlink_subject(ISSUER, "1", &other, &ben.id, at(3)).await.unwrap());
        assert!(db.unlink_subject(ISSUER, "2", &other, &ben.id, at(3)).await.unwrap());
        assert_eq!(db.user_of_subject(ISSUER, "2").await.unwrap(), None);
        assert_eq!(db.signed_in(b"cookie", at(4)).await.unwrap(), None, "what it signed in to is over");
    }

    async fn what_a_provider_says_anew_ends_the_sessions_before_and_not_the_one_of_the_same_second(fresh: Fresh) {
        let db = fresh.db;
        let acme = tenant(&db, "acme").await;
        let mut ann = user(&acme, "ann");
        assert!(db.insert_user(&ann).await.unwrap());
        db.insert_sign_in(b"old", &ann, &sign_in("a", 10), 50).await.unwrap();
        db.insert_sign_in(b"new", &ann, &sign_in("b", 20), 50).await.unwrap();
        let epoch = db.auth_epoch().await.unwrap();
        ann.roles = vec!["author".to_owned()];
        ann.department = Some("Finance".to_owned());
        assert!(db.change_user_at_sign_in(&ann, at(20)).await.unwrap());
        assert!(db.auth_epoch().await.unwrap() > epoch);
        assert_eq!(db.user(&acme, &ann.id).await.unwrap(), Some(ann.clone()));
        for cookie in [b"old", b"new"] {
            assert_eq!(db.signed_in(cookie, at(20)).await.unwrap(), None);
        }
        let revoked = db.revocations(at(0)).await.unwrap();
        let mut revoked: Vec<_> = revoked.iter().map(|row| (row.kind.as_str(), row.subject.as_str())).collect();
        revoked.sort_unstable();
        assert_eq!(revoked, [("session", "sess_a"), ("session", "sess_b"), ("user", ann.id.as_str())]);
        db.insert_sign_in(b"now", &ann, &sign_in("c", 20), 50).await.unwrap();
        assert!(db.signed_in(b"now", at(20)).await.unwrap().is_some());

        // A revocation that came meanwhile is not moved back.
        db.disable_user(&acme, &ann.id, at(30)).await.unwrap();
        db.change_user_at_sign_in(&ann, at(30)).await.unwrap();
        let revoked = db.revocations(at(30)).await.unwrap();
        assert!(revoked.iter().any(|row| row.kind == "user" && row.revoked_at == at(30)));
    }
}
