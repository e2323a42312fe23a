//! Stories of what may run, on both databases: each check of the sequence refuses by itself.

use sallyport_protocol::package::{Digest, Kind, Limits, Name, Release, Rollback, Statement, World};
use sallyport_protocol::signature::{KeyId, public_key_text};
use time::macros::datetime;

use super::*;
use crate::db::audit::testing::both;
use crate::db::catalog::{Json, RevocationKind, RevokedComponent};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and so on";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key_id(seed: u8) -> String {
    KeyId::of(&key(seed).verifying_key()).as_str().to_owned()
}

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

/// Serial `serial` of `acme/no-secrets`, signed by the key 1; other bytes for another `tail`.
fn package(serial: u64, tail: &str) -> Package {
    let statement = Statement {
        name: Name::parse("acme/no-secrets").unwrap(),
        version: semver::Version::new(1, serial, 0),
        serial,
        kind: Kind::Policy,
        world: World::parse("policy@0.1.0").unwrap(),
        digest: Digest::of(b""),
        size: 0,
        events: Vec::new(),
        capabilities: Vec::new(),
        reads: None,
        limits: Limits::default(),
        upstream: None,
        credential: None,
        min_host: semver::Version::new(0, 1, 0),
        not_before: datetime!(2026-11-01 0:00 UTC),
        expires: datetime!(2027-11-01 0:00 UTC),
    };
    let bytes = Package::build(statement, &key(1), &[COMPONENT, tail.as_bytes()].concat()).unwrap();
    Package::parse(bytes).unwrap()
}

fn publisher(development: bool) -> Publisher {
    Publisher {
        key: key(1).verifying_key(),
        namespace: "acme".to_owned(),
        kinds: vec![Kind::Policy],
        tenant: None,
        development,
        revoked: false,
    }
}

fn purpose<'a>(publishers: &'a [Publisher], tenant: Option<&'a TenantId>) -> Requirement<'a> {
    Requirement { tenant, publishers, signed_by: NOW, valid_at: NOW, rollback: None }
}

fn trust(db: &Db) -> Trust {
    Trust::new(db.clone(), key(9), semver::Version::new(0, 1, 0))
}

async fn revoke(db: &Db, kind: RevocationKind, subject: &str, tenant: &str) {
    let row = RevokedComponent {
        kind: kind.as_str().to_owned(),
        subject: subject.to_owned(),
        tenant_id: tenant.to_owned(),
        reason: "it leaks".to_owned(),
        revoked_at: NOW,
        revoked_by: "u_1".to_owned(),
    };
    db.revoke_component(&row).await.unwrap();
}

async fn may_run(trust: &Trust, package: &Package, purpose: Requirement<'_>) -> Result<Verified, Distrust> {
    trust.read().await.unwrap().verify(package, purpose).await
}

#[tokio::test]
async fn a_release_that_is_revoked_by_digest_by_version_or_by_key_does_not_run() {
    let package = package(3, "");
    let digest = package.statement().digest.hex().to_owned();
    let key = key_id(1);
    let subjects = [
        (RevocationKind::Digest, digest.as_str()),
        (RevocationKind::Version, "acme/no-secrets@1.3.0"),
        (RevocationKind::Key, key.as_str()),
    ];
    let all = [publisher(false)];
    for (kind, subject) in subjects {
        let dir = tempfile::tempdir().unwrap();
        for db in both(dir.path()).await {
            let trust = trust(&db);
            may_run(&trust, &package, purpose(&all, None)).await.unwrap();
            revoke(&db, kind, subject, "").await;
            let refused = may_run(&trust, &package, purpose(&all, None)).await.unwrap_err();
            assert!(matches!(refused, Distrust::Revoked(reason) if reason == "it leaks"), "{subject}");
        }
    }
}

#[tokio::test]
async fn what_one_tenant_revokes_runs_on_for_the_others_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let all = [publisher(false)];
    let (acme, umbrella) = (tenant("acme"), tenant("umbrella"));
    for db in both(dir.path()).await {
        revoke(&db, RevocationKind::Version, "acme/no-secrets@1.3.0", "acme").await;
        let (trust, package) = (trust(&db), package(3, ""));
        may_run(&trust, &package, purpose(&all, None)).await.unwrap();
        may_run(&trust, &package, purpose(&all, Some(&umbrella))).await.unwrap();
        let refused = may_run(&trust, &package, purpose(&all, Some(&acme))).await.unwrap_err();
        assert!(matches!(refused, Distrust::Revoked(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_stored_key_signs_until_it_expires_and_what_it_signed_before_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let expires = datetime!(2026-11-21 11:00 UTC);
        let row = TrustedKey {
            key_id: key_id(1),
            namespace: "acme".to_owned(),
            tenant_id: String::new(),
            public_key: public_key_text(&key(1).verifying_key()),
            label: "acme".to_owned(),
            kinds: Json(vec!["policy".to_owned()]),
            trusted_at: datetime!(2026-11-20 0:00 UTC),
            trusted_by: "u_1".to_owned(),
            expires_at: Some(expires),
        };
        let (trust, package) = (trust(&db), package(3, ""));
        let unknown = may_run(&trust, &package, purpose(&[], None)).await.unwrap_err();
        assert!(matches!(unknown, Distrust::Package(TrustError::UnknownKey(_))), "{unknown}");
        db.trust_key(&row).await.unwrap();
        let late = may_run(&trust, &package, purpose(&[], None)).await.unwrap_err();
        assert!(matches!(late, Distrust::Package(TrustError::UnknownKey(_))), "{late}");
        let placed = Requirement { signed_by: expires - time::Duration::SECOND, ..purpose(&[], None) };
        may_run(&trust, &package, placed).await.unwrap();
        revoke(&db, RevocationKind::Key, &key_id(1), "").await;
        let revoked = may_run(&trust, &package, placed).await.unwrap_err();
        assert!(matches!(revoked, Distrust::Revoked(_)), "{revoked}");
    }
}

#[tokio::test]
async fn an_older_serial_needs_a_record_of_exactly_this_step_back() {
    let dir = tempfile::tempdir().unwrap();
    let all = [publisher(false)];
    let acme = tenant("acme");
    let (old, new) = (package(3, "old"), package(4, "new"));
    for db in both(dir.path()).await {
        let trust = trust(&db);
        let raise = |tenant| trust.raise_floor(tenant, "acme/no-secrets", 4, new.statement().digest.hex());
        raise(None).await.unwrap();
        let refused = may_run(&trust, &old, purpose(&all, None)).await.unwrap_err();
        assert!(matches!(refused, Distrust::Package(TrustError::Downgraded { serial: 3, floor: 4 })));
        // Another catalog has a floor of its own.
        may_run(&trust, &old, purpose(&all, Some(&acme))).await.unwrap();
        raise(Some(&acme)).await.unwrap();
        let release = |package: &Package| Release {
            version: package.statement().version.clone(),
            serial: package.statement().serial,
            digest: package.statement().digest.clone(),
        };
        let record = Rollback {
            name: old.statement().name.clone(),
            tenant: None,
            from: release(&new),
            to: release(&old),
            by: "u_1".to_owned(),
            reason: "it blocks too much".to_owned(),
            at: NOW,
        };
        let signed = trust.sign_rollback(&record).unwrap().unwrap();
        let back = Requirement { rollback: Some(&signed), ..purpose(&all, None) };
        may_run(&trust, &old, back).await.unwrap();
        let elsewhere = Requirement { tenant: Some(&acme), ..back };
        assert!(may_run(&trust, &old, elsewhere).await.is_err(), "a record is of one catalog");
        assert!(may_run(&trust, &package(3, "other"), back).await.is_err(), "a record is of one release");
        let foreign = Trust::new(db.clone(), key(8), semver::Version::new(0, 1, 0));
        assert!(may_run(&foreign, &old, back).await.is_err(), "a record is of this gateway's key");
    }
}

#[tokio::test]
async fn one_serial_is_one_release_unless_a_developer_builds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let (trust, first, second) = (trust(&db), package(4, "first"), package(4, "second"));
        trust.raise_floor(None, "acme/no-secrets", 4, first.statement().digest.hex()).await.unwrap();
        may_run(&trust, &first, purpose(&[publisher(false)], None)).await.unwrap();
        let refused = may_run(&trust, &second, purpose(&[publisher(false)], None)).await.unwrap_err();
        assert_eq!(refused.to_string(), "the serial 4 of acme/no-secrets is known with other bytes");
        may_run(&trust, &second, purpose(&[publisher(true)], None)).await.unwrap();
    }
}

#[tokio::test]
async fn a_floor_that_cannot_be_read_lets_nothing_run() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let floor = crate::db::component::Floor { serial: -1, digest: "00".to_owned() };
        db.raise_component_floor("acme/no-secrets", &floor).await.unwrap();
        let refused = may_run(&trust(&db), &package(3, ""), purpose(&[publisher(false)], None)).await;
        assert!(matches!(refused, Err(Distrust::Floor(name)) if name == "acme/no-secrets"));
    }
}
