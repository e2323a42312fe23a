use super::*;

fn policy() -> Policy {
    let gateway = Gateway::parse("https://cowork-gateway.example.com").unwrap();
    Policy::new(&gateway, "/usr/local/bin/sp-cowork-auth")
}

/// With every key, and values that each format has to escape.
fn full(helper: &str) -> Policy {
    Policy {
        helper: helper.to_owned(),
        timeout_sec: Some(30),
        models: vec!["claude-sonnet-4-5".to_owned(), "anthropic-\"qwen\" & <co>".to_owned()],
        mcp_servers: Some(
            json!([{ "name": "docs", "transport": "http", "url": "https://mcp.example.com/a?b=c&d=$e" }]),
        ),
        local_mcp: Some(false),
        signed_extensions: Some(true),
        ..policy()
    }
}

const WINDOWS: &str = r"C:\Program Files\systemprompt\sp-cowork-auth.exe";

#[test]
fn the_registry_file_is_the_one_of_the_reference_documents_with_strings_alone() {
    let policy = Policy { helper: WINDOWS.to_owned(), ..policy() };
    assert_eq!(
        policy.text(Os::Windows),
        r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Claude]
"inferenceProvider"="gateway"
"inferenceGatewayBaseUrl"="https://cowork-gateway.example.com"
"inferenceCredentialHelper"="C:\\Program Files\\systemprompt\\sp-cowork-auth.exe"
"inferenceCredentialHelperTtlSec"="3600"
"inferenceGatewayAuthScheme"="bearer"

"#
        .replace('\n', "\r\n")
    );
    let seed = Policy { seed_types: true, hkcu: true, ..policy };
    let text = seed.text(Os::Windows);
    assert!(text.contains("[HKEY_CURRENT_USER\\SOFTWARE\\Policies\\Claude]\r\n"), "{text}");
    assert!(text.contains("\"inferenceCredentialHelperTtlSec\"=dword:00000e10\r\n"), "{text}");
}

#[test]
fn a_registry_file_is_utf_16_with_its_mark() {
    let bytes = policy().artefacts(Os::Windows).swap_remove(0).bytes;
    assert_eq!(bytes.get(..4), Some(&[0xff, 0xfe, b'W', 0][..]));
    let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert_eq!(String::from_utf16(&units[1..]).unwrap(), policy().text(Os::Windows));
}

#[test]
fn a_profile_made_twice_is_the_same_one_and_of_its_gateway() {
    let uuids = |policy: &Policy| -> Vec<String> {
        let text = policy.text(Os::Macos);
        let lines: Vec<&str> = text.lines().collect();
        let after = |(at, line): (usize, &&str)| {
            line.contains("PayloadUUID").then(|| lines[at + 1].trim().to_owned())
        };
        lines.iter().enumerate().filter_map(after).collect()
    };
    let first = uuids(&policy());
    assert_eq!(first.len(), 2);
    assert_ne!(first[0], first[1]);
    assert_eq!(first, uuids(&full("/x")), "the profile of before is replaced");
    let other = Policy { gateway: "https://other.example.com".to_owned(), ..policy() };
    assert_ne!(first, uuids(&other));
    assert_eq!(first[0].len(), "<string>00000000-0000-0000-0000-000000000000</string>".len());
}

#[test]
fn the_environment_of_linux_has_a_variable_for_each_key() {
    assert_eq!(
        policy().text(Os::Linux),
        "# Inference of Claude through a gateway of the organisation.
CLAUDE_INFERENCE_PROVIDER=\"gateway\"
CLAUDE_INFERENCE_GATEWAY_BASE_URL=\"https://cowork-gateway.example.com\"
CLAUDE_INFERENCE_CREDENTIAL_HELPER=\"/usr/local/bin/sp-cowork-auth\"
CLAUDE_INFERENCE_CREDENTIAL_HELPER_TTL_SEC=\"3600\"
CLAUDE_INFERENCE_GATEWAY_AUTH_SCHEME=\"bearer\"
"
    );
}

#[test]
fn every_key_of_a_full_policy_stands_in_every_format() {
    let policy = full(WINDOWS);
    assert_eq!(policy.settings().len(), 10);
    for os in [Os::Macos, Os::Windows] {
        for file in policy.artefacts(os) {
            let text = match file.bytes.strip_prefix(&[0xff, 0xfe]) {
                Some(rest) => {
                    let units: Vec<u16> =
                        rest.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
                    String::from_utf16(&units).unwrap()
                }
                None => String::from_utf8(file.bytes).unwrap(),
            };
            for setting in policy.settings() {
                assert!(text.contains(setting.key), "{} has no {}", file.name, setting.key);
            }
        }
    }
}
