//! Machines that are not as they should be: configurations, environments, keystores and disks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::double::{Double, error, status};
use crate::station::{PAT, Ran, Station};

#[test]
fn a_configuration_with_a_mistake_is_refused_with_line_and_key() {
    let station = Station::bare();
    for (text, line, key) in [
        ("gateway_url = \"https://x.example\"\ncache_folder = \"/tmp\"\n", 2, "cache_folder"),
        ("\n\ngateway_url = 5\n", 3, "gateway_url"),
        ("[pat]\nkeystore_service = true\n", 2, "pat.keystore_service"),
        ("gateway_url = \"https://x.example\n", 1, "gateway_url"),
        ("[pat\n", 1, ""),
        ("pat = 1\npat = 2\n", 2, "pat"),
    ] {
        station.write_config(text);
        for arguments in [&[][..], &["status"], &["login"], &["logout"], &["whoami"]] {
            let ran = station.run(arguments);
            let told = ran.fails(64);
            assert!(told.contains(&format!("cowork.toml, line {line}: {key}")), "{text:?} {told}");
        }
    }
    station.write_config(&"#".repeat(100_000));
    station.run(&[]).fails(64);
    fs::write(station.config(), b"gateway_url = \"\xff\"").unwrap();
    assert!(station.run(&[]).fails(64).contains("line 1: is not UTF-8"));
}

#[test]
fn an_address_in_clear_is_for_this_machine_alone() {
    for url in [
        "http://gateway.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        "gateway.example.com",
    ] {
        let told = Station::new(url).run(&[]).fails(64).to_owned();
        assert!(told.contains("gateway_url"), "{told}");
        let told = Station::bare().with("SP_COWORK_GATEWAY_URL", url).run(&[]).fails(64).to_owned();
        assert!(told.contains("SP_COWORK_GATEWAY_URL"), "{told}");
    }
}

#[test]
fn a_command_line_or_variable_that_nobody_knows_is_refused() {
    let station = Station::bare();
    for arguments in [&["frobnicate"][..], &["--frobnicate"], &["run", "more"], &["--format", "xml"]] {
        station.run(arguments).fails(64);
    }
    Station::bare().with("SP_COWORK_GATEWY_URL", "https://x.example").run(&[]).fails(64);
    Station::bare().with("SP_COWORK_TIMEOUT_SEC", "0").run(&[]).fails(64);
    Station::bare().with("SP_COWORK_KEYSTORE", "files").run(&[]).fails(64);
    assert!(station.run(&[]).fails(64).contains("install --gateway"), "it says what to do");
    assert!(station.run(&["--help"]).out.contains("Exit codes"));
}

#[test]
fn nobody_is_signed_in_until_somebody_signs_in() {
    let station = Station::new("https://gateway.example.com");
    assert!(station.run(&[]).fails(5).contains("sp-cowork-auth login"));
    let status = station.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.out.contains("gateway     https://gateway.example.com"), "{}", status.out);
}

#[test]
fn a_keystore_that_does_not_answer_is_a_tier_that_failed() {
    for bus in ["unix:path=/nonexistent/bus", "nonsense", ""] {
        let station = Station::new("https://gateway.example.com").with("DBUS_SESSION_BUS_ADDRESS", bus);
        station.write_config("gateway_url = \"https://gateway.example.com\"\n[pat]\n");
        let told = station.run(&[]).fails(10).to_owned();
        assert!(told.contains("keystore"), "{told}");
    }
}

#[test]
fn a_file_of_secrets_that_others_may_read_is_refused() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    station.login();
    fs::set_permissions(station.secrets(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(station.cache()).unwrap();
    assert!(station.run(&[]).fails(10).contains("chmod 600"));
    fs::set_permissions(station.secrets(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(station.secrets(), "{").unwrap();
    station.run(&[]).fails(10);
}

#[test]
fn where_nothing_can_be_written_the_credential_is_printed_and_nothing_is_kept() {
    let gateway = Double::kind(3600);
    // Not a folder, so that nobody may write there, root included.
    let station =
        Station::new(&gateway.url()).with("SP_COWORK_PAT", PAT).with("XDG_CACHE_HOME", "/dev/null/cache");
    let ran = station.run(&[]);
    ran.credential();
    assert!(ran.err.contains("is not cached"), "{}", ran.err);
    assert_eq!(station.files(), [".config/systemprompt/systemprompt-cowork.toml"]);

    let station = Station::bare()
        .with("SP_COWORK_GATEWAY_URL", gateway.url())
        .with("SP_COWORK_KEYSTORE", "file")
        .with("XDG_CONFIG_HOME", "/dev/null/config");
    let ran = station.run_with(&["login"], PAT);
    ran.fails(70);
    assert!(!station.cache().exists(), "who is not signed in has no credential");
}

#[test]
fn a_token_that_is_refused_is_not_kept() {
    let gateway = Double::start(|_, _| status("401 Unauthorized", &error("no such token")));
    let station = Station::new(&gateway.url());
    let before = station.files();
    let ran = station.run_with(&["login"], PAT);
    assert!(ran.fails(5).contains("no such token"));
    let after: Vec<_> =
        station.files().into_iter().filter(|file| !file.contains("systemprompt-cowork.lock")).collect();
    assert_eq!(after, before);
    for text in ["", "\n", "Bearer sp_pat_1", "hello", "sp_pat_a b", &format!("{PAT}\n{PAT}")] {
        Ran::fails(&station.run_with(&["login"], text), 64);
    }
    assert_eq!(gateway.requests().len(), 1, "what is no token is not sent");
}
