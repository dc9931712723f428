//! `chunkwise explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{say, until_interrupted};
use crate::engine::Engine;
use crate::error::Result;
use crate::sql;

/// Arguments of `chunkwise explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// SQL files, and folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Explain only this task, or the tasks of this stage
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
}

/// Prints each task's proof or refusal; a refusal is what was asked for, not a failure.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let pipeline = sql::load(&arguments.paths)?;
    let engine = Engine::builder().build()?;
    let texts = until_interrupted(engine, async |engine| engine.explain(&pipeline, arguments.task.as_deref()).await)?;
    for text in texts.into_iter().flatten() {
        match text {
            Ok(text) => say(text),
            Err(refusal) => say(format_args!("not run: {refusal}\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}
