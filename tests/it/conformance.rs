//! What every provider that ships carries of the Messages API, by `component test --conformance`: the table that its users rely on, and
//! a provider that carries nothing.

use std::process::{Command, Output};

use sallyport_protocol::facts::ApiStyle;
use sallyport_protocol::level::{self, Level, LevelTable};
use sallyport_tests::gateway::{binary, profile_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

fn ask(provider: &str, more: &[&str]) -> Output {
    let package = profile_dir().parent().unwrap().join(format!("components/sallyport.{provider}.sallyport"));
    let home = TempDir::new().unwrap();
    let mut command = Command::new(binary());
    command
        .arg("--home")
        .arg(home.path())
        .args(["component", "test"])
        .arg(package)
        .args(["--conformance", "--json"]);
    command.args(more).output().unwrap()
}

#[test]
fn every_provider_that_ships_carries_what_its_table_says_and_drops_nothing_silently() {
    let config = TempDir::new().unwrap();
    let responses = config.path().join("responses.json");
    std::fs::write(&responses, json!({"api": "responses"}).to_string()).unwrap();
    let responses = ["--component-config", responses.to_str().unwrap()];
    let cases: [(&str, &[&str], &str, &str); 13] = [
        ("anthropic", &[], "messages", "carried carried carried carried carried carried carried carried"),
        ("minimax", &[], "messages", "carried carried carried carried carried carried carried carried"),
        ("vertex", &[], "messages", "carried carried carried carried carried carried carried carried"),
        ("bedrock", &[], "invoke-model", "carried carried carried carried carried carried carried carried"),
        (
            "bedrock",
            &["--model", "amazon.nova-pro-v1:0"],
            "converse",
            "approximated carried lost carried lost carried approximated carried",
        ),
        (
            "vertex",
            &["--model", "gemini-3-flash"],
            "gemini",
            "approximated approximated approximated carried carried lost carried carried",
        ),
        (
            "gemini",
            &["--model", "gemini-3-flash"],
            "gemini",
            "approximated approximated approximated carried carried lost carried carried",
        ),
        (
            "openai",
            &[],
            "chat-completions",
            "carried carried approximated carried lost lost approximated carried",
        ),
        ("openai", &responses, "responses", "lost carried carried carried lost lost carried carried"),
        (
            "azure",
            &[],
            "chat-completions",
            "carried carried approximated carried lost lost approximated carried",
        ),
        ("groq", &[], "chat-completions", "carried carried approximated lost lost lost approximated carried"),
        (
            "qwen",
            &[],
            "chat-completions",
            "carried carried approximated lost approximated lost approximated carried",
        ),
        ("moonshot", &[], "chat-completions", "carried carried lost lost lost lost approximated carried"),
    ];
    let mut wrong = Vec::new();
    for (provider, more, wire, levels) in cases {
        let output = ask(provider, more);
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{provider}: {}", String::from_utf8_lossy(&output.stderr)));
        let told: Vec<&str> =
            ["text", "tools", "images", "documents", "thinking", "cache", "count", "errors"]
                .iter()
                .map(|level| said["levels"][level].as_str().unwrap())
                .collect();
        let table = LevelTable::shipped().unwrap();
        let model = more.iter().skip_while(|it| **it != "--model").nth(1).unwrap_or(&"claude-conformance");
        let api = (wire == "responses").then_some(ApiStyle::Responses);
        let entries = table.of(&format!("sallyport/{provider}"));
        let known = level::shown(&entries, model, api).unwrap();
        let known: Vec<&str> = Level::ALL.into_iter().map(|level| known.of(level).as_str()).collect();
        assert_eq!(told, known, "what routing goes by, protocol/levels.json, of {provider} {more:?}");
        if !output.status.success() || said["wire"] != wire || told.join(" ") != levels {
            let odd: Vec<&Value> =
                said["cases"].as_array().unwrap().iter().filter(|it| it["result"] != "carried").collect();
            wrong.push(format!("{provider} {more:?}: {} {}\n{odd:#?}", said["wire"], told.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_golden_corpus_has_hundreds_of_cases_over_every_wire() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("guest-providers");
    let mut counted = std::collections::BTreeMap::new();
    for folder in std::fs::read_dir(&root).unwrap().map(|it| it.unwrap().path()) {
        let provider = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for golden in ["golden", "golden-responses"] {
            let Ok(cases) = std::fs::read_dir(folder.join(golden)) else { continue };
            let cases =
                cases.filter(|it| it.as_ref().unwrap().path().to_str().unwrap().ends_with(".request.json"));
            *counted.entry(provider.clone()).or_insert(0) += cases.count();
        }
    }
    for (provider, least) in [
        ("azure", 10),
        ("bedrock", 65),
        ("gemini", 65),
        ("groq", 10),
        ("moonshot", 15),
        ("openai", 110),
        ("qwen", 15),
        ("vertex", 30),
    ] {
        let cases = counted.get(provider).copied().unwrap_or(0);
        assert!(cases >= least, "{provider} has {cases} cases, and had {least}");
    }
    let all: usize = counted.values().sum();
    assert!(all >= 350, "{all} cases: {counted:?}");
}

#[test]
fn a_provider_that_carries_nothing_fails_by_name() {
    let output = ask("echo", &[]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["levels"]["text"], &said["wire"]), (&json!("failed"), &Value::Null));
    let system = said["cases"].as_array().unwrap().iter().find(|it| it["name"] == "system prompt").unwrap();
    assert_eq!(system["detail"], "nothing was sent");
}

#[test]
fn what_is_no_provider_has_no_conformance() {
    let output = ask("region", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("conformance is asked of providers"));
}
