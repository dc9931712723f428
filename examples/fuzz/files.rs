//! How a table's rows lie in files: the format and its options, folders, and what differs from file to file.
//!
//! Whatever the layout is, the rows of the table are the same: files have other types only where these hold all of
//! their values, and lack a column only where it is NULL in all rows.

use std::fmt::Write;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::kind::{Kind, Text};
use super::random::Random;
use super::table::{Column, Table};

/// How the rows of one table lie in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Files, at least one; with `by_folder` of each folder.
    pub count: usize,
    pub format: Format,
    pub place: Place,
    /// Whether the last column is in the names of folders.
    pub by_folder: bool,
    /// Whether the columns are declared.
    pub declares: bool,
    /// Whether files have other orders and types of columns, and lack those that are NULL.
    pub drifts: bool,
    /// Whether files lie around that are not to be read.
    pub has_others: bool,
    /// Decides what else is random.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Parquet,
    Arrow,
    Csv,
    Json,
}

/// What the location is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file, where there is one.
    File,
    /// A folder, some of whose files may lie in folders of their own.
    Folder,
    /// A pattern of the files' names, in folders of any depth.
    Pattern,
}

impl Files {
    /// A layout for a table of these columns and values.
    pub fn random(random: &mut Random, columns: &[Column], rows: &[Vec<Option<usize>>]) -> Self {
        let mut files = Self {
            count: 1 + random.below(3),
            format: [Format::Parquet, Format::Csv, Format::Json, Format::Arrow][random.weighted(&[40, 25, 20, 15])],
            place: *random.pick(&[Place::File, Place::Folder, Place::Pattern]),
            by_folder: random.chance(25),
            declares: random.chance(40),
            drifts: random.chance(60),
            has_others: random.chance(25),
            seed: random.next(),
        };
        files.fit(columns, rows);
        files
    }

    /// The plainest layout.
    pub fn plain() -> Self {
        Self {
            count: 1,
            format: Format::Parquet,
            place: Place::File,
            by_folder: false,
            declares: false,
            drifts: false,
            has_others: false,
            seed: 0,
        }
    }

    /// Takes back what these columns can't have.
    pub fn fit(&mut self, columns: &[Column], rows: &[Vec<Option<usize>>]) {
        let kinds = || columns.iter().map(|column| column.kind);
        let is_declared = kinds().all(|kind| declared(kind).is_some());
        // Text has no bytes, and JSON no numbers beyond the finite ones.
        let is_text = is_declared && kinds().all(|kind| kind != Kind::Binary);
        let is_csv = is_text && kinds().all(|kind| kind != Kind::List);
        let is_finite = columns.iter().enumerate().all(|(at, column)| {
            !matches!(column.kind, Kind::Float(_))
                || rows.iter().all(|row| row[at].is_none_or(|v| column.kind.is_finite(v)))
        });
        match self.format {
            Format::Csv if !is_csv => self.format = Format::Parquet,
            // A file of no lines is none.
            Format::Json if !is_text || !is_finite || rows.is_empty() => self.format = Format::Parquet,
            _ => {}
        }
        if matches!(self.format, Format::Csv | Format::Json) {
            self.declares = true;
        }
        self.declares &= is_declared;
        self.by_folder &= self.declares && columns.len() > 2 && !rows.is_empty();
        self.by_folder &= columns.last().is_some_and(|last| {
            let is_name = |v: Option<usize>| v.is_none_or(|v| last.kind.name_of_folder(v).is_some());
            rows.iter().all(|row| is_name(row[columns.len() - 1]))
        });
    }
}

/// The type in `CREATE EXTERNAL TABLE`.
fn declared(kind: Kind) -> Option<String> {
    Some(match kind {
        Kind::Bool => "BOOLEAN".into(),
        Kind::Int(8) => "TINYINT".into(),
        Kind::Int(16) => "SMALLINT".into(),
        Kind::Int(32) => "INT".into(),
        Kind::Int(_) => "BIGINT".into(),
        Kind::UInt(8) => "TINYINT UNSIGNED".into(),
        Kind::UInt(16) => "SMALLINT UNSIGNED".into(),
        Kind::UInt(32) => "INT UNSIGNED".into(),
        Kind::UInt(_) => "BIGINT UNSIGNED".into(),
        Kind::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Kind::Float(32) => "REAL".into(),
        Kind::Float(_) => "DOUBLE".into(),
        Kind::Text(Text::Dictionary) => return None,
        Kind::Text(_) => "VARCHAR".into(),
        Kind::Binary => "BYTEA".into(),
        Kind::Date => "DATE".into(),
        Kind::Timestamp(TimeUnit::Second) => "TIMESTAMP(0)".into(),
        Kind::Timestamp(TimeUnit::Millisecond) => "TIMESTAMP(3)".into(),
        Kind::Timestamp(TimeUnit::Microsecond) => "TIMESTAMP(6)".into(),
        Kind::Timestamp(TimeUnit::Nanosecond) => "TIMESTAMP(9)".into(),
        Kind::List => "BIGINT[]".into(),
        Kind::Instant(_) | Kind::Inexact => return None,
    })
}

/// Types that hold some of the values of a kind, so that a folder of both has the kind's type.
fn narrower(kind: Kind) -> Vec<DataType> {
    use DataType::*;
    let ints =
        |bits: u8| [(8, Int8), (16, Int16), (32, Int32)].into_iter().filter(move |(b, _)| *b < bits).map(|(_, t)| t);
    let uints =
        |bits: u8| [(8, UInt8), (16, UInt16), (32, UInt32)].into_iter().filter(move |(b, _)| *b < bits).map(|(_, t)| t);
    match kind {
        Kind::Int(bits) => ints(bits).chain(uints(bits)).collect(),
        Kind::UInt(bits) => uints(bits).collect(),
        Kind::Float(64) => vec![Float32, Int8, Int32, Int64],
        Kind::Float(_) => vec![Int8, Int16, UInt16],
        Kind::Decimal(precision, scale) => {
            let whole = precision - scale as u8;
            vec![Decimal128(whole, 0), Decimal128(precision - 1, scale), Decimal128(whole + 1, 1.min(scale)), Int8]
        }
        Kind::Text(_) => vec![Utf8, LargeUtf8, Utf8View, Dictionary(Box::new(Int8), Box::new(Utf8))],
        Kind::Binary => vec![Binary, LargeBinary, BinaryView],
        Kind::Date => vec![Date64],
        Kind::Timestamp(unit) => {
            let coarser = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond].into_iter();
            coarser.filter(|coarser| *coarser < unit).map(|unit| Timestamp(unit, None)).chain([Date32]).collect()
        }
        Kind::List => vec![DataType::new_list(Int32, true)],
        Kind::Bool | Kind::Instant(_) | Kind::Inexact => Vec::new(),
    }
}

/// Writes the files of `table` below `folder` and declares them.
pub fn write(table: &Table, folder: &Path) -> String {
    let Table { name, columns, files, .. } = table;
    let random = &mut Random::new(files.seed);
    let writer = FormatWriter::random(random, table);
    let batch = table.batch();
    let folders =
        if files.by_folder { by_folder(table) } else { vec![(String::new(), (0..batch.num_rows() as u64).collect())] };
    let is_one = !files.by_folder && files.count == 1 && files.place == Place::File;
    let home = if is_one { folder.to_path_buf() } else { folder.join(name) };
    std::fs::create_dir_all(&home).unwrap();
    let mut is_first = true;
    for (below, rows) in &folders {
        let each = rows.len().div_ceil(files.count).max(1);
        for file in 0..files.count {
            let part = &rows[(file * each).min(rows.len())..((file + 1) * each).min(rows.len())];
            let indices = arrow::array::UInt64Array::from(part.to_vec());
            let mut part = take_record_batch(&batch, &indices).unwrap();
            if files.by_folder {
                part.remove_column(columns.len() - 1);
            }
            if files.drifts {
                part = drifted(random, &part, columns, files, is_first);
            }
            is_first = false;
            let mut path = home.join(below);
            // The first file in order has what a table without declared columns looks like.
            if !is_one && files.place != Place::File && file > 0 && random.chance(30) {
                path.push("more");
            }
            std::fs::create_dir_all(&path).unwrap();
            let name = if is_one { name.clone() } else { file.to_string() };
            writer.write(random, &path.join(format!("{name}.{}", writer.ending())), &part);
        }
    }
    if files.has_others && !is_one {
        std::fs::write(home.join("_SUCCESS"), "").unwrap();
        std::fs::write(home.join(format!(".hidden.{}", writer.ending())), "no rows").unwrap();
        std::fs::write(home.join(format!("none.{}", writer.ending())), "").unwrap();
    }
    let location = match (is_one, files.place) {
        (true, _) => format!("{name}.{}", writer.ending()),
        (false, Place::File | Place::Folder) => format!("{name}/"),
        (false, Place::Pattern) => format!("{name}/**/*.{}", writer.ending()),
    };
    declaration(table, &writer, &PathBuf::from(folder).join(location))
}

fn declaration(table: &Table, writer: &FormatWriter, location: &Path) -> String {
    let Table { name, columns, files, .. } = table;
    let mut sql = format!("CREATE EXTERNAL TABLE {name}");
    if files.declares {
        let columns: Vec<String> =
            columns.iter().map(|column| format!("{} {}", column.name, declared(column.kind).unwrap())).collect();
        write!(sql, " ({})", columns.join(", ")).unwrap();
    }
    write!(sql, " STORED AS {}", writer.format_name()).unwrap();
    if files.by_folder {
        write!(sql, " PARTITIONED BY ({})", columns.last().unwrap().name).unwrap();
    }
    write!(sql, " LOCATION '{}'", location.display()).unwrap();
    let options: Vec<String> =
        writer.options.iter().map(|(key, value)| format!("'format.{key}' '{}'", value.replace('\'', "''"))).collect();
    if !options.is_empty() {
        write!(sql, " OPTIONS ({})", options.join(", ")).unwrap();
    }
    sql + ";\n"
}

/// A query of DuckDB over the files that [`write`] has written below `folder`, and the files that Python is to read for
/// it; `None` for what DuckDB can't read.
pub fn in_duckdb(table: &Table, folder: &Path) -> Option<(String, Vec<PathBuf>)> {
    let Table { name, columns, files, .. } = table;
    let writer = FormatWriter::random(&mut Random::new(files.seed), table);
    let home = folder.join(name);
    let mut paths = Vec::new();
    match home.is_dir() {
        true => files_below(&home, &mut paths),
        false => paths.push(folder.join(format!("{name}.{}", writer.ending()))),
    }
    paths.sort();
    let list: Vec<String> = paths.iter().map(|path| format!("'{}'", path.display())).collect();
    let list = list.join(", ");
    let is_seconds = |column: &Column| column.kind == Kind::Timestamp(TimeUnit::Second);
    let hive = "hive_partitioning = true, hive_types_autocast = false";
    let from = match files.format {
        Format::Parquet if files.drifts && columns.iter().any(is_seconds) => return None,
        Format::Parquet => format!("read_parquet([{list}], union_by_name = true, {hive})"),
        Format::Arrow if files.by_folder => return None,
        Format::Arrow => "arrow_files".into(),
        _ if matches!(writer.compression, "bz2" | "xz") => return None,
        Format::Csv => {
            let Csv { has_header, delimiter, quote, escape, null, comment, .. } = &writer.csv;
            let as_sql = |character: char| character.to_string().replace('\'', "''");
            let (quote, escape) = (as_sql(*quote), as_sql(escape.unwrap_or(*quote)));
            let comment = if *comment { "#" } else { "" };
            let mut named: Vec<String> = columns.iter().map(|column| format!("'{}'", column.name)).collect();
            named.truncate(columns.len() - usize::from(files.by_folder));
            let names = if *has_header { String::new() } else { format!("names = [{}], ", named.join(", ")) };
            format!(
                "read_csv([{list}], header = {has_header}, {names}delim = '{delimiter}', quote = '{quote}', escape = '{escape}', \
                 nullstr = '{null}', comment = '{comment}', all_varchar = true, union_by_name = true, {hive})"
            )
        }
        Format::Json => {
            let types: Vec<String> = columns
                .iter()
                .map(|column| Some(format!("{}: '{}'", column.name, type_in_duckdb(column.kind)?)))
                .collect::<Option<_>>()?;
            let types = &types[..types.len() - usize::from(files.by_folder)];
            let format = if writer.is_array { "array" } else { "newline_delimited" };
            format!("read_json([{list}], format = '{format}', columns = {{{}}}, {hive})", types.join(", "))
        }
    };
    let cast = |column: &Column| {
        let (name, data_type) = (&column.name, type_in_duckdb(column.kind)?);
        Some(match files.format {
            // Parquet has no seconds.
            Format::Parquet if is_seconds(column) => format!("make_timestamp({name} * 1000000) AS {name}"),
            _ => format!("CAST({name} AS {data_type}) AS {name}"),
        })
    };
    let casts: Vec<String> = columns.iter().map(cast).collect::<Option<_>>()?;
    let for_python = if files.format == Format::Arrow { paths } else { Vec::new() };
    Some((format!("SELECT {} FROM {from}", casts.join(", ")), for_python))
}

fn files_below(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            files_below(&path, paths);
        } else if !name.starts_with(['.', '_']) && !name.starts_with("none.") {
            paths.push(path);
        }
    }
}

/// The type in DuckDB.
fn type_in_duckdb(kind: Kind) -> Option<String> {
    Some(match kind {
        Kind::UInt(8) => "UTINYINT".into(),
        Kind::UInt(16) => "USMALLINT".into(),
        Kind::UInt(32) => "UINTEGER".into(),
        Kind::UInt(_) => "UBIGINT".into(),
        Kind::Text(_) => "VARCHAR".into(),
        Kind::Binary => "BLOB".into(),
        Kind::Timestamp(TimeUnit::Second) => "TIMESTAMP_S".into(),
        Kind::Timestamp(TimeUnit::Millisecond) => "TIMESTAMP_MS".into(),
        Kind::Timestamp(TimeUnit::Microsecond) => "TIMESTAMP".into(),
        Kind::Timestamp(TimeUnit::Nanosecond) => "TIMESTAMP_NS".into(),
        Kind::Instant(_) => "TIMESTAMPTZ".into(),
        _ => declared(kind)?,
    })
}

/// The numbers of rows of each value of the last column, by the folder that it gives.
fn by_folder(table: &Table) -> Vec<(String, Vec<u64>)> {
    let last = table.columns.last().unwrap();
    let mut folders: Vec<(String, Vec<u64>)> = Vec::new();
    for (at, row) in table.rows.iter().enumerate() {
        let value = match row.last().unwrap() {
            Some(v) => last.kind.name_of_folder(*v).unwrap(),
            None => "__HIVE_DEFAULT_PARTITION__".into(),
        };
        let folder = format!("{}={value}", last.name);
        match folders.iter_mut().find(|(known, _)| *known == folder) {
            Some((_, rows)) => rows.push(at as u64),
            None => folders.push((folder, vec![at as u64])),
        }
    }
    folders
}

/// The same rows with other types, in another order, without some columns that are NULL.
fn drifted(random: &mut Random, batch: &RecordBatch, columns: &[Column], files: &Files, is_first: bool) -> RecordBatch {
    // Without declared columns the first file has all types in order, so that the table is as it should be.
    let is_model = is_first && !files.declares;
    let is_text = matches!(files.format, Format::Csv | Format::Json);
    let mut picked: Vec<(Field, ArrayRef)> = Vec::new();
    for (at, (field, array)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let is_null = array.null_count() == array.len();
        // One column that is NULL, alone, is an empty line.
        if is_null && !is_first && at > 1 && random.chance(30) {
            continue;
        }
        let mut array = array.clone();
        if is_null && !is_model && random.chance(30) {
            array = new_null_array(&DataType::Null, array.len());
        } else if !is_model && !is_text && random.chance(50) {
            array = narrowed(random, &array, columns[at].kind);
        }
        picked.push((Field::new(field.name(), array.data_type().clone(), true), array));
    }
    if !is_model {
        for at in (1..picked.len()).rev() {
            picked.swap(at, random.below(at + 1));
        }
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = picked.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Schema::new(fields).into(), arrays, &options).unwrap()
}

/// The values in a narrower type, if it holds them all.
fn narrowed(random: &mut Random, array: &ArrayRef, kind: Kind) -> ArrayRef {
    let types = narrower(kind);
    if types.is_empty() {
        return array.clone();
    }
    match cast(array, random.pick(&types)) {
        Ok(narrow) if cast(&narrow, array.data_type()).is_ok_and(|back| back.to_data() == array.to_data()) => narrow,
        _ => array.clone(),
    }
}

/// Writes the files of one table, all with the same options.
struct FormatWriter {
    format: Format,
    /// For the ending: none, `gz`, `bz2`, `xz`, `zst`.
    compression: &'static str,
    /// As `OPTIONS` has them.
    options: Vec<(&'static str, String)>,
    csv: Csv,
    is_array: bool,
    is_stream: bool,
    parquet: WriterProperties,
    says_arrow_types: bool,
}

#[derive(Debug, Clone)]
struct Csv {
    has_header: bool,
    delimiter: char,
    quote: char,
    escape: Option<char>,
    null: &'static str,
    line_end: &'static str,
    comment: bool,
}

impl FormatWriter {
    fn random(random: &mut Random, table: &Table) -> Self {
        let mut options = Vec::new();
        let format = table.files.format;
        let is_text = matches!(format, Format::Csv | Format::Json);
        let compression = if is_text && random.chance(40) { *random.pick(&["gz", "bz2", "xz", "zst"]) } else { "" };
        // Without a header columns stand as they are declared, and a file of no rows is none.
        let has_header = table.files.drifts || table.rows.is_empty() || random.chance(70);
        let csv = Csv {
            has_header,
            delimiter: *random.pick(&[',', ',', ';', '|', '\t']),
            quote: *random.pick(&['"', '"', '\'']),
            escape: if random.chance(20) { Some('\\') } else { None },
            null: if random.chance(30) && !table.has_empty_text() { "" } else { "~" },
            line_end: random.pick::<&str>(&["\n", "\n", "\r\n"]),
            comment: random.chance(15),
        };
        let is_array = random.chance(30);
        if format == Format::Csv {
            let mut option = |key, value: &str| options.push((key, value.to_string()));
            if !csv.has_header {
                option("has_header", "false");
            }
            if csv.delimiter != ',' {
                option("delimiter", &csv.delimiter.to_string());
            }
            if csv.quote != '"' {
                option("quote", &csv.quote.to_string());
            }
            if let Some(escape) = csv.escape {
                option("escape", &escape.to_string());
                option("double_quote", "false");
            }
            if csv.null == "~" {
                option("null_regex", "^~$");
            }
            if csv.comment {
                option("comment", "#");
            }
            if table.files.drifts {
                option("truncated_rows", "true");
            }
        } else if format == Format::Json && is_array && random.chance(50) {
            options.push(("newline_delimited", "false".into()));
        }
        let statistics = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
        let parquet = WriterProperties::builder()
            // Some groups of rows can be skipped.
            .set_max_row_group_row_count(Some(10))
            .set_statistics_enabled(statistics[random.weighted(&[1, 1, 4])])
            .set_dictionary_enabled(random.chance(70))
            .set_compression(*random.pick(&[
                Compression::UNCOMPRESSED,
                Compression::SNAPPY,
                Compression::ZSTD(Default::default()),
            ]))
            .build();
        // Units of seconds and zones are in Arrow's types alone.
        let needs_arrow = |kind: Kind| matches!(kind, Kind::Timestamp(TimeUnit::Second) | Kind::Instant(_));
        let says_arrow_types = table.columns.iter().any(|column| needs_arrow(column.kind)) || random.chance(70);
        Self { format, compression, options, csv, is_array, is_stream: random.chance(50), parquet, says_arrow_types }
    }

    fn format_name(&self) -> &'static str {
        match self.format {
            Format::Parquet => "PARQUET",
            Format::Arrow => "ARROW",
            Format::Csv => "CSV",
            Format::Json => "JSON",
        }
    }

    fn ending(&self) -> String {
        let format = self.format_name().to_ascii_lowercase();
        if self.compression.is_empty() { format } else { format!("{format}.{}", self.compression) }
    }

    fn write(&self, random: &mut Random, path: &Path, batch: &RecordBatch) {
        match self.format {
            Format::Parquet => {
                // One file may have been written by who knows nothing of Arrow, and the next by who does.
                let is_plain = !self.says_arrow_types && random.chance(60) && !needs_arrow_types(batch);
                let options =
                    ArrowWriterOptions::new().with_properties(self.parquet.clone()).with_skip_arrow_metadata(is_plain);
                let file = File::create(path).unwrap();
                let mut writer = ArrowWriter::try_new_with_options(file, batch.schema(), options).unwrap();
                writer.write(batch).unwrap();
                writer.close().unwrap();
            }
            Format::Arrow => {
                let (file, schema) = (File::create(path).unwrap(), batch.schema());
                if self.is_stream {
                    let mut writer = StreamWriter::try_new(file, &schema).unwrap();
                    writer.write(batch).unwrap();
                    writer.finish().unwrap();
                } else {
                    let options = IpcWriteOptions::default()
                        .try_with_compression(Some(arrow_ipc::CompressionType::ZSTD))
                        .unwrap();
                    let mut writer = FileWriter::try_new_with_options(file, &schema, options).unwrap();
                    writer.write(batch).unwrap();
                    writer.finish().unwrap();
                }
            }
            Format::Csv => self.write_text(path, &self.csv.text(random, batch)),
            Format::Json => self.write_text(path, &json(random, batch, self.is_array)),
        }
    }

    fn write_text(&self, path: &Path, text: &str) {
        let mut file = File::create(path).unwrap();
        let write = |mut writer: Box<dyn std::io::Write>| writer.write_all(text.as_bytes()).unwrap();
        match self.compression {
            "gz" => write(Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))),
            "bz2" => write(Box::new(bzip2::write::BzEncoder::new(file, bzip2::Compression::fast()))),
            "xz" => write(Box::new(liblzma::write::XzEncoder::new(file, 1))),
            "zst" => write(Box::new(zstd::Encoder::new(file, 1).unwrap().auto_finish())),
            _ => file.write_all(text.as_bytes()).unwrap(),
        }
    }
}

/// Whether only Arrow's schema says of some columns that they are no numbers.
fn needs_arrow_types(batch: &RecordBatch) -> bool {
    let is_bare =
        |data_type: &DataType| matches!(data_type, DataType::Timestamp(TimeUnit::Second, _) | DataType::Date64);
    batch.schema().fields().iter().any(|field| is_bare(field.data_type()))
}

impl Csv {
    fn text(&self, random: &mut Random, batch: &RecordBatch) -> String {
        let mut text = String::new();
        if self.has_header {
            let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
            self.line(&mut text, random, names.into_iter().map(Some));
        }
        let rows = cells(batch);
        for row in &rows {
            if self.comment && random.chance(20) {
                write!(text, "# no{0}row{0}{1}{2}", self.delimiter, self.quote, self.line_end).unwrap();
            }
            self.line(&mut text, random, row.iter().map(Option::as_deref));
        }
        text
    }

    fn line<'a>(&self, text: &mut String, random: &mut Random, cells: impl Iterator<Item = Option<&'a str>>) {
        for (at, cell) in cells.enumerate() {
            if at > 0 {
                text.push(self.delimiter);
            }
            let Some(cell) = cell else {
                text.push_str(self.null);
                continue;
            };
            if !cell.contains([self.delimiter, self.quote, '\n', '\r', '"', '\'']) && random.chance(80) {
                text.push_str(cell);
                continue;
            }
            let mark = self.escape.unwrap_or(self.quote);
            let quoted = cell.replace(self.quote, &format!("{mark}{}", self.quote));
            write!(text, "{0}{quoted}{0}", self.quote).unwrap();
        }
        text.push_str(self.line_end);
    }
}

/// The values as text, a row at a time.
fn cells(batch: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let options = FormatOptions::default();
    let formats: Vec<ArrayFormatter> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let cell = |at: usize, row: usize| {
        let column = batch.column(at);
        column
            .is_valid(row)
            .then(|| formats[at].value(row).to_string())
            .filter(|_| column.data_type() != &DataType::Null)
    };
    (0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|at| cell(at, row)).collect()).collect()
}

fn json(random: &mut Random, batch: &RecordBatch, is_array: bool) -> String {
    let mut lines = Vec::new();
    for row in cells(batch) {
        let mut keys: Vec<String> = Vec::new();
        for (cell, field) in row.iter().zip(batch.schema_ref().fields()) {
            let value = match (cell, field.data_type()) {
                (None, _) if random.chance(50) => continue,
                (None, _) => "null".into(),
                (Some(text), DataType::Boolean | DataType::List(_)) => text.replace(", ,", ", null,"),
                // Most who write numbers write digits; some, to keep them whole, text.
                (Some(text), DataType::Decimal128(..)) if random.chance(30) => format!("\"{text}\""),
                (Some(text), data_type) if data_type.is_numeric() => text.clone(),
                (Some(text), _) => serde_json::to_string(text).unwrap(),
            };
            keys.push(format!("{}: {value}", serde_json::to_string(field.name()).unwrap()));
        }
        for at in (1..keys.len()).rev() {
            keys.swap(at, random.below(at + 1));
        }
        lines.push(format!("{{{}}}", keys.join(", ")));
    }
    if is_array { format!("[{}]", lines.join(",\n ")) } else { lines.join("\n") + "\n" }
}
