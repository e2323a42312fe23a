//! The workstation's program against the gateway: what it prints is what the gateway takes, and ends when the gateway says so.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use sallyport_tests::gateway::{TestApp, profile_dir};
use serde_json::Value;
use tempfile::TempDir;

use crate::hello;

/// Built on first use, beside this executable.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = profile_dir().join("sp-cowork-auth");
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        // The whole workspace, so that features are those of everything else.
        build
            .args(["build", "--workspace", "--bin", "sp-cowork-auth"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile_dir().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    program
});

/// A user's machine.
struct Workstation {
    home: TempDir,
}

impl Workstation {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(&*PROGRAM)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("SP_COWORK_KEYSTORE", "file")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end without reading.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    }

    fn does(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn forget(&self) {
        fs::remove_file(self.home.path().join(".cache/systemprompt/systemprompt-cowork.json")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workstation_prints_is_what_the_gateway_takes_until_the_token_is_revoked() {
    let app = TestApp::start().await;
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "admin", "--name", "cowork laptop"]);
    let workstation = Workstation::new();
    workstation.does(&["install", "--gateway", &app.url()], "");
    let told = workstation.does(&["login"], minted["token"].as_str().unwrap());
    assert!(told.contains("signed in at"), "{told}");

    let printed: Value = serde_json::from_str(&workstation.does(&[], "")).unwrap();
    let bearer = format!("Bearer {}", printed["token"].as_str().unwrap());
    let mut headers = vec![("authorization", bearer.as_str())];
    let seven = printed["headers"].as_object().unwrap();
    assert_eq!(seven.len(), 7);
    headers.extend(seven.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
    let reply = app.post("/v1/messages", &headers, hello().to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");
    let row = app.row_of(&reply).await;
    assert_eq!(row["user_id"], seven["x-user-id"], "{row}");
    assert_eq!(row["client_id"], "sp_cowork");

    let bare = workstation.does(&["--format", "bare"], "");
    assert_eq!(bare.trim_end(), printed["token"].as_str().unwrap(), "one session, from the cache");
    let looked = workstation.run(&["validate"], "");
    let looked = String::from_utf8(looked.stdout).unwrap();
    assert!(looked.contains("[ok] gateway: ") && looked.contains("[ok] sign-in: by pat"), "{looked}");
    assert!(workstation.does(&["whoami"], "").contains(seven["x-user-id"].as_str().unwrap()));

    app.cli(&["gateway", "pat", "revoke", minted["id"].as_str().unwrap()]);
    workstation.forget();
    sallyport_tests::wait::until("the gateway refuses it", sallyport_tests::wait::SOON, || {
        let ran = workstation.run(&[], "");
        let refused = ran.status.code() == Some(5);
        if refused {
            assert_eq!(ran.stdout, b"", "nothing for the client");
        } else {
            workstation.forget();
        }
        std::future::ready(refused.then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_gateway_does_not_know_signs_nobody_in() {
    let app = TestApp::start().await;
    let workstation = Workstation::new();
    workstation.does(&["install", "--gateway", &app.url()], "");
    let mut typo = app.token.clone();
    let last = typo.pop().unwrap();
    typo.push(if last == '0' { '1' } else { '0' });
    let ran = workstation.run(&["login"], &typo);
    assert_eq!(ran.status.code(), Some(5), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(workstation.run(&[], "").status.code(), Some(5));
}
