//! Shapes that others build on: rows, replies and errors as clients, dashboards and scripts read them, and the help of every
//! command. A change of one shows in the diff of its snapshot, so that nobody changes it unaware. `INSTA_UPDATE=always` writes the
//! snapshots anew.

use std::process::Command;

use sallyport_tests::gateway::{TestApp, binary};
use sallyport_tests::upstream::{Script, Turn};
use serde_json::{Map, Value, json};

use crate::{ask, hello};

/// Members whose values are words of a closed vocabulary: they belong to the shape.
const WORDS: [&str; 14] = [
    "auth_tier",
    "call_source",
    "code",
    "decision",
    "event",
    "kind",
    "mode",
    "object",
    "outcome",
    "role",
    "status",
    "stop_reason",
    "type",
    "verdict",
];

/// What a value is made of: names, types and words, and of a list every form of its entries once.
fn shape(name: &str, value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!("true or false"),
        Value::Number(_) | Value::String(_) if WORDS.contains(&name) => value.clone(),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(items) => {
            let mut forms: Vec<Value> = Vec::new();
            for form in items.iter().map(|item| shape(name, item)) {
                if !forms.contains(&form) {
                    forms.push(form);
                }
            }
            Value::Array(forms)
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), shape(name, value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_call_with_a_tool_have_the_shape_that_readers_know() {
    let app = TestApp::start().await;
    let tool = Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": "ls"}));
    app.upstream.script(Script::ToolLoop(vec![tool], "Done.".to_owned()));
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 200, "{reply}");
    app.row_of(&reply).await;
    let mut rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
    rows.sort_by_key(|row| row["kind"].to_string());
    let rows: Vec<_> = rows.iter().map(|row| shape("", row)).collect();
    insta::assert_json_snapshot!(rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_refused_call_has_the_shape_that_readers_know() {
    let rule = json!({"default": "allow", "rules": [{"name": "old", "effect": "deny", "models": ["gpt-*"]}]});
    let app = TestApp::with(|config| config.component("sallyport/scope", rule)).await;
    let denied = app.messages(ask("gpt-5", "Hello")).await;
    assert_eq!(denied.status, 451, "{denied}");
    insta::assert_json_snapshot!(json!({
        "answer": shape("", &denied.json()),
        "row": shape("", &app.row_of(&denied).await),
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_beside_messages_have_the_shape_that_clients_know() {
    let app = TestApp::start().await;
    let mut shapes = Map::new();
    for target in ["/v1/models", "/health", "/ready", "/v1/nothing"] {
        let reply = app.get(target).await;
        shapes.insert(format!("GET {target} {}", reply.status), shape("", &reply.json()));
    }
    let issued = app.post("/v1/auth/cowork/pat", &[], "").await;
    shapes.insert(format!("POST /v1/auth/cowork/pat {}", issued.status), shape("", &issued.json()));
    let counted = app.post("/v1/messages/count_tokens", &[], hello().to_string()).await;
    shapes.insert(format!("POST /v1/messages/count_tokens {}", counted.status), shape("", &counted.json()));
    for (name, body) in [("no JSON", "{".to_owned()), ("no model", json!({"messages": []}).to_string())] {
        let refused = app.post("/v1/messages", &[], body).await;
        shapes.insert(format!("POST /v1/messages, {name}: {}", refused.status), shape("", &refused.json()));
    }
    let stranger = app.client().send("POST", "/v1/messages", &[], hello().to_string()).await;
    shapes.insert(format!("POST /v1/messages, no key: {}", stranger.status), shape("", &stranger.json()));
    insta::assert_json_snapshot!(Value::Object(shapes));
}

/// The help of a command, and of all below it.
fn help(words: &[&str], out: &mut String) {
    let said = Command::new(binary()).args(words).arg("--help").env_clear().output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.status.success() && !text.is_empty(),
        "{words:?}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    out.extend(["# sallyport ", &words.join(" "), "\n", text.trim_end(), "\n\n"]);
    let commands = text.split("Commands:\n").nth(1).unwrap_or_default();
    for line in commands.lines().take_while(|line| line.starts_with("  ")) {
        // A line that is further in goes on with what the last one says.
        match line.strip_prefix("  ").and_then(|line| line.split(' ').next()) {
            Some(command) if !command.is_empty() && command != "help" => {
                help(&[words, &[command]].concat(), out);
            }
            _ => {}
        }
    }
}

#[test]
fn the_help_of_every_command_says_what_it_said() {
    let mut out = String::new();
    help(&[], &mut out);
    assert!(out.matches("# sallyport ").count() > 20, "commands below commands are asked too");
    insta::assert_snapshot!(out);
}
