//! `chunkwise query`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use arrow::error::ArrowError;
use arrow::json::ArrayWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use futures::StreamExt;

use crate::cli::{CacheArgument, until_interrupted};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::shown::in_lines;

/// Arguments of `chunkwise query`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A query over the published tables
    sql: String,
    #[command(flatten)]
    cache: CacheArgument,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A table with borders
    Table,
    /// Comma-separated, with a header
    Csv,
    /// An array of objects
    Json,
}

/// Prints a query's rows; all formats but the table are streamed.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let engine = Engine::builder().cache_folder(&arguments.cache.folder).build()?;
    let done = until_interrupted(engine, async |engine| {
        let rows = engine.query(&arguments.sql).await?;
        match print(rows, arguments.format).await {
            // Whoever read our output has enough of it.
            Err(Failure::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Failure::Write(e)) => Err(Error::new(ErrorKind::Storage, "can't print the rows").with_source(e)),
            Err(Failure::Query(e)) => Err(Error::new(ErrorKind::Execute, "the query failed").with_source(e)),
            Ok(()) => Ok(()),
        }
    })?;
    Ok(if done.is_some() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

enum Failure {
    Write(io::Error),
    Query(DataFusionError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error)
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => Self::Write(error),
            other => Self::Query(other.into()),
        }
    }
}

async fn print(rows: DataFrame, format: Format) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        Format::Table => {
            let schema = std::sync::Arc::new(rows.schema().as_arrow().clone());
            let batches = rows.collect().await?;
            writeln!(out, "{}", in_lines(&pretty_format_batches_with_schema(schema, &batches)?.to_string()))?;
        }
        Format::Csv => {
            let is_terminal = io::stdout().is_terminal();
            let header = arrow::array::RecordBatch::new_empty(rows.schema().inner().clone());
            let mut batches = rows.execute_stream().await?;
            let mut has_header = true;
            let mut batch = Some(Ok(header));
            while let Some(rows) = batch {
                let mut text = Vec::new();
                let builder = arrow::csv::WriterBuilder::new().with_header(std::mem::take(&mut has_header));
                builder.build(&mut text).write(&rows?)?;
                match is_terminal {
                    true => out.write_all(in_lines(&String::from_utf8_lossy(&text)).as_bytes())?,
                    false => out.write_all(&text)?,
                }
                batch = batches.next().await;
            }
        }
        Format::Json => {
            let mut writer = ArrayWriter::new(&mut out);
            let mut batches = rows.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                writer.write(&batch?)?;
            }
            writer.finish()?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}
