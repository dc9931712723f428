//! `chunkwise query`.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, JsonArray, NullableEncoder, WriterBuilder};
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use futures::StreamExt;

use crate::cli::{CacheArgument, until_interrupted};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::shown::{in_lines, type_name};

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

/// Writes floats that JSON has no numbers for as the texts `"NaN"`, `"inf"` and `"-inf"`, which CAST reads.
#[derive(Debug)]
struct NotFinite;

impl EncoderFactory for NotFinite {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float32
                if array.as_primitive::<Float32Type>().values().iter().any(|value| !value.is_finite()) =>
            {
                Box::new(Floats(array.as_primitive::<Float32Type>()))
            }
            DataType::Float64
                if array.as_primitive::<Float64Type>().values().iter().any(|value| !value.is_finite()) =>
            {
                Box::new(Floats(array.as_primitive::<Float64Type>()))
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Floats<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: Into<f64> + Display>> Encoder for Floats<'_, T> {
    fn encode(&mut self, at: usize, out: &mut Vec<u8>) {
        let value = self.0.value(at);
        let is_finite = Into::<f64>::into(value).is_finite();
        // All others are written as Rust does, which is a number of JSON.
        let text = if is_finite { value.to_string() } else { format!("\"{value}\"") };
        out.extend_from_slice(text.as_bytes());
    }
}

/// That the format has all types of the columns.
fn check(rows: &DataFrame, format: Format) -> Result<(), Failure> {
    let has_other_keys = |data_type: &DataType| match data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => !fields.first().is_some_and(|keys| keys.data_type().is_string()),
            _ => true,
        },
        _ => false,
    };
    for field in rows.schema().fields() {
        let (name, data_type) = (field.name(), type_name(field.data_type()));
        let message = match format {
            Format::Csv if field.data_type().is_nested() => {
                format!("column {name} is {data_type}, which CSV does not have; write --format json")
            }
            Format::Json if has_other_keys(field.data_type()) => {
                format!("column {name} is {data_type}, and the keys of JSON are texts; write --format table")
            }
            _ => continue,
        };
        return Err(Failure::Query(DataFusionError::Plan(message)));
    }
    Ok(())
}

async fn print(rows: DataFrame, format: Format) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    check(&rows, format)?;
    match format {
        Format::Table => {
            let schema = Arc::new(rows.schema().as_arrow().clone());
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
            let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(NotFinite));
            let mut writer = builder.build::<_, JsonArray>(&mut out);
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
