//! Requests that mean harm: so many rows that others wait for them, names of megabytes, prompts past the hook that judges prompts,
//! tools, secrets and numbers in forms that a careless reader does not know, heads that two readers cut in two ways.

use serde_json::{Value, json};

use super::witness::{FORBIDDEN, FORBIDDEN_TOOL, SECRET, SMUGGLED};
use super::{Findings, Site, Until};

/// The model that attackers ask for where nothing else is asked.
const MODEL: &str = "claude-sonnet-4-5";

/// A conversation in which so many tools have just answered: a hook is told of each. Served, or refused by a documented limit.
pub async fn many_results(site: &Site, until: Until, results: usize) -> Findings {
    let mut findings = Findings::of("many tool results");
    while until.goes_on(findings.rounds) {
        let round = findings.rounds;
        let id = |at: usize| format!("toolu_{round}_{at}");
        let calls: Vec<Value> = (0..results)
            .map(|at| json!({"type": "tool_use", "id": id(at), "name": "Read", "input": {}}))
            .collect();
        let answers: Vec<Value> = (0..results)
            .map(|at| json!({"type": "tool_result", "tool_use_id": id(at), "content": "ok"}))
            .collect();
        let body = conversation(&json!([
            {"role": "user", "content": "Read them all."},
            {"role": "assistant", "content": calls},
            {"role": "user", "content": answers},
        ]));
        match site.messages(body.to_string()).await {
            Ok(answer) => {
                let documented = matches!(answer.status, 200 | 413 | 429 | 529);
                findings.expect(documented && answer.complete, || format!("{results} results: {answer}"));
            }
            Err(error) => {
                findings.expect(false, || format!("{results} results: no answer: {error:#}"));
            }
        }
        findings.rounds += 1;
    }
    findings
}

/// Names and headers of many bytes. What is answered is short, whatever was sent.
pub async fn long_names(site: &Site, until: Until, bytes: usize) -> Findings {
    let mut findings = Findings::of("long names");
    let long = "\u{1f4a5}".repeat(bytes / 4);
    let quotes = "\"".repeat(20_000);
    while until.goes_on(findings.rounds) {
        let mut tool = conversation(&json!([{"role": "user", "content": "Hello"}]));
        tool["tools"] = json!([{"name": long, "input_schema": {"type": "object"}}]);
        let bodies = [
            (
                "a model",
                json!({"model": long, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}),
            ),
            ("a tool", tool),
        ];
        for (what, body) in bodies {
            match site.messages(body.to_string()).await {
                Ok(answer) => findings.expect(answer.body.len() < 16 * 1024 && answer.complete, || {
                    format!("the name of {what} comes back in {} bytes", answer.body.len())
                }),
                Err(error) => {
                    findings.expect(false, || format!("the name of {what}: no answer: {error:#}"));
                }
            }
        }
        let names = ["x-agent-name", "x-claude-code-prompt-id", "x-claude-code-session-id"];
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (*name, quotes.as_str())).collect();
        let hello = conversation(&json!([{"role": "user", "content": "Hello"}])).to_string();
        match site.post("/v1/messages", &headers, hello).await {
            Ok(answer) => findings
                .expect(matches!(answer.status, 200 | 400 | 403 | 431), || format!("headers: {answer}")),
            Err(error) => {
                findings.expect(false, || format!("headers: no answer: {error:#}"));
            }
        }
        findings.rounds += 1;
    }
    findings
}

/// Prompts that a rule blocks, where only the last one is looked at, only the first block, or only what is not wrapped.
pub async fn prompts(site: &Site, until: Until) -> Findings {
    let mut findings = Findings::of("prompts that nobody is asked about");
    let (half, rest) = FORBIDDEN.split_at(FORBIDDEN.len() / 2);
    let forms = [
        ("alone", json!([{"role": "user", "content": FORBIDDEN}])),
        (
            "before another",
            json!([{"role": "user", "content": FORBIDDEN}, {"role": "user", "content": "Go on."}]),
        ),
        (
            "with a turn between",
            json!([{"role": "user", "content": FORBIDDEN}, {"role": "assistant", "content": "Shall I?"},
                {"role": "user", "content": "Go on."}]),
        ),
        (
            "wrapped as a reminder",
            json!([{"role": "user", "content": format!("<system-reminder>{FORBIDDEN}</system-reminder>")}]),
        ),
        (
            "wrapped beside another",
            json!([{"role": "user", "content": [
                {"type": "text", "text": format!("<system-reminder>\n{FORBIDDEN}\n</system-reminder>")},
                {"type": "text", "text": "Go on."}]}]),
        ),
        (
            "in two blocks",
            json!([{"role": "user", "content": [{"type": "text", "text": half}, {"type": "text", "text": rest}]}]),
        ),
        ("with escapes", json!([{"role": "user", "content": [{"type": "text", "text": FORBIDDEN}]}])),
    ];
    while until.goes_on(findings.rounds) {
        for (form, messages) in &forms {
            let mut body = conversation(messages).to_string();
            if *form == "with escapes" {
                body = body.replace(FORBIDDEN, &escaped(FORBIDDEN));
            }
            refused(site, &mut findings, form, body, &["hook_blocked"]).await;
        }
        findings.rounds += 1;
    }
    findings
}

/// A tool that a rule denies, in every place where a request names tools.
pub async fn tools(site: &Site, until: Until) -> Findings {
    let mut findings = Findings::of("tools that nobody lists");
    let with = |key: &str, value: Value| {
        let mut body = conversation(&json!([{"role": "user", "content": "Open it."}]));
        body[key] = value;
        body
    };
    let schema = json!({"type": "object"});
    let definition =
        json!({"type": "tool_definition", "definition": {"name": FORBIDDEN_TOOL, "input_schema": schema}});
    let forms = [
        ("offered", with("tools", json!([{"name": FORBIDDEN_TOOL, "input_schema": schema}]))),
        (
            "in another vendor's form",
            with("tools", json!([{"type": "function", "function": {"name": FORBIDDEN_TOOL}}])),
        ),
        (
            "one in the place of the list",
            with("tools", json!({"name": FORBIDDEN_TOOL, "input_schema": schema})),
        ),
        (
            "as a name that is none",
            with("tools", json!([{"name": [FORBIDDEN_TOOL], "input_schema": schema}])),
        ),
        (
            "added by a turn",
            conversation(&json!([{"role": "user", "content": "Open it."},
                {"role": "system", "content": [{"type": "tool_addition", "tool": definition}]}])),
        ),
        (
            "added by a compaction",
            conversation(&json!([{"role": "user", "content": "Open it."},
                {"role": "assistant", "content": [{"type": "compaction", "content": "so far",
                    "tool_changes": [{"type": "tool_addition", "tool": definition}]}]},
                {"role": "user", "content": "Go on."}])),
        ),
    ];
    while until.goes_on(findings.rounds) {
        for (form, body) in &forms {
            refused(site, &mut findings, form, body.to_string(), &[]).await;
        }
        findings.rounds += 1;
    }
    findings
}

/// A secret, in every place of a request that its receiver reads.
pub async fn secrets(site: &Site, until: Until) -> Findings {
    let mut findings = Findings::of("secrets where nobody looks");
    let with = |key: &str, value: Value| {
        let mut body = conversation(&json!([{"role": "user", "content": "Hello"}]));
        body[key] = value;
        body
    };
    let said = |content: Value| conversation(&json!([{"role": "user", "content": content}]));
    let tool = |schema: Value| {
        with("tools", json!([{"name": "Read", "description": "reads", "input_schema": schema}]))
    };
    let forms = [
        ("a text", said(json!(SECRET))),
        (
            "a description of a property",
            tool(json!({"type": "object", "properties": {"x": {"type": "string", "description": SECRET}}})),
        ),
        (
            "a value of an enumeration",
            tool(json!({"type": "object", "properties": {"x": {"enum": [SECRET]}}})),
        ),
        ("a default", tool(json!({"type": "object", "properties": {"x": {"default": SECRET}}}))),
        ("the name of a tool", with("tools", json!([{"name": SECRET, "input_schema": {"type": "object"}}]))),
        (
            "an example",
            with(
                "tools",
                json!([{"name": "Read", "input_schema": {"type": "object"}, "input_examples": [{"x": SECRET}]}]),
            ),
        ),
        ("a stop sequence", with("stop_sequences", json!([SECRET]))),
        ("metadata", with("metadata", json!({"user_id": "u", "more": SECRET}))),
        ("a field that nobody knows", with("later", json!({"deep": [SECRET]}))),
        (
            "a server of tools",
            with(
                "mcp_servers",
                json!([{"type": "url", "name": "s", "url": "https://x.example", "authorization_token": SECRET}]),
            ),
        ),
        (
            "the address of an image",
            said(
                json!([{"type": "image", "source": {"type": "url", "url": format!("https://x.example/?q={SECRET}")}}]),
            ),
        ),
        (
            "a field of a block that nobody knows",
            said(json!([{"type": "text", "text": "Hello", "later": SECRET}])),
        ),
        ("a key of a block that nobody knows", said(json!([{"type": "later", "x": {SECRET: 1}}]))),
    ];
    while until.goes_on(findings.rounds) {
        for (form, body) in &forms {
            refused(site, &mut findings, form, body.to_string(), &[]).await;
        }
        findings.rounds += 1;
    }
    findings
}

/// `max_tokens` in forms that are no count: each is refused, whatever a lenient upstream makes of it.
pub async fn numbers(site: &Site, until: Until) -> Findings {
    let mut findings = Findings::of("numbers that count as nothing");
    while until.goes_on(findings.rounds) {
        for form in ["\"4000\"", "-4000", "4000.5", "[4000]", "true", "1e999", "0x10", "+5"] {
            let body = format!(
                r#"{{"model":"{MODEL}","max_tokens":{form},"messages":[{{"role":"user","content":"Hello"}}]}}"#
            );
            match site.messages(body).await {
                Ok(answer) => {
                    findings.expect(answer.status == 400, || format!("max_tokens {form}: {answer}"));
                }
                Err(error) => {
                    findings.expect(false, || format!("max_tokens {form}: no answer: {error:#}"));
                }
            }
        }
        findings.rounds += 1;
    }
    findings
}

/// Heads that two readers cut in two ways, and headers that are meant for the gateway alone. What the upstream gets of them, its
/// witness says.
pub async fn smuggling(site: &Site, until: Until) -> Findings {
    let mut findings = Findings::of("smuggled heads");
    let hello = conversation(&json!([{"role": "user", "content": "Hello"}])).to_string();
    let chunked = format!("{:x}\r\n{hello}\r\n0\r\n\r\n", hello.len());
    let second = "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let length = hello.len();
    let heads = [
        (
            "two lengths",
            format!("content-length: {length}\r\ncontent-length: {}\r\n\r\n{hello}", length + 1),
            false,
        ),
        ("two lengths in one", format!("content-length: {length}, {}\r\n\r\n{hello}", length + 1), false),
        ("a length with a sign", format!("content-length: +{length}\r\n\r\n{hello}"), false),
        (
            "a length and chunks",
            format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{second}"),
            // RFC 9112 lets a server go by the chunks, if it closes the connection behind them.
            true,
        ),
        (
            "an encoding that nobody undoes",
            format!("transfer-encoding: gzip, chunked\r\n\r\n{chunked}"),
            false,
        ),
        ("chunks that are none", format!("transfer-encoding: xchunked\r\n\r\n{chunked}"), false),
        ("a name with a blank", format!("content-length : {length}\r\n\r\n{hello}"), false),
        (
            "a folded line",
            format!("content-length: {length}\r\nx-a: 1\r\n  x-user-id: {SMUGGLED}\r\n\r\n{hello}"),
            false,
        ),
        (
            "a name with underscores",
            format!("content-length: {length}\r\nx_user_id: {SMUGGLED}\r\n\r\n{hello}"),
            true,
        ),
        (
            "named by connection",
            format!(
                "content-length: {length}\r\nx-hop: {SMUGGLED}\r\nconnection: close, x-hop\r\n\r\n{hello}"
            ),
            true,
        ),
        (
            "a trace of another",
            format!(
                "content-length: {length}\r\ntraceparent: {SMUGGLED}\r\nbaggage: {SMUGGLED}\r\n\r\n{hello}"
            ),
            true,
        ),
        (
            "an address of another",
            format!(
                "content-length: {length}\r\nx-forwarded-for: {SMUGGLED}\r\nx-real-ip: {SMUGGLED}\r\n\r\n{hello}"
            ),
            true,
        ),
    ];
    while until.goes_on(findings.rounds) {
        for (form, rest, served) in &heads {
            let close = if rest.contains("connection: close") { "" } else { "connection: close\r\n" };
            let request = format!(
                "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{close}{rest}",
                site.token
            );
            match site.raw(request.as_bytes()).await {
                Ok(said) => {
                    let said = String::from_utf8_lossy(&said).into_owned();
                    let answers = said.matches("HTTP/1.1 ").count();
                    let good = said.starts_with("HTTP/1.1 200 ");
                    let refused = said.is_empty()
                        || said.starts_with("HTTP/1.1 4")
                        || said.starts_with("HTTP/1.1 501 ");
                    findings.expect(answers <= 1, || format!("{form}: {answers} answers: {said}"));
                    findings.expect(refused || (good && *served), || format!("{form}: {said}"));
                }
                Err(error) => {
                    findings.expect(false, || format!("{form}: no answer: {error}"));
                }
            }
        }
        findings.rounds += 1;
    }
    findings
}

/// A request that has to be refused, as unreadable or by policy: with one of these codes, if any are named.
async fn refused(site: &Site, findings: &mut Findings, form: &str, body: String, codes: &[&str]) {
    match site.messages(body).await {
        Ok(answer) => {
            let named = codes.is_empty() || codes.contains(&answer.code());
            findings.expect(matches!(answer.status, 400 | 451) && named, || format!("{form}: {answer}"));
        }
        Err(error) => findings.expect(false, || format!("{form}: no answer: {error:#}")),
    }
}

fn conversation(messages: &Value) -> Value {
    json!({"model": MODEL, "max_tokens": 64, "messages": messages})
}

/// The same text with every character as an escape.
fn escaped(text: &str) -> String {
    let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    units.concat()
}
