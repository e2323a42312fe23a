//! What was said stays with those who said it: texts, credentials and tokens go through the gateway and are written down nowhere,
//! neither as they are nor in another form of the same bytes. Looked for in every file of the gateway's home.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_tests::gateway::{TestApp, UPSTREAM_KEY};
use sallyport_tests::upstream::{Script, Turn};
use serde_json::{Value, json};

/// A text of which every other form is another text.
fn canary(place: &str) -> String {
    format!("kestrel/{place}+7f3a&so on")
}

/// The same bytes as they may be written down.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let all = |form: &dyn Fn(u8) -> String| bytes.iter().map(|byte| form(*byte)).collect::<String>();
    let mut forms = vec![
        text.to_owned(),
        text.replace('/', "\\/"),
        all(&|byte| format!("\\u{byte:04x}")),
        all(&|byte| format!("{byte:02x}")),
        all(&|byte| {
            if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        }),
    ];
    // In a longer text it begins at the first, second or third of three bytes; the characters at its edges are shared.
    for lead in 0..3 {
        let encoded = STANDARD.encode([vec![0; lead], bytes.to_vec()].concat());
        forms.push(encoded.get(4..encoded.len() - 4).unwrap().to_owned());
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// Every file below a directory but those that keep a credential for their owner.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("secrets.yaml" | "admin.token")
        ) {
            all.push(path);
        }
    }
    all
}

/// Where one of these texts is written down, in whatever form.
fn found(home: &Path, texts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(home) {
        let bytes = std::fs::read(&file).unwrap();
        for text in texts {
            if forms(text).iter().any(|form| memchr::memmem::find(&bytes, form).is_some()) {
                found.push(format!("{text} in {}", file.strip_prefix(home).unwrap().display()));
            }
        }
    }
    found
}

/// A request that says something in every place in which a text can stand.
fn request(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "max_tokens": 64, "stream": stream,
        "system": [{"type": "text", "text": canary("system")}],
        "metadata": {"user_id": canary("metadata")},
        "stop_sequences": [canary("stop")],
        "tools": [{"name": "Read", "description": canary("description"), "input_schema": {"type": "object",
            "properties": {"path": {"type": "string", "description": canary("schema")}}}}],
        "messages": [
            {"role": "user", "content": canary("user")},
            {"role": "assistant", "content": [
                {"type": "text", "text": canary("assistant")},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": canary("input")}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": canary("result")},
                {"type": "text", "text": canary("block")}]},
        ],
    })
}

const ASKED: [&str; 11] = [
    "system",
    "metadata",
    "stop",
    "description",
    "schema",
    "user",
    "assistant",
    "input",
    "result",
    "block",
    "parameter",
];
const ANSWERED: [&str; 4] = ["thinking", "answer", "call", "report"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_said_is_written_down_in_any_form() {
    let rules = json!({"rules": [{"name": "x", "on": ["UserPromptSubmit"], "contains": ["never said"], "then": {"block": "no"}}]});
    let app = TestApp::with(|config| {
        config
            .component("sallyport/secret-scan", json!({"action": "deny"}))
            .component("sallyport/event-rules", rules)
            .component("sallyport/block-tool", json!({"tools": ["Bash"], "reason": "no"}))
    })
    .await;
    let answer = Script::Turn(vec![
        Turn::Thinking(canary("thinking"), "c2ln".into()),
        Turn::Text(canary("answer")),
        Turn::Tool("toolu_2".into(), "Bash".into(), json!({"command": canary("call")})),
    ]);
    let mut told = String::new();
    let parameter = "/v1/messages?beta=kestrel/parameter%2B7f3a%26so%20on";
    let mut seen = String::new();
    for model in ["claude-sonnet-4-5", "gpt-5"] {
        // An upstream may repeat the credential in an error. Where the answer is forwarded, its bytes are the upstream's own.
        let repeated = if model == "gpt-5" { UPSTREAM_KEY } else { "" };
        let error = Script::error(400, "invalid_request_error", &format!("{} {repeated}", canary("error")));
        for stream in [false, true] {
            for script in [answer.clone(), error.clone()] {
                app.upstream.script(script);
                let reply = app.post(parameter, &[], request(model, stream).to_string()).await;
                told.push_str(&String::from_utf8_lossy(&reply.body));
                let asked = app.upstream.last();
                seen.push_str(&String::from_utf8_lossy(&asked.body));
            }
        }
        app.post("/v1/messages/count_tokens", &[], request(model, false).to_string()).await;
    }
    for place in ["user", "system", "result"] {
        assert!(seen.contains(&canary(place)), "{place} is what the upstream was told");
    }
    for place in ["answer", "error"] {
        assert!(told.contains(&canary(place)), "{place} is what the client was told");
    }
    assert!(!told.contains(UPSTREAM_KEY), "the client was told the gateway's credential");
    // What is refused is not written down either: a body that cannot be read, a secret, a report, a credential.
    app.post("/v1/messages", &[], format!("{{\"model\": \"{}\"", canary("user"))).await;
    let mut refused = request("claude-sonnet-4-5", false);
    refused["max_tokens"] = json!(canary("user"));
    assert_eq!(app.messages(refused).await.status, 400);
    let key = "AKIAQ3EGRFZXNDOMVWJK";
    assert_eq!(
        app.messages(crate::ask("claude-sonnet-4-5", &format!("{key} {}", canary("user")))).await.status,
        451
    );
    let report =
        json!({"session_id": "s", "hook_event_name": "Stop", "last_assistant_message": canary("report")});
    assert_eq!(app.post("/v1/hooks/Stop", &[], report.to_string()).await.status, 200);
    let prompt =
        json!({"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": canary("report")});
    assert_eq!(app.post("/v1/hooks/UserPromptSubmit", &[], prompt.to_string()).await.status, 200);
    let strange = "sp_pat_of_somebody_who_is_not_here";
    for header in [("authorization", format!("Bearer {strange}")), ("x-api-key", strange.to_owned())] {
        let reply = app.post("/v1/messages", &[(header.0, &header.1)], crate::hello().to_string()).await;
        assert_eq!(reply.status, 401, "{reply}");
    }
    let issued = app.post("/v1/auth/cowork/pat", &[], "").await.json()["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {issued}");
    let reply = app.post("/v1/messages", &[("authorization", &bearer)], crate::hello().to_string()).await;
    assert_eq!(reply.status, 400, "the last script is an error");
    app.stop();

    // Why an upstream failed is its own words, which an operator reads on the row, and nowhere else.
    assert!(!app.log().contains("kestrel"), "{}", app.log());
    let mut texts: Vec<String> = ASKED.iter().chain(&ANSWERED).map(|place| canary(place)).collect();
    texts.extend([app.token.clone(), issued, key.to_owned(), strange.to_owned()]);
    texts.push(UPSTREAM_KEY.to_owned());
    assert_eq!(found(app.home(), &texts), Vec::<String>::new());
    assert!(app.audit_rows().len() > 15, "and yet there are rows");
    // Written down on purpose, each form is found.
    for (number, form) in forms(&texts[0]).into_iter().enumerate() {
        std::fs::write(app.home().join("leak"), [b"x".repeat(number), form, b"x".to_vec()].concat()).unwrap();
        assert_eq!(found(app.home(), &texts).len(), 1, "form {number}");
    }
    std::fs::remove_file(app.home().join("leak")).unwrap();
    app.launch().await;
}
