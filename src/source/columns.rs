//! The columns of a source: as declared, or as all its files together have them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use ::parquet::file::metadata::ParquetMetaData;
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::parquet::{ParquetFormat, ParquetFormatFactory};
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement;
use sqlparser::ast::ColumnOption;

use crate::error::Result;
use crate::execute::text::is_of_text;
use crate::shown::type_name;
use crate::source::fault::{Fault, quoted};
use crate::source::fit::{Fitting, FittingFactory};
use crate::source::hive::Partitions;
use crate::source::names::{Names, check_fields};
use crate::source::read::{KnownColumn, Origin, TextFiles, TextTable};
use crate::source::storable::unstorable;
use crate::source::unify::{plain, unified};
use crate::source::{SourceFile, arrow as ipc, csv, json, parquet, planner_error, source_error, store};
use crate::table::Reader;
use crate::task::format::{CsvOptions, Format, JsonOptions};
use crate::task::source::Source;

/// Rows that types are inferred from: of each file, and of all together.
const INFERRED_ROWS: usize = 1000;
const INFERRED_ROWS_IN_ALL: usize = 100_000;

/// At least so many rows of each file are looked at.
const LEAST_INFERRED_ROWS: usize = 10;

/// DataFusion's option that says in which unit timestamps of 96 bits are read.
const COERCE_INT96: &str = "format.coerce_int96";

/// What CREATE EXTERNAL TABLE says of columns.
pub struct Declared {
    /// The columns of the files, and whether a file may lack each; `None` when no columns are declared.
    pub columns: Option<Vec<(Field, bool)>>,
    /// The columns of folders' names; `None` without PARTITIONED BY.
    pub partitions: Option<Vec<Field>>,
}

impl Declared {
    /// Whether a column of the files is read.
    fn reads(&self, name: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|(field, _)| field.name() == name))
    }
}

/// The columns of a source's files, and what reads them.
pub struct Columns {
    /// The columns, without those in paths.
    pub schema: SchemaRef,
    /// Those that are said to have no NULLs, but could have some: that is checked when they are read.
    pub promised: BTreeSet<String>,
    /// What reads the files.
    pub reader: Reader,
    /// Rows of all files, if that is known.
    pub rows: Option<u64>,
    /// The footers, when the files are Parquet.
    pub row_groups: Option<Vec<Arc<ParquetMetaData>>>,
}

/// What is declared.
///
/// # Errors
/// A type that DataFusion does not know or that can't be stored, PARTITIONED BY of a column that is not declared where
/// others are.
pub async fn declared(source: &Source, state: &SessionState) -> Result<Declared> {
    let statement = &source.statement;
    // DataFusion's planner knows the types; it does not look at the files.
    let planned = state.statement_to_plan(Statement::CreateExternalTable(statement.as_ref().clone())).await;
    let planned = planned.map_err(|e| planner_error(source, e))?;
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) = planned else {
        return Err(planner_error(source, DataFusionError::Plan("it is not CREATE EXTERNAL TABLE".into())));
    };
    let schema = command.schema.as_arrow();
    for field in schema.fields() {
        if let Some(what) = unstorable(field.data_type()) {
            let message = format!("column {} {what}", quoted(field.name()));
            return Err(planner_error(source, DataFusionError::Plan(message)));
        }
    }
    let in_paths = &command.table_partition_cols;
    let partition = |name: &String| match schema.field_with_name(name) {
        Ok(field) => Ok(field.clone()),
        Err(_) if schema.fields().is_empty() => Ok(Field::new(name, DataType::Utf8View, true)),
        Err(_) => {
            let message =
                format!("PARTITIONED BY names column {}, which is not declared; declare it, too", quoted(name));
            Err(planner_error(source, DataFusionError::Plan(message)))
        }
    };
    let partitions = in_paths.iter().map(partition).collect::<Result<Vec<_>>>()?;
    let is_null_declared = |name: &str| {
        let options = statement.columns.iter().filter(|column| column.name.value.eq_ignore_ascii_case(name));
        options.flat_map(|column| &column.options).any(|option| matches!(option.option, ColumnOption::Null))
    };
    let columns = schema.fields().iter().filter(|field| !in_paths.contains(field.name()));
    let columns: Vec<_> = columns.map(|field| (field.as_ref().clone(), is_null_declared(field.name()))).collect();
    Ok(Declared {
        // PARTITIONED BY may declare its own alone.
        columns: (!columns.is_empty()).then_some(columns),
        partitions: (!in_paths.is_empty()).then_some(partitions),
    })
}

/// How the values of column number `at` are read, in words that change when they may.
pub fn read_as(source: &Source, at: usize, field: &FieldRef) -> String {
    // Without a header a column is a place in the row.
    let place = match &source.format {
        Format::Csv(options) if !options.has_header => format!(" field {at}"),
        _ => String::new(),
    };
    format!("{:?} {:?} {} {}{place}", source.format, field.name(), field.data_type(), field.is_nullable())
}

/// The columns of the files.
///
/// # Errors
/// A file that can't be read, and columns that don't fit each other, or the declared ones.
pub async fn columns(
    source: &Source,
    declared: &Declared,
    files: &[SourceFile],
    listed: &[PartitionedFile],
    partitions: &Partitions,
    state: &SessionState,
) -> Result<Columns> {
    let failed = |fault: Fault| source_error(source, fault);
    let found: Vec<(PathBuf, SchemaRef)> = match &source.format {
        Format::Parquet(options) => {
            return parquet_columns(source, options, declared, files, listed, partitions, state).await;
        }
        Format::Arrow => {
            let paths = paths(files);
            in_background(source, move || paths.iter().map(|path| Ok((path.clone(), ipc::schema(path)?))).collect())
                .await?
        }
        Format::Csv(options) => {
            let (paths, rows) = (paths(files), inferred_rows(options.infer_rows, files.len()));
            let known = text_columns_of_csv(source, options, declared, partitions, paths, rows).await?;
            return text(source, files, known, declared);
        }
        Format::Json(options) => {
            let (paths, rows) = (paths(files), inferred_rows(options.infer_rows, files.len()));
            let known = text_columns_of_json(source, options, declared, partitions, paths, rows).await?;
            return text(source, files, known, declared);
        }
    };
    let schema = common(&found, declared, partitions).map_err(failed)?;
    let known = |field: &FieldRef| KnownColumn {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        is_nullable: field.is_nullable(),
        may_be_missing: true,
        origin: Origin::Declared,
    };
    text(source, files, schema.fields().iter().map(known).collect(), declared)
}

fn paths(files: &[SourceFile]) -> Vec<PathBuf> {
    files.iter().map(|file| file.path.clone()).collect()
}

fn inferred_rows(option: Option<usize>, files: usize) -> usize {
    option.unwrap_or_else(|| (INFERRED_ROWS_IN_ALL / files.max(1)).clamp(LEAST_INFERRED_ROWS, INFERRED_ROWS))
}

/// Does work that waits for the disk.
async fn in_background<T: Send + 'static>(
    source: &Source,
    work: impl FnOnce() -> std::result::Result<T, Fault> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|fault| source_error(source, fault)),
        Err(panicked) => {
            let message = format!("a reader of {} panicked: {panicked}; this is a bug", source.format);
            Err(planner_error(source, DataFusionError::Plan(message)))
        }
    }
}

fn text(source: &Source, files: &[SourceFile], columns: Vec<KnownColumn>, declared: &Declared) -> Result<Columns> {
    if let (true, None, Some(first)) = (columns.is_empty(), &declared.partitions, files.first()) {
        let which = if files.len() == 1 { "" } else { ", nor have the source's other files" };
        let message = format!("has no column{which}; declare the columns, or check that this is {}", source.format);
        return Err(source_error(source, Fault::new(&first.path, message)));
    }
    let table = TextTable {
        source: source.name.clone(),
        location: source.location.clone(),
        columns,
        may_have_others: declared.columns.is_some() && !matches!(source.format, Format::Csv(_)),
        of_folders: of_folders(declared),
    };
    let schema = Arc::new(table.schema());
    let promised = schema.fields().iter().filter(|f| !f.is_nullable()).map(|f| f.name().clone()).collect();
    let reader = Reader::Whole(Arc::new(TextFiles { format: source.format.clone(), table: Arc::new(table) }));
    Ok(Columns { schema, promised, reader, rows: None, row_groups: None })
}

/// Names of columns that are the folders', whatever the files have.
fn of_folders(declared: &Declared) -> Vec<String> {
    declared.partitions.iter().flatten().map(|field| field.name().clone()).collect()
}

/// The columns that are declared, as text files have them.
fn known_of_declared(declared: &[(Field, bool)], is_missing_null: bool) -> Vec<KnownColumn> {
    let known = |(field, is_null_declared): &(Field, bool)| KnownColumn {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        is_nullable: field.is_nullable(),
        may_be_missing: field.is_nullable() && (*is_null_declared || is_missing_null),
        origin: Origin::Declared,
    };
    declared.iter().map(known).collect()
}

/// That text has values of the declared types.
fn check_types(source: &Source, columns: &[(Field, bool)], is_of: fn(&DataType) -> bool) -> Result<()> {
    let Some((field, _)) = columns.iter().find(|(field, _)| !is_of(field.data_type())) else { return Ok(()) };
    let (name, data_type, format) = (quoted(field.name()), type_name(field.data_type()), &source.format);
    let message = format!(
        "column {name}: a {data_type} can't be read from {format}; declare it as VARCHAR and CAST it in the query"
    );
    Err(planner_error(source, DataFusionError::Plan(message)))
}

async fn text_columns_of_csv(
    source: &Source,
    options: &CsvOptions,
    declared: &Declared,
    partitions: &Partitions,
    paths: Vec<PathBuf>,
    rows: usize,
) -> Result<Vec<KnownColumn>> {
    if let Some(columns) = &declared.columns {
        check_types(source, columns, is_of_text)?;
        return Ok(known_of_declared(columns, options.truncated_rows));
    }
    let sampled_options = options.clone();
    let sampled: Vec<(PathBuf, Vec<(String, csv::Kinds)>)> = in_background(source, move || {
        paths.into_iter().map(|path| Ok((path.clone(), csv::sample(&path, &sampled_options, rows)?))).collect()
    })
    .await?;
    let of_folders = of_folders(declared);
    let mut names = Names::default();
    let mut kinds: Vec<(String, csv::Kinds)> = Vec::new();
    for (path, columns) in &sampled {
        let own = || columns.iter().filter(|(name, _)| !of_folders.contains(name));
        let header: Vec<&str> = own().map(|(name, _)| name.as_str()).collect();
        let partitions = partitions_of(declared, partitions);
        names.add_columns(path, &header, partitions).map_err(|fault| source_error(source, fault))?;
        for (name, seen) in own() {
            match kinds.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = known.and(*seen),
                None => kinds.push((name.clone(), *seen)),
            }
        }
    }
    let known = |(name, kinds): (String, csv::Kinds)| KnownColumn {
        name,
        data_type: kinds.data_type(),
        is_nullable: true,
        may_be_missing: options.truncated_rows,
        origin: Origin::Inferred(rows),
    };
    let table = TextTable {
        source: source.name.clone(),
        location: source.location.clone(),
        columns: kinds.into_iter().map(known).collect(),
        may_have_others: false,
        of_folders,
    };
    // A file without a header has no say; one with another is told before anything runs.
    for (path, columns) in sampled.iter().filter(|(_, columns)| !columns.is_empty()) {
        let header: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        if options.has_header {
            table.fields_of(path, &header).map_err(|fault| table.error(fault))?;
        } else if header.len() != table.columns.len() && !options.truncated_rows {
            let message = format!(
                "has {} columns, and another file {}; take it out, or set format.truncated_rows to 'true'",
                header.len(),
                table.columns.len()
            );
            return Err(source_error(source, Fault::new(path, message)));
        }
    }
    Ok(table.columns)
}

async fn text_columns_of_json(
    source: &Source,
    options: &JsonOptions,
    declared: &Declared,
    partitions: &Partitions,
    paths: Vec<PathBuf>,
    rows: usize,
) -> Result<Vec<KnownColumn>> {
    if let Some(columns) = &declared.columns {
        check_types(source, columns, json::is_of_json)?;
        return Ok(known_of_declared(columns, true));
    }
    let options = options.clone();
    let sampled: Vec<(PathBuf, Vec<(String, json::Seen)>)> = in_background(source, move || {
        paths.into_iter().map(|path| Ok((path.clone(), json::sample(&path, &options, rows)?))).collect()
    })
    .await?;
    let failed = |fault: Fault| source_error(source, fault);
    let of_folders = of_folders(declared);
    let mut names = Names::default();
    let mut keys = Vec::new();
    for (path, of_file) in &sampled {
        let own: Vec<_> = of_file.iter().filter(|(key, _)| !of_folders.contains(key)).cloned().collect();
        let header: Vec<&str> = own.iter().map(|(key, _)| key.as_str()).collect();
        names.add_columns(path, &header, partitions_of(declared, partitions)).map_err(failed)?;
        for (key, seen) in &own {
            // Where they have no type, they have none together with those of other files.
            let Ok(data_type) = seen.data_type() else { continue };
            names.add_fields(path, key, &data_type).map_err(failed)?;
        }
        keys = json::keys_and(keys, own);
    }
    let known = |(name, seen): (String, json::Seen)| {
        let data_type = seen.data_type().map_err(|what| {
            let (path, beside) = json::without_type(&sampled, &name);
            let message = format!("key {} {what}{beside}; declare it, such as {name} VARCHAR", quoted(&name));
            failed(Fault::new(path, message))
        })?;
        Ok(KnownColumn { name, data_type, is_nullable: true, may_be_missing: true, origin: Origin::Inferred(rows) })
    };
    keys.into_iter().map(known).collect()
}

/// The common columns of files that say their own.
fn common(
    files: &[(PathBuf, SchemaRef)],
    declared: &Declared,
    partitions: &Partitions,
) -> std::result::Result<SchemaRef, Fault> {
    for (path, schema) in files {
        check_distinct(path, schema.fields().iter().map(|field| field.name().as_str()), declared)?;
    }
    if let Some(columns) = &declared.columns {
        for (path, schema) in files {
            check_declared(path, schema, columns)?;
        }
        for (field, is_null_declared) in columns {
            let is_there = files.iter().any(|(_, schema)| schema.index_of(field.name()).is_ok());
            if let (false, false, Some((path, schema))) = (is_there, *is_null_declared, files.first()) {
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let message = format!(
                    "column {} is declared, but no file has it; correct its name, or add it to PARTITIONED BY if it is in the names of \
                     folders (the columns are: {})",
                    quoted(field.name()),
                    names.join(", ")
                );
                return Err(Fault::new(path, message));
            }
        }
        check_fields(files, columns)?;
        // Bytes are of one type whether they are declared or found, so that they can be put together.
        let read = columns.iter().map(|(field, _)| field.clone().with_data_type(plain(field.data_type())));
        return Ok(Arc::new(Schema::new(read.collect::<Vec<_>>())));
    }
    let mut names = Names::default();
    let mut all: Vec<(Field, PathBuf)> = Vec::new();
    for (path, schema) in files {
        let header: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        // What PARTITIONED BY names is the folder's.
        let own: Vec<&str> = match &declared.partitions {
            Some(columns) => header.into_iter().filter(|name| !columns.iter().any(|c| c.name() == name)).collect(),
            None => header,
        };
        names.add_columns(path, &own, partitions_of(declared, partitions))?;
        for field in schema.fields().iter().filter(|field| own.contains(&field.name().as_str())) {
            check_storable(path, field)?;
            names.add_fields(path, field.name(), field.data_type())?;
            match all.iter_mut().find(|(known, _)| known.name() == field.name()) {
                Some((known, first)) => {
                    let Some(data_type) = unified(known.data_type(), field.data_type()) else {
                        let message = format!(
                            "column {} is {} here, and {} in {}; no type holds both: declare the column, or fix the files",
                            quoted(field.name()),
                            type_name(&plain(field.data_type())),
                            type_name(known.data_type()),
                            first.display()
                        );
                        return Err(Fault::new(path, message));
                    };
                    let is_nullable = known.is_nullable() || field.is_nullable();
                    *known = Field::new(known.name(), data_type, is_nullable);
                }
                None => {
                    all.push((Field::new(field.name(), plain(field.data_type()), field.is_nullable()), path.clone()));
                }
            }
        }
    }
    // A column that a file does not have is NULL in its rows.
    let field = |(field, _): (Field, PathBuf)| {
        let is_in_all = files.iter().all(|(_, schema)| schema.index_of(field.name()).is_ok());
        let is_nullable = field.is_nullable() || !is_in_all;
        field.with_nullable(is_nullable)
    };
    Ok(Arc::new(Schema::new(all.into_iter().map(field).collect::<Vec<_>>())))
}

/// Refuses a column that can't be stored.
fn check_storable(path: &Path, field: &Field) -> std::result::Result<(), Fault> {
    let refused = |what: String| Err(Fault::new(path, format!("column {} {what}", quoted(field.name()))));
    unstorable(field.data_type()).map_or(Ok(()), refused)
}

/// Refuses two columns of one name in a file, if they are read.
fn check_distinct<'a>(
    path: &Path,
    names: impl Iterator<Item = &'a str>,
    declared: &Declared,
) -> std::result::Result<(), Fault> {
    let mut seen = BTreeSet::new();
    let mut read = names.filter(|name| declared.reads(name));
    match read.find(|name| !seen.insert(*name)) {
        Some(name) => {
            let message = format!("has two columns called {}; write it again with other names", quoted(name));
            Err(Fault::new(path, message))
        }
        None => Ok(()),
    }
}

/// Partition columns that were found, not declared.
fn partitions_of<'a>(declared: &Declared, partitions: &'a Partitions) -> &'a Partitions {
    static NONE: Partitions = Partitions { columns: Vec::new(), values: Vec::new(), not_in_all: None };
    if declared.partitions.is_some() { &NONE } else { partitions }
}

/// That the declared columns can be read from a file that has these.
fn check_declared(path: &Path, schema: &Schema, columns: &[(Field, bool)]) -> std::result::Result<(), Fault> {
    for (field, is_null_declared) in columns {
        let (name, wanted) = (field.name(), field.data_type());
        let Ok(given) = schema.field_with_name(name) else {
            let folded = schema.fields().iter().find(|other| other.name().eq_ignore_ascii_case(name));
            if let Some(other) = folded {
                let message = format!(
                    "has column {} and not {}; declare it as \"{}\", in double quotes",
                    quoted(other.name()),
                    quoted(name),
                    other.name()
                );
                return Err(Fault::new(path, message));
            }
            if !field.is_nullable() && !is_null_declared {
                let message = format!("has no column {}, which is declared NOT NULL; leave NOT NULL out", quoted(name));
                return Err(Fault::new(path, message));
            }
            continue;
        };
        check_storable(path, given)?;
        if !may_be_read_as(&plain(given.data_type()), wanted) {
            let message = format!(
                "column {} is declared as {}, but it is {} there; declare it so, and CAST it in the query",
                quoted(name),
                type_name(wanted),
                type_name(&plain(given.data_type()))
            );
            return Err(Fault::new(path, message));
        }
    }
    Ok(())
}

/// Whether values of a file's column may be equal to some of the declared type; each is checked when it is read.
fn may_be_read_as(given: &DataType, declared: &DataType) -> bool {
    let is_number = |t: &DataType| t.is_numeric();
    let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let has_zone = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
    let is_binary = |t: &DataType| t.is_binary() || matches!(t, DataType::BinaryView | DataType::FixedSizeBinary(_));
    unified(given, declared).is_some()
        || (is_number(given) && is_number(declared))
        || (is_time(given) && is_time(declared) && has_zone(given) == has_zone(declared))
        || given.is_string()
        || (declared.is_string()
            && !given.is_nested()
            && !matches!(given, DataType::Duration(_) | DataType::Interval(_)))
        || (is_binary(given) && is_binary(declared))
}

async fn parquet_columns(
    source: &Source,
    options: &[(String, String)],
    declared: &Declared,
    files: &[SourceFile],
    listed: &[PartitionedFile],
    partitions: &Partitions,
    state: &SessionState,
) -> Result<Columns> {
    let failed = |fault: Fault| source_error(source, fault);
    let mut options: HashMap<String, String> =
        options.iter().map(|(name, value)| (format!("format.{name}"), value.clone())).collect();
    let format_of = |options: &HashMap<String, String>| {
        ParquetFormatFactory::new().create(state, options).map_err(|e| planner_error(source, e))
    };
    let mut format = format_of(&options)?;
    let store = store(state).map_err(|e| planner_error(source, e))?;
    let paths: Vec<_> =
        files.iter().zip(listed).map(|(file, meta)| (file.path.clone(), meta.object_meta.clone())).collect();
    let mut footers = parquet::footers(&paths, format.as_ref(), &store, state).await.map_err(failed)?;
    if !options.contains_key(COERCE_INT96) {
        let is_read = |name: &str| declared.reads(name);
        if parquet::has_int96_in_microseconds(&paths, &footers, is_read).map_err(failed)? {
            options.insert(COERCE_INT96.into(), "us".into());
            format = format_of(&options)?;
            footers = parquet::footers(&paths, format.as_ref(), &store, state).await.map_err(failed)?;
        }
    }
    let found: Vec<(PathBuf, SchemaRef)> =
        files.iter().zip(&footers).map(|(file, footer)| (file.path.clone(), Arc::clone(&footer.schema))).collect();
    for ((path, _), footer) in found.iter().zip(&footers) {
        // DataFusion puts columns of one name together.
        let columns = footer.metadata.file_metadata().schema().get_fields();
        check_distinct(path, columns.iter().map(|column| column.name()), declared).map_err(failed)?;
    }
    let schema = common(&found, declared, partitions).map_err(failed)?;
    for ((path, of_file), footer) in found.iter().zip(&footers) {
        let read = Schema::new(
            of_file.fields().iter().filter(|f| schema.index_of(f.name()).is_ok()).cloned().collect::<Vec<_>>(),
        );
        if let Some(column) = parquet::misread_column(&read) {
            let message = format!(
                "column {} is an INTERVAL, of which Arrow's Parquet reader drops the months; declare the columns without it, or \
                 store its parts",
                quoted(&column)
            );
            return Err(failed(Fault::new(path, message)));
        }
        if let Some(column) = parquet::variant_column(&footer.metadata, &read) {
            let message = format!(
                "column {} is a VARIANT, of which Arrow's Parquet reader shows the bytes that it is stored as; declare the columns \
                 without it, or write it as JSON text",
                quoted(&column)
            );
            return Err(failed(Fault::new(path, message)));
        }
    }
    let mut fitting: BTreeMap<(String, String), Vec<PathBuf>> = BTreeMap::new();
    for (path, of_file) in &found {
        for field in of_file.fields() {
            let key = (field.name().clone(), type_name(field.data_type()));
            fitting.entry(key).or_default().push(path.clone());
        }
    }
    let mut unchecked: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for field in schema.fields().iter().filter(|field| parquet::holds_text(field.data_type())) {
        let has_bytes = |(_, footer): &(_, &parquet::Footer)| parquet::has_bare_bytes(&footer.metadata, field.name());
        let with_bytes: Vec<_> =
            files.iter().zip(&footers).filter(has_bytes).map(|(file, _)| file.path.clone()).collect();
        if !with_bytes.is_empty() {
            unchecked.insert(field.name().clone(), with_bytes);
        }
    }
    // Of a column that is required in a file the file has no NULLs, whatever its rows are.
    let is_nullable = |(_, of_file): &(PathBuf, SchemaRef), name: &str| {
        of_file.field_with_name(name).is_ok_and(|field| field.is_nullable())
    };
    let promised = schema.fields().iter().filter(|field| !field.is_nullable()).map(|field| field.name().clone());
    let promised: BTreeSet<String> = promised.filter(|name| found.iter().any(|file| is_nullable(file, name))).collect();
    let always_fits = !unchecked.is_empty() || schema.fields().iter().any(|f| parquet::holds_floats(f.data_type()));
    let fitting = Fitting { source: source.name.clone(), location: source.location.clone(), files: fitting, unchecked };
    let rows = footers
        .iter()
        .map(|footer| u64::try_from(footer.metadata.file_metadata().num_rows()).unwrap_or_default())
        .sum();
    let reader = Reader::Parquet {
        format: Arc::new(parquet_format(format.as_ref())),
        fitting: Some(Arc::new(FittingFactory(Arc::new(fitting)))),
        always_fits,
        prunes: footers.iter().all(|footer| parquet::has_reliable_statistics(&footer.metadata)),
    };
    let row_groups = footers.into_iter().map(|footer| footer.metadata).collect();
    Ok(Columns { schema, promised, reader, rows: Some(rows), row_groups: Some(row_groups) })
}

fn parquet_format(format: &dyn FileFormat) -> ParquetFormat {
    match format.downcast_ref::<ParquetFormat>() {
        Some(parquet) => ParquetFormat::new().with_options(parquet.options().clone()),
        None => ParquetFormat::new(),
    }
}
