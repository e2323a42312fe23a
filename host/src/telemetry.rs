//! The gateway's own log: lines for a person at a terminal, JSON for everything else, always on standard error, since
//! standard output belongs to answers and to audit rows. Never a body, a token, an address or a name of a person.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// What is logged. `guest` is what components say.
const DIRECTIVES: &str = "warn,sallyport=info,guest=info";

/// Starts logging. A second call changes nothing.
pub fn init() {
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::new(DIRECTIVES));
    let started = if io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    // Only fails when there is a subscriber already, as in a test.
    drop(started);
}
