//! Stories about secrets: where they come from, and what never shows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{ExposeSecret as _, Secrets};

fn write(home: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = home.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn complaints(path: &Path) -> Vec<String> {
    Secrets::load(path).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn values_come_from_the_file_other_files_and_commands() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "mounted", "from-a-file\n", 0o440);
    let text = "plain: in-place\nmounted: { file: mounted }\nasked: { command: [printf, from-a-command] }\n";
    let secrets = Secrets::load(&write(home.path(), "secrets.yaml", text, 0o600)).unwrap();
    let value = |name| secrets.get(name).unwrap().expose_secret().to_owned();
    assert_eq!(
        [value("plain"), value("mounted"), value("asked")],
        ["in-place", "from-a-file", "from-a-command"]
    );
    assert!(secrets.get("other").is_none());
}

#[test]
fn a_missing_or_empty_file_holds_no_secrets() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(Secrets::load(&home.path().join("secrets.yaml")).unwrap().names().count(), 0);
    let path = write(home.path(), "secrets.yaml", "# nothing yet\n", 0o600);
    assert_eq!(Secrets::load(&path).unwrap().names().count(), 0);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        let path = write(home.path(), "secrets.yaml", "a: b\n", mode);
        assert!(complaints(&path).concat().contains(&format!("mode {mode:04o}")), "{mode:o}");
    }
    write(home.path(), "mounted", "x", 0o644);
    let path = write(home.path(), "secrets.yaml", "a: { file: mounted }\n", 0o600);
    assert!(complaints(&path).concat().contains("mode 0644"));
}

#[test]
fn everything_wrong_is_said_at_once_and_without_a_value() {
    let home = tempfile::tempdir().unwrap();
    let text = "empty: ''\nnumber: 4711\nlist: [canary]\nnowhere: { file: missing }\nunset: { env: SALLYPORT_TEST_NO_SUCH }\nfails: { command: ['false'] }\ntwo: { file: a, env: canary }\n";
    let found = complaints(&write(home.path(), "secrets.yaml", text, 0o600));
    assert_eq!(found.len(), 7, "{found:#?}");
    let all = found.concat();
    assert!(!all.contains("canary") && !all.contains("4711"), "{all}");
}

#[test]
fn a_file_that_is_not_yaml_is_refused_without_quoting_it() {
    let home = tempfile::tempdir().unwrap();
    for text in ["- canary\n", "key: [canary\n", "canary", "a: 1\na: canary\n", "a: { canary: x }\n"] {
        let all = complaints(&write(home.path(), "secrets.yaml", text, 0o600)).concat();
        assert!(!all.contains("canary"), "{all}");
    }
}

#[test]
fn debug_names_secrets_and_never_shows_one() {
    let secrets: Secrets = [("key", "canary")].into_iter().collect();
    let shown = format!("{secrets:?} {:?}", secrets.get("key"));
    assert!(shown.contains("key") && !shown.contains("canary"), "{shown}");
}
