//! Indexes a request of 1 MiB so many times. `cargo xtask bench --gate` counts the instructions.

use std::hint::black_box;
use std::process::ExitCode;

use sallyport_protocol::messages::index::Index;

fn main() -> ExitCode {
    let Some(times) = std::env::args().nth(1).and_then(|word| word.parse::<u32>().ok()) else {
        return ExitCode::FAILURE;
    };
    let body = body();
    for _ in 0..times {
        if black_box(Index::parse(black_box(&body))).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A conversation of 64 messages of 16 KiB.
fn body() -> Vec<u8> {
    let line = r#"The quarterly report says \"revenue grew by 12%\", yet the table on page 3 shows 11.4%.\n"#;
    let text = line.repeat((16 * 1024) / line.len());
    let messages: Vec<String> = (0..63)
        .map(|at| {
            let role = if at % 2 == 0 { "user" } else { "assistant" };
            format!(r#"{{"role":"{role}","content":[{{"type":"text","text":"{text}"}}]}}"#)
        })
        .collect();
    format!(r#"{{"model":"claude-bench","max_tokens":64,"messages":[{}]}}"#, messages.join(",")).into_bytes()
}
