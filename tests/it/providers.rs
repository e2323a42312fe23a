//! Every upstream: a session with tools on each provider that ships, against an upstream that answers in its vendor's wire.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt as _;
use sallyport_tests::client::{Event, assert_legal};
use sallyport_tests::gateway::{TestApp, UPSTREAM_KEY};
use sallyport_tests::upstream::{Script, Turn, Upstream, anthropic_message, anthropic_stream, openai_stream};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::ask;

const MODEL: &str = "claude-renamed";

/// An upstream in the words of one vendor.
pub(super) struct Vendor {
    pub(super) provider: &'static str,
    /// The upstream's name of the model, and what the route says of it.
    pub(super) model: &'static str,
    pub(super) facts: Value,
    /// What stands behind the upstream's address in the route.
    pub(super) base: &'static str,
    /// Where a streamed and a whole reply are asked for.
    paths: [String; 2],
    /// The header that holds the credential, and what stands before it.
    credential: (&'static str, &'static str),
    /// A streamed call of the tool, and a whole reply that says `Read it.`
    pub(super) call: Script,
    pub(super) text: Script,
    /// Whether the answer of the tool stands in a request.
    answered: fn(&Value) -> bool,
}

fn answer(media: &str, body: impl Into<Bytes>) -> Script {
    Script::Status(200, vec![("content-type".to_owned(), media.to_owned())], body.into())
}

fn read() -> Turn {
    Turn::Tool("call_1".to_owned(), "Read".to_owned(), json!({"path": "/etc/hosts"}))
}

/// A vendor of Chat Completions.
fn chat(
    provider: &'static str,
    base: &'static str,
    path: &str,
    credential: (&'static str, &'static str),
) -> Vendor {
    let call = openai_stream(MODEL, &[Turn::Thinking("Hm.".to_owned(), String::new()), read()]);
    let text = json!({"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "choices": [{"index": 0,
        "message": {"role": "assistant", "content": "Read it."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}});
    Vendor {
        provider,
        model: MODEL,
        facts: json!({}),
        base,
        paths: [path.to_owned(), path.to_owned()],
        credential,
        call: answer("text/event-stream", call),
        text: answer("application/json", text.to_string()),
        answered: |sent| {
            sent["messages"]
                .as_array()
                .unwrap()
                .iter()
                .any(|it| it["role"] == "tool" && it["content"] == "127.0.0.1")
        },
    }
}

fn gemini() -> Vendor {
    let call = json!({"functionCall": {"id": "fc-1", "name": "Read", "args": {"path": "/etc/hosts"}}, "thoughtSignature": "c2ln+/=="});
    let piece = |parts: Value, finish: Value| {
        json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish, "index": 0}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3}, "modelVersion": MODEL, "responseId": "r1"})
    };
    let stream = format!(
        "data: {}\r\n\r\ndata: {}\r\n\r\n",
        piece(json!([{"text": "Hm.", "thought": true}]), Value::Null),
        piece(json!([call]), json!("STOP"))
    );
    Vendor {
        provider: "gemini",
        model: MODEL,
        facts: json!({}),
        base: "/v1beta",
        paths: [
            format!("/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"),
            format!("/v1beta/models/{MODEL}:generateContent"),
        ],
        credential: ("x-goog-api-key", ""),
        call: answer("text/event-stream", stream),
        text: answer("application/json", piece(json!([{"text": "Read it."}]), json!("STOP")).to_string()),
        answered: |sent| {
            let contents = sent["contents"].as_array().unwrap();
            let [asked, answered] = [&contents[contents.len() - 2], &contents[contents.len() - 1]];
            asked["parts"][0]["thoughtSignature"] == "c2ln+/=="
                && answered["parts"][0]["functionResponse"]["response"]["output"] == "127.0.0.1"
        },
    }
}

fn bedrock() -> Vendor {
    let call: &[u8] = include_bytes!("../../guest-providers/bedrock/golden/thinking-and-tools.upstream.bin");
    let text = anthropic_message(MODEL, &[Turn::Text("Read it.".to_owned())]);
    Vendor {
        provider: "bedrock",
        model: MODEL,
        facts: json!({}),
        base: "",
        paths: [format!("/model/{MODEL}/invoke-with-response-stream"), format!("/model/{MODEL}/invoke")],
        credential: ("authorization", "Bearer "),
        call: answer("application/vnd.amazon.eventstream", call),
        text: answer("application/json", text.to_string()),
        answered: |sent| {
            let fields = ["model", "stream"].iter().all(|it| sent.get(*it).is_none());
            fields
                && sent["anthropic_version"] == "bedrock-2023-05-31"
                && sent.to_string().contains("tool_result")
        },
    }
}

/// A model of Bedrock that is not Claude.
fn converse() -> Vendor {
    let call: &[u8] =
        include_bytes!("../../guest-providers/bedrock/golden/converse-calls-story.upstream.bin");
    let text = json!({"output": {"message": {"role": "assistant", "content": [{"text": "Read it."}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12}, "metrics": {"latencyMs": 5}});
    Vendor {
        model: "amazon.nova-2-lite-v1:0",
        paths: [
            "/model/amazon.nova-2-lite-v1:0/converse-stream".to_owned(),
            "/model/amazon.nova-2-lite-v1:0/converse".to_owned(),
        ],
        call: answer("application/vnd.amazon.eventstream", call),
        text: answer("application/json", text.to_string()),
        answered: |sent| {
            let turns = sent["messages"].as_array().unwrap();
            let [asked, answered] = [&turns[turns.len() - 2], &turns[turns.len() - 1]];
            asked["content"][0]["reasoningContent"]["reasoningText"]["signature"] == "c2ln+/=="
                && answered["content"][0]["toolResult"]["content"][0]["text"] == "127.0.0.1"
        },
        ..bedrock()
    }
}

/// Project and location of Vertex AI are part of the route's endpoint.
const PROJECT: &str = "/v1/projects/p-1/locations/us-east5";

fn vertex_claude() -> Vendor {
    let model = "claude-sonnet-4-5@20250929";
    let path = |method: &str| format!("{PROJECT}/publishers/anthropic/models/{model}:{method}");
    Vendor {
        model,
        paths: [path("streamRawPredict"), path("rawPredict")],
        credential: ("authorization", "Bearer "),
        answered: |sent| {
            sent.get("model").is_none()
                && sent["anthropic_version"] == "vertex-2023-10-16"
                && sent.to_string().contains("tool_result")
        },
        ..messages("vertex", PROJECT, "")
    }
}

fn vertex_gemini() -> Vendor {
    let path = |method: &str| format!("{PROJECT}/publishers/google/models/gemini-3-flash:{method}");
    Vendor {
        provider: "vertex",
        model: "gemini-3-flash",
        base: PROJECT,
        paths: [path("streamGenerateContent?alt=sse"), path("generateContent")],
        credential: ("authorization", "Bearer "),
        ..gemini()
    }
}

/// OpenAI's Responses API, as the route says.
fn responses() -> Vendor {
    let reasoning =
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA+/=="});
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "Read", "arguments": "{\"path\":\"/etc/hosts\"}"});
    let response = |output: Value| {
        json!({"id": "resp_1", "object": "response", "status": "completed", "model": MODEL, "output": output,
            "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}})
    };
    let events = [
        json!({"type": "response.output_item.done", "output_index": 0, "item": reasoning}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": call}),
        json!({"type": "response.completed", "response": response(json!([reasoning, call]))}),
    ];
    let stream = events
        .iter()
        .map(|it| format!("event: {}\ndata: {it}\n\n", it["type"].as_str().unwrap()))
        .collect::<Vec<_>>()
        .concat();
    let text =
        response(json!([{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Read it.", "annotations": []}]}]));
    Vendor {
        provider: "openai",
        model: MODEL,
        facts: json!({"api": "responses", "reasoning": "openai"}),
        base: "/v1/responses",
        paths: ["/v1/responses".to_owned(), "/v1/responses".to_owned()],
        credential: ("authorization", "Bearer "),
        call: answer("text/event-stream", stream),
        text: answer("application/json", text.to_string()),
        answered: |sent| {
            let items = sent["input"].as_array().unwrap();
            let [thought, _, answered] =
                [&items[items.len() - 3], &items[items.len() - 2], &items[items.len() - 1]];
            sent["store"] == false
                && thought["encrypted_content"] == "gAAA+/=="
                && answered["output"] == "127.0.0.1"
        },
    }
}

/// The blocks of a streamed reply as a client keeps them.
fn kept(events: &[Event]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut input = String::new();
    for event in events.iter().map(Event::json) {
        match event["type"].as_str().unwrap_or_default() {
            "content_block_start" => {
                blocks.push(event["content_block"].clone());
                input.clear();
            }
            "content_block_delta" => {
                let block = blocks.last_mut().unwrap();
                for (piece, field) in [("text", "text"), ("thinking", "thinking"), ("signature", "signature")]
                {
                    if let Some(more) = event["delta"][piece].as_str() {
                        block[field] = json!(block[field].as_str().unwrap_or_default().to_owned() + more);
                    }
                }
                input.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
            }
            "content_block_stop" if !input.is_empty() => {
                blocks.last_mut().unwrap()["input"] = serde_json::from_str(&input).unwrap();
            }
            _ => {}
        }
    }
    blocks
}

/// A vendor that answers Messages itself.
pub(super) fn messages(provider: &'static str, base: &'static str, path: &str) -> Vendor {
    Vendor {
        provider,
        model: MODEL,
        facts: json!({}),
        base,
        paths: [path.to_owned(), path.to_owned()],
        credential: ("x-api-key", ""),
        call: answer("text/event-stream", anthropic_stream(MODEL, &[read()])),
        text: answer(
            "application/json",
            anthropic_message(MODEL, &[Turn::Text("Read it.".to_owned())]).to_string(),
        ),
        answered: |sent| sent.to_string().contains("tool_result"),
    }
}

pub(super) fn vendors() -> Vec<Vendor> {
    let bearer = ("authorization", "Bearer ");
    vec![
        gemini(),
        bedrock(),
        converse(),
        vertex_claude(),
        vertex_gemini(),
        responses(),
        chat("openai", "/v1/chat/completions", "/v1/chat/completions", bearer),
        chat("groq", "/openai/v1", "/openai/v1/chat/completions", bearer),
        chat("moonshot", "/v1/chat/completions", "/v1/chat/completions", bearer),
        chat("qwen", "/compatible-mode/v1", "/compatible-mode/v1/chat/completions", bearer),
        chat(
            "azure",
            "",
            "/openai/deployments/claude-renamed/chat/completions?api-version=2024-10-21",
            ("api-key", ""),
        ),
        messages("minimax", "/anthropic", "/anthropic/v1/messages"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_tools_works_on_every_vendor_and_its_key_stands_where_it_belongs() {
    let mut sessions = JoinSet::new();
    for vendor in vendors() {
        let name = format!("{} {}", vendor.provider, vendor.paths[0]);
        sessions.spawn(async {
            let ended = AssertUnwindSafe(session(vendor)).catch_unwind().await;
            ended.is_err().then_some(name)
        });
    }
    let failed: Vec<_> = sessions.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "what each said stands above: {failed:#?}");
}

/// A client has the model call a tool, and answers.
async fn session(vendor: Vendor) {
    let Vendor { provider, model, facts, base, paths, credential, call, text, answered } = vendor;
    let upstream = Upstream::start();
    let endpoint = format!("{}{base}", upstream.url());
    let app = TestApp::on(upstream, |config| {
        config.route(json!({"model_pattern": "vendor-*", "provider": provider, "endpoint": endpoint, "api_key_secret": "upstream",
            "upstream_model": model, "model_facts": facts}))
        .set("/prices/models", json!([{"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1}]))
    })
    .await;
    app.upstream.next(call);
    let mut body = ask("vendor-1", "Read /etc/hosts");
    body["stream"] = json!(true);
    body["thinking"] = json!({"type": "adaptive"});
    body["tools"] = json!([{"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}]);
    let reply = app.messages(body.clone()).await;
    assert_eq!(reply.status, 200, "{provider}: {reply}");
    assert_legal(&reply.events());
    let seen = app.upstream.last();
    assert_eq!(seen.target, paths[0], "{provider}");
    assert_eq!(
        seen.header(credential.0),
        Some(format!("{}{UPSTREAM_KEY}", credential.1).as_str()),
        "{provider}"
    );

    let content = kept(&reply.events());
    let called = content.iter().find(|it| it["type"] == "tool_use").unwrap().clone();
    assert_eq!((&called["name"], called["input"].is_object()), (&json!("Read"), true), "{provider}: {reply}");

    app.upstream.next(text);
    body["stream"] = json!(false);
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": content}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": called["id"], "content": "127.0.0.1"}]}),
    ]);
    let reply = app.messages(body).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "Read it."), "{provider}: {reply}");
    let seen = app.upstream.last();
    assert_eq!(seen.target, paths[1], "{provider}");
    assert!(answered(&seen.json()), "{provider}: {}", seen.json());
}
