//! The `chunkwise` command; see [`chunkwise::cli`].

/// Gives memory back that chunks of many threads have freed, where the system's own keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chunkwise::cli::main()
}
