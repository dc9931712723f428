//! `chunkwise explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::run::Resources;
use crate::cli::{say, until_interrupted};
use crate::engine::Engine;
use crate::error::Result;
use crate::event::Event;
use crate::shown::on_one_line;
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
    /// What a run may take, from which the engine's own choices follow
    #[command(flatten)]
    resources: Resources,
}

/// Prints each task's proof or refusal; a refusal is what was asked for, not a failure.
pub fn main(arguments: &Arguments, verbose: bool) -> Result<ExitCode> {
    let pipeline = sql::load(&arguments.paths)?;
    let told = move |event| {
        if let (true, Event::LeftOut { source, note }) = (verbose, event) {
            say(on_one_line(&format!("source `{source}`: {note}")));
        }
    };
    let engine = arguments.resources.bound(Engine::builder().on_event(told)).build()?;
    let texts = until_interrupted(engine, async |engine| engine.explain(&pipeline, arguments.task.as_deref()).await)?;
    for text in texts.into_iter().flatten() {
        match text {
            Ok(text) => say(text),
            Err(refusal) => say(format_args!("not run: {refusal}\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}
