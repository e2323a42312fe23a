//! The developer's kit: from nothing to a hook of one's own that a gateway runs, and what becomes of mistakes on the way.
//! The story in Rust needs cargo alone. Those in JavaScript, TypeScript and Python fetch their toolchains from package
//! registries: they are asked for with `SALLYPORT_KITS=1`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sallyport_protocol::package::Kind;
use sallyport_tests::gateway::{Config, TestApp, binary, profile_dir};
use sallyport_tests::hostile;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::vendor::Admin;
use sallyport_tests::wait::{SOON, until_true};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hello;

/// What the sample hook of every language is configured with.
fn guard() -> Value {
    json!({"tools": ["Bash"], "words": ["rm -rf"], "reason": "deleting needs a person"})
}

/// A developer's folder.
struct DeveloperFolder {
    dir: TempDir,
}

impl DeveloperFolder {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command line in the folder, where nobody has a configuration.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("--home").arg(self.path("no-home")).args(words).current_dir(self.dir.path());
        // The crates are those of this very workspace, built once for all runs and fetched from nowhere.
        command.env("CARGO_TARGET_DIR", profile_dir().join("kit")).env("CARGO_NET_OFFLINE", "true");
        command.output().unwrap()
    }

    /// The answer of a command that works.
    fn ask(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The answer of a command that says no, with status 1.
    fn no(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command complains of that cannot do what it is asked.
    fn complaint(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "a complaint is no answer");
        said
    }

    /// A key for the namespace `acme`: its public half.
    fn key(&self, name: &str) -> String {
        let made = self.ask(&[
            "key",
            "generate",
            "--out",
            name,
            "--name",
            "acme",
            "--kind",
            "hook",
            "--kind",
            "policy",
            "--kind",
            "predicate",
        ]);
        made["public_key"].as_str().unwrap().to_owned()
    }

    /// An honest policy, which allows everything, as if it had just been built: `policy.wasm` and `policy.toml`.
    fn policy(&self) {
        let (_, wasm) = hostile::component("00-honest-policy");
        self.wasm("policy", &wasm, "policy", "");
    }

    fn wasm(&self, file: &str, wasm: &[u8], kind: &str, more: &str) {
        let manifest = format!(
            "name = \"acme/{file}\"\nversion = \"0.1.0\"\nserial = 1\nkind = \"{kind}\"\nworld = \"{kind}@0.1.0\"\n\
             min_host = \"0.1.0\"\nreleased = \"2026-01-01\"\n{more}"
        );
        std::fs::write(self.path(&format!("{file}.wasm")), wasm).unwrap();
        std::fs::write(self.path(&format!("{file}.toml")), manifest).unwrap();
    }

    fn sample(&self, dir: &str, name: &str, sample: &Value) {
        std::fs::create_dir_all(self.path(dir)).unwrap();
        std::fs::write(self.path(dir).join(name), sample.to_string()).unwrap();
    }
}

/// From nothing to a hook that stops a tool call, in one language.
async fn ten_minutes(lang: &str) {
    let folder = DeveloperFolder::new();
    let name = format!("acme/no-shell-{lang}");
    folder.ask(&["component", "new", &name, "--lang", lang, "--dir", "project"]);
    let built = folder.ask(&["component", "build", "--dir", "project"]);
    assert_eq!(built["samples"], 3);
    let tested = folder.ask(&["component", "test", "project"]);
    assert_eq!((&tested["passed"], &tested["failed"]), (&json!(3), &json!(0)), "{tested}");
    let case = &tested["cases"][0];
    assert_eq!(case["name"], "destructive-command");
    assert_eq!(case["answer"]["outcome"], "block");
    assert!(case["fuel"].as_u64().unwrap() > 0 && case["memory_bytes"].as_u64().unwrap() > 65_536, "{case}");

    let key = folder.key("publisher.key");
    let signed = folder.ask(&["component", "sign", "project", "--key", "publisher.key"]);
    let digest = signed["digest"].as_str().unwrap();
    assert_eq!(signed["digest"], built["digest"]);
    let package = folder.path(signed["package"].as_str().unwrap());
    let shown = package.display().to_string();
    let verified = folder.ask(&["component", "verify", &shown, "--publisher", &key, "--namespace", "acme"]);
    assert_eq!(verified["trusted"], true);
    for what in [&shown, "project"] {
        let inspected = folder.ask(&["component", "inspect", what]);
        assert_eq!((&inspected["kind"], &inspected["problems"]), (&json!("hook"), &json!([])));
        assert_eq!(inspected["digest"], built["digest"]);
    }
    assert_eq!(folder.ask(&["component", "test", &shown])["passed"], 3, "the samples travel in the package");

    let trusting = |config: Config| {
        config
            .set("/components/publishers", json!([{"key": key, "namespace": "acme", "kinds": ["hook"]}]))
            .set("/components/packages", json!([package]))
            .component(&name, guard())
    };
    let app = TestApp::with(trusting).await;
    let tool =
        |command: &str| vec![Turn::Tool("toolu_01Held".into(), "Bash".into(), json!({"command": command}))];
    app.upstream.script(Script::Turn(tool("rm -rf /")));
    let reply = app.messages(hello()).await;
    assert!(reply.text().contains("deleting needs a person"), "{reply}");
    let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
    let hook = rows.iter().find(|row| row["kind"] == "hook").unwrap_or_else(|| panic!("no hook in {rows:?}"));
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert!(hook.to_string().contains(hex), "the row names what decided: {hook}");
    app.upstream.script(Script::Turn(tool("ls")));
    assert!(app.messages(hello()).await.to_string().contains("tool_use"), "a harmless command passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_in_rust_goes_from_nothing_to_a_blocked_tool_call() {
    ten_minutes("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_in_other_languages_go_from_nothing_to_a_blocked_tool_call() {
    if std::env::var_os("SALLYPORT_KITS").is_none() {
        crate::tell(
            "skipped: components in JavaScript, TypeScript and Python (set SALLYPORT_KITS=1 to fetch their toolchains)",
        );
        return;
    }
    for (lang, tool) in [("js", "npm"), ("ts", "npm"), ("python", "python3")] {
        let installed = Command::new(tool).arg("--version").output().is_ok();
        assert!(installed, "a component in {lang} was asked for, and {tool} is not installed");
        ten_minutes(lang).await;
    }
}

/// From nothing to a policy that refuses a model and a predicate that chooses a route, in one language. They read the body that
/// they are lent.
async fn policy_and_predicate(lang: &str) {
    let folder = DeveloperFolder::new();
    let key = folder.key("publisher.key");
    let mut packages = Vec::new();
    for (kind, samples) in [("policy", 4), ("predicate", 2)] {
        let name = format!("acme/{kind}-{lang}");
        folder.ask(&["component", "new", &name, "--kind", kind, "--lang", lang, "--dir", kind]);
        folder.ask(&["component", "build", "--dir", kind]);
        let tested = folder.ask(&["component", "test", kind]);
        assert_eq!((&tested["passed"], &tested["failed"]), (&json!(samples), &json!(0)), "{tested}");
        let signed = folder.ask(&["component", "sign", kind, "--key", "publisher.key"]);
        packages.push(folder.path(signed["package"].as_str().unwrap()));
    }
    let kinds = ["policy", "predicate"];
    let app = TestApp::with(|config| {
        config
            .set("/components/publishers", json!([{"key": key, "namespace": "acme", "kinds": kinds}]))
            .set("/components/packages", json!(packages))
            .component(&format!("acme/policy-{lang}"), json!({"models": ["claude-"]}))
            .route(json!({
                "model_pattern": "claude-*", "provider": "echo",
                "predicate": format!("acme/predicate-{lang}"), "predicate_config": {"more_than": 1},
            }))
    })
    .await;
    // The sample policy lets the platform's admins use every model.
    let member = Admin::new_tenant(&app, "other", "tenant-admin");
    let refused = member.call(&crate::ask("gpt-9", "Hello")).await;
    assert_eq!(app.row_of(&refused).await["payload"]["code"], "model_not_listed", "{refused}");
    app.upstream.script(Script::text("from the upstream"));
    assert!(member.call(&hello()).await.text().contains("from the upstream"), "a short one goes on");
    let mut long = hello();
    let message = long["messages"][0].clone();
    long["messages"] = json!([message, {"role": "assistant", "content": "Hello."}, message]);
    let echoed = member.call(&long).await;
    assert_eq!((echoed.status, app.upstream.seen()), (200, 1), "a long one is the echo's: {echoed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_predicates_in_other_languages_decide_in_a_gateway() {
    if std::env::var_os("SALLYPORT_KITS").is_none() {
        crate::tell(
            "skipped: policies in JavaScript and Python (set SALLYPORT_KITS=1 to fetch their toolchains)",
        );
        return;
    }
    for (lang, tool) in [("js", "npm"), ("python", "python3")] {
        let installed = Command::new(tool).arg("--version").output().is_ok();
        assert!(installed, "a component in {lang} was asked for, and {tool} is not installed");
        policy_and_predicate(lang).await;
    }
}

#[test]
fn a_tool_that_is_missing_is_named_with_where_to_get_it() {
    let folder = DeveloperFolder::new();
    for (lang, tool, place) in
        [("rust", "rustc", "rustup.rs"), ("js", "npm", "nodejs.org"), ("python", "python3", "python.org")]
    {
        folder.ask(&["component", "new", "acme/x", "--lang", lang, "--dir", lang]);
        let mut command = Command::new(binary());
        command
            .args(["component", "build", "--dir"])
            .arg(folder.path(lang))
            .env("PATH", folder.path("empty"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains(&format!("{tool} is needed and not installed")) && said.contains(place),
            "{said}"
        );
    }
}

#[test]
fn a_sample_that_fails_is_status_1_and_says_what_came_instead() {
    let folder = DeveloperFolder::new();
    folder.policy();
    folder.sample("good", "allowed.json", &json!({"call": {}, "expect": {"verdict": "allow"}}));
    folder.sample("bad", "denied.json", &json!({"call": {}, "expect": {"verdict": "deny"}}));
    folder.sample("bad", "anything.json", &json!({"call": {"model": "gpt-5"}}));
    folder.sample("odd", "misspelt.json", &json!({"call": {}, "expects": {}}));
    assert_eq!(folder.ask(&["component", "test", "policy.wasm", "--events", "good"])["passed"], 1);
    let answer = folder.no(&["component", "test", "policy.wasm", "--events", "bad"]);
    assert_eq!((&answer["passed"], &answer["failed"]), (&json!(1), &json!(1)));
    assert_eq!(answer["cases"][1]["answer"], json!({"verdict": "allow"}));
    assert!(
        folder
            .complaint(&["component", "test", "policy.wasm", "--events", "odd"])
            .contains("unknown field `expects`")
    );
    assert!(folder.complaint(&["component", "test", "policy.wasm"]).contains("there is no sample"));
    assert!(
        folder.complaint(&["component", "test", "policy.wasm", "--events", "none"]).contains("is no folder")
    );
    assert!(
        folder
            .complaint(&["component", "test", "good/allowed.json"])
            .contains("neither a package nor a component")
    );
}

#[test]
fn a_guest_that_breaks_is_an_answer_with_its_fault() {
    let folder = DeveloperFolder::new();
    for (guest, fault) in [("01-loop", "deadline"), ("24-panic", "trap"), ("04-memory-grow", "memory")] {
        let (kind, wasm) = hostile::component(guest);
        assert_eq!(kind, Some(Kind::Policy), "{guest}");
        std::fs::write(folder.path("guest.wasm"), wasm).unwrap();
        folder.sample("samples", "call.json", &json!({"call": {}, "expect": {"fault": fault}}));
        let answer = folder.ask(&["component", "test", "guest.wasm", "--events", "samples"]);
        assert_eq!(answer["cases"][0]["answer"]["fault"], fault, "{answer}");
        folder.sample("samples", "call.json", &json!({"call": {}}));
        folder.no(&["component", "test", "guest.wasm", "--events", "samples"]);
    }
}

#[test]
fn a_component_that_asks_for_the_network_is_not_signed() {
    let folder = DeveloperFolder::new();
    folder.key("publisher.key");
    let text = r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#;
    folder.wasm("greedy", &wat::parse_str(text).unwrap(), "policy", "");
    let said = folder.complaint(&["component", "sign", "greedy.wasm", "--key", "publisher.key"]);
    assert!(said.contains("a policy may not import wasi:http/outgoing-handler@0.2.0"), "{said}");
    assert!(!folder.path("acme.greedy.sallyport").exists());
    let inspected = folder.no(&["component", "inspect", "greedy.wasm"]);
    assert!(inspected["problems"][0].as_str().unwrap().contains("wasi:http"), "{inspected}");
    let garbage = folder.path("garbage.wasm");
    std::fs::write(&garbage, b"\0asm\x0d\0\x01\0garbage").unwrap();
    assert!(folder.complaint(&["component", "inspect", "garbage.wasm"]).contains("no gateway would take"));
}

#[test]
fn a_package_is_trusted_for_its_key_and_namespace_and_as_it_was_signed() {
    let folder = DeveloperFolder::new();
    folder.policy();
    let (key, other) = (folder.key("publisher.key"), folder.key("other.key"));
    folder.ask(&["component", "sign", "policy.wasm", "--key", "publisher.key"]);
    let package = "acme.policy.sallyport";
    let verify = |package: &str, key: &str, namespace: &str| {
        ["component", "verify", package, "--publisher", key, "--namespace", namespace].map(str::to_owned)
    };
    let why = |words: &[String]| {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let answer = folder.no(&words);
        assert_eq!(answer["trusted"], false);
        answer["why"][0].as_str().unwrap().to_owned()
    };
    let words = verify(package, &key, "acme");
    assert_eq!(folder.ask(&words.each_ref().map(String::as_str))["trusted"], true);
    assert!(why(&verify(package, &other, "acme")).contains("no publisher's key"));
    assert!(why(&verify(package, &key, "umbrella")).contains("may not sign in the namespace acme"));
    let mut bytes = std::fs::read(folder.path(package)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(folder.path("tampered.sallyport"), &bytes).unwrap();
    assert!(why(&verify("tampered.sallyport", &key, "acme")).contains("not the one that was signed"));
    std::fs::write(folder.path("cut.sallyport"), &bytes[..40]).unwrap();
    assert!(
        folder
            .complaint(&["component", "verify", "cut.sallyport", "--publisher", &key])
            .contains("is no package")
    );
}

#[test]
fn a_key_that_others_can_read_signs_nothing() {
    let folder = DeveloperFolder::new();
    folder.policy();
    folder.key("publisher.key");
    std::fs::set_permissions(folder.path("publisher.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = folder.complaint(&["component", "sign", "policy.wasm", "--key", "publisher.key"]);
    assert!(said.contains("others must have no access"), "{said}");
    assert!(
        folder
            .complaint(&["component", "sign", "policy.wasm", "--key", "none.key"])
            .contains("the key cannot be used")
    );
    std::fs::write(folder.path("short.key"), "c2hvcnQ=").unwrap();
    std::fs::set_permissions(folder.path("short.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        folder
            .complaint(&["component", "sign", "policy.wasm", "--key", "short.key"])
            .contains("holds no key")
    );
}

/// `wasm` with a custom section that says what it should answer.
fn with_samples(wasm: &[u8], samples: &Value) -> Vec<u8> {
    let name = b"sallyport-samples";
    let json = samples.to_string().into_bytes();
    let length = 1 + name.len() + json.len();
    assert!((128..16_384).contains(&length), "two bytes of LEB128");
    let length = [u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
    [wasm, &[0], &length, &[u8::try_from(name.len()).unwrap()], name, &json].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_fails_the_samples_it_carries_is_not_let_in() {
    let folder = DeveloperFolder::new();
    let key = folder.key("publisher.key");
    let (_, wasm) = hostile::component("00-honest-policy");
    let about = "padding, so that the section has the length that this test writes down ".repeat(2);
    let samples =
        |verdict: &str| json!({"a-call": {"about": about, "call": {}, "expect": {"verdict": verdict}}});
    folder.wasm("liar", &with_samples(&wasm, &samples("deny")), "policy", "");
    folder.wasm("honest", &with_samples(&wasm, &samples("allow")), "policy", "");
    for name in ["liar", "honest"] {
        folder.ask(&["component", "sign", &format!("{name}.wasm"), "--key", "publisher.key"]);
    }
    let app = TestApp::start().await;
    let take = |name: &str| {
        let package = folder.path(&format!("acme.{name}.sallyport"));
        let (name, key) = (format!("acme/{name}"), key.clone());
        move |config: Config| {
            config
                .no_components()
                .set(
                    "/components/publishers",
                    json!([{"key": key, "namespace": "acme", "kinds": ["policy"]}]),
                )
                .set("/components/packages", json!([package]))
                .component(&name, json!({}))
        }
    };
    app.reload(take("liar"));
    until_true("the log says why", SOON, || {
        let log = app.log();
        log.contains("fails its self-test") && log.contains("sample a-call")
    })
    .await;
    let named = async || app.row_of(&app.messages(hello()).await).await.to_string();
    assert!(!named().await.contains("acme/"), "the bundle before stays in force");
    app.reload(take("honest"));
    sallyport_tests::wait::until("the honest one is in force", SOON, || async {
        named().await.contains("acme/honest").then_some(())
    })
    .await;
}

#[test]
fn what_was_changed_after_the_build_is_not_signed() {
    let folder = DeveloperFolder::new();
    folder.key("publisher.key");
    let (_, wasm) = hostile::component("00-honest-policy");
    std::fs::create_dir_all(folder.path("project/target")).unwrap();
    folder.wasm("policy", &wasm, "policy", "");
    let manifest = std::fs::read_to_string(folder.path("policy.toml")).unwrap();
    let place =
        |name: &str, text: &str| std::fs::write(folder.path("project").join(Path::new(name)), text).unwrap();
    std::fs::copy(folder.path("policy.wasm"), folder.path("project/target/policy.wasm")).unwrap();
    place("target/policy.toml", &manifest);
    place("component.toml", &manifest.replace("serial = 1", "serial = 2"));
    let said = folder.complaint(&["component", "sign", "project", "--key", "publisher.key"]);
    assert!(said.contains("component.toml has changed since the component was built"), "{said}");
    place("component.toml", &manifest);
    assert_eq!(folder.ask(&["component", "sign", "project", "--key", "publisher.key"])["serial"], 1);
}
