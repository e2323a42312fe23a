//! Credentials as their holders live with them: made, used, exchanged, refused, revoked.

#![expect(clippy::string_slice, reason = "tokens are ASCII")]

use sallyport_protocol::headers::SEVEN;
use tokio_util::sync::CancellationToken;

use super::pat::NewPat;
use super::*;
use crate::clock::{ManualClock, SystemEntropy};
use crate::db::testing::{Fresh, on_both, tamper};
use crate::db::user::User;

/// One process: its own memory over a database that others share.
struct Process {
    auth: Arc<Auth>,
    db: Db,
    keys: Arc<Keys>,
    clock: Arc<ManualClock>,
}

impl Process {
    async fn start(db: Db) -> Self {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::generate(&home.path().join(keys::DIRECTORY), &SystemEntropy).unwrap();
        let origin = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        Self::with(db, Arc::new(keys), Arc::new(ManualClock::new(origin))).await
    }

    /// Another process of the same gateway: same keys, same database, nothing else in common.
    async fn beside(&self, url: &str) -> Self {
        let db = Db::open(url).await.unwrap();
        Self::with(db, Arc::clone(&self.keys), Arc::clone(&self.clock)).await
    }

    async fn with(db: Db, keys: Arc<Keys>, clock: Arc<ManualClock>) -> Self {
        let settings = AuthSettings::new("https://gateway.example");
        let entropy = Arc::new(SystemEntropy);
        let auth = Auth::open(db.clone(), &keys, settings, clock.clone(), entropy).await.unwrap();
        Self { auth, db, keys, clock }
    }

    async fn user(&self, tenant: &str, name: &str) -> User {
        let tenant = TenantId::parse(tenant).unwrap();
        self.db.insert_tenant(&tenant, tenant.as_str(), self.clock.now()).await.unwrap();
        let mut id = [0; 16];
        SystemEntropy.fill(&mut id);
        let user = User {
            id: UserId::from_bytes(id),
            tenant,
            name: name.to_owned(),
            roles: vec!["member".to_owned(), "ring-1".to_owned()],
            department: Some("Finance".to_owned()),
            created_at: self.clock.now(),
            disabled_at: None,
        };
        assert!(self.db.insert_user(&user).await.unwrap());
        user
    }

    async fn mint_for(&self, user: &User, lifetime: Duration) -> pat::Minted {
        let new = NewPat { user, name: "laptop", scopes: vec!["inference".to_owned()], lifetime };
        let pepper = self.keys.pat_pepper();
        pat::mint(&self.db, pepper, self.clock.as_ref(), &SystemEntropy, new).await.unwrap()
    }

    async fn mint(&self, user: &User) -> pat::Minted {
        self.mint_for(user, pat::DEFAULT_LIFETIME).await
    }

    async fn exchange(&self, pat: &pat::Minted) -> Issued {
        self.auth.exchange_pat(&pat.text, &PolicyVersion::parse("sha256:00ff").unwrap()).await.unwrap()
    }

    /// `ok`, or the reason that the audit row would hold.
    async fn verdict(&self, credential: &str) -> &'static str {
        match self.auth.authenticate(credential, None).await {
            Ok(_) => "ok",
            Err(fault) => fault.kind(),
        }
    }

    async fn exchange_verdict(&self, credential: &str) -> &'static str {
        match self.auth.exchange_pat(credential, &PolicyVersion::unversioned()).await {
            Ok(_) => "ok",
            Err(fault) => fault.kind(),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

on_both! {
    async fn a_personal_access_token_is_the_user_it_was_made_for(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;

        let principal = gateway.auth.authenticate(&pat.text, None).await.unwrap();
        assert_eq!(principal.user, alice.id);
        assert_eq!(principal.name.as_deref(), Some("alice"));
        assert_eq!(principal.tenant.as_str(), "acme");
        assert_eq!((principal.client.as_str(), principal.source), ("sp_cli", CallSource::Api));
        assert_eq!(*principal.roles, ["member", "ring-1"]);
        assert_eq!(principal.department.as_deref(), Some("Finance"));
        assert!(principal.has_scope("inference") && !principal.has_scope("admin"));
        assert_eq!(principal.policy_version, None);
        assert_eq!(principal.credential, Credential::Pat { id: pat.record.id.clone() });

        let again = gateway.auth.authenticate(&pat.text, None).await.unwrap();
        assert_eq!(again.session, principal.session, "all direct use of a token is one session");
        let other = gateway.mint(&alice).await;
        let other = gateway.auth.authenticate(&other.text, None).await.unwrap();
        assert_ne!(other.session, principal.session);
    }

    async fn an_exchange_gives_a_token_and_seven_headers_that_agree_with_it(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let issued = gateway.exchange(&pat).await;
        assert_eq!(issued.ttl_seconds, 3600);

        assert_eq!(issued.headers.each_ref().map(|(name, _)| *name), SEVEN);
        let values = issued.headers.each_ref().map(|(_, value)| value.as_str());
        assert_eq!(values[0], alice.id.as_str());
        assert!(values[1].starts_with("sess_") && values[1].len() == 37, "{}", values[1]);
        assert!(values[2].starts_with("t_") && values[2].len() == 34, "{}", values[2]);
        assert_eq!(&values[3..], ["sp_cowork", "acme", "sha256:00ff", "cowork"]);

        let principal = gateway.auth.authenticate(&issued.token, None).await.unwrap();
        assert_eq!(principal.user, alice.id);
        assert_eq!(*principal.roles, *alice.roles);
        assert_eq!(principal.department.as_deref(), alice.department.as_deref());
        assert_eq!(*principal.scopes, ["inference"]);
        assert!(matches!(&principal.credential, Credential::Jwt { jti, .. } if jti.starts_with(&pat.record.id)));
        let mut map = http::HeaderMap::new();
        for (name, value) in &issued.headers {
            map.insert(*name, value.parse().unwrap());
        }
        assert_eq!(check_headers(&map, &principal), Ok(()));

        let second = gateway.exchange(&pat).await;
        for at in [1, 2] {
            assert_ne!(second.headers[at].1, issued.headers[at].1, "session and trace are fresh each time");
        }
    }

    async fn every_bad_personal_access_token_gets_the_same_answer(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let good = gateway.mint(&alice).await;

        let mut mistyped = good.text.to_string();
        let last = mistyped.pop().unwrap();
        mistyped.push(if last == '0' { '1' } else { '0' });
        let unknown = Pat::mint([1; 8], [2; 32]).to_text();
        let guessed = {
            let mut id = [0; 8];
            for (at, byte) in id.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&good.record.id[at * 2..at * 2 + 2], 16).unwrap();
            }
            Pat::mint(id, [2; 32]).to_text()
        };
        let revoked = gateway.mint(&alice).await;
        gateway.db.revoke_pat(&alice.tenant, &revoked.record.id, gateway.clock.now()).await.unwrap().unwrap();
        let expired = gateway.mint_for(&alice, Duration::from_mins(1)).await;
        let moved = gateway.mint(&alice).await;
        let mallory = gateway.user("evil", "mallory").await;
        tamper!(gateway.db, "UPDATE pats SET tenant_id = $2, user_id = $3 WHERE id = $1",
            &moved.record.id, mallory.tenant.as_str(), mallory.id.as_str());
        let torn = gateway.mint(&alice).await;
        tamper!(gateway.db, "UPDATE pats SET tenant_id = $2 WHERE id = $1", &torn.record.id, "evil");
        let disabled = gateway.user("acme", "dora").await;
        let disabled_pat = gateway.mint(&disabled).await;
        gateway.db.disable_user(&disabled.tenant, &disabled.id, gateway.clock.now()).await.unwrap();
        let closed = gateway.user("closed", "carl").await;
        let closed_pat = gateway.mint(&closed).await;
        gateway.db.disable_tenant(&closed.tenant, gateway.clock.now()).await.unwrap();
        gateway.pass(60);

        for (credential, reason) in [
            (mistyped.as_str(), "pat_mistyped"),
            ("sp_pat_", "pat_mistyped"),
            (&good.text[..40], "pat_mistyped"),
            (&unknown, "pat_unknown"),
            (&guessed, "pat_unknown"),
            (&revoked.text, "pat_revoked"),
            (&expired.text, "pat_expired"),
            (&moved.text, "pat_unknown"),
            (&torn.text, "pat_unknown"),
            (&disabled_pat.text, "user_disabled"),
            (&closed_pat.text, "tenant_disabled"),
            ("", "credential_missing"),
        ] {
            assert_eq!(gateway.verdict(credential).await, reason);
            assert_eq!(gateway.exchange_verdict(credential).await, reason);
        }
        assert_eq!(gateway.verdict(&good.text).await, "ok");
        let token = gateway.exchange(&good).await.token;
        assert_eq!(gateway.exchange_verdict(&token).await, "credential_not_a_pat");
        assert_eq!(gateway.verdict(&"a".repeat(1024 * 1024)).await, "token_too_large");
    }

    async fn how_long_a_refusal_takes_tells_nothing_of_its_reason(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let expired = gateway.mint_for(&alice, Duration::from_mins(1)).await;
        let revoked = gateway.mint(&alice).await;
        gateway.db.revoke_pat(&alice.tenant, &revoked.record.id, gateway.clock.now()).await.unwrap().unwrap();
        gateway.pass(61);
        let mistyped = {
            let mut text = revoked.text.to_string();
            text.replace_range(30..31, if &text[30..31] == "a" { "b" } else { "a" });
            text
        };
        let unknown = Pat::mint([7; 8], [7; 32]).to_text();
        let refused = [mistyped.as_str(), unknown.as_str(), revoked.text.as_str(), expired.text.as_str()];

        let soak = std::env::var_os("SALLYPORT_SOAK").is_some();
        let mut took = [const { Vec::new() }; 4];
        // In turns, so that a machine that is busy for a moment is so for all of them.
        for _ in 0..if soak { 2_000 } else { 20 } {
            for (credential, took) in refused.iter().zip(&mut took) {
                let began = std::time::Instant::now();
                let fault = gateway.auth.authenticate(credential, None).await.unwrap_err();
                took.push(began.elapsed());
                assert!(matches!(fault, AuthFault::Pat { .. }), "{fault:?}");
            }
        }
        let medians = took.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        let gap = medians.iter().max().unwrap().abs_diff(*medians.iter().min().unwrap());
        if soak {
            assert!(gap <= Duration::from_millis(1), "mistyped, unknown, revoked, expired: {medians:?}");
        }
    }

    async fn a_mistyped_token_never_costs_a_query(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let good = gateway.mint(&alice).await;
        let mut mistyped = good.text.to_string();
        mistyped.replace_range(30..31, if &mistyped[30..31] == "a" { "b" } else { "a" });
        gateway.db.close().await;
        assert_eq!(gateway.verdict(&mistyped).await, "pat_mistyped");
        let fault = gateway.auth.authenticate(&good.text, None).await.unwrap_err();
        assert_eq!((fault.kind(), fault.is_ours()), ("identity_unavailable", true));
    }

    async fn only_a_mac_of_the_secret_is_stored(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let parsed = Pat::parse(&pat.text).unwrap();
        let holder =
            gateway.db.pat_holder(parsed.id(), &pat::session_of(parsed.id())).await.unwrap().unwrap();
        assert_eq!(holder.mac.len(), 32);
        assert_ne!(holder.mac, parsed.secret());
        assert_ne!(holder.mac, Sha256::digest(parsed.secret()).to_vec(), "a stolen table cannot be searched");
        assert!(!format!("{pat:?} {holder:?}").contains(&pat.text[24..60]));

        // Another pepper, and the same row proves nothing.
        let other = tempfile::tempdir().unwrap();
        let keys = Keys::generate(&other.path().join("keys"), &SystemEntropy).unwrap();
        let other = Process::with(gateway.db.clone(), Arc::new(keys), gateway.clock.clone()).await;
        assert_eq!(other.verdict(&pat.text).await, "pat_unknown");
    }

    async fn what_another_process_revokes_ends_at_the_next_poll(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let command_line = gateway.beside(&fresh.url).await;
        for (what, reason_of_pat, reason_of_token) in [
            ("pat", "pat_revoked", "pat_revoked"),
            ("user", "pat_revoked", "user_revoked"),
            ("session", "ok", "session_revoked"),
            ("token", "ok", "token_revoked"),
            ("disable user", "user_disabled", "user_disabled"),
            ("disable tenant", "tenant_disabled", "tenant_disabled"),
        ] {
            let user = gateway.user(&what.replace(' ', "-"), "alice").await;
            let pat = gateway.mint(&user).await;
            let issued = gateway.exchange(&pat).await;
            let bystander = gateway.user(&format!("{}-2", what.replace(' ', "-")), "bob").await;
            let bystander = gateway.exchange(&gateway.mint(&bystander).await).await;
            assert_eq!(gateway.verdict(&pat.text).await, "ok");
            assert_eq!(gateway.verdict(&issued.token).await, "ok");
            gateway.pass(1);

            let db = &command_line.db;
            let now = command_line.clock.now();
            match what {
                "pat" => assert!(db.revoke_pat(&user.tenant, &pat.record.id, now).await.unwrap().is_some()),
                "user" => {
                    let what = Revocation::User(user.tenant.clone(), user.id.clone());
                    assert!(db.revoke(&what, now).await.unwrap());
                }
                "session" => {
                    let session = SessionId::parse(&issued.headers[1].1).unwrap();
                    assert!(db.revoke(&Revocation::Session(session), now).await.unwrap());
                }
                "token" => {
                    let principal = gateway.auth.authenticate(&issued.token, None).await.unwrap();
                    let jti = principal.credential.id().to_owned();
                    assert!(db.revoke(&Revocation::Token(jti), now).await.unwrap());
                }
                "disable user" => assert!(db.disable_user(&user.tenant, &user.id, now).await.unwrap()),
                _ => assert!(db.disable_tenant(&user.tenant, now).await.unwrap()),
            }

            assert!(gateway.auth.refresh().await.unwrap(), "{what}");
            assert_eq!(gateway.verdict(&pat.text).await, reason_of_pat, "{what}");
            assert_eq!(gateway.verdict(&issued.token).await, reason_of_token, "{what}");
            assert_eq!(gateway.verdict(&bystander.token).await, "ok", "{what}");
            assert!(!gateway.auth.refresh().await.unwrap(), "nothing has changed since");
        }
    }

    async fn what_this_process_revokes_ends_at_once(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let direct = gateway.auth.authenticate(&pat.text, None).await.unwrap();
        assert!(gateway.auth.revoke(&Revocation::Session(direct.session.clone())).await.unwrap());
        assert_eq!(gateway.verdict(&pat.text).await, "session_revoked");
        assert_eq!(gateway.exchange_verdict(&pat.text).await, "ok", "an exchange is another session");

        assert!(gateway.auth.revoke(&Revocation::User(alice.tenant.clone(), alice.id.clone())).await.unwrap());
        assert_eq!(gateway.exchange_verdict(&pat.text).await, "pat_revoked");
        let nobody = UserId::parse("u_nobody").unwrap();
        assert!(!gateway.auth.revoke(&Revocation::User(alice.tenant, nobody)).await.unwrap());
    }

    async fn an_exchange_asks_the_database_even_before_the_poll(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        assert_eq!(gateway.verdict(&pat.text).await, "ok");
        gateway.db.revoke_pat(&alice.tenant, &pat.record.id, gateway.clock.now()).await.unwrap().unwrap();
        assert_eq!(gateway.exchange_verdict(&pat.text).await, "pat_revoked");
    }

    async fn a_user_who_is_enabled_again_has_its_tokens_back_but_not_its_sessions(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let issued = gateway.exchange(&pat).await;
        gateway.db.disable_user(&alice.tenant, &alice.id, gateway.clock.now()).await.unwrap();
        gateway.auth.refresh().await.unwrap();
        assert_eq!(gateway.verdict(&issued.token).await, "user_disabled");
        gateway.pass(1);
        gateway.db.enable_user(&alice.tenant, &alice.id).await.unwrap();
        gateway.auth.refresh().await.unwrap();
        assert_eq!(gateway.verdict(&pat.text).await, "ok");
        assert_eq!(gateway.verdict(&issued.token).await, "user_revoked");
        assert_eq!(gateway.verdict(&gateway.exchange(&pat).await.token).await, "ok");
    }

    async fn what_is_remembered_still_expires(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint_for(&alice, Duration::from_hours(2)).await;
        let issued = gateway.exchange(&pat).await;
        assert_eq!(gateway.verdict(&issued.token).await, "ok");
        assert_eq!(gateway.verdict(&pat.text).await, "ok");
        gateway.pass(3630);
        assert_eq!(gateway.verdict(&issued.token).await, "ok", "half a minute of grace");
        gateway.pass(1);
        assert_eq!(gateway.verdict(&issued.token).await, "token_expired");
        gateway.pass(7200 - 3632);
        assert_eq!(gateway.verdict(&pat.text).await, "ok", "its last second");
        gateway.pass(1);
        assert_eq!(gateway.verdict(&pat.text).await, "pat_expired");
    }

    async fn an_access_token_never_outlives_the_personal_access_token(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint_for(&alice, Duration::from_mins(10)).await;
        gateway.pass(100);
        assert_eq!(gateway.exchange(&pat).await.ttl_seconds, 500);
    }

    async fn a_remembered_credential_needs_no_database(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let issued = gateway.exchange(&pat).await;
        let first = gateway.auth.authenticate(&pat.text, None).await.unwrap();
        gateway.db.close().await;
        let second = gateway.auth.authenticate(&pat.text, None).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(gateway.verdict(&issued.token).await, "ok", "an access token is checked without one");
        gateway.pass(90);
        assert!(gateway.auth.refresh().await.is_err());
        assert_eq!(gateway.auth.lag(), Duration::from_secs(90), "how stale we are can be seen");
    }

    async fn the_last_use_is_written_in_batches(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let (used, unused) = (gateway.mint(&alice).await, gateway.mint(&alice).await);
        for _ in 0..3 {
            gateway.pass(5);
            assert_eq!(gateway.verdict(&used.text).await, "ok");
        }
        let last_use = async |id: &str| {
            let all = gateway.db.pats(&alice.tenant, Some(&alice.id)).await.unwrap();
            all.into_iter().find(|it| it.id == id).unwrap().last_used_at
        };
        assert_eq!(last_use(&used.record.id).await, None, "not on the path of the call");
        gateway.auth.flush().await.unwrap();
        assert_eq!(last_use(&used.record.id).await, Some(gateway.clock.now()));
        assert_eq!(last_use(&unused.record.id).await, None);
        let earlier = gateway.clock.now() - Duration::from_mins(1);
        gateway.db.touch_pats(&[(used.record.id.clone(), earlier)]).await.unwrap();
        assert_eq!(last_use(&used.record.id).await, Some(gateway.clock.now()), "a late writer changes nothing");
    }

    async fn a_new_gateway_has_one_tenant_and_one_administrator(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        for _ in 0..2 {
            bootstrap(&gateway.db, gateway.clock.as_ref(), &SystemEntropy).await.unwrap();
        }
        let tenants = gateway.db.tenants().await.unwrap();
        assert_eq!(tenants.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["default"]);
        let users = gateway.db.users(&tenants[0].id).await.unwrap();
        assert_eq!(users.len(), 1);
        assert_eq!((users[0].name.as_str(), &users[0].roles[..]), ("admin", &["admin".to_owned()][..]));
        assert!(gateway.db.pats(&tenants[0].id, None).await.unwrap().is_empty(), "nobody holds a credential");
    }

    async fn a_token_is_found_and_revoked_within_its_tenant_only(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let mallory = gateway.user("evil", "mallory").await;
        let pat = gateway.mint(&alice).await;
        let now = gateway.clock.now();
        assert_eq!(gateway.db.revoke_pat(&mallory.tenant, &pat.record.id, now).await.unwrap(), None);
        assert!(!gateway.db.disable_user(&mallory.tenant, &alice.id, now).await.unwrap());
        assert_eq!(gateway.db.user(&mallory.tenant, &alice.id).await.unwrap(), None);
        assert!(gateway.db.pats(&mallory.tenant, None).await.unwrap().is_empty());
        assert_eq!(gateway.verdict(&pat.text).await, "ok");
    }

    async fn a_background_poll_notices_and_shuts_down(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let command_line = gateway.beside(&fresh.url).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        assert_eq!(gateway.verdict(&pat.text).await, "ok");
        let shutdown = CancellationToken::new();
        let watch = async {
            let now = gateway.clock.now();
            command_line.db.revoke_pat(&alice.tenant, &pat.record.id, now).await.unwrap().unwrap();
            while gateway.verdict(&pat.text).await == "ok" {
                tokio::task::yield_now().await;
            }
            shutdown.cancel();
        };
        let both = async { tokio::join!(gateway.auth.clone().run(shutdown.clone()), watch) };
        tokio::time::timeout(Duration::from_secs(2), both).await.expect("it takes effect within two seconds");
        let all = gateway.db.pats(&alice.tenant, None).await.unwrap();
        assert!(all[0].last_used_at.is_some(), "shutting down writes what was waiting");
    }
}

#[tokio::test]
async fn what_the_gateway_says_about_itself_fits_together() {
    let fresh = Fresh::sqlite().await;
    let gateway = Process::start(fresh.db).await;
    let capabilities = gateway.auth.capabilities();
    let jwks = gateway.auth.jwks();
    assert_eq!(capabilities["modes"], serde_json::json!(["pat", "session"]));
    assert_eq!(capabilities["issuer"], "https://gateway.example");
    assert_eq!(capabilities["key"], jwks["keys"][0]["kid"]);
    assert_eq!(
        capabilities,
        super::capabilities(
            &gateway.db,
            &AuthSettings::new("https://gateway.example"),
            &gateway.keys,
            gateway.clock.now()
        )
        .await
        .unwrap()
    );
    assert_eq!(jwks["keys"][0]["alg"], "EdDSA");
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    assert!(jwks["keys"][0].get("d").is_none(), "the private half stays here");
}

on_both! {
    async fn the_next_key_is_published_before_it_signs_and_the_one_before_verifies_to_the_end(fresh: Fresh) {
        let gateway = Process::start(fresh.db).await;
        let beside = gateway.beside(&fresh.url).await;
        let alice = gateway.user("acme", "alice").await;
        let pat = gateway.mint(&alice).await;
        let kid = |token: &str| {
            let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<serde_json::Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
        };
        let published = |process: &Process| -> Vec<String> {
            let jwks = process.auth.jwks();
            jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
        };
        let first = gateway.exchange(&pat).await.token;
        let rotate = async |pace| rotate(&gateway.db, &gateway.keys, pace, gateway.clock.as_ref(), &SystemEntropy).await;
        let next = rotate(RotationPace::Orderly).await.unwrap();
        for process in [&gateway, &beside] {
            assert!(process.auth.refresh().await.unwrap());
            assert_eq!(published(process), [kid(&first), next.kid.clone()], "published, and not in use yet");
            assert_eq!(kid(&process.exchange(&pat).await.token), kid(&first));
        }
        gateway.clock.advance(PUBLISHED_AHEAD);
        let second = beside.exchange(&pat).await.token;
        assert_eq!(kid(&second), next.kid);
        for process in [&gateway, &beside] {
            assert_eq!(published(process), [next.kid.clone(), kid(&first)]);
            for token in [&first, &second] {
                assert!(process.auth.authenticate(token, None).await.is_ok(), "both are good");
            }
        }
        assert_eq!(gateway.auth.capabilities()["key"], next.kid.as_str());

        // The last token of the key before ends a moment before the key does.
        gateway.clock.advance(Duration::from_secs(3600 - 5));
        gateway.auth.refresh().await.unwrap();
        assert!(gateway.auth.authenticate(&first, None).await.is_ok(), "to its last second");
        gateway.clock.advance(Duration::from_mins(5));
        gateway.auth.refresh().await.unwrap();
        assert_eq!(published(&gateway), std::slice::from_ref(&next.kid));
        assert_eq!(gateway.verdict(&first).await, "token_key_unknown");

        // At once: who has a token of the keys before signs in anew.
        let third = gateway.exchange(&pat).await.token;
        rotate(RotationPace::AtOnce).await.unwrap();
        gateway.auth.refresh().await.unwrap();
        assert_eq!(gateway.verdict(&third).await, "token_key_unknown");
        let fourth = gateway.exchange(&pat).await.token;
        beside.auth.refresh().await.unwrap();
        assert!(beside.auth.authenticate(&fourth, None).await.is_ok());
        for _ in 1..8 {
            rotate(RotationPace::Orderly).await.unwrap();
        }
        assert!(matches!(rotate(RotationPace::Orderly).await, Err(RotateError::TooMany)));
    }

    async fn a_key_that_somebody_writes_into_the_database_signs_nothing_that_is_believed(fresh: Fresh) {
        use ed25519_dalek::{Signer as _, SigningKey};
        let gateway = Process::start(fresh.db).await;
        let alice = gateway.user("acme", "alice").await;
        let token = gateway.exchange(&gateway.mint(&alice).await).await.token;
        rotate(&gateway.db, &gateway.keys, RotationPace::Orderly, gateway.clock.as_ref(), &SystemEntropy).await.unwrap();
        let theirs = SigningKey::from_bytes(&[9; 32]);
        let kid = jwt::key_id(&theirs.verifying_key());
        assert_eq!(tamper!(gateway.db, "UPDATE token_keys SET kid = $1 WHERE salt IS NOT NULL", kid.as_str()), 1);
        gateway.auth.refresh().await.unwrap();
        let header = base64url(format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#).as_bytes());
        let message = format!("{header}.{}", token.split('.').nth(1).unwrap());
        let forged = format!("{message}.{}", base64url(&theirs.sign(message.as_bytes()).to_bytes()));
        assert_eq!(gateway.verdict(&forged).await, "token_key_unknown");
        assert!(gateway.auth.authenticate(&token, None).await.is_ok());
    }
}

#[tokio::test]
async fn a_token_of_another_purpose_or_another_gateway_is_refused() {
    use ed25519_dalek::{Signer as _, SigningKey};
    let (here, there) = (Fresh::sqlite().await, Fresh::sqlite().await);
    let gateway = Process::start(here.db).await;
    let elsewhere = Process::start(there.db).await;
    let alice = elsewhere.user("acme", "alice").await;
    let foreign = elsewhere.exchange(&elsewhere.mint(&alice).await).await.token;
    assert_eq!(gateway.verdict(&foreign).await, "token_key_unknown");

    // The audit key, used as if it were the key of tokens.
    let audit = SigningKey::from_bytes(gateway.keys.audit_chain().expose());
    let bob = gateway.user("acme", "bob").await;
    let token = gateway.exchange(&gateway.mint(&bob).await).await.token;
    let (message, _) = token.rsplit_once('.').unwrap();
    let signature = base64url(&audit.sign(message.as_bytes()).to_bytes());
    assert_eq!(gateway.verdict(&format!("{message}.{signature}")).await, "token_signature");
}

#[tokio::test]
async fn a_life_of_tokens_out_of_bounds_is_refused() {
    let fresh = Fresh::sqlite().await;
    let gateway = Process::start(fresh.db).await;
    for (seconds, good) in [(59, false), (60, true), (3600, true), (3601, false)] {
        let settings = AuthSettings { ttl: Duration::from_secs(seconds), ..AuthSettings::new("https://g") };
        let opened = Auth::open(
            gateway.db.clone(),
            &gateway.keys,
            settings,
            gateway.clock.clone(),
            Arc::new(SystemEntropy),
        )
        .await;
        assert_eq!(opened.is_ok(), good, "{seconds}");
    }
}

#[tokio::test]
async fn nothing_secret_is_in_any_debug_output() {
    let fresh = Fresh::sqlite().await;
    let gateway = Process::start(fresh.db).await;
    let alice = gateway.user("acme", "alice").await;
    let pat = gateway.mint(&alice).await;
    let issued = gateway.exchange(&pat).await;
    let principal = gateway.auth.authenticate(&issued.token, None).await.unwrap();
    let printed = format!("{:?} {issued:?} {pat:?} {principal:?}", gateway.auth);
    assert!(!printed.contains(&issued.token[20..]));
    assert!(!printed.contains(&pat.text[24..60]));
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
