//! The upstream fault matrix of every provider that ships, each with another target behind it: a cell says what the client gets, who was asked,
//! how the attempt ended, and that the call has one row and keeps no upstream busy.

use std::collections::HashMap;
use std::time::Duration;

use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Certificate, Fault, Manner, Script, SecureUpstream, Step, Upstream};
use sallyport_tests::wait::{SOON, until_true, within};
use serde_json::{Value, json};

use super::TYPES;
use crate::ask;
use crate::providers::{Vendor, messages, vendors};

/// What becomes of a call whose first target does this.
#[derive(Clone, Copy)]
enum Cell {
    /// The next target answers; the attempt at the first one ended in one of these ways.
    Next(&'static [&'static str]),
    /// It is the request's fault: the client is told, and nobody else is asked.
    Told,
    /// The next target answers, or the answer had begun: then it ends in an error, and nobody else is asked.
    Begun,
    /// Somebody answers: what is wrong with it is its form.
    Answered,
}

/// The upstream's answer, cut in the middle, of which more was announced.
fn cut(answer: &Script) -> Script {
    let Script::Status(status, headers, body) = answer else { panic!("no answer to cut: {answer:?}") };
    let mut head = format!("HTTP/1.1 {status} OK\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n"]);
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body[..body.len() / 2]);
    Script::Steps(vec![Step::Write(bytes.into()), Step::Close])
}

/// The upstream's answer under another name.
fn as_text(answer: &Script) -> Script {
    let Script::Status(status, _, body) = answer else { panic!("no answer: {answer:?}") };
    Script::Status(*status, vec![("content-type".to_owned(), "text/plain".to_owned())], body.clone())
}

/// Every row of the matrix for a vendor, and what has to become of it.
fn faults(vendor: &Vendor, stream: bool) -> Vec<(&'static str, Script, Cell)> {
    let good = if stream { &vendor.call } else { &vendor.text };
    // Without a `retry-after`.
    let status = |status| Script::error(status, "api_error", "scripted");
    vec![
        ("401", status(401), Cell::Next(&["credential"])),
        ("403", status(403), Cell::Next(&["credential"])),
        ("404", status(404), Cell::Told),
        ("408", status(408), Cell::Next(&["failed"])),
        ("413", status(413), Cell::Told),
        ("422", status(422), Cell::Told),
        ("429", status(429), Cell::Next(&["busy"])),
        ("500", status(500), Cell::Next(&["failed"])),
        ("502", status(502), Cell::Next(&["failed"])),
        ("503", status(503), Cell::Next(&["busy"])),
        ("529", status(529), Cell::Next(&["busy"])),
        ("no head", Script::Fault(Fault::HeaderHang), Cell::Next(&["timed_out"])),
        ("redirect", Script::Fault(Fault::Redirect), Cell::Next(&["unusable"])),
        ("web page", Script::Fault(Fault::Html), Cell::Next(&["unusable"])),
        ("nothing", Script::Fault(Fault::Empty), Cell::Next(&["unusable"])),
        ("half of a JSON", Script::Fault(Fault::BadJson), Cell::Next(&["unusable"])),
        ("gzip bomb", Script::Fault(Fault::GzipBomb), Cell::Next(&["unusable"])),
        ("reset", Script::Fault(Fault::ResetBeforeHead), Cell::Next(&["broke_off"])),
        ("head alone", Script::Fault(Fault::CutBeforeFirstByte), Cell::Next(&["broke_off", "unusable"])),
        ("cut in the middle", cut(good), Cell::Begun),
        ("another media type", as_text(good), Cell::Answered),
    ]
}

fn attempts(row: &Value) -> Vec<(&str, &str)> {
    let all = row["payload"]["attempts"].as_array().unwrap_or_else(|| panic!("no attempts: {row}"));
    all.iter().map(|it| (it["target"].as_str().unwrap(), it["end"].as_str().unwrap())).collect()
}

/// The client has the whole answer of the next target.
fn served_by_next(reply: &Reply, stream: bool) -> bool {
    let served = reply.status == 200 && reply.complete && reply.text() == "Hello from upstream.";
    if served && stream {
        assert_legal(&reply.events());
    }
    served
}

/// What is wrong with a cell; nothing where it is as it has to be.
fn wrong(cell: Cell, reply: &Reply, row: &Value, asked: (usize, usize), stream: bool) -> Option<String> {
    let attempts = attempts(row);
    let next = |ends: &[&str]| {
        let listed =
            matches!(attempts[..], [("primary", end), ("secondary[0]", "answered")] if ends.contains(&end));
        served_by_next(reply, stream) && listed && asked == (1, 1) && row["outcome"] == "allowed"
    };
    let right = match cell {
        Cell::Next(ends) => next(ends),
        Cell::Told => {
            reply.status >= 400
                && TYPES.contains(&reply.error_type().as_str())
                && attempts == [("primary", "refused")]
                && asked == (1, 0)
                && row["outcome"] == "error"
                && row["payload"]["code"].is_string()
        }
        Cell::Begun if stream && attempts.len() == 1 => {
            let last = reply.events().last().map(|event| event.name.clone());
            reply.complete && last.as_deref() == Some("error") && asked == (1, 0) && row["outcome"] == "error"
        }
        Cell::Begun => next(&["broke_off", "unusable"]),
        Cell::Answered => {
            let own = reply.status == 200 && asked == (1, 0) && row["outcome"] == "allowed";
            own || next(&["unusable"])
        }
    };
    (!right).then(|| format!("{attempts:?} asked {asked:?} {}: {reply}", row["outcome"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_upstream_of_any_provider_does_the_next_target_answers_or_the_client_is_told() {
    let mut vendors = vendors();
    vendors.push(messages("anthropic", "", "/v1/messages"));
    let (primary, secondary) = (Upstream::start(), Upstream::start());
    let next = json!([{"provider": "anthropic", "endpoint": secondary.url(), "api_key_secret": "upstream",
        "timeouts": {"first_byte_ms": 60_000}}]);
    // Whoever never answers is not waited for as long as whoever does.
    let patience = [("vendor", 60_000), ("hung", 400)];
    let routes: Vec<Value> = vendors
        .iter()
        .enumerate()
        .flat_map(|(number, vendor)| patience.map(|(name, first_byte_ms)| (number, vendor, name, first_byte_ms)))
        .map(|(number, vendor, name, first_byte_ms)| {
            json!({"model_pattern": format!("{name}-{number}"), "provider": vendor.provider, "api_key_secret": "upstream",
                "endpoint": format!("{}{}", primary.url(), vendor.base), "upstream_model": vendor.model,
                "model_facts": vendor.facts, "timeouts": {"first_byte_ms": first_byte_ms},
                "breaker": {"enabled": false}, "secondary": next})
        })
        .collect();
    let price =
        json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
    let app = TestApp::on(primary, |config| {
        config.set("/gateway/routes", json!(routes)).set("/prices/models", json!([price]))
    })
    .await;
    let mut told = Vec::new();
    for (number, vendor) in vendors.iter().enumerate() {
        for stream in [false, true] {
            for (name, script, cell) in faults(vendor, stream) {
                let what = format!("{} {} {name} stream={stream}", vendor.provider, vendor.model);
                app.upstream.script(script);
                app.upstream.forget();
                secondary.forget();
                let route = if matches!(cell, Cell::Next(&["timed_out"])) { "hung" } else { "vendor" };
                let mut body = ask(&format!("{route}-{number}"), "Hello");
                body["stream"] = json!(stream);
                let reply = within(&what, Duration::from_mins(1), app.messages(body)).await;
                let asked = (app.upstream.seen(), secondary.seen());
                until_true(&what, SOON, || app.upstream.busy_sockets() + secondary.busy_sockets() == 0).await;
                told.push((what, cell, reply, asked, stream));
            }
        }
    }
    assert!(app.is_up());
    assert!(app.upstream.open_sockets() + secondary.open_sockets() <= 8, "sockets are left");
    let last = told.last().map(|(_, _, reply, ..)| reply.header("x-trace-id").unwrap().to_owned()).unwrap();
    app.lineage(&last).await;
    let mut rows: HashMap<String, Vec<Value>> = HashMap::new();
    for row in app.audit_rows().into_iter().filter(|row| row["kind"] == "inference") {
        rows.entry(row["trace_id"].as_str().unwrap().to_owned()).or_default().push(row);
    }
    let mut faults = Vec::new();
    for (what, cell, reply, asked, stream) in &told {
        let found = rows.get(reply.header("x-trace-id").unwrap()).map(Vec::as_slice);
        let fault = match found {
            Some([row]) => wrong(*cell, reply, row, *asked, *stream),
            other => Some(format!("{} rows", other.map_or(0, <[Value]>::len))),
        };
        faults.extend(fault.map(|fault| format!("{what}: {fault}")));
    }
    assert!(faults.is_empty(), "{} of {} cells:\n{}", faults.len(), told.len(), faults.join("\n"));
}

/// What goes wrong before HTTP, or takes its connection away: a name, what stands behind it, and what has to become of the call.
async fn below_http() -> Vec<(&'static str, Option<SecureUpstream>, Cell)> {
    let start = async |certificate, manner| Some(SecureUpstream::start(certificate, manner).await);
    let good = Certificate::Good;
    vec![
        ("wrong-name", start(Certificate::WrongName, Manner::Answers).await, Cell::Next(&["unreachable"])),
        ("expired", start(Certificate::Expired, Manner::Answers).await, Cell::Next(&["unreachable"])),
        ("self-signed", start(Certificate::SelfSigned, Manner::Answers).await, Cell::Next(&["unreachable"])),
        ("nowhere", None, Cell::Next(&["unreachable"])),
        ("goaway-before-head", start(good, Manner::LeavesBeforeHead).await, Cell::Next(&["broke_off"])),
        ("goaway-midway", start(good, Manner::LeavesMidway).await, Cell::Begun),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_below_http_at_any_provider_the_next_target_answers_or_the_client_is_told() {
    let mut vendors = vendors();
    vendors.push(messages("anthropic", "", "/v1/messages"));
    let secondary = Upstream::start();
    let next = json!([{"provider": "anthropic", "endpoint": secondary.url(), "api_key_secret": "upstream"}]);
    let faults = below_http().await;
    let mut routes = Vec::new();
    for (number, vendor) in vendors.iter().enumerate() {
        for (name, upstream, _) in &faults {
            // RFC 6761: this name is nobody's.
            let url =
                upstream.as_ref().map_or_else(|| "https://vendor.invalid".to_owned(), SecureUpstream::url);
            routes.push(json!({"model_pattern": format!("{name}-{number}"), "provider": vendor.provider,
                "api_key_secret": "upstream", "endpoint": format!("{url}{}", vendor.base), "upstream_model": vendor.model,
                "model_facts": vendor.facts, "breaker": {"enabled": false}, "secondary": next}));
        }
    }
    let price =
        json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
    let app = TestApp::with(|config| {
        config.set("/gateway/routes", json!(routes)).set("/prices/models", json!([price]))
    })
    .await;
    let mut wrongs = Vec::new();
    for (number, vendor) in vendors.iter().enumerate() {
        for (name, upstream, cell) in &faults {
            for stream in [false, true] {
                let what = format!("{} {} {name} stream={stream}", vendor.provider, vendor.model);
                let before = upstream.as_ref().map_or(0, |upstream| {
                    upstream.says(if stream { &vendor.call } else { &vendor.text });
                    upstream.seen()
                });
                secondary.forget();
                let mut body = ask(&format!("{name}-{number}"), "Hello");
                body["stream"] = json!(stream);
                let reply = within(&what, Duration::from_mins(1), app.messages(body)).await;
                let asked = upstream.as_ref().map_or(0, SecureUpstream::seen) - before;
                // Who shows nothing good of itself, and who is not there, is sent nothing.
                let wanted = usize::from(name.starts_with("goaway"));
                if asked != wanted {
                    wrongs.push(format!("{what}: asked {asked} times"));
                }
                let row = app.row_of(&reply).await;
                let found = wrong(*cell, &reply, &row, (1, secondary.seen()), stream);
                wrongs.extend(found.map(|found| format!("{what}: {found}")));
                if reply.to_string().contains("vendor.invalid") || reply.to_string().contains("127.0.0.1") {
                    wrongs.push(format!("{what}: the client is told where the upstream is: {reply}"));
                }
            }
        }
    }
    assert!(app.is_up());
    assert!(wrongs.is_empty(), "{} cells:\n{}", wrongs.len(), wrongs.join("\n"));
}

/// The most memory that the gateway has held so far, in KiB.
fn peak_kib(app: &TestApp) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end_of_any_provider_is_not_held() {
    let mut vendors = vendors();
    vendors.push(messages("anthropic", "", "/v1/messages"));
    let (primary, secondary) = (Upstream::start(), Upstream::start());
    let next = json!([{"provider": "anthropic", "endpoint": secondary.url(), "api_key_secret": "upstream"}]);
    let route = |(number, vendor): (usize, &Vendor)| {
        json!({"model_pattern": format!("vendor-{number}"), "provider": vendor.provider, "api_key_secret": "upstream",
            "endpoint": format!("{}{}", primary.url(), vendor.base), "upstream_model": vendor.model,
            "model_facts": vendor.facts, "breaker": {"enabled": false}, "secondary": next})
    };
    let routes: Vec<Value> = vendors.iter().enumerate().map(route).collect();
    let price =
        json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
    let app = TestApp::on(primary, |config| {
        config.set("/gateway/routes", json!(routes)).set("/prices/models", json!([price]))
    })
    .await;
    let good: Vec<_> = vendors.iter().map(|vendor| vendor.call.clone()).collect();
    // Each has answered once: what it takes to run its component is in memory.
    for (number, call) in good.into_iter().enumerate() {
        app.upstream.script(call);
        let mut body = ask(&format!("vendor-{number}"), "Hello");
        body["stream"] = json!(true);
        assert_eq!(app.messages(body).await.status, 200);
    }
    let before = peak_kib(&app);
    app.upstream.script(Script::Fault(Fault::GiantLine));
    for (number, vendor) in vendors.iter().enumerate() {
        for stream in [false, true] {
            let what = format!("{} {} stream={stream}", vendor.provider, vendor.model);
            let mut body = ask(&format!("vendor-{number}"), "Hello");
            body["stream"] = json!(stream);
            let reply = within(&what, Duration::from_mins(2), app.messages(body)).await;
            let row = app.row_of(&reply).await;
            assert_eq!(wrong(Cell::Begun, &reply, &row, (1, secondary.seen()), stream), None, "{what}");
            secondary.forget();
            until_true(&what, SOON, || app.upstream.busy_sockets() == 0).await;
        }
    }
    // Of a gibibyte, a gateway holds no more than the longest that it reads, a few times over.
    let more = peak_kib(&app) - before;
    assert!(more < 256 * 1024, "{more} KiB more than before");
}
