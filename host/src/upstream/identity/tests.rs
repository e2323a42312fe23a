//! One token for everybody who waits, the next one ahead of its end, and nothing of an identity server's words anywhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use time::macros::datetime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::ManualClock;
use crate::config::{AzureCredential, AzureProof, ExposeSecret as _, TokenUrl};

/// What a token server says, in this order and then no more.
type Said = Arc<Mutex<VecDeque<(u16, String)>>>;

struct TokenServer {
    url: String,
    said: Said,
    asked: Arc<AtomicUsize>,
}

impl TokenServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (said, asked) = (Said::default(), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&said), Arc::clone(&asked));
        TokioExecutor::new().execute(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                // The secret is the last field of the form.
                while !(request.windows(14).any(|it| it == b"client_secret=") && request.ends_with(b"-end")) {
                    if peer.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                // Whoever waits has time to come along.
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                let next = answers.lock().unwrap().pop_front();
                let Some((status, body)) = next else { continue };
                let head = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                peer.write_all(head.as_bytes()).await.unwrap();
            }
        });
        Self { url, said, asked }
    }

    fn says(&self, status: u16, body: &str) {
        self.said.lock().unwrap().push_back((status, body.to_owned()));
    }

    fn gives(&self, token: &str, seconds: u64) {
        self.says(
            200,
            &format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#),
        );
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn credential(&self, secret: &str) -> Arc<CloudCredential> {
        let identity = CloudIdentity::Azure(AzureCredential {
            token_url: TokenUrl::parse(&format!("{}/tenant/oauth2/v2.0/token", self.url)).unwrap(),
            client_id: "client".to_owned(),
            scope: "scope".to_owned(),
            proof: AzureProof::Secret(format!("{secret}-end").into()),
        });
        Arc::new(CloudCredential::new("cloud".to_owned(), identity))
    }
}

struct Scene {
    clock: Arc<ManualClock>,
    upstream: Upstream,
    server: TokenServer,
}

impl Scene {
    async fn begin() -> Self {
        let clock = Arc::new(ManualClock::new(datetime!(2026-11-27 12:00 UTC)));
        let upstream = super::super::tests::upstream(Arc::clone(&clock) as Arc<dyn Clock>);
        Self { clock, upstream, server: TokenServer::start().await }
    }

    async fn get(&self, credential: &Arc<CloudCredential>) -> Result<String, IdentityError> {
        match self.upstream.identities.get(&self.upstream, credential).await? {
            Given::Token(token) => Ok(token.expose_secret().to_owned()),
            Given::Keys(_) => panic!("a token"),
        }
    }

    /// Until a fetch that nobody waits for is over.
    async fn settled(&self, credential: &CloudCredential) {
        let slot = Arc::clone(&self.upstream.identities.locked()[credential.fingerprint()]);
        while slot.locked().fetching {
            tokio::task::yield_now().await;
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn story(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story);
}

#[test]
fn a_token_is_fetched_once_for_all_who_wait_and_kept_until_it_is_due() {
    story(async {
        let scene = Scene::begin().await;
        let cloud = scene.server.credential("secret");
        scene.server.gives("first", 3_600);
        let all = join_all((0..50).map(|_| scene.get(&cloud))).await;
        assert!(all.iter().all(|token| token.as_deref() == Ok("first")), "{all:?}");
        assert_eq!(scene.server.asked(), 1);

        // Five minutes before its end another one is fetched, and the old one serves meanwhile.
        scene.pass(3_299);
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));
        assert_eq!(scene.server.asked(), 1);
        scene.pass(1);
        scene.server.gives("second", 3_600);
        let all = join_all((0..50).map(|_| scene.get(&cloud))).await;
        assert!(all.iter().all(|token| token.as_deref() == Ok("first")), "{all:?}");
        scene.settled(&cloud).await;
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("second"));
        assert_eq!(scene.server.asked(), 2);

        // Nobody asked for long: it is over, and whoever comes waits for the next.
        scene.pass(3_600 - 29);
        scene.server.gives("third", 100);
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("third"));
        assert_eq!(scene.server.asked(), 3);
        // A short life has its due time in its last quarter.
        scene.pass(74);
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("third"));
        assert_eq!(scene.server.asked(), 3);
    });
}

#[test]
fn an_identity_server_that_fails_is_left_alone_for_a_while_and_a_token_that_is_good_still_serves() {
    story(async {
        let scene = Scene::begin().await;
        let cloud = scene.server.credential("secret");
        scene.server.says(503, "canary");
        let all = join_all((0..20).map(|_| scene.get(&cloud))).await;
        assert!(all.iter().all(|it| *it == Err(IdentityError::Failing(503))), "{all:?}");
        scene.pass(4);
        assert_eq!(scene.get(&cloud).await, Err(IdentityError::Failing(503)));
        assert_eq!(scene.server.asked(), 1);
        scene.pass(1);
        scene.server.gives("first", 3_600);
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));

        scene.pass(3_400);
        scene.server.says(500, "");
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));
        scene.settled(&cloud).await;
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));
        assert_eq!(scene.server.asked(), 3, "asked once in the pause");
        scene.pass(5);
        scene.server.gives("second", 3_600);
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));
        scene.settled(&cloud).await;
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("second"));
    });
}

#[test]
fn another_secret_is_another_identity_and_a_refused_token_is_not_shown_for_long() {
    story(async {
        let scene = Scene::begin().await;
        let (old, new) = (scene.server.credential("old"), scene.server.credential("new"));
        assert_ne!(old.fingerprint(), new.fingerprint());
        assert_eq!(old.fingerprint(), scene.server.credential("old").fingerprint());
        scene.server.gives("of-old", 3_600);
        scene.server.gives("of-new", 3_600);
        assert_eq!(scene.get(&old).await.as_deref(), Ok("of-old"));
        assert_eq!(scene.get(&new).await.as_deref(), Ok("of-new"));
        assert_eq!(scene.get(&old).await.as_deref(), Ok("of-old"));

        // A token that was just given out is refused for another reason than its age.
        scene.pass(59);
        scene.upstream.identities.doubt(&new, scene.clock.now());
        assert_eq!(scene.get(&new).await.as_deref(), Ok("of-new"));
        scene.pass(1);
        scene.upstream.identities.doubt(&new, scene.clock.now());
        scene.server.gives("newer", 3_600);
        assert_eq!(scene.get(&new).await.as_deref(), Ok("newer"));
        assert_eq!(scene.get(&old).await.as_deref(), Ok("of-old"));
    });
}

#[test]
fn a_caller_who_leaves_takes_nothing_from_the_others() {
    story(async {
        let scene = Scene::begin().await;
        let cloud = scene.server.credential("secret");
        scene.server.gives("first", 3_600);
        assert!(scene.get(&cloud).now_or_never().is_none(), "it has to wait, and does not");
        assert_eq!(scene.get(&cloud).await.as_deref(), Ok("first"));
        assert_eq!(scene.server.asked(), 1);
    });
}

#[test]
fn no_more_identities_are_kept_than_fit() {
    story(async {
        let scene = Scene::begin().await;
        let clouds: Vec<_> =
            (0..=MOST).map(|number| scene.server.credential(&format!("s{number}"))).collect();
        for cloud in &clouds {
            scene.pass(1);
            drop(scene.upstream.identities.slot(cloud, scene.clock.monotonic()));
        }
        let kept = scene.upstream.identities.locked();
        assert_eq!(kept.len(), MOST);
        assert!(!kept.contains_key(clouds[0].fingerprint()) && kept.contains_key(clouds[1].fingerprint()));
    });
}

/// Writes down every event of every level.
struct Everything(Arc<Mutex<String>>);

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Fields(&self.0));
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Fields(&self.0));
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Fields(&self.0));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Fields<'a>(&'a Mutex<String>);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

#[test]
fn whatever_an_identity_server_says_no_secret_is_in_an_error_or_in_the_log_at_any_level() {
    let log = Arc::new(Mutex::new(String::new()));
    let _guard = tracing::subscriber::set_default(Everything(Arc::clone(&log)));
    let long = format!(r#"{{"access_token":"{}"}}"#, "canary".repeat(20_000));
    let answers: [(u16, &str, &str); 16] = [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"canary"}"#,
            "refuses with status 400 (invalid_grant)",
        ),
        (401, r#"{"error":"canary"}"#, "refuses with status 401"),
        (401, r#"{"error":"invalid_client","error_codes":[7000215]}"#, "(AADSTS7000215)"),
        (403, r#"{"error":{"status":"PERMISSION_DENIED","message":"canary"}}"#, "(PERMISSION_DENIED)"),
        (
            403,
            "<ErrorResponse><Error><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>",
            "(AccessDenied)",
        ),
        (403, "<Code>canary</Code>", "refuses with status 403"),
        (429, "canary", "fails with status 429"),
        (502, "canary", "fails with status 502"),
        (302, "canary", "points elsewhere"),
        (200, "canary", "no JSON with an access_token"),
        (200, r#"{"access_token":"","expires_in":3600}"#, "cannot stand in a header"),
        (200, "{\"access_token\":\"canary\\r\\nx: y\",\"expires_in\":3600}", "cannot stand in a header"),
        (200, r#"{"access_token":"canary","expires_in":0}"#, "over as it comes"),
        (200, r#"{"access_token":"canary","expires_in":-1}"#, "expires_in"),
        (200, r#"{"access_token":"canary","expires_in":"soon"}"#, "expires_in"),
        (200, &long, "too large"),
    ];
    story(async {
        for (status, body, said) in answers {
            let scene = Scene::begin().await;
            scene.server.says(status, body);
            let error = scene.get(&scene.server.credential("canary-secret")).await.unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(said), "{said}: {told}");
            assert!(!told.contains("canary"), "{told}");
        }
        // Nothing is said, and the connection is closed.
        let scene = Scene::begin().await;
        let error = scene.get(&scene.server.credential("canary-secret")).await.unwrap_err();
        assert_eq!(error, IdentityError::Unreachable);
        // A token that is good is not written down either.
        let scene = Scene::begin().await;
        scene.server.gives("canary-token", 3_600);
        assert_eq!(scene.get(&scene.server.credential("canary-secret")).await.as_deref(), Ok("canary-token"));
    });
    let log = log.lock().unwrap();
    assert!(log.contains("no identity of the cloud azure"), "and yet there is a log: {log}");
    assert!(!log.contains("canary"), "{log}");
}
