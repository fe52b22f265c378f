//! The `embody` program: everything is in `cli`.

/// glibc keeps what a rack that comes up needed for a second: twice the memory of a fleet at rest, and a tenth more CPU (measured).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    embody::main()
}
