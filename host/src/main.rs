//! The `sallyport` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(sallyport::component::COMPILE_VERB) { return sallyport::component::compile_child(); }
    ExitCode::SUCCESS
}
