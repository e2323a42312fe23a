//! Stories about the command line: a home from nothing, and what the commands say about it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use super::{Cli, Ending, run};

/// Runs a command line; how it ended, and what it printed.
async fn sallyport(home: &Path, line: &str) -> (anyhow::Result<Ending>, String) {
    let home = home.display().to_string();
    let words = ["sallyport", "--home", home.as_str()].into_iter().chain(line.split_whitespace());
    let mut out = Vec::new();
    let ending = run(Cli::parse_from(words), &mut out).await;
    (ending, String::from_utf8(out).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[tokio::test]
async fn init_makes_a_home_that_checks_and_is_shut_to_others() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let (ending, said) = sallyport(&home, "init").await;
    assert_eq!(ending.unwrap(), Ending::Done, "{said}");
    assert!(said.contains("serve"), "{said}");
    assert_eq!(mode(&home.join("secrets.yaml")), 0o600);
    assert_eq!(mode(&home.join("keys")), 0o700);
    assert_eq!(mode(&home.join("sallyport.sqlite")), 0o600);
    for name in ["spool", "cache", "sallyport.sqlite", "sallyport.yaml"] {
        assert!(home.join(name).exists(), "{name}");
    }
    let (ending, said) = sallyport(&home, "check").await;
    assert_eq!(ending.unwrap(), Ending::Done, "{said}");
}

#[tokio::test]
async fn init_leaves_a_home_that_is_there_alone() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    sallyport(&home, "init").await.0.unwrap();
    let config = home.join("sallyport.yaml");
    fs::write(&config, "mine").unwrap();
    assert!(sallyport(&home, "init").await.0.is_err());
    assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
}

#[tokio::test]
async fn check_lists_every_problem_for_programs_too() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("sallyport.yaml"), "gatway: {}\nauth: { ttl_seconds: 1 }\n").unwrap();
    let (ending, said) = sallyport(home.path(), "check --json").await;
    assert_eq!(ending.unwrap(), Ending::Refused);
    let answer: Value = serde_json::from_str(&said).unwrap();
    let paths: Vec<_> =
        answer["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["gatway", "gateway", "auth.ttl_seconds"]);
}

#[tokio::test]
async fn config_show_prints_what_is_in_force_and_no_secret() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    sallyport(&home, "init").await.0.unwrap();
    let secrets = home.join("secrets.yaml");
    fs::write(&secrets, "anthropic_prod: canary\n").unwrap();
    for line in ["config show", "config show --json"] {
        let (ending, said) = sallyport(&home, line).await;
        assert_eq!(ending.unwrap(), Ending::Done);
        assert!(
            said.contains("anthropic_prod") && said.contains("33554432") && !said.contains("canary"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn doctor_says_what_is_missing() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    sallyport(&home, "init").await.0.unwrap();
    // The program of this process is the tests', which starts no worker: a story asks the binary whether all is well.
    let (_, said) = sallyport(&home, "doctor").await;
    let failures: Vec<_> = said.lines().filter(|line| line.starts_with("failure")).collect();
    assert!(failures.iter().all(|line| line.starts_with("failure  worker process")), "{said}");
    fs::set_permissions(home.join("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let (ending, said) = sallyport(&home, "doctor").await;
    assert_eq!(ending.unwrap(), Ending::Failed);
    assert!(said.contains("failure  keys"), "{said}");
}
