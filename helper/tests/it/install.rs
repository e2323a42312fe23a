//! Setting a machine up, and what is distributed to fleets. The files are read by what others wrote: Python's libraries and
//! systemd.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::double::{Double, Reply, answer, credential, ok};
use crate::station::{Ran, Station};

/// The key of RFC 8037, appendix A, and its thumbprint.
const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

fn gateway_with(key: Option<(&'static str, &'static str)>) -> Double {
    Double::start(move |_, request| {
        if request.starts_with("GET /v1/auth/cowork/capabilities ") {
            return ok(&json!({ "modes": ["pat"], "issuer": "https://gateway.example.com", "key": "k" }));
        }
        if request.starts_with("GET /v1/cowork/pubkey ") {
            return match key {
                Some((x, kid)) => {
                    ok(&json!({ "kid": kid, "alg": "EdDSA", "crv": "Ed25519", "x": x, "next": null }))
                }
                None => Reply::Bytes(answer("404 Not Found", "application/json", b"{}")),
            };
        }
        ok(&credential("token", 3600))
    })
}

fn gateway() -> Double {
    gateway_with(Some((KEY, THUMBPRINT)))
}

/// Runs Python; `None` where there is none.
fn python(program: &str, arguments: &[&Path]) -> Option<Value> {
    let output = Command::new("python3").arg("-c").arg(program).args(arguments).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn installing_twice_changes_nothing_the_second_time() {
    let gateway = gateway();
    let station = Station::new(&gateway.url());
    station.login();
    let written = fs::read_to_string(station.config()).unwrap();
    let ran = station.run(&["install", "--gateway", &gateway.url()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains(&format!("key          {THUMBPRINT} is pinned\n")), "{}", ran.out);
    let once = fs::read_to_string(station.config()).unwrap();
    assert_eq!(once, format!("{written}\n[sync]\npinned_pubkey = \"{KEY}\"\n"), "other settings are kept");
    assert!(station.home().join(".local/share/Claude/org-plugins").is_dir());
    let files = station.files();
    let ran = station.run(&["install", "--gateway", &format!("{}/", gateway.url())]);
    assert!(ran.out.contains("(unchanged)"), "{}", ran.out);
    assert_eq!(fs::read_to_string(station.config()).unwrap(), once);
    assert_eq!(station.files(), files);
    assert_eq!(station.run(&[]).credential()["token"], "token", "whoever was signed in still is");
}

#[test]
fn a_key_that_is_not_the_one_that_was_asked_for_is_refused_and_nothing_is_written() {
    let gateway = gateway();
    let url = gateway.url();
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for more in [["--pubkey", other], ["--root-fingerprint", other]] {
        let station = Station::bare();
        station.run(&[&["install", "--gateway", &url][..], &more].concat()).fails(4);
        assert_eq!(station.files(), Vec::<String>::new());
    }
    for more in [["--pubkey", KEY], ["--root-fingerprint", THUMBPRINT]] {
        assert_eq!(Station::bare().run(&[&["install", "--gateway", &url][..], &more].concat()).code, 0);
    }
    // The pinned key and the gateway's differ.
    let station = Station::bare();
    let text = format!("gateway_url = \"{url}\"\n[sync]\npinned_pubkey = \"{other}\"\n");
    station.write_config(&text);
    let told = station.run(&["install", "--gateway", &url]).fails(4).to_owned();
    assert!(told.contains(&format!("--root-fingerprint {THUMBPRINT}")), "{told}");
    assert_eq!(fs::read_to_string(station.config()).unwrap(), text);
    assert_eq!(station.run(&["install", "--gateway", &url, "--root-fingerprint", THUMBPRINT]).code, 0);
    assert!(fs::read_to_string(station.config()).unwrap().contains(KEY));
    // A key under the name of another one.
    let liar = gateway_with(Some((other, THUMBPRINT)));
    Station::bare().run(&["install", "--gateway", &liar.url()]).fails(3);
    // None at all.
    let ran = Station::bare().run(&["install", "--gateway", &gateway_with(None).url()]);
    assert!(ran.out.contains("key          none"), "{ran:?}");
}

#[test]
fn a_command_line_with_a_mistake_installs_nothing() {
    let gateway = gateway();
    let url = gateway.url();
    let bad: [&[&str]; 9] = [
        &["install"],
        &["install", "--gateway", "http://gateway.example.com"],
        &["install", "--gateway", &url, "--pubkey", "short"],
        &["install", "--gateway", &url, "--print-mdm", "beos"],
        &["install", "--gateway", &url, "--print-mdm", "linux", "--helper-path", "relative"],
        &["install", "--gateway", &url, "--print-mdm", "windows", "--helper-path", "/unix"],
        &["install", "--gateway", &url, "--print-mdm", "linux", "--ttl-sec", "5"],
        &["install", "--gateway", &url, "--print-mdm", "linux", "--timeout-sec", "601"],
        &["install", "--gateway", &url, "--print-mdm", "linux", "--mcp-servers", "servers.json"],
    ];
    for arguments in bad {
        let station = Station::bare();
        fs::write(station.home().join("servers.json"), "{\"name\": \"x\"}").unwrap();
        station.run(arguments).fails(64);
        assert_eq!(station.files(), ["servers.json"]);
    }
    assert_eq!(gateway.requests(), Vec::<String>::new());
    let nothing = Double::start(|_, _| Reply::Bytes(answer("200 OK", "text/html", b"<html>")));
    let station = Station::bare();
    station.run(&["install", "--gateway", &nothing.url()]).fails(3);
    assert_eq!(station.files(), Vec::<String>::new());
}

/// Everything for a system, in a folder, with values that have to be escaped.
fn distributed(os: &str, helper: &str) -> (Station, Ran) {
    let gateway = gateway();
    let station = Station::bare();
    let servers =
        json!([{ "name": "docs", "transport": "http", "url": "https://mcp.example.com/?a=1&b=<2>\"$HOME" }]);
    fs::write(station.home().join("servers.json"), servers.to_string()).unwrap();
    let ran = station.run(&[
        "install",
        "--gateway",
        &gateway.url(),
        "--print-mdm",
        os,
        "--out",
        "out",
        "--helper-path",
        helper,
        "--timeout-sec",
        "30",
        "--model",
        "claude-sonnet-4-5",
        "--mcp-servers",
        "servers.json",
        "--local-mcp",
        "false",
        "--signed-extensions",
        "true",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    (station, ran)
}

const SERVERS: &str =
    r#"[{"name":"docs","transport":"http","url":"https://mcp.example.com/?a=1&b=<2>\"$HOME"}]"#;

#[test]
fn the_profile_of_macos_is_one_that_plistlib_reads() {
    let (station, _) = distributed("macos", "/usr/local/bin/sp-cowork-auth");
    let file = station.home().join("out/cowork.mobileconfig");
    let program = "import sys, json, plistlib; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let Some(profile) = python(program, &[&file]) else {
        crate::tell("skipped: the profile of macOS (python3 is not installed)");
        return;
    };
    assert_eq!(profile["PayloadType"], "Configuration");
    assert_eq!(profile["PayloadVersion"], 1);
    let content = &profile["PayloadContent"][0];
    assert_eq!(content["PayloadType"], "com.anthropic.claudefordesktop");
    assert_eq!(content["inferenceProvider"], "gateway");
    assert_eq!(content["inferenceCredentialHelper"], "/usr/local/bin/sp-cowork-auth");
    assert_eq!(content["inferenceCredentialHelperTtlSec"], "3600", "a string");
    assert_eq!(content["inferenceCredentialHelperTimeoutSec"], "30");
    assert_eq!(content["isLocalDevMcpEnabled"], "false");
    assert_eq!(content["isDesktopExtensionSignatureRequired"], "true");
    assert_eq!(content["inferenceModels"], r#"[{"name":"claude-sonnet-4-5"}]"#);
    assert_eq!(content["managedMcpServers"], SERVERS);
}

#[test]
fn the_files_of_windows_are_ones_that_readers_of_others_read() {
    let helper = r"C:\Program Files\systemprompt\sp-cowork-auth.exe";
    let (station, _) = distributed("windows", helper);
    let out = station.home().join("out");
    let program = r#"
import sys, json, csv, re
import xml.etree.ElementTree as tree
reg, admx, adml, rows = sys.argv[1:]
raw = open(reg, 'rb').read()
assert raw[:2] == b'\xff\xfe'
lines = raw.decode('utf-16').split('\r\n')
values = {}
for line in lines[3:]:
    if line:
        found = re.fullmatch(r'"([A-Za-z]+)"="((?:[^"\\]|\\.)*)"', line)
        values[found[1]] = re.sub(r'\\(.)', r'\1', found[2])
ns = {'p': 'http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions'}
template, texts = tree.parse(admx), tree.parse(adml)
strings = {s.get('id') for s in texts.iterfind('.//p:string', ns)}
shown = {s.get('id') for s in texts.iterfind('.//p:presentation', ns)}
for name in re.findall(r'\$\(string\.([^)]+)\)', open(admx).read()):
    assert name in strings, name
policies = []
for policy in template.iterfind('.//p:policy', ns):
    name = policy.get('name')
    assert policy.get('presentation') == '$(presentation.%s)' % name and name in shown
    ids = [e.get('id') for e in policy.find('p:elements', ns)]
    refs = [c.get('refId') for p in texts.iterfind('.//p:presentation', ns) if p.get('id') == name for c in p]
    assert ids == refs == [name], (ids, refs)
    assert policy.get('key') == r'SOFTWARE\Policies\Claude'
    policies.append(name)
proposed = {c.get('refId'): c.find('p:defaultValue', ns).text for c in texts.iterfind('.//p:textBox', ns)}
table = list(csv.DictReader(open(rows, newline='')))
tree.fromstring(table[0]['Value'].encode())
set_by = {}
for row in table[1:]:
    data = tree.fromstring('<r>' + row['Value'] + '</r>').find('data')
    assert row['OMA-URI'].endswith('/Claude~Policy~Claude/' + data.get('id'))
    set_by[data.get('id')] = data.get('value')
print(json.dumps({'head': lines[0], 'key': lines[2], 'values': values, 'policies': policies, 'proposed': proposed, 'set': set_by}))
"#;
    let files =
        ["cowork.reg", "Claude.admx", "en-US/Claude.adml", "intune-oma-uri.csv"].map(|name| out.join(name));
    let Some(read) = python(program, &files.each_ref().map(AsRef::as_ref)) else {
        crate::tell("skipped: the files of Windows (python3 is not installed)");
        return;
    };
    assert_eq!(read["head"], "Windows Registry Editor Version 5.00");
    assert_eq!(read["key"], r"[HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Claude]");
    let values = read["values"].as_object().unwrap();
    assert_eq!(values.len(), 10);
    assert_eq!(values["inferenceCredentialHelper"], helper);
    assert_eq!(values["managedMcpServers"], SERVERS);
    assert_eq!(values["inferenceCredentialHelperTtlSec"], "3600");
    for format in ["proposed", "set"] {
        assert_eq!(read[format], read["values"], "{format}");
    }
    assert_eq!(read["policies"].as_array().unwrap().len(), 10);
}

#[test]
fn the_environment_of_linux_is_what_systemd_reads() {
    let (station, _) = distributed("linux", "/opt/with space/sp-cowork-auth");
    let text = fs::read_to_string(station.home().join("out/50-claude-cowork.conf")).unwrap();
    assert!(
        text.contains("CLAUDE_INFERENCE_CREDENTIAL_HELPER=\"/opt/with space/sp-cowork-auth\"\n"),
        "{text}"
    );
    // systemd's own generator prints what it makes of the files of a user.
    let generator = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator";
    if !Path::new(generator).exists() {
        crate::tell("skipped: the environment of Linux (systemd is not installed)");
        return;
    }
    let folder = station.home().join(".config/environment.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-claude-cowork.conf"), text).unwrap();
    let ran = Ran::of(station.command_of(generator, &[]));
    let value = |name: &str| {
        let line = ran.out.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is read: {ran:?}")).to_owned()
    };
    let shell = Command::new("sh")
        .arg("-c")
        .arg(format!("printf %s {}", value("CLAUDE_MANAGED_MCP_SERVERS")))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), SERVERS);
}

#[test]
fn applying_on_linux_writes_the_users_environment_and_uninstalling_takes_it_back() {
    let gateway = gateway();
    let station = Station::new(&gateway.url());
    station.login();
    let ran = station.run(&["install", "--gateway", &gateway.url(), "--apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let environment = station.home().join(".config/environment.d/50-claude-cowork.conf");
    let text = fs::read_to_string(&environment).unwrap();
    assert!(text.contains(&format!("CLAUDE_INFERENCE_GATEWAY_BASE_URL=\"{}\"\n", gateway.url())), "{text}");
    let ran = station.run(&["uninstall"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!environment.exists() && !station.cache().exists());
    assert!(station.config().exists() && station.secrets().exists(), "kept without --purge");
    let kept = station.home().join(".local/share/Claude/org-plugins/theirs");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let ran = station.run(&["uninstall", "--purge"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(station.files(), [".local/share/Claude/org-plugins/theirs/file"], "what is theirs stays");
    assert_eq!(station.run(&["uninstall", "--purge"]).code, 0, "twice is once");
}

#[test]
fn templates_of_schedules_are_ones_that_their_systems_take() {
    let gateway = gateway();
    let station = Station::bare();
    for os in ["linux", "macos", "windows"] {
        let helper = if os == "windows" { r"C:\Program Files\a & b\sp-cowork-auth.exe" } else { "/bin/true" };
        let ran = station.run(&[
            "install",
            "--gateway",
            &gateway.url(),
            "--emit-schedule-template",
            os,
            "--out",
            "out",
            "--helper-path",
            helper,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let out = station.home().join("out");
    let program = r"
import sys, json, plistlib
import xml.etree.ElementTree as tree
agent = plistlib.load(open(sys.argv[1], 'rb'))
ns = {'t': 'http://schemas.microsoft.com/windows/2004/02/mit/task'}
task = tree.parse(sys.argv[2])
print(json.dumps({'agent': agent, 'command': task.find('.//t:Command', ns).text, 'arguments': task.find('.//t:Arguments', ns).text}))
";
    let files =
        ["dev.sallyport.cowork-sync.plist", "systemprompt-cowork-sync.xml"].map(|name| out.join(name));
    match python(program, &files.each_ref().map(AsRef::as_ref)) {
        None => crate::tell("skipped: templates of macOS and Windows (python3 is not installed)"),
        Some(read) => {
            assert_eq!(read["agent"]["ProgramArguments"], json!(["/bin/true", "sync"]));
            assert_eq!(read["command"], r"C:\Program Files\a & b\sp-cowork-auth.exe");
            assert_eq!(read["arguments"], "sync");
        }
    }
    let units =
        ["systemprompt-cowork-sync.service", "systemprompt-cowork-sync.timer"].map(|name| out.join(name));
    match Command::new("systemd-analyze").args(["--user", "verify"]).args(&units).output() {
        Err(_) => crate::tell("skipped: units of systemd (systemd-analyze is not installed)"),
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let about_ours: Vec<_> =
                told.lines().filter(|line| line.contains("systemprompt-cowork")).collect();
            assert_eq!(about_ours, Vec::<&str>::new(), "{told}");
        }
    }
}

#[test]
fn validate_says_of_each_thing_whether_it_is_as_it_should_be() {
    let gateway = gateway();
    let station = Station::bare();
    let ran = station.run(&["validate"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("[fail] gateway: none is configured"), "{}", ran.out);
    let station = Station::new(&gateway.url());
    station.run(&["install", "--gateway", &gateway.url(), "--apply"]);
    station.login();
    for command in ["validate", "doctor"] {
        let ran = station.run(&[command]);
        assert_eq!(ran.code, 0, "{ran:?}");
        for line in [
            "[ok] gateway: ",
            &format!("[ok] key: {THUMBPRINT}"),
            "[ok] sign-in: by pat",
            "[ok] credential: cached",
        ] {
            assert!(ran.out.contains(line), "{line} in {}", ran.out);
        }
        assert!(ran.out.contains("[ok] org-plugins: ") && ran.out.contains("(scope: user"), "{}", ran.out);
        assert!(
            ran.out
                .lines()
                .all(|line| ["[ok] ", "[warn] ", "[fail] "].iter().any(|mark| line.starts_with(mark)))
        );
    }
    let read: Value = serde_json::from_str(&station.run(&["doctor", "--json"]).out).unwrap();
    assert_eq!(read["ok"], true);
    assert!(
        read["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["name"] == "exchange" && check["state"] == "ok")
    );
    // The gateway's key was exchanged, and nobody said so.
    let text = fs::read_to_string(station.config()).unwrap();
    station.write_config(&text.replace(KEY, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    let ran = station.run(&["validate"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("[fail] key: "), "{}", ran.out);
    // A tier that the gateway does not take.
    station.write_config(&format!("{text}\n[session]\n"));
    let ran = station.run(&["validate", "--json"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("session is configured"), "{}", ran.out);
}
