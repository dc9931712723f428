//! `chunkwise run`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cache::publish;
use crate::cli::progress::Progress;
use crate::cli::{CacheArgument, allocator, complain, until_interrupted};
use crate::engine::{Engine, EngineBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::budget::PROCESS_BYTES;
use crate::pipeline::Pipeline;
use crate::run::report::RunReport;
use crate::run::{FreshInput, RunOptions};
use crate::sql;

/// Arguments of `chunkwise run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// SQL files, and folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Run only this task, or the tasks of this stage, and what they need; may be given several times
    #[arg(long = "task", value_name = "NAME")]
    tasks: Vec<String>,
    /// Run every chunk again, whatever the cache has
    #[arg(long)]
    force: bool,
    /// Take sources that changed for unchanged, where a task's table is published
    #[arg(long, conflicts_with_all = ["force", "assert_no_fresh_input"])]
    ignore_fresh_input: bool,
    /// Fail where chunks would run and a source changed since a task's table was published
    #[arg(long, conflicts_with = "force")]
    assert_no_fresh_input: bool,
    /// Compute a random share of the chunks that are in the cache again, and compare; in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, conflicts_with = "force")]
    audit: f64,
    /// Only say what would run and why
    #[arg(long)]
    dry_run: bool,
    /// Stop all when one task fails, not only what depends on it
    #[arg(long)]
    fail_fast: bool,
    /// Write what was done to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// How to run, whatever is run.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cache: CacheArgument,
    #[command(flatten)]
    resources: Resources,
    /// Bytes that the cache may have after the run, besides published and pinned tables [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    cache_limit: Option<usize>,
}

impl Options {
    /// Options that only name a cache folder.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { cache: CacheArgument { folder }, resources: Resources::default(), cache_limit: None }
    }
}

/// What a run may take of the machine.
#[derive(Debug, Default, clap::Args)]
pub struct Resources {
    /// Chunks at a time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Memory that the process may have: bytes, or with KB, MB, GB, KiB, MiB, GiB [default: half of what there is]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    memory: Option<usize>,
}

impl Resources {
    /// The engine that has no more than these.
    pub fn bound(&self, mut builder: EngineBuilder) -> EngineBuilder {
        if let Some(jobs) = self.jobs {
            builder = builder.jobs(jobs.into());
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory_limit_bytes(bytes);
        }
        builder
    }
}

/// Runs the tasks of the given files.
pub fn main(arguments: &Arguments, verbose: bool) -> Result<ExitCode> {
    let pipeline = sql::load(&arguments.paths)?;
    let Arguments { tasks, force, ignore_fresh_input, assert_no_fresh_input, audit, dry_run, .. } = arguments;
    let fresh_input = match (ignore_fresh_input, assert_no_fresh_input) {
        (true, _) => FreshInput::Ignore,
        (_, true) => FreshInput::Fail,
        _ => FreshInput::Use,
    };
    let (tasks, force, audit_percent, dry_run) = (tasks.clone(), *force, *audit, *dry_run);
    let options = RunOptions { tasks, force, fresh_input, audit_percent, dry_run, fail_fast: arguments.fail_fast };
    let Some(report) = run(&pipeline, &options, &arguments.options, verbose)? else {
        complain("interrupted; finished chunks are kept, and the next run goes on from them");
        return Ok(ExitCode::from(130));
    };
    if let Some(file) = &arguments.report {
        let json = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from);
        json.and_then(|json| std::fs::write(file, json)).map_err(|e| {
            Error::new(ErrorKind::Usage, format!("can't write the report {}", file.display())).with_source(e)
        })?;
    }
    Ok(if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs `pipeline` and shows how it goes; `None` when it was interrupted.
pub fn run(pipeline: &Pipeline, run: &RunOptions, options: &Options, verbose: bool) -> Result<Option<RunReport>> {
    let progress = Progress::start(pipeline, verbose);
    let listener = progress.clone();
    let builder = Engine::builder().cache_folder(&options.cache.folder).on_event(move |event| listener.show(&event));
    let mut builder = options.resources.bound(builder);
    if let Some(bytes) = options.cache_limit {
        builder = builder.cache_limit_bytes(bytes as u64);
    }
    let engine = builder.build()?;
    allocator::set_up(engine.jobs(), engine.memory_limit_bytes());
    let report = until_interrupted(engine, async |engine| engine.run(pipeline, run).await);
    progress.finish(report.as_ref().ok().and_then(Option::as_ref));
    if let Ok(Some(_)) = report {
        tell_orphans(pipeline, &options.cache.folder)?;
    }
    report
}

/// Says which tables are published that no task of `pipeline` makes: tasks may have been renamed or removed.
fn tell_orphans(pipeline: &Pipeline, cache: &Path) -> Result<()> {
    let made: BTreeSet<_> = pipeline.tasks().map(|task| task.name.clone()).collect();
    let published = publish::snapshot(cache)?.into_keys();
    let orphans: Vec<_> = published.filter(|table| !made.contains(table)).collect();
    if !orphans.is_empty() {
        let more = orphans.len().saturating_sub(MOST_TOLD);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let told = orphans[..orphans.len().min(MOST_TOLD)].join(", ");
        complain(format_args!(
            "note: {told}{more}: published, and made by no task here; `chunkwise cache rm` takes a table away"
        ));
    }
    Ok(())
}

/// Of what is left of other pipelines so many tables are named.
const MOST_TOLD: usize = 5;

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "use a number from 0 to 100".into())
}

/// As [`bytes`], for what the process may have.
fn memory(text: &str) -> Result<usize, String> {
    let least = PROCESS_BYTES >> 20;
    let at_least =
        |bytes| if bytes < PROCESS_BYTES { Err(format!("the process itself needs {least} MiB")) } else { Ok(bytes) };
    bytes(text).and_then(at_least)
}

/// Reads `1500000`, `1.5GB` or `512 MiB`.
pub fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{unit}` is not a unit; use KB, MB, GB, KiB, MiB or GiB")),
    };
    let number: f64 = number.trim().parse().map_err(|_| "use a number with a unit, such as 4GB".to_string())?;
    let bytes = number * factor;
    if !(1.0..=1e18).contains(&bytes) {
        return Err("use at least one byte".into());
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn memory_is_read_with_and_without_units() {
        for (text, expected) in [
            ("4096", 4096),
            ("1.5GB", 1_500_000_000),
            ("512 MiB", 512 << 20),
            ("2g", 2_000_000_000),
            ("1 KiB", 1024),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GB", "-1", "0", "nan", "1 parsec", "1e30"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
