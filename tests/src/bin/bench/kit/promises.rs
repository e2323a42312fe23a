//! What a figure has to be, and the table that says whether it is.

use std::io::Write;

use serde_json::Value;

/// What a figure has to be.
struct Promise {
    name: &'static str,
    figure: Figure,
    must: f64,
    aim: f64,
}

/// How a figure is taken from a report.
#[derive(Clone, Copy)]
enum Figure {
    /// CPU of a subject in a cell, in that of nginx.
    Cpu(&'static str, &'static str),
    /// Calls a second with everything on, in those of nginx.
    Rate(&'static str),
    /// Added to nginx's median latency, in microseconds.
    Added(&'static str),
    /// The latency that 99 of 100 calls keep, in milliseconds.
    Tail(&'static str),
    /// A figure of memory.
    Memory(&'static str),
    /// What the gate counts.
    Count(&'static str),
}

const PROMISES: [Promise; 21] = [
    promise("msg_c1: CPU / nginx", Figure::Cpu("msg_c1", "on"), 9.0, 7.0),
    promise("msg_c16: CPU / nginx", Figure::Cpu("msg_c16", "on"), 8.0, 6.0),
    promise("msg_c16: calls a second / nginx", Figure::Rate("msg_c16"), 0.17, 0.28),
    promise("msg_c1: median over nginx's, us", Figure::Added("msg_c1"), 240.0, 190.0),
    promise("msg_c1: p99, ms", Figure::Tail("msg_c1"), 0.8, 0.5),
    promise("msg1m_grows_c1: CPU / nginx", Figure::Cpu("msg1m_grows_c1", "on"), 5.0, 3.0),
    promise("msg1m_unseen_c1: CPU / nginx", Figure::Cpu("msg1m_unseen_c1", "on"), 9.0, 7.0),
    promise("sse_c16: CPU / nginx", Figure::Cpu("sse_c16", "on"), 1.8, 1.5),
    promise("sse5ms_c32: CPU / nginx", Figure::Cpu("sse5ms_c32", "on"), 1.5, 1.3),
    promise("tr_c16: CPU / nginx", Figure::Cpu("tr_c16", "on"), 10.0, 8.0),
    promise("trsse_c16: CPU / nginx", Figure::Cpu("trsse_c16", "on"), 2.3, 1.8),
    promise("trsse5ms_c32: CPU / nginx", Figure::Cpu("trsse5ms_c32", "on"), 2.3, 1.8),
    promise("policies off, msg_c16: CPU / nginx", Figure::Cpu("msg_c16", "off"), 6.0, 4.5),
    promise("policies off, sse_c16: CPU / nginx", Figure::Cpu("sse_c16", "off"), 1.6, 1.4),
    promise("msg_c256: p99, ms", Figure::Tail("msg_c256"), 150.0, 100.0),
    promise("peak of memory over all cells, MiB", Figure::Memory("peak_mib"), 64.0, 64.0),
    promise("a waiting stream, KiB", Figure::Memory("stream_kib"), 32.0, 32.0),
    promise("a gateway with 1,000 of them, MiB", Figure::Memory("streams_mib"), 110.0, 110.0),
    promise("writes of a burst of 200", Figure::Count("burst of 200: writes to sockets"), 3.0, 3.0),
    promise("futex of a unary call", Figure::Count("unary: futex"), 2.5, 2.5),
    promise("allocations of a unary call", Figure::Count("unary: allocations"), 250.0, 250.0),
];

/// For a person: the medians of these cells, and what was promised.
pub(super) fn table(
    out: &mut impl Write,
    report: &Value,
    cells: impl Iterator<Item = &'static str>,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "medians of {} rounds; CPU in us a call, of the process and its children",
        report["rounds"]
    )?;
    writeln!(
        out,
        "{:<18}{:>9}{:>9}{:>9}{:>8}{:>8}{:>10}{:>10}{:>10}{:>9}",
        "", "nginx", "off", "on", "off/n.", "on/n.", "p50 dir.", "p50 n.", "p50 on", "p99 on"
    )?;
    let cpu = |cell: &str, who: &str| median(report, cell, who, "cpu_us");
    for cell in cells {
        let Some(on) = cpu(cell, "on") else { continue };
        let show = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"))
        };
        let time = |who: &str, what: &str| median(report, cell, who, what).map(|nanos| nanos / 1e3);
        writeln!(
            out,
            "{:<18}{:>9}{:>9}{:>9}{:>8}{:>8}{:>10}{:>10}{:>10}{:>9}",
            cell,
            show(cpu(cell, "nginx"), 1),
            show(cpu(cell, "off"), 1),
            show(Some(on), 1),
            show(Figure::Cpu(cell, "off").of(report), 2),
            show(Figure::Cpu(cell, "on").of(report), 2),
            show(time("direct", "p50"), 0),
            show(time("nginx", "p50"), 0),
            show(time("on", "p50"), 0),
            show(time("on", "p99"), 0),
        )?;
    }
    writeln!(out, "\n{:<40}{:>9}{:>9}{:>9}", "promise", "is", "must", "aim")?;
    for Promise { name, figure, must, aim } in &PROMISES {
        let Some(is) = figure.of(report) else {
            writeln!(out, "{name:<40}{:>9}{must:>9}{aim:>9}  not measured", "-")?;
            continue;
        };
        let keeps = |bound: f64| if matches!(figure, Figure::Rate(_)) { is >= bound } else { is <= bound };
        let verdict = match (keeps(*aim), keeps(*must)) {
            (true, _) => "pass, aim met",
            (false, true) => "pass",
            (false, false) => "MISS",
        };
        writeln!(out, "{name:<40}{is:>9.2}{must:>9}{aim:>9}  {verdict}")?;
    }
    for what in report["skipped"].as_array().into_iter().flatten() {
        writeln!(out, "skipped: {}", what.as_str().unwrap_or_default())?;
    }
    Ok(())
}

// === impl Figure ===

impl Figure {
    fn of(self, report: &Value) -> Option<f64> {
        match self {
            // The rounds are paired: what disturbed one subject's turn disturbed the other's.
            Self::Cpu(cell, who) => paired(report, cell, who, "cpu_us", |ours, nginx| ours / nginx),
            Self::Rate(cell) => paired(report, cell, "on", "rate", |ours, nginx| ours / nginx),
            Self::Added(cell) => paired(report, cell, "on", "p50", |ours, nginx| (ours - nginx) / 1e3),
            Self::Tail(cell) => median(report, cell, "on", "p99").map(|nanos| nanos / 1e6),
            Self::Memory(what) => report["memory"][what].as_f64(),
            Self::Count(what) => report["counts"][what].as_f64(),
        }
    }
}

// === private helpers ===

const fn promise(name: &'static str, figure: Figure, must: f64, aim: f64) -> Promise {
    Promise { name, figure, must, aim }
}

fn paired(report: &Value, cell: &str, who: &str, what: &str, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let cell = &report["cells"][cell];
    let pairs = cell[who].as_array()?.iter().zip(cell["nginx"].as_array()?);
    middle(pairs.filter_map(|(ours, nginx)| Some(of(ours[what].as_f64()?, nginx[what].as_f64()?))).collect())
}

fn median(report: &Value, cell: &str, who: &str, what: &str) -> Option<f64> {
    let rounds = report["cells"][cell][who].as_array()?;
    middle(rounds.iter().filter_map(|round| round[what].as_f64()).collect())
}

fn middle(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}
