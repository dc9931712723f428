//! The `chunkwise` command; see [`chunkwise::cli`].

fn main() -> std::process::ExitCode {
    chunkwise::cli::main()
}
