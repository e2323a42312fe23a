//! Stories about secrets: where they come from, and what never shows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{ExposeSecret as _, RouteCredential, Secrets};
use crate::config::{AwsKeys, AwsSource, CloudIdentity, Config};

fn write(home: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = home.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn complaints(path: &Path) -> Vec<String> {
    Secrets::load(path).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn values_come_from_the_file_other_files_and_commands() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "mounted", "from-a-file\n", 0o440);
    let text = "plain: in-place\nmounted: { file: mounted }\nasked: { command: [printf, from-a-command] }\n";
    let secrets = Secrets::load(&write(home.path(), "secrets.yaml", text, 0o600)).unwrap();
    let value = |name| secrets.get(name).unwrap().expose_secret().to_owned();
    assert_eq!(
        [value("plain"), value("mounted"), value("asked")],
        ["in-place", "from-a-file", "from-a-command"]
    );
    assert!(secrets.get("other").is_none());
}

#[test]
fn a_missing_or_empty_file_holds_no_secrets() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(Secrets::load(&home.path().join("secrets.yaml")).unwrap().names().count(), 0);
    let path = write(home.path(), "secrets.yaml", "# nothing yet\n", 0o600);
    assert_eq!(Secrets::load(&path).unwrap().names().count(), 0);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        let path = write(home.path(), "secrets.yaml", "a: b\n", mode);
        assert!(complaints(&path).concat().contains(&format!("mode {mode:04o}")), "{mode:o}");
    }
    write(home.path(), "mounted", "x", 0o644);
    let path = write(home.path(), "secrets.yaml", "a: { file: mounted }\n", 0o600);
    assert!(complaints(&path).concat().contains("mode 0644"));
}

#[test]
fn everything_wrong_is_said_at_once_and_without_a_value() {
    let home = tempfile::tempdir().unwrap();
    let text = "empty: ''\nnumber: 4711\nlist: [canary]\nnowhere: { file: missing }\nunset: { env: SALLYPORT_TEST_NO_SUCH }\nfails: { command: ['false'] }\ntwo: { file: a, env: canary }\n";
    let found = complaints(&write(home.path(), "secrets.yaml", text, 0o600));
    assert_eq!(found.len(), 7, "{found:#?}");
    let all = found.concat();
    assert!(!all.contains("canary") && !all.contains("4711"), "{all}");
}

#[test]
fn a_file_that_is_not_yaml_is_refused_without_quoting_it() {
    let home = tempfile::tempdir().unwrap();
    for text in ["- canary\n", "key: [canary\n", "canary", "a: 1\na: canary\n", "a: { canary: x }\n"] {
        let all = complaints(&write(home.path(), "secrets.yaml", text, 0o600)).concat();
        assert!(!all.contains("canary"), "{all}");
    }
}

#[test]
fn debug_names_secrets_and_never_shows_one() {
    let secrets: Secrets = [("key", "canary")].into_iter().collect();
    let shown = format!("{secrets:?} {:?}", secrets.get("key"));
    assert!(shown.contains("key") && !shown.contains("canary"), "{shown}");
}

fn aws_keys(secrets: &Secrets, name: &str) -> AwsKeys {
    let Some(RouteCredential::Cloud(cloud)) = secrets.credential(name) else {
        panic!("{name} is of a cloud")
    };
    let CloudIdentity::Aws(aws) = &cloud.identity else { panic!("{name} is of AWS") };
    let AwsSource::Keys(keys) = &aws.source else { panic!("{name} has keys") };
    keys.clone()
}

const ID: &str = "AKIAIOSFODNN7EXAMPLE";

#[test]
fn a_key_of_aws_stands_in_the_file_or_is_found_where_the_file_says() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "mounted", "s3cret/key\n", 0o440);
    let text = format!(
        "here: {{ aws: {{ access_key_id: {ID}, secret_access_key: in-place, session_token: for-a-while }} }}\n\
         there: {{ aws: {{ access_key_id: {ID}, secret_access_key: {{ file: mounted }}, service: bedrock-mantle }} }}\n"
    );
    let secrets = Secrets::load(&write(home.path(), "secrets.yaml", &text, 0o600)).unwrap();
    let here = aws_keys(&secrets, "here");
    assert_eq!((here.access_key_id.as_str(), here.secret_access_key.expose_secret()), (ID, "in-place"));
    assert_eq!(here.session_token.unwrap().expose_secret(), "for-a-while");
    let there = aws_keys(&secrets, "there");
    assert_eq!(
        (there.secret_access_key.expose_secret(), there.session_token.is_none()),
        ("s3cret/key", true)
    );
    assert!(secrets.get("here").is_none(), "it is no text that could be sent as it is");
    assert_eq!(secrets.show()["here"], serde_json::json!({"aws": "********"}));
    let shown =
        format!("{secrets:?} {:?} {here:?}", secrets.credential("here"), here = aws_keys(&secrets, "here"));
    assert!(!shown.contains("in-place") && !shown.contains("for-a-while"), "{shown}");
}

#[test]
fn a_profile_is_read_as_awss_tools_write_it() {
    let home = tempfile::tempdir().unwrap();
    let profiles = format!(
        "# comment\n[default]\naws_access_key_id = {ID}\naws_secret_access_key=of/default+=\n\n\
         [profile gateway]\n; comment\nregion = eu-central-1\naws_access_key_id={ID}\n  aws_secret_access_key =  of-gateway \naws_session_token = tok==\n\
         [empty]\nregion = x\n[bad]\naws_access_key_id = no-id\naws_secret_access_key = canary\n"
    );
    write(home.path(), "profiles", &profiles, 0o600);
    let load = |name: &str| {
        let text = format!("a: {{ aws: {{ profile: {name}, profile_file: profiles }} }}\n");
        Secrets::load(&write(home.path(), "secrets.yaml", &text, 0o600))
    };
    let default = aws_keys(&load("default").unwrap(), "a");
    assert_eq!(
        (default.secret_access_key.expose_secret(), default.session_token.is_none()),
        ("of/default+=", true)
    );
    let gateway = aws_keys(&load("gateway").unwrap(), "a");
    assert_eq!(gateway.secret_access_key.expose_secret(), "of-gateway");
    assert_eq!(gateway.session_token.unwrap().expose_secret(), "tok==");
    for (name, said) in [
        ("nobody", "has no such profile"),
        ("empty", "holds no aws_access_key_id"),
        ("bad", "is no id of an access key"),
    ] {
        let problems = load(name).unwrap_err();
        assert_eq!(problems[0].path, "secrets.yaml: a.aws.profile", "{name}");
        assert!(
            problems[0].message.contains(said) && !problems[0].message.contains("canary"),
            "{problems:?}"
        );
    }
    write(home.path(), "profiles", &profiles, 0o644);
    assert!(load("default").unwrap_err()[0].message.contains("mode 0644"));
}

#[test]
fn what_is_wrong_with_a_credential_of_a_cloud_is_said_with_its_path_and_without_a_value() {
    let home = tempfile::tempdir().unwrap();
    let of_aws = r#"{"type": "external_account", "audience": "a", "subject_token_type": "t", "token_url": "https://t.example",
        "credential_source": {"environment_id": "aws1", "url": "http://169.254.169.254/canary"}}"#;
    write(home.path(), "of-aws", of_aws, 0o600);
    for (entry, path, said) in [
        ("{ aws: {} }", "a.aws", "exactly one of access_key_id, profile, role_arn, instance_metadata"),
        ("{ aws: canary }", "a.aws", "must be a mapping"),
        ("{ aws: { canary: x, profile: p } }", "a.aws", "a key that is not known; known here are service,"),
        ("{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE } }", "a.aws.secret_access_key", "is missing"),
        ("{ aws: { access_key_id: canary, secret_access_key: canary } }", "a.aws.access_key_id", "is no id"),
        (
            "{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: 4711 } }",
            "a.aws.secret_access_key",
            "quote it",
        ),
        (
            "{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: { file: missing } } }",
            "a.aws.secret_access_key",
            "cannot read",
        ),
        (
            "{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: canary, profile: p } }",
            "a.aws",
            "exactly one of",
        ),
        (
            "{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: canary, profile_file: f } }",
            "a.aws.profile_file",
            "means nothing without profile",
        ),
        (
            "{ aws: { profile: default, session_token: canary } }",
            "a.aws.session_token",
            "means nothing without access_key_id",
        ),
        (
            "{ aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: canary, service: 'a/b' } }",
            "a.aws.service",
            "is no name of a service",
        ),
        ("{ aws: { profile: p }, file: canary }", "a", "must hold a cloud alone"),
        ("{ aws: { role_arn: 'arn:aws:iam::1:role/x' } }", "a.aws.web_identity_token_file", "is missing"),
        (
            "{ aws: { role_arn: canary, web_identity_token_file: secrets.yaml } }",
            "a.aws.role_arn",
            "is no ARN of a role",
        ),
        (
            "{ aws: { role_arn: 'arn:aws:iam::1:role/x', web_identity_token_file: missing } }",
            "a.aws.web_identity_token_file",
            "cannot read",
        ),
        (
            "{ aws: { role_arn: 'arn:aws:iam::1:role/x', web_identity_token_file: secrets.yaml, session_name: 'a b' } }",
            "a.aws.session_name",
            "is no name of a session",
        ),
        (
            "{ aws: { role_arn: 'arn:aws:iam::1:role/x', web_identity_token_file: secrets.yaml, sts_endpoint: 'http://sts.example' } }",
            "a.aws.sts_endpoint",
            "must start with https://",
        ),
        ("{ aws: { instance_metadata: false } }", "a.aws.instance_metadata", "must be true"),
        (
            "{ aws: { instance_metadata: true, metadata_endpoint: 'http://10.0.0.1' } }",
            "a.aws.metadata_endpoint",
            "must start with https://",
        ),
        (
            "{ gcp: {} }",
            "a.gcp",
            "exactly one of service_account_key, workload_identity_file, metadata_server",
        ),
        ("{ gcp: { service_account_key: canary } }", "a.gcp.service_account_key", "is no JSON key"),
        (
            "{ gcp: { service_account_key: '{\"type\":\"authorized_user\",\"client_email\":\"canary\",\"private_key\":\"canary\"}' } }",
            "a.gcp.service_account_key",
            "another type than service_account",
        ),
        (
            "{ gcp: { service_account_key: '{\"type\":\"service_account\",\"client_email\":\"canary\",\"private_key\":\"canary\"}' } }",
            "a.gcp.service_account_key",
            "private_key holds no private key in PEM",
        ),
        (
            "{ gcp: { service_account_key: '{\"type\":\"service_account\",\"client_email\":\"c\",\"private_key\":\"c\",\"token_uri\":\"http://t.example/\"}' } }",
            "a.gcp.service_account_key",
            "token_uri must start with https://",
        ),
        ("{ gcp: { workload_identity_file: missing } }", "a.gcp.workload_identity_file", "cannot read"),
        (
            "{ gcp: { workload_identity_file: secrets.yaml } }",
            "a.gcp.workload_identity_file",
            "is no configuration",
        ),
        (
            "{ gcp: { workload_identity_file: of-aws } }",
            "a.gcp.workload_identity_file",
            "something other than a file",
        ),
        ("{ gcp: { metadata_server: 'yes' } }", "a.gcp.metadata_server", "must be true"),
        (
            "{ gcp: { metadata_server: true, service_account: 'a/b' } }",
            "a.gcp.service_account",
            "is no name of a service account",
        ),
        ("{ azure: { tenant_id: t, client_id: c } }", "a.azure", "exactly one of client_secret"),
        ("{ azure: { client_secret: canary } }", "a.azure.tenant_id", "is missing"),
        ("{ azure: { client_secret: canary } }", "a.azure.client_id", "is missing"),
        (
            "{ azure: { tenant_id: '../canary', client_id: c, client_secret: canary } }",
            "a.azure.tenant_id",
            "is neither an id nor a domain",
        ),
        (
            "{ azure: { tenant_id: t, client_id: c, client_certificate: canary } }",
            "a.azure.client_certificate",
            "holds no private key in PEM",
        ),
        (
            "{ azure: { tenant_id: t, client_id: c, client_secret: canary, authority: 'http://login.example' } }",
            "a.azure.authority",
            "must start with https://",
        ),
        (
            "{ azure: { tenant_id: t, client_id: c, federated_token_file: missing } }",
            "a.azure.federated_token_file",
            "cannot read",
        ),
    ] {
        let found =
            Secrets::load(&write(home.path(), "secrets.yaml", &format!("a: {entry}\n"), 0o600)).unwrap_err();
        let path = format!("secrets.yaml: {path}");
        assert!(found.iter().any(|it| it.path == path && it.message.contains(said)), "{entry}: {found:#?}");
        assert!(!format!("{found:?}").contains("canary"), "{entry}: {found:#?}");
    }
}

/// What a route with these keys is told that names a credential of AWS. Its file is a whole one.
fn told(route: &str) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let keys = "bedrock: { aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: canary } }\n";
    write(home.path(), "secrets.yaml", keys, 0o600);
    let route = format!(
        "{{ model_pattern: 'claude-*', provider: bedrock, api_key_secret: bedrock, upstream_model: anthropic.claude-opus-4-5, {route} }}"
    );
    let text = format!("gateway: {{ routes: [{route}] }}\n");
    let file = write(home.path(), "sallyport.yaml", &text, 0o600);
    match Config::load(&file) {
        Ok(config) => vec![config.gateway.targets().next().unwrap().aws_region().unwrap().to_owned()],
        Err(report) => report.problems().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_route_that_signs_knows_its_region_or_is_refused() {
    for (route, said) in [
        ("endpoint: 'https://bedrock-runtime.eu-central-1.amazonaws.com'", "eu-central-1"),
        ("endpoint: 'https://bedrock-runtime.eu-central-1.amazonaws.com', region: eu", "eu-central-1"),
        ("endpoint: 'https://bedrock.corp.example', region: us-east-1", "us-east-1"),
        (
            "endpoint: 'https://bedrock.corp.example'",
            "gateway.routes[0].region: is missing: AWS signatures name a region, and the endpoint's name does not",
        ),
        (
            "endpoint: 'https://bedrock.corp.example', region: eu",
            "gateway.routes[0].region: is no AWS region (eu-central-1), which signatures name",
        ),
        (
            "endpoint: 'https://bedrock-runtime.eu-central-1.amazonaws.com', api_key_form: bearer",
            "gateway.routes[0].api_key_form: bedrock is a credential of a cloud, which says itself how it is sent: leave this out",
        ),
    ] {
        assert_eq!(told(route), [said], "{route}");
    }
}

#[test]
fn a_credential_of_a_cloud_is_no_text_for_those_that_need_one() {
    let home = tempfile::tempdir().unwrap();
    let keys = "bedrock: { aws: { access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: canary } }\n";
    write(home.path(), "secrets.yaml", keys, 0o600);
    let egress = "{ name: a, endpoint: 'https://h.example', methods: [GET], auth: bearer, secret: bedrock, components: [acme/x] }";
    let text = format!("database: {{ url_secret: bedrock }}\negress: [{egress}]\n");
    let file = write(home.path(), "sallyport.yaml", &text, 0o600);
    let found = Config::load(&file).unwrap_err();
    let all = found.to_string();
    for path in ["database.url_secret", "egress[0].secret"] {
        let line = format!("{path}: bedrock is a credential of a cloud (aws)");
        assert!(all.contains(&line), "{line} not in {all}");
    }
    assert!(!all.contains("canary"), "{all}");
}
