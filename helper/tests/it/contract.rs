//! What a client reads on standard output: one line of JSON, from the cache where it is fresh, or nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::double::{Double, credential, error, ok, status};
use crate::station::{PAT, Ran, Station};

#[test]
fn the_default_command_prints_one_line_of_json_and_nothing_else() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url()).with("RUST_LOG", "trace").with("RUST_BACKTRACE", "full");
    station.login();
    for arguments in [&[][..], &["run"], &["--format", "json"], &["run", "--format", "json"]] {
        let ran = station.run(arguments);
        let credential = ran.credential();
        assert_eq!(credential["token"], "token-1");
        assert_eq!(credential["headers"]["x-user-id"], "u_29f8a3");
        assert_eq!(credential["headers"].as_object().unwrap().len(), 7);
        assert_eq!(ran.err, "");
    }
    for arguments in [&["--format", "bare"][..], &["run", "--format", "bare"]] {
        assert_eq!(station.run(arguments).out, "token-1\n");
    }
}

#[test]
fn a_token_that_is_cached_is_printed_without_a_call_and_with_what_remains_of_its_life() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    station.login();
    assert_eq!(gateway.requests().len(), 1, "login asks whether the token is good");
    station.age(1000, 2600);
    let ttl = station.run(&[]).credential()["ttl"].as_u64().unwrap();
    assert!((2590..=2600).contains(&ttl), "{ttl}");
    assert_eq!(gateway.requests().len(), 1);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(station.cache()), 0o600);
    assert_eq!(mode(station.secrets()), 0o600);
    assert_eq!(mode(station.config()), 0o600);
    // Removing the file is how a person forgets it.
    fs::remove_file(station.cache()).unwrap();
    assert_eq!(station.run(&[]).credential()["token"], "token-2");
}

#[test]
fn a_token_is_renewed_before_its_end_with_the_life_that_the_gateway_gives_it() {
    let gateway = Double::start(|number, _| ok(&credential(&format!("token-{number}"), 60)));
    let station = Station::new(&gateway.url());
    station.login();
    station.age(3400, 200);
    let renewed = station.run(&[]).credential();
    assert_eq!(renewed["token"], "token-2");
    assert!(renewed["ttl"].as_u64().unwrap() <= 60, "the gateway may give less than before");
    let request = gateway.requests().pop().unwrap().to_lowercase();
    assert!(request.starts_with("post /v1/auth/cowork/pat http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: bearer {}\r\n", PAT.to_lowercase())), "{request}");
}

#[test]
fn a_gateway_that_is_away_stops_nobody_whose_token_is_good() {
    let gateway = Double::start(|number, _| match number {
        1 => ok(&credential("token-1", 3600)),
        _ => status("503 Service Unavailable", &error("draining")),
    });
    let station = Station::new(&gateway.url());
    station.login();
    station.age(3400, 200);
    let ran = station.run(&[]);
    assert_eq!(ran.credential()["token"], "token-1");
    assert!(ran.err.contains("draining"), "{}", ran.err);
    // Once it ended, it is not printed any more.
    station.age(3700, 0);
    assert!(station.run(&[]).fails(3).contains("draining"));
}

#[test]
fn a_revoked_token_ends_with_its_cache() {
    let gateway = Double::start(|number, _| match number {
        1 => ok(&credential("token-1", 3600)),
        _ => status("401 Unauthorized", &error("the token was revoked")),
    });
    let station = Station::new(&gateway.url());
    station.login();
    station.age(3400, 200);
    let line = station.run(&[]).fails(5).to_owned();
    assert!(line.contains("refuses the personal access token (status 401: the token was revoked)"), "{line}");
    assert!(!station.cache().exists(), "what was refused is not printed by the next run");
    station.run(&[]).fails(5);
}

#[test]
fn of_many_processes_one_asks_the_gateway() {
    let gateway = Double::start(|number, _| {
        thread::sleep(Duration::from_millis(300));
        ok(&credential(&format!("token-{number}"), 3600))
    });
    let station = Station::new(&gateway.url());
    station.login();
    fs::remove_file(station.cache()).unwrap();
    let children: Vec<_> = (0..12).map(|_| station.command(&[]).spawn().unwrap()).collect();
    for child in children {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.credential()["token"], "token-2", "all have the same one");
    }
    assert_eq!(gateway.requests().len(), 2, "login, and one of the twelve");
}

#[test]
fn a_credential_is_for_its_gateway_alone() {
    let (first, second) = (Double::kind(3600), Double::kind(3600));
    let station = Station::new(&first.url());
    station.login();
    station.run(&[]).credential();
    let text = fs::read_to_string(station.config()).unwrap();
    station.write_config(&text.replace(&first.url(), &second.url()));
    let line = station.run(&[]).fails(5).to_owned();
    assert!(line.contains("nobody is signed in at"), "{line}");
    assert_eq!(second.requests(), Vec::<String>::new(), "nothing of the first gateway's goes to the second");
}

#[test]
fn an_answer_that_cannot_be_written_is_said_by_its_exit_code() {
    let gateway = Double::kind(3600);
    let station = Station::new(&gateway.url());
    station.login();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::of({
        let mut command = station.command(&[]);
        command.stdout(Stdio::from(full));
        command
    });
    ran.fails(2);
    // Nobody reads.
    let mut child = station.command(&[]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
}
