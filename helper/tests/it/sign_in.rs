//! Signing in and out, and what is said about it.

use std::fs;

use serde_json::json;

use crate::double::{Double, credential, ok};
use crate::station::{PAT, Station};

#[test]
fn a_token_is_read_from_standard_input_and_kept_for_the_next_run() {
    let gateway = Double::kind(3600);
    let station = Station::bare().with("SP_COWORK_GATEWAY_URL", gateway.url());
    let ran = station.run_with(&["login", "--keystore", "file"], &format!("{PAT}\n"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.out, format!("signed in at {} as u_29f8a3 of acme\n", gateway.url()));
    assert_eq!(ran.err, "");
    assert!(
        !fs::read_to_string(station.config()).unwrap().contains("sp_pat_"),
        "no secret in the configuration"
    );
    assert!(!fs::read_to_string(station.cache()).unwrap().contains("sp_pat_"));
    assert_eq!(station.run(&[]).credential()["token"], "token-1");
    // On the command line it works too, and a person is told why not.
    let ran = station.run(&["login", PAT]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("standard input") && ran.err.lines().count() == 1, "{}", ran.err);
    assert_eq!(station.run(&[]).credential()["token"], "token-2", "the credential of before is forgotten");
}

#[test]
fn a_second_sign_in_keeps_every_other_setting() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    let text = format!(
        "# by device management\ngateway_url = \"{}\" # do not change\nkeystore = \"file\"\ntimeout_sec = 9\n\n[sync]\npinned_pubkey = \"k\"\n",
        gateway.url()
    );
    station.write_config(&text);
    station.login();
    let once = fs::read_to_string(station.config()).unwrap();
    assert_eq!(once, format!("{text}\n[pat]\nkeystore_service = \"systemprompt-cowork-pat\"\n"));
    station.login();
    assert_eq!(fs::read_to_string(station.config()).unwrap(), once);
}

#[test]
fn signing_out_forgets_the_token_and_the_credential() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    station.login();
    let ran = station.run(&["logout"]);
    assert_eq!(ran.out, format!("signed out of {} (pat)\n", gateway.url()));
    assert!(!station.cache().exists());
    assert!(!fs::read_to_string(station.secrets()).unwrap().contains("sp_pat_"));
    station.run(&[]).fails(5);
    assert_eq!(station.run(&["logout"]).out, format!("nobody was signed in at {}\n", gateway.url()));
    assert_eq!(gateway.requests().len(), 1);
}

#[test]
fn status_says_who_is_signed_in_and_asks_no_gateway() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    station.login();
    let ran = station.run(&["status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("pat         signed in"), "{}", ran.out);
    assert!(ran.out.contains("credential  u_29f8a3 of acme, cached for "), "{}", ran.out);
    assert!(!ran.out.contains("token-1") && !ran.out.contains("sp_pat_"), "no secret: {}", ran.out);
    assert_eq!(gateway.requests().len(), 1);
}

#[test]
fn whoami_is_what_the_gateway_says() {
    let gateway = Double::start(|number, request| {
        if request.starts_with("GET /v1/cowork/whoami ") {
            assert!(request.to_lowercase().contains("\r\nauthorization: bearer token-1\r\n"), "{request}");
            return ok(
                &json!({ "user": "u_1", "name": "Ann\u{1b}[2J", "roles": ["member", "author"], "department": null }),
            );
        }
        ok(&credential(&format!("token-{number}"), 3600))
    });
    let station = Station::new(&gateway.url());
    station.login();
    let ran = station.run(&["whoami"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("user            u_1\n"), "{}", ran.out);
    assert!(ran.out.contains("roles           member, author\n"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'));
}
