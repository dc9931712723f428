//! The command line: arguments → engine → what a person sees.
//!
//! Exit codes: 0 done, 1 a task failed or the cache can't be used, 2 wrong usage or invalid SQL, 130 interrupted.

pub mod allocator;
mod cache;
mod demo;
mod explain;
mod progress;
mod query;
mod run;
pub mod tpch;

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for running chunks after an interrupt, before the process ends all the same.
const GRACE: Duration = Duration::from_secs(1);

/// Deep queries recurse; DataFusion's own threads have no more than this.
const STACK_BYTES: usize = 16 << 20;

/// Runs SQL pipeline tasks chunk by chunk, and only what changed.
#[derive(Debug, Parser)]
#[command(name = "chunkwise", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Tell more: files that are not read, and where an error comes from
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the tasks of SQL files and folders, and publish their tables
    Run(run::Arguments),
    /// Show how each task would be cut and why, or why not; nothing is run
    Explain(explain::Arguments),
    /// Query the published tables
    Query(query::Arguments),
    /// Look at the cache and check it
    Cache(cache::Arguments),
    /// Make TPC-H data, run a pipeline over it, and show what to try next
    Demo(demo::Arguments),
}

/// Where the cache is.
#[derive(Debug, clap::Args)]
struct CacheArgument {
    /// Folder of the cache and the published tables
    #[arg(long = "cache", value_name = "DIR", default_value = ".chunkwise")]
    folder: PathBuf,
}

/// Parses the process's arguments, does what they say, and gives its exit code.
pub fn main() -> ExitCode {
    let Arguments { command, verbose } = Arguments::parse();
    if !verbose && std::env::var_os("RUST_BACKTRACE").is_none() {
        // What panicked is told by the error that it becomes.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let done = match command {
        Command::Run(arguments) => run::main(&arguments, verbose),
        Command::Explain(arguments) => explain::main(&arguments, verbose),
        Command::Query(arguments) => query::main(&arguments),
        Command::Cache(arguments) => cache::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("error: {error}"));
            failure(&error)
        }
    }
}

fn failure(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::Sql | ErrorKind::Usage => ExitCode::from(2),
        ErrorKind::Cancelled => ExitCode::from(130),
        ErrorKind::Refused | ErrorKind::Rejected | ErrorKind::Source | ErrorKind::Execute | ErrorKind::Storage => {
            ExitCode::from(1)
        }
    }
}

/// Prints a line on stdout; whoever closed it has read enough, and the work goes on.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line on stderr, for what went wrong.
fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs `work` until it is done or the process is told to stop (SIGINT, SIGTERM); `None` then.
///
/// `engine` is dropped in time for its unfinished files to be removed, whatever chunks still do.
fn until_interrupted<T>(engine: Engine, work: impl AsyncFnOnce(&Engine) -> Result<T>) -> Result<Option<T>> {
    let runtime = start_runtime(engine.settings().jobs)?;
    let done = runtime.block_on(async {
        let done = tokio::select! {
            done = work(&engine) => done.map(Some),
            stopped = interrupt() => stopped.map(|()| None),
        };
        let _ = tokio::time::timeout(GRACE, engine.idle()).await;
        done
    });
    runtime.shutdown_timeout(GRACE);
    drop(engine);
    done
}

fn start_runtime(threads: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Execute, "can't start threads; use fewer --jobs").with_source(e))
}

fn interrupt() -> impl Future<Output = Result<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| Error::new(ErrorKind::Execute, "can't listen for signals").with_source(e);
    let signals = signal(SignalKind::interrupt()).and_then(|i| Ok((i, signal(SignalKind::terminate())?)));
    async move {
        let (mut interrupt, mut terminate) = signals.map_err(failed)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}
