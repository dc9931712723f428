//! `chunkwise cache`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::cache::collect::{CollectOptions, Collected};
use crate::cache::publish::{ChunkSummary, PublishedSummary};
use crate::cli::run::bytes;
use crate::cli::{CacheArgument, complain, say};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

/// Arguments of `chunkwise cache`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the published tables
    Ls {
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// List the chunks of a published table
    Show {
        /// The table
        table: String,
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Read all files and compare them with their checksums; damaged chunks are set aside and run again
    Verify {
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Make the index again from the files' footers
    Rebuild {
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Remove chunks, splits and versions that no published or pinned table is made of
    Gc {
        /// Only what was not used for so long, such as 12h or 30d
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// And more, what was used least recently first, until the cache has at most so many bytes
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        limit: Option<usize>,
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Take published tables from readers, such as those of tasks that are gone; their chunks stay for `gc`
    Rm {
        /// The tables
        #[arg(required = true, value_name = "TABLE")]
        tables: Vec<String>,
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Keep the published version of a table, also when another is published
    Pin {
        /// The table
        table: String,
        #[command(flatten)]
        cache: CacheArgument,
    },
    /// Take the pins from all versions of a table
    Unpin {
        /// The table
        table: String,
        #[command(flatten)]
        cache: CacheArgument,
    },
}

/// Does what the arguments say; the exit code is 1 where something is damaged.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let engine = |cache: &CacheArgument| match cache.folder.is_dir() {
        true => Engine::builder().cache_folder(&cache.folder).build(),
        false => {
            let folder = cache.folder.display();
            let message = format!("there is no cache folder {folder}; run tasks with it first, or name another");
            Err(Error::new(ErrorKind::Usage, message))
        }
    };
    match &arguments.command {
        Command::Ls { cache } => ls(&engine(cache)?),
        Command::Show { table, cache } => show(&engine(cache)?, table),
        Command::Verify { cache } => verify(&engine(cache)?),
        Command::Rebuild { cache } => rebuild(&engine(cache)?),
        Command::Gc { older_than, limit, cache } => {
            let limit_bytes = limit.map(|limit| limit as u64);
            gc(&engine(cache)?, &CollectOptions { older_than: Some(*older_than), limit_bytes })
        }
        Command::Rm { tables, cache } => {
            let engine = engine(cache)?;
            for table in tables {
                engine.unpublish(table)?;
                say(format_args!("`{table}` is not published any more"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Pin { table, cache } => engine(cache)?.pin(table).map(|()| ExitCode::SUCCESS),
        Command::Unpin { table, cache } => {
            let unpinned = engine(cache)?.unpin(table)?;
            say(format_args!("{unpinned} versions of `{table}` were pinned"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn ls(engine: &Engine) -> Result<ExitCode> {
    let mut rows = vec![["table", "chunks", "rows", "bytes", "written", "version", ""].map(str::to_string)];
    let mut exit_code = ExitCode::SUCCESS;
    for found in engine.each_published_table()?.into_values() {
        let PublishedSummary { table, version, is_pinned, chunks, .. } = match found {
            Ok(summary) => summary,
            Err(error) => {
                complain(format_args!("error: {error}"));
                exit_code = ExitCode::from(1);
                continue;
            }
        };
        let sum = |of: fn(&ChunkSummary) -> u64| chunks.iter().map(of).sum::<u64>();
        rows.push([
            table,
            chunks.len().to_string(),
            HumanCount(sum(|chunk| chunk.rows)).to_string(),
            HumanBytes(sum(|chunk| chunk.bytes)).to_string(),
            chunks.iter().map(|chunk| chunk.written_unix_ns).max().map_or_else(String::new, ago),
            version.chars().take(8).collect(),
            if is_pinned { "pinned".into() } else { String::new() },
        ]);
    }
    say_table(&rows);
    Ok(exit_code)
}

fn show(engine: &Engine, table: &str) -> Result<ExitCode> {
    let mut tables = engine.each_published_table()?;
    let Some(found) = tables.remove(table) else {
        let known: Vec<String> = tables.into_keys().collect();
        let message = format!("no table `{table}` is published; published are: {}", known.join(", "));
        return Err(Error::new(ErrorKind::Usage, message));
    };
    let PublishedSummary { version, keys, chunks, .. } = found?;
    let keys = match keys.as_slice() {
        [] => "its columns do not tell a row's chunk".to_string(),
        keys => format!("stored by ({})", keys.join(", ")),
    };
    say(format_args!("version {version}; {keys}"));
    let mut rows = vec![["chunk", "rows", "bytes", "written", "file"].map(str::to_string)];
    rows.extend(chunks.iter().map(|chunk| {
        [
            chunk.chunk.to_string(),
            HumanCount(chunk.rows).to_string(),
            HumanBytes(chunk.bytes).to_string(),
            ago(chunk.written_unix_ns),
            chunk.path.display().to_string(),
        ]
    }));
    say_table(&rows);
    Ok(ExitCode::SUCCESS)
}

fn verify(engine: &Engine) -> Result<ExitCode> {
    let found = engine.verify_cache()?;
    let (files, bytes) = (HumanCount(found.files), HumanBytes(found.bytes));
    if found.damaged.is_empty() {
        say(format_args!("{files} files, {bytes}: all as they were written"));
        return Ok(ExitCode::SUCCESS);
    }
    for path in &found.damaged {
        complain(format_args!("damaged: {}", path.display()));
    }
    let count = found.damaged.len();
    complain(format_args!(
        "{files} files, {bytes}: {count} damaged; they were set aside or removed, run the tasks again"
    ));
    Ok(ExitCode::from(1))
}

fn rebuild(engine: &Engine) -> Result<ExitCode> {
    let warnings = engine.rebuild_cache()?;
    warnings.iter().for_each(|warning| complain(format_args!("warning: {warning}")));
    say("the index was made again");
    Ok(if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn gc(engine: &Engine, options: &CollectOptions) -> Result<ExitCode> {
    let Collected { removed, removed_bytes, left_bytes } = engine.collect(options)?;
    let (removed, freed, left) = (HumanCount(removed), HumanBytes(removed_bytes), HumanBytes(left_bytes));
    say(format_args!("{removed} chunks, splits and versions removed, {freed}; {left} are left"));
    Ok(ExitCode::SUCCESS)
}

/// How long ago that was.
fn ago(unix_ns: u64) -> String {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(unix_ns)).unwrap_or_default();
    format!("{} ago", HumanDuration(passed))
}

/// Columns side by side.
fn say_table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default());
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
