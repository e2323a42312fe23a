//! The contract under failures of the system: every call of the kernel that a run makes fails once, and what a client reads is
//! one line of JSON or nothing. The kernel's side is `strace`, which knows nothing of this program.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::double::Double;
use crate::station::{BINARY, PAT, Ran, Station};

/// Of calls that a run makes often, so many of each kind fail: those of the loader are many and alike.
const MOST_OF_A_KIND: usize = 40;

#[test]
fn whatever_call_of_the_system_fails_a_client_reads_a_whole_line_or_nothing() {
    let works =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        crate::tell("skipped: failures of system calls (strace cannot trace here)");
        return;
    }
    let gateway = Double::kind(3600);
    // A first run, which asks the gateway, and one that finds the credential in the cache.
    for cached in [false, true] {
        let station =
            Station::new(&gateway.url()).with("SP_COWORK_PAT", PAT).with("SP_COWORK_TIMEOUT_SEC", "2");
        let trace = station.home().join("trace");
        let traced = |rule: &str| {
            if cached {
                station.run(&[]);
            } else {
                drop(fs::remove_file(station.cache()));
            }
            let output = trace.to_str().unwrap();
            // A call that fails may leave the program waiting for ever: the client would end it too.
            let mut arguments = vec!["-s", "KILL", "20", "strace", "-f", "-qq", "-o", output];
            if !rule.is_empty() {
                arguments.extend(["-e", rule]);
            }
            arguments.push(BINARY);
            Ran::of(station.command_of("timeout", &arguments))
        };
        traced("").credential();
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for line in fs::read_to_string(&trace).unwrap().lines() {
            // `1234  openat(..`
            let call = line.split_whitespace().nth(1).and_then(|rest| rest.split_once('('));
            if let Some((name, _)) =
                call.filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
            {
                *counted.entry(name.to_owned()).or_default() += 1;
            }
        }
        for never in ["execve", "exit_group", "exit"] {
            counted.remove(never);
        }
        assert!(counted.contains_key("write") && counted.contains_key("openat"), "{counted:?}");
        let (mut told, mut silent) = (0, 0);
        for (call, count) in counted {
            for nth in 1..=count.min(MOST_OF_A_KIND) {
                let ran = traced(&format!("inject={call}:error=EIO:when={nth}"));
                let what = format!("{call} {nth} (cached: {cached}): {ran:?}");
                if ran.out.is_empty() {
                    assert_ne!(ran.code, 0, "nothing was said, and the run claims that all is well: {what}");
                    silent += 1;
                    continue;
                }
                let line = ran.out.strip_suffix('\n').unwrap_or_else(|| panic!("half a line: {what}"));
                let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {what}"));
                assert!(value["token"].is_string(), "{what}");
                assert_eq!(ran.code, 0, "a whole answer, and the run claims that it failed: {what}");
                told += 1;
            }
        }
        assert!(told > 5 && silent > 5, "failures were injected: {told} answers, {silent} refusals");
    }
}
