//! The `sallyport` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sallyport::cli::main()
}
