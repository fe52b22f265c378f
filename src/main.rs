//! The `embody` program: everything is in `embody::cli`.

fn main() -> std::process::ExitCode {
    embody::cli::main()
}
