//! The report for a person: what was measured side by side.

use std::io::Write;

use serde_json::Value;

/// Bare proxy, policies off and policies on, in columns.
pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    writeln!(out, "CPU is of the proxy's or the gateway's own process")?;
    writeln!(out, "{:<44}{:>14}{:>14}{:>14}", "", "bare proxy", "policies off", "policies on")?;
    let nanos =
        |who: &str, pointer: &str| report[who].pointer(pointer).and_then(Value::as_u64).map(|n| n as f64);
    let columns = ["proxy", "policies_off", "policies_on"];
    let added =
        |pointer: &str| columns.map(|who| Some((nanos(who, pointer)? - nanos("direct", pointer)?) / 1e3));
    let of = |pointer: &str, unit: f64| columns.map(|who| nanos(who, pointer).map(|n| n / unit));
    let rate = columns.map(|who| report[who].pointer("/many/rate").and_then(Value::as_f64));
    let mib = f64::from(1 << 20);
    for (name, values, digits) in [
        ("added latency, 1 connection, p50 (us)", added("/one/p50"), 0),
        ("added latency, 1 connection, p99 (us)", added("/one/p99"), 0),
        ("requests a second, 64 connections", rate, 0),
        ("p99, 64 connections (ms)", of("/many/p99", 1e6), 2),
        ("CPU a request, 1 connection (ms)", of("/one/cpu", 1e6), 3),
        ("CPU a request, 64 connections (ms)", of("/many/cpu", 1e6), 3),
        ("CPU a stream of 200 pieces (ms)", of("/stream/cpu", 1e6), 3),
        ("CPU a translated request (ms)", of("/translated/cpu", 1e6), 3),
        ("CPU a translated stream of 200 pieces (ms)", of("/stream_translated/cpu", 1e6), 3),
        ("CPU of 1 MiB, first turn (ms)", of("/megabyte_turn_1/cpu", 1e6), 3),
        ("CPU of 1 MiB, second turn (ms)", of("/megabyte_turn_2/cpu", 1e6), 3),
        ("RSS idle (MiB)", of("/rss_idle", mib), 1),
        ("RSS after load (MiB)", of("/rss_after_load", mib), 1),
        ("RSS with open streams (MiB)", of("/rss_streams", mib), 1),
        ("a stream that is open (KiB)", of("/bytes_per_stream", 1024.0), 1),
    ] {
        write!(out, "{name:<44}")?;
        for value in values {
            match value {
                Some(value) => write!(out, "{value:>14.digits$}")?,
                None => write!(out, "{:>14}", "-")?,
            }
        }
        writeln!(out)?;
    }
    for (name, micros) in report["policies_on"]["components"].as_object().into_iter().flatten() {
        writeln!(out, "{:<44}{:>42}", format!("{name}, a fresh call (us)"), micros)?;
    }
    Ok(())
}
