//! The `countersign` program.

use std::process::ExitCode;

/// Less work than the system's for the many small values of a sign-in.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    countersign::cli::run()
}
