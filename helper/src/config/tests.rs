use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text).map_err(|mistake| mistake.of(Path::new("c.toml")).message)
}

#[test]
fn the_example_of_the_reference_documents_is_read() {
    let text = r#"
gateway_url = "http://localhost:3000"
cache_dir = "~/Library/Caches/com.systemprompt.cowork-auth"
[pat]
keystore_service = "systemprompt-cowork-pat"
[session]
keystore_service = "systemprompt-cowork-session"
[mtls]
cert_keystore_ref = "systemprompt-cowork-device"
ca_bundle = "/etc/systemprompt/ca.pem"
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.gateway_url.as_deref(), Some("http://localhost:3000"));
    assert_eq!(config.pat.unwrap().keystore_service.as_deref(), Some("systemprompt-cowork-pat"));
    let device = config.mtls.unwrap();
    assert_eq!(device.cert_keystore_ref.as_deref(), Some("systemprompt-cowork-device"));
    assert_eq!(device.ca_bundle.as_deref(), Some("/etc/systemprompt/ca.pem"));
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn a_mistake_is_told_with_its_line_and_key() {
    for (text, told) in [
        ("gatway_url = \"x\"", "c.toml, line 1: gatway_url is no key of this file"),
        (
            "\n# comment\ngateway_url = 3\n",
            "c.toml, line 3: gateway_url is a string, not a value of type integer",
        ),
        ("gateway_url = \"\"", "c.toml, line 1: gateway_url is empty, or has control characters"),
        ("[pat]\nservice = \"x\"", "c.toml, line 2: pat.service is no key of this file"),
        ("pat = \"x\"", "c.toml, line 1: pat is a table"),
        (
            "[mtls]\n\nca_bundle = [\"x\"]",
            "c.toml, line 3: mtls.ca_bundle is a string, not a value of type array",
        ),
        ("[sync]\npinned = \"x\"", "c.toml, line 2: sync.pinned is no key of this file"),
        ("keystore = \"files\"", "c.toml, line 1: keystore is \"os\" or \"file\", not \"files\""),
        ("timeout_sec = 0", "c.toml, line 1: timeout_sec is a whole number from 1 to 120"),
        ("timeout_sec = \"5\"", "c.toml, line 1: timeout_sec is a whole number from 1 to 120"),
    ] {
        assert_eq!(parse(text).unwrap_err(), told);
    }
    let broken = parse("keystore = \"os\"\ngateway_url = \"https://x\ncache_dir = \"y\"\n").unwrap_err();
    assert!(broken.starts_with("c.toml, line 2: gateway_url is not TOML: "), "{broken}");
    let twice = parse("gateway_url = \"a\"\ngateway_url = \"b\"\n").unwrap_err();
    assert!(twice.starts_with("c.toml, line 2: gateway_url is not TOML: "), "{twice}");
}

#[test]
fn a_key_is_set_and_all_else_stays() {
    let text =
        "# ours\ngateway_url = \"https://old\" # until May\n\n[mtls] # device\nca_bundle = \"/ca.pem\"\n";
    let set = |text: &str, table, key, value| with_key(text, table, key, value).unwrap();
    let changed = set(text, None, "gateway_url", "https://new");
    assert_eq!(changed, text.replace("https://old", "https://new"));
    assert_eq!(set(&changed, None, "gateway_url", "https://new"), changed);
    let changed = set(text, Some("sync"), "pinned_pubkey", "k");
    assert_eq!(changed, format!("{text}\n[sync]\npinned_pubkey = \"k\"\n"));
    let again = set(&changed, Some("sync"), "pinned_pubkey", "l");
    assert_eq!(again, format!("{text}\n[sync]\npinned_pubkey = \"l\"\n"));
    let changed = set(text, Some("mtls"), "cert_keystore_ref", r"C:\device.pem");
    assert_eq!(
        changed,
        text.replace("[mtls] # device\n", "[mtls] # device\ncert_keystore_ref = 'C:\\device.pem'\n")
    );
    assert_eq!(parse(&changed).unwrap().mtls.unwrap().cert_keystore_ref.as_deref(), Some(r"C:\device.pem"));
    assert_eq!(set("[pat]", Some("pat"), "keystore_service", "s"), "[pat]\nkeystore_service = \"s\"\n");
    assert_eq!(set("", None, "gateway_url", "https://x"), "gateway_url = \"https://x\"\n");
    assert_eq!(set("[pat]\n", None, "gateway_url", "https://x"), "gateway_url = \"https://x\"\n[pat]\n");
}
