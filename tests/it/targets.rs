//! Which route takes a call, and which of its targets: conditions, shares, sessions that stay where they are, prices, prompts that are too
//! long, and `sallyport route explain`, which says so beforehand.

use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Script, Upstream};
use serde_json::{Value, json};

use crate::ask;

/// Prices of the models that stories are answered by: so many microdollars for a million tokens, in and out.
fn priced(config: Config, models: &[(&str, u64)]) -> Config {
    let price = |(model, rate): &(&str, u64)| json!({"provider": "*", "model": model, "input": rate, "output": rate, "cache_read": 0, "cache_write": 0});
    config.set("/prices/models", json!(models.iter().map(price).collect::<Vec<_>>()))
}

/// A route that takes calls under a condition, and one behind it for the others.
fn under(config: Config, upstream: &str, condition: &Value) -> Config {
    let route = |model: &str| {
        json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": upstream, "api_key_secret": "upstream",
            "upstream_model": model})
    };
    let mut first = route("claude-first");
    for (key, value) in condition.as_object().into_iter().flatten() {
        first[key] = value.clone();
    }
    priced(config.set("/gateway/routes", json!([first, route("claude-other")])), &[("claude-*", 2_000_000)])
}

async fn model_of(app: &TestApp, reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply}");
    app.row_of(reply).await["payload"]["upstream_model"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_the_calls_that_meet_all_of_its_conditions_and_others_go_on() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| under(config, &url, &json!({"agent": "billing-*"}))).await;
    let hello = ask("claude-sonnet-4-5", "Hello");
    let by = async |agent: &str, body: &Value| {
        let reply = app.post("/v1/messages", &[("x-agent-name", agent)], body.to_string()).await;
        model_of(&app, &reply).await
    };
    assert_eq!(by("billing-bot", &hello).await, "claude-first");
    assert_eq!(by("other", &hello).await, "claude-other");
    let reply = app.messages(hello.clone()).await;
    assert_eq!(model_of(&app, &reply).await, "claude-other", "no name is no agent's");
    let row = app.row_of(&reply).await;
    let (user, tenant, client) = (&row["user_id"], &row["tenant_id"], &row["client_id"]);

    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let mut with_image = hello.clone();
    with_image["messages"][0]["content"] = json!([image, {"type": "text", "text": "What is it?"}]);
    let mut with_tools = hello.clone();
    with_tools["tools"] = json!([{"name": "Read", "input_schema": {"type": "object"}}]);
    let mut thinking = hello.clone();
    thinking["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    thinking["max_tokens"] = json!(2048);
    let mut spoken = hello.clone();
    spoken["messages"][0]["content"] = json!("a text that says \"type\":\"image\" and \"thinking\":{");
    let bodies = [&hello, &with_image, &with_tools, &thinking, &spoken];
    for (condition, taken) in [
        (json!({"user": user}), [true; 5]),
        (json!({"user": [user, "u_other"], "tenant": tenant, "client": client}), [true; 5]),
        (json!({"user": user, "tenant": "elsewhere"}), [false; 5]),
        (json!({"client": "sp_nobody"}), [false; 5]),
        (json!({"department": "*"}), [false; 5]),
        (json!({"role": "no-such-role"}), [false; 5]),
        (json!({"role": ["*"]}), [true; 5]),
        (json!({"requires": ["images"]}), [false, true, false, false, false]),
        (json!({"requires": ["tools"]}), [false, false, true, false, false]),
        (json!({"requires": ["thinking"]}), [false, false, false, true, false]),
        (json!({"requires": ["tools", "images"]}), [false; 5]),
        // 64 tokens out are 128 microdollars, 2048 are 4096.
        (json!({"max_cost_micro": 1000}), [true, true, true, false, true]),
        (json!({"max_cost_micro": 100}), [false; 5]),
    ] {
        app.stop();
        app.change(|config| under(config, &url, &condition));
        app.launch().await;
        for (number, (body, taken)) in bodies.into_iter().zip(taken).enumerate() {
            let reply = app.messages(body.clone()).await;
            let wanted = if taken { "claude-first" } else { "claude-other" };
            assert_eq!(model_of(&app, &reply).await, wanted, "{condition} body {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_share_a_routes_calls_get_their_shares_and_a_session_stays_with_one() {
    let others = [Upstream::start(), Upstream::start()];
    let upstream = Upstream::start();
    let own = upstream.url();
    let peer = |upstream: &Upstream, weight: u32| json!({"provider": "anthropic", "endpoint": upstream.url(), "api_key_secret": "upstream", "weight": weight});
    let route = json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": own, "api_key_secret": "upstream", "weight": 3,
        "primary": [peer(&others[0], 1), peer(&others[1], 0)]});
    let app = TestApp::on(upstream, |config| config.set("/gateway/routes", json!([route]))).await;
    let call = async |session: u32| {
        let session = format!("3f0e0ec1-6e1c-4f43-8f2a-{session:012}");
        let body = ask("claude-sonnet-4-5", "Hello").to_string();
        let reply = app.post("/v1/messages", &[("x-claude-code-session-id", &session)], body).await;
        assert_eq!(reply.status, 200, "{reply}");
    };
    for session in 0..200 {
        call(session).await;
    }
    let seen = [app.upstream.seen(), others[0].seen(), others[1].seen()];
    assert_eq!(seen.iter().sum::<usize>(), 200);
    assert!((125..=175).contains(&seen[0]) && seen[2] == 0, "three to one, and nothing: {seen:?}");
    for _ in 0..10 {
        call(7).await;
    }
    let again = [app.upstream.seen() - seen[0], others[0].seen() - seen[1]];
    assert!(again == [10, 0] || again == [0, 10], "a session stays: {again:?}");

    // Who is left takes over, and the one that nobody should have is better than none.
    app.upstream.script(Script::error(500, "api_error", "down"));
    others[0].script(Script::error(500, "api_error", "down"));
    call(7).await;
    assert_eq!(others[1].seen(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cheapest_target_is_asked_first_and_the_others_where_it_does_not_answer() {
    let cheap = Upstream::start();
    let upstream = Upstream::start();
    let own = upstream.url();
    let route = json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": own, "api_key_secret": "upstream",
        "upstream_model": "claude-dear", "prefer": "cheapest", "weight": 1000,
        "primary": [{"provider": "anthropic", "endpoint": cheap.url(), "api_key_secret": "upstream", "upstream_model": "claude-cheap"}]});
    let app = TestApp::on(upstream, |config| {
        priced(
            config.set("/gateway/routes", json!([route])),
            &[("claude-dear", 9_000_000), ("claude-cheap", 1_000_000)],
        )
    })
    .await;
    for _ in 0..5 {
        let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
        assert_eq!(model_of(&app, &reply).await, "claude-cheap");
        let row = app.row_of(&reply).await;
        // 12 tokens in and 7 out.
        assert_eq!(
            row["payload"]["attempts"],
            json!([{"target": "primary[0]", "provider": "anthropic", "end": "answered",
            "upstream_model": "claude-cheap", "status": 200, "ms": row["payload"]["attempts"][0]["ms"], "cost_micro": 19}])
        );
    }
    assert_eq!(app.upstream.seen(), 0);
    cheap.script(Script::error(529, "overloaded_error", "full"));
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!(model_of(&app, &reply).await, "claude-dear");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_for_one_model_goes_to_the_next_where_the_route_says_so() {
    let roomy = Upstream::start();
    let upstream = Upstream::start();
    let own = upstream.url();
    let route = |provider: &str, path: &str, fallback: bool| {
        json!({"model_pattern": "claude-*", "provider": provider, "endpoint": format!("{own}{path}"), "api_key_secret": "upstream",
            "upstream_model": "claude-small", "context_fallback": fallback,
            "secondary": [{"provider": "anthropic", "endpoint": roomy.url(), "api_key_secret": "upstream", "upstream_model": "claude-roomy"}]})
    };
    let models = [("claude-small", 1_000_000), ("claude-roomy", 1_000_000)];
    let set = |config: Config, route: Value| priced(config.set("/gateway/routes", json!([route])), &models);
    let app = TestApp::on(upstream, |config| set(config, route("anthropic", "", true))).await;
    let long =
        Script::error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum");
    app.upstream.script(long.clone());
    for stream in [false, true] {
        let mut body = ask("claude-sonnet-4-5", "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        assert_eq!(model_of(&app, &reply).await, "claude-roomy");
        assert_eq!(app.row_of(&reply).await["payload"]["attempts"][0]["end"], "too_long");
    }
    app.upstream.script(Script::error(400, "invalid_request_error", "messages: at least one is needed"));
    assert_eq!(
        app.messages(ask("claude-sonnet-4-5", "Hello")).await.status,
        400,
        "another mistake is the caller's"
    );
    assert_eq!(roomy.seen(), 2);

    app.stop();
    app.change(|config| set(config, route("openai", "/v1/chat/completions", true)));
    app.launch().await;
    app.upstream.script(Script::Status(
        400,
        vec![("content-type".to_owned(), "application/json".to_owned())],
        json!({"error": {"message": "too many", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}})
            .to_string()
            .into(),
    ));
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!(model_of(&app, &reply).await, "claude-roomy");

    app.stop();
    app.change(|config| set(config, route("anthropic", "", false)));
    app.launch().await;
    app.upstream.script(long);
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!((reply.status, roomy.seen()), (400, 3), "it is not asked for: {reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_gets_a_copy_of_each_call_and_the_client_nothing_of_its_answer() {
    let shadow = Upstream::start();
    let upstream = Upstream::start();
    let own = upstream.url();
    let route = |more: Value| {
        let mut mirror = json!({"provider": "anthropic", "endpoint": shadow.url(), "api_key_secret": "upstream",
            "upstream_model": "claude-shadow"});
        for (key, value) in more.as_object().into_iter().flatten() {
            mirror[key] = value.clone();
        }
        json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": own, "api_key_secret": "upstream", "region": "eu",
            "predicate": "sallyport/region", "predicate_config": {"default": "eu"}, "shadow": mirror})
    };
    let set = |config: Config, more: Value| {
        priced(config.set("/gateway/routes", json!([route(more)])), &[("claude-shadow", 1_000_000)])
    };
    let app = TestApp::on(upstream, |config| set(config, json!({"region": "eu"}))).await;
    shadow.script(Script::tool_loop("Read", json!({"path": "/etc/hosts"}), "never"));
    for stream in [false, true] {
        shadow.forget();
        let mut body = ask("claude-sonnet-4-5", "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello from upstream."), "{reply}");
        let row = app.row_of(&reply).await;
        let trace = row["payload"]["shadow"].as_str().unwrap_or_else(|| panic!("no shadow: {row}"));
        let rows = app.lineage(trace).await;
        let copy = rows.iter().find(|row| row["kind"] == "inference").unwrap();
        assert_eq!(copy["payload"]["shadow_of"], row["trace_id"], "{copy}");
        assert_eq!((&copy["outcome"], &copy["user_id"]), (&json!("allowed"), &row["user_id"]), "{copy}");
        // 12 tokens in and 7 out.
        let costs: Vec<_> =
            rows.iter().filter(|row| row["kind"] == "cost").map(|row| &row["cost_micro"]).collect();
        assert_eq!(costs, [&json!(19)], "{rows:?}");
        assert!(rows.iter().all(|row| row["kind"] != "tool_call"), "nobody runs it: {rows:?}");
        assert_eq!((shadow.seen(), shadow.last().json()["model"].clone()), (1, json!("claude-shadow")));
    }
    // A shadow that hangs keeps nobody, and one that is not allowed is not asked.
    shadow.script(Script::Fault(sallyport_tests::upstream::Fault::HeaderHang));
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!(reply.status, 200, "{reply}");
    app.kill();
    app.change(|config| set(config, json!({"region": "us"})));
    app.launch().await;
    shadow.forget();
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    let row = app.row_of(&reply).await;
    let rows = app.lineage(row["payload"]["shadow"].as_str().unwrap()).await;
    assert_eq!((rows.len(), &rows[0]["outcome"], shadow.seen()), (1, &json!("denied"), 0), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_of_a_call_is_what_becomes_of_it() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app =
        TestApp::on(upstream, |config| under(config, &url, &json!({"requires": ["tools"], "user": "*"})))
            .await;
    let mut body = ask("claude-sonnet-4-5", "Hello");
    body["tools"] = json!([{"name": "Read", "input_schema": {"type": "object"}}]);
    let path = app.home().join("body.json");
    std::fs::write(&path, body.to_string()).unwrap();
    let explain = ["route", "explain", "--model", "claude-sonnet-4-5", "--user", "admin"];
    for (more, takes) in [(vec![], [false, true]), (vec!["--body", path.to_str().unwrap()], [true, false])] {
        let said = app.cli_json(&[&explain[..], &more[..]].concat());
        let routes = said["routes"].as_array().unwrap();
        let found: Vec<_> = routes.iter().map(|route| route["takes"].as_bool().unwrap()).collect();
        assert_eq!(found, takes, "{said}");
        let sent = if more.is_empty() { ask("claude-sonnet-4-5", "Hello") } else { body.clone() };
        let reply = app.messages(sent).await;
        let route = routes.iter().find(|route| route["takes"] == true).unwrap();
        assert_eq!(route["targets"][0]["upstream_model"], json!(model_of(&app, &reply).await), "{said}");
        assert_eq!(route["targets"][0]["input"], 2_000_000, "{said}");
        let text = app.cli(&[&explain[..], &more[..]].concat());
        assert!(text.contains("yes   gateway.routes[") && text.contains("no    gateway.routes["), "{text}");
    }
    let said = app.cli_json(&explain);
    assert_eq!(said["routes"][0]["why_not"], "requires does not hold of this call", "{said}");
    let (out, _) = app.cli_fails(&["route", "explain", "--model", "gpt-9", "--user", "admin"]);
    assert!(out.contains("no route serves the model gpt-9"), "{out}");
    let (_, error) = app.cli_fails(&["route", "explain", "--model", "gpt-9", "--user", "nobody"]);
    assert!(error.contains("there is no user nobody"), "{error}");
    let shown = format!("{}{}", app.cli(&explain), app.cli_json(&explain));
    assert!(!shown.contains(sallyport_tests::gateway::UPSTREAM_KEY), "{shown}");
}
