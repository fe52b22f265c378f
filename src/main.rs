//! The `embody` program: everything is in `cli`.

fn main() -> std::process::ExitCode {
    embody::main()
}
