//! What is found, what is not, and how long it takes to look. The keys are drawn here: none of them stands in the source,
//! so that nothing that scans this repository trips over them.

use sallyport_guest_sdk::testing::configured;

use super::*;
use crate::corpus::examples;

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn drawn(alphabet: &str, length: usize) -> String {
    let mut state = 0x2545_F491_u32;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(alphabet.as_bytes()[state as usize % alphabet.len()])
    };
    (0..length).map(|_| letter()).collect()
}

fn alnum(length: usize) -> String {
    drawn(ALNUM, length)
}

fn pem(line_end: &str) -> String {
    let kind = "RSA PRIVATE KEY";
    let line = alnum(64);
    format!("-----BEGIN {kind}-----{line_end}{line}{line_end}{line}{line_end}-----END {kind}-----")
}

fn scanner(config: &str) -> SecretScan {
    configured(config, SecretScan::configure).unwrap()
}

fn found<'a>(config: &str, text: &'a str) -> Vec<(String, &'a str)> {
    let findings = scanner(config).scan(TextKind::User, text);
    findings
        .into_iter()
        .map(|found| (found.rule, text.get(found.start as usize..found.end as usize).unwrap()))
        .collect()
}

/// Every rule with a secret of it, and the text around it.
fn specimens() -> Vec<(&'static str, String, String)> {
    let bare = |rule, secret: String| (rule, format!("use {secret}, please"), secret);
    let within =
        |rule, before: &str, secret: String, after: &str| (rule, format!("{before}{secret}{after}"), secret);
    let (head, claims) = ("eyJhbGciOiJFZERTQSJ9", "eyJzdWIiOiJ1X2FsaWNlIn0");
    let jwt = format!("{head}.{claims}.{}", alnum(86));
    vec![
        bare("aws_access_key", format!("AKIA{}", drawn(UPPER, 16))),
        bare("aws_access_key", format!("ASIA{}", drawn(UPPER, 16))),
        within("aws_secret_key", "aws_secret_access_key = ", alnum(40), "\n"),
        within("aws_secret_key", "\"SecretAccessKey\": \"", alnum(40), "\"}"),
        bare("github_token", format!("ghp_{}", alnum(36))),
        bare("github_token", format!("ghs_{}", alnum(40))),
        bare("github_fine_grained_token", format!("github_pat_{}_{}", alnum(22), alnum(59))),
        bare("gitlab_token", format!("glpat-{}", alnum(20))),
        bare("slack_token", format!("xoxb-{}-{}", "123456789012", alnum(24))),
        bare("slack_webhook", format!("hooks.slack.com/services/T{}/B{}/{}", alnum(8), alnum(8), alnum(24))),
        bare("stripe_key", format!("sk_live_{}", alnum(24))),
        bare("google_api_key", format!("AIza{}", alnum(35))),
        bare("anthropic_key", format!("sk-ant-api03-{}", alnum(93))),
        bare("openai_key", format!("sk-proj-{}", alnum(64))),
        bare("openai_key", format!("sk-{}", alnum(48))),
        bare("sallyport_pat", format!("sp_pat_{}_{}_{}", alnum(16), alnum(43), alnum(8))),
        bare("npm_token", format!("npm_{}", alnum(36))),
        bare("private_key", pem("\n")),
        bare("private_key", pem("\r\n")),
        bare("private_key", pem("\\n")),
        bare("jwt", jwt.clone()),
        within("jwt", "Authorization: Bearer ", jwt, "\n"),
        within("dsn_password", "postgres://app:", alnum(12), "@db.internal:5432/app"),
        within("dsn_password", "see \"amqps://queue:", "p@ss:w0rd".into(), "@mq.internal\""),
        bare("credit_card", "4539578763621486".into()),
        bare("credit_card", "4539 5787 6362 1486".into()),
        bare("credit_card", "3782-822463-10005".into()),
        within("generic_secret", "client_secret = \"", format!("1a2B3c4D5e{}", alnum(16)), "\""),
        within("generic_secret", "\"api_key\":\"", format!("9z8Y7x6W5v{}", alnum(20)), "\""),
        within("generic_secret", "const API_KEY: &str = \"", format!("9z8Y7x6W5v{}", alnum(20)), "\";"),
        within("generic_secret", r#"{\"password\": \""#, format!("q1W2e3R4t5{}", alnum(16)), r#"\"}"#),
        within("generic_secret", "export ACCESS_TOKEN=", format!("q1W2e3R4t5{}", alnum(16)), "\n"),
    ]
}

#[test]
fn every_kind_of_secret_is_found_from_its_first_byte_to_its_last() {
    for (rule, text, secret) in specimens() {
        assert_eq!(found("{}", &text), [(rule.to_owned(), secret.as_str())], "{text}");
    }
}

#[test]
fn every_rule_has_a_specimen() {
    for rule in &scanner("{}").detectors.formats.rules {
        let specimens = specimens();
        let has = specimens.iter().any(|(name, ..)| name == rule);
        let described = examples(&scanner("{}")).iter().any(|example| example.rule == *rule);
        assert!(has || described, "{rule}");
    }
}

#[test]
fn a_secret_is_found_wherever_it_stands() {
    for (rule, text, secret) in specimens() {
        for (before, after) in
            [("", ""), ("日本語 ", " é"), ("line\\n", "\\n"), ("a\n\t", "\n"), ("`", "`"), ("(", ")")]
        {
            let text = format!("{before}{text}{after}");
            assert_eq!(found("{}", &text), [(rule.to_owned(), secret.as_str())], "{text}");
        }
    }
}

#[test]
fn no_finding_repeats_a_piece_of_the_secret() {
    let scanner = scanner("{}");
    for (_, text, secret) in specimens() {
        for finding in scanner.scan(TextKind::ToolOutput, &text) {
            let said = format!("{} {}", finding.rule, finding.replacement);
            for piece in secret.as_bytes().windows(6) {
                let piece = String::from_utf8_lossy(piece);
                // The public part of a prefix, `github_`, is in the name of its rule.
                let drawn = piece.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
                assert!(!drawn || !said.contains(piece.as_ref()), "{said} has {piece}");
            }
        }
    }
}

#[test]
fn several_secrets_of_one_text_come_in_order_and_do_not_overlap() {
    let text: String = specimens().into_iter().map(|(_, text, _)| text + "\n\n").collect();
    let findings = scanner("{}").scan(TextKind::User, &text);
    assert_eq!(findings.len(), specimens().len());
    assert!(findings.windows(2).all(|pair| pair[0].end <= pair[1].start));
}

#[test]
fn a_known_shape_wins_over_the_assignment_that_holds_it() {
    let token = format!("ghp_{}", alnum(36));
    let text = format!("GITHUB_TOKEN=\"{token}\"");
    assert_eq!(found("{}", &text), [("github_token".to_owned(), token.as_str())]);
}

#[test]
fn the_corpus_of_code_and_prose_has_no_secret() {
    let mut bytes = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        bytes += text.len();
        assert_eq!(found("{}", &text), [], "{}", path.display());
    }
    assert!(bytes > 7_000, "the corpus has only {bytes} bytes");
}

#[test]
fn the_scanners_own_source_has_no_secret() {
    for source in [
        include_str!("lib.rs"),
        include_str!("../formats.json"),
        include_str!("detect.rs"),
        include_str!("corpus.rs"),
    ] {
        assert_eq!(found("{}", source), []);
    }
}

#[test]
fn what_only_looks_like_a_secret_is_left_alone() {
    for text in [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "the label -----BEGIN PRIVATE KEY----- begins the file",
        "postgres://user:password@localhost/db and redis://:${REDIS_PASSWORD}@cache",
        "https://example.com:8080/@scope/package",
        "4539578763621487",
        "0.4539578763621486",
        "1767225600000 4111111111111111111111",
        "api_key = process.env.ANTHROPIC_API_KEY_FOR_2026_TESTS_V1",
        "token: 550e8400-e29b-41d4-a716-446655440000",
        "password = generate_password_with_entropy(32)",
        "next_page_tokens = 1234567890123456789012",
        "max_tokens: 128000",
    ] {
        assert_eq!(found("{}", text), [], "{text}");
    }
}

#[test]
fn each_rule_does_what_the_entry_says() {
    let text = format!("AKIA{} and npm_{}", drawn(UPPER, 16), alnum(36));
    let actions = |config: &str| -> Vec<(String, Action)> {
        let findings = scanner(config).scan(TextKind::User, &text);
        findings.into_iter().map(|finding| (finding.rule, finding.action)).collect()
    };
    let both = |aws, npm| vec![("aws_access_key".to_owned(), aws), ("npm_token".to_owned(), npm)];
    assert_eq!(actions("{}"), both(Action::Deny, Action::Deny));
    assert_eq!(actions(r#"{"action":"redact"}"#), both(Action::Redact, Action::Redact));
    assert_eq!(
        actions(r#"{"action":"flag","rules":{"npm_token":"deny"}}"#),
        both(Action::Flag, Action::Deny)
    );
    assert_eq!(actions(r#"{"rules":{"aws_access_key":"off"}}"#), both(Action::Deny, Action::Deny)[1..]);
    assert_eq!(actions(r#"{"allow":["AKIA*"]}"#), both(Action::Deny, Action::Deny)[1..]);
}

#[test]
fn a_token_is_found_within_a_longer_word() {
    let jwt = format!("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1X2FsaWNlIn0.{}", alnum(43));
    let token = format!("ghs_31415926_{jwt}");
    for before in ["", "_", "x_", "abc", "-", "=", "%3D", "\\n"] {
        assert_eq!(found("{}", &format!("{before}{token}")), [("github_token".to_owned(), token.as_str())]);
        assert_eq!(found("{}", &format!("{before}{jwt}")), [("jwt".to_owned(), jwt.as_str())], "{before}");
        let classic = format!("ghp_{}", alnum(36));
        assert_eq!(
            found("{}", &format!("{before}{classic}")),
            [("github_token".to_owned(), classic.as_str())]
        );
    }
    let sealed = format!("eyJhbGciOiJkaXIifQ..{}.{}.{}", alnum(16), alnum(90), alnum(22));
    assert_eq!(found("{}", &format!("_{sealed}")), [("jwt".to_owned(), sealed.as_str())]);
}

#[test]
fn formats_are_replaced_and_added_to_by_the_configuration() {
    let badge = format!("acme-{}", alnum(30));
    let token = format!("ghp_{}", alnum(36));
    let text = format!("{badge} and {token}");
    let list = r#"[{"rule":"acme_badge","like":"acme-[A-Za-z0-9]{30}","source":"our wiki"}]"#;
    let both = [("acme_badge".to_owned(), badge.as_str()), ("github_token".to_owned(), token.as_str())];
    assert_eq!(found(&format!(r#"{{"more_formats":{list}}}"#), &text), both);
    let instead =
        format!(r#"{{"formats":{{"version":"2027-01-01","flagged":["acme_badge"],"formats":{list}}}}}"#);
    assert_eq!(found(&instead, &text), both[..1]);
    assert_eq!(scanner(&instead).scan(TextKind::User, &text)[0].action, Action::Flag);
    let named = format!(r#"{{"rules":{{"acme_badge":"redact"}},"more_formats":{list}}}"#);
    assert_eq!(scanner(&named).scan(TextKind::User, &text)[0].action, Action::Redact);
}

#[test]
fn a_format_that_cannot_be_meant_is_refused_with_its_place() {
    for (format, why) in [
        (r#"{"rule":"a b","like":"abcdefgh"}"#, "no name of a rule"),
        (r#"{"rule":"a","like":"abc"}"#, "more_formats[0]: \"abc\": fewer than 8"),
        (r#"{"rule":"a","like":"[a-z]{20}"}"#, "no text of three characters"),
        (r#"{"rule":"a","like":"[a-z]{20}","named":["x"]}"#, "fewer than four"),
        (r#"{"rule":"a","like":"abcdefgh","check":"luck"}"#, "luck"),
        (r#"{"rule":"a","like":"abcdefgh","sauce":""}"#, "sauce"),
    ] {
        let error =
            configured(&format!(r#"{{"more_formats":[{format}]}}"#), SecretScan::configure).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
    let unknown = configured(r#"{"rules":{"no_rule":"off"}}"#, SecretScan::configure).err().unwrap();
    assert!(unknown.contains("formats are of 20"), "{unknown}");
}

#[test]
fn every_format_says_what_it_is_and_where_that_stands() {
    let listed: serde_json::Value = serde_json::from_str(formats::SHIPPED).unwrap();
    for format in listed["formats"].as_array().unwrap() {
        for key in ["is", "source"] {
            assert!(format[key].as_str().is_some_and(|text| text.len() > 4), "{format}");
        }
    }
    assert_eq!(listed["version"].as_str().map(str::len), Some(10));
}

#[test]
fn a_replacement_names_the_rule() {
    let text = format!("AKIA{}", drawn(UPPER, 16));
    let findings = scanner(r#"{"action":"redact"}"#).scan(TextKind::User, &text);
    assert_eq!(findings[0].replacement, "[redacted:aws_access_key]");
}

#[test]
fn a_configuration_with_a_mistake_never_becomes_active() {
    for (config, why) in [
        (r#"{"rules":{"aws_acess_key":"deny"}}"#, "rules.aws_acess_key"),
        (r#"{"action":"block"}"#, "block"),
        (r#"{"alow":[]}"#, "alow"),
        (r#"{"allow":["*"]}"#, "allows everything"),
        (r#"{"allow":[""]}"#, "allows everything"),
    ] {
        let error = configured(config, SecretScan::configure).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn text_made_to_slow_the_pass_down_is_scanned_in_time() {
    let scanner = scanner("{}");
    let started = std::time::Instant::now();
    for piece in [
        "=",
        ":",
        "-",
        " ",
        "4",
        "eyJ",
        "token=",
        "token = \"",
        "secret: ",
        "a://b:c@",
        "glpat-",
        "sk-ant-",
        "4539 ",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "\\n",
        "eyJhbGciOiJFZERTQSJ9.",
        "password\":\"",
        "::\"' ",
        "ghs_1_eyJ",
        "eyJaaaaaaaaaaaaa.eyJ",
        "eyJaaaaaaaaaaaaa..",
        "JQQJ99",
        "sig=",
        "Bearer ",
        "bearer 1a",
        ":AA",
        "AccountKey=",
        "dp.st.",
    ] {
        scanner.scan(TextKind::User, &piece.repeat(200_000 / piece.len()));
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
}
