//! The `host` program: see [`host::cli`].

fn main() -> std::process::ExitCode {
    host::cli::main()
}
