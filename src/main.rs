//! The `acode` binary.

fn main() -> std::process::ExitCode {
    acode::cli::main()
}
