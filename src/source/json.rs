//! JSON: objects one after the other, or in one array, whose keys are columns.

mod infer;
mod objects;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, SchemaRef};
use serde_json::value::RawValue;

use crate::execute::budget::BATCH_BYTES;
use crate::execute::floats::with_equal_floats;
use crate::execute::text::{TextColumn, text_column};
use crate::source::fault::{Fault, quoted};
use crate::source::json::objects::{Object, Objects};
use crate::source::read::{Origin, TextTable, in_other_case};
use crate::task::format::JsonOptions;

pub use infer::{Seen, keys_and, sample, without_type};

/// Whether JSON has values of a declared type.
pub fn is_of_json(data_type: &DataType) -> bool {
    Column::new(data_type, &Origin::Declared, 0).is_some()
}

/// The rows of a file, in batches.
pub struct Rows {
    objects: Objects,
    schema: SchemaRef,
    table: Arc<TextTable>,
    /// For each of the table's columns the number of those that are read; and these.
    columns: Vec<(usize, Column)>,
    /// The number, among those that are read, of a key.
    numbers: BTreeMap<String, Option<usize>>,
    batch_rows: usize,
}

impl Rows {
    /// The columns `columns` of `table`, by number, of one file.
    ///
    /// # Errors
    /// When it can't be opened, or a column has a type that JSON is not read as.
    pub fn open(
        path: &Path,
        options: &JsonOptions,
        table: &Arc<TextTable>,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Self, Fault> {
        let objects = Objects::open(path, options)?;
        let schema = Arc::new(table.schema().project(columns).map_err(|e| Fault::new(path, "columns").because(e))?);
        let column = |number: &usize| {
            let known = &table.columns[*number];
            let no_json = || Fault::new(path, format!("a column of type {} can't be read from JSON", known.data_type));
            Ok((*number, Column::new(&known.data_type, &known.origin, batch_rows).ok_or_else(no_json)?))
        };
        let read = columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let number = |at: usize| columns.iter().position(|column| *column == at);
        let numbers = table.columns.iter().enumerate().map(|(at, known)| (known.name.clone(), number(at))).collect();
        Ok(Self { objects, schema, table: Arc::clone(table), columns: read, numbers, batch_rows })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, Fault> {
        let Self { objects, schema, table, columns, numbers, batch_rows } = self;
        let path = objects.path().to_path_buf();
        let (mut rows, mut bytes) = (0, 0);
        while rows < *batch_rows && bytes < BATCH_BYTES {
            let added = objects.next(|Object(entries), line| {
                bytes += entries.iter().map(|(_, value)| value.get().len()).sum::<usize>();
                let mut values: Vec<Option<&RawValue>> = vec![None; columns.len()];
                let mut keys: Vec<&str> = Vec::with_capacity(entries.len());
                for (key, value) in &entries {
                    if keys.contains(&key.as_ref()) {
                        let message = format!("key {} stands twice in one object", quoted(key));
                        return Err(Fault::new(&path, message).at(line));
                    }
                    keys.push(key);
                    match numbers.get(key.as_ref()) {
                        Some(Some(number)) => values[*number] = Some(*value),
                        Some(None) => {}
                        None => {
                            let has = |name: &str| entries.iter().any(|(key, _)| key == name);
                            table.check_unknown(key, has).map_err(|message| Fault::new(&path, message).at(line))?;
                        }
                    }
                }
                for ((number, column), value) in columns.iter_mut().zip(values) {
                    let known = &table.columns[*number];
                    let is_null = value.is_none_or(|value| value.get() == "null");
                    let appended =
                        if is_null && !known.is_nullable { Err(Misfit::default()) } else { column.append(value) };
                    if let Err(Misfit { inside, message }) = appended {
                        let message = match message {
                            Some(message) => {
                                format!("column {}: {message}", quoted(&format!("{}{inside}", known.name)))
                            }
                            None => known.no_value_within(&inside, value.map(RawValue::get).filter(|_| !is_null)),
                        };
                        return Err(Fault::new(&path, message).at(line));
                    }
                }
                Ok(())
            })?;
            if added.is_none() {
                break;
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let arrays = columns.iter_mut().map(|(_, column)| with_equal_floats(column.finish())).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = |arrays| RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options);
        let batch = Result::and_then(arrays, batch);
        batch.map(Some).map_err(|e| Fault::new(&path, "can't be read").because(e))
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

/// That a value is not one of its column.
#[derive(Debug, Default)]
struct Misfit {
    /// The way to it inside the column's value.
    inside: String,
    /// What is wrong, where it is not the type.
    message: Option<String>,
}

impl Misfit {
    fn within(mut self, part: &str) -> Self {
        self.inside.insert_str(0, part);
        self
    }
}

/// The field that `key`, which is not one itself, is but for its case, if the object does not have that field, too. SQL
/// takes names without quotes in lower case.
fn meant<'a>(key: &str, fields: &'a Fields, entries: &[(Cow<'_, str>, &RawValue)]) -> Option<&'a str> {
    if fields.iter().any(|field| field.name() == key) {
        return None;
    }
    let mut names = fields.iter().map(|field| field.name().as_str());
    names.find(|name| name.eq_ignore_ascii_case(key) && !entries.iter().any(|(other, _)| other == name))
}

/// A column in the making.
enum Column {
    Scalar { values: Box<dyn TextColumn>, takes: Takes },
    List { item: FieldRef, items: Box<Column>, lengths: Vec<usize>, valid: Vec<bool> },
    Struct { fields: Fields, columns: Vec<Column>, valid: Vec<bool>, is_closed: bool },
}

/// Which JSON values a scalar column takes.
#[derive(Clone, Copy)]
struct Takes {
    numbers: bool,
    booleans: bool,
    texts: bool,
    /// Anything, as its text.
    all: bool,
}

impl Column {
    /// A column of a type; `None` for types that JSON is not read as.
    fn new(data_type: &DataType, origin: &Origin, capacity: usize) -> Option<Self> {
        let is_declared = *origin == Origin::Declared;
        Some(match data_type {
            DataType::List(item) => Self::List {
                item: Arc::clone(item),
                items: Box::new(Self::new(item.data_type(), origin, capacity)?),
                lengths: Vec::with_capacity(capacity),
                valid: Vec::with_capacity(capacity),
            },
            DataType::Struct(fields) => Self::Struct {
                fields: fields.clone(),
                columns: fields
                    .iter()
                    .map(|field| Self::new(field.data_type(), origin, capacity))
                    .collect::<Option<_>>()?,
                valid: Vec::with_capacity(capacity),
                is_closed: !is_declared,
            },
            scalar => {
                let is_number = scalar.is_numeric();
                let is_boolean = *scalar == DataType::Boolean;
                let is_text = scalar.is_string();
                let takes = Takes {
                    numbers: is_number,
                    booleans: is_boolean,
                    // Dates and times are texts; "12" is a number only for who says so.
                    texts: is_text || is_declared || !(is_number || is_boolean),
                    all: is_text && is_declared,
                };
                Self::Scalar { values: text_column(scalar, capacity)?, takes }
            }
        })
    }

    fn append(&mut self, value: Option<&RawValue>) -> Result<(), Misfit> {
        let text = value.map(RawValue::get).filter(|text| *text != "null");
        match self {
            Self::Scalar { values, takes } => {
                let decoded;
                let text = match text {
                    None => None,
                    Some(text) => match text.as_bytes().first() {
                        Some(b'"') if takes.texts => {
                            decoded = serde_json::from_str::<String>(text).map_err(|e| Misfit {
                                inside: String::new(),
                                message: Some(format!(
                                    "the text has an invalid escape ({e}); write both halves of a surrogate pair, or the character itself"
                                )),
                            })?;
                            Some(decoded.as_str())
                        }
                        Some(b't' | b'f') if takes.booleans || takes.all => Some(text),
                        Some(b'-' | b'0'..=b'9') if takes.numbers || takes.all => Some(text),
                        Some(b'[' | b'{') if takes.all => Some(text),
                        _ => return Err(Misfit::default()),
                    },
                };
                values.append(text).map_err(|_| Misfit::default())
            }
            Self::List { item: _, items, lengths, valid } => {
                let Some(text) = text else {
                    lengths.push(0);
                    valid.push(false);
                    return Ok(());
                };
                let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Misfit::default())?;
                for value in &values {
                    items.append(Some(value)).map_err(|misfit| misfit.within("[]"))?;
                }
                lengths.push(values.len());
                valid.push(true);
                Ok(())
            }
            Self::Struct { fields, columns, valid, is_closed } => {
                let entries = match text {
                    Some(text) => serde_json::from_str::<Object<'_>>(text).map_err(|_| Misfit::default())?.0,
                    None => Vec::new(),
                };
                for (at, (key, _)) in entries.iter().enumerate() {
                    let message = if entries[..at].iter().any(|(before, _)| before == key) {
                        format!("key {} stands twice in one object", quoted(key))
                    } else if *is_closed && !fields.iter().any(|field| field.name() == key) {
                        format!(
                            "key {} is in none of the objects that the columns were inferred from; raise \
                             format.schema_infer_max_rec, or declare the columns",
                            quoted(key)
                        )
                    } else if let Some(meant) = meant(key, fields, &entries) {
                        in_other_case(key, meant)
                    } else {
                        continue;
                    };
                    return Err(Misfit { inside: String::new(), message: Some(message) });
                }
                for (field, column) in fields.iter().zip(columns) {
                    let value = entries.iter().find(|(key, _)| key == field.name()).map(|(_, value)| *value);
                    column.append(value).map_err(|misfit| misfit.within(&format!(".{}", field.name())))?;
                }
                valid.push(text.is_some());
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Scalar { values, takes: _ } => values.finish(),
            Self::List { item, items, lengths, valid } => {
                let offsets = OffsetBuffer::from_lengths(lengths.drain(..));
                let nulls = NullBuffer::from_iter(valid.drain(..));
                Arc::new(ListArray::new(Arc::clone(item), offsets, items.finish(), Some(nulls)))
            }
            Self::Struct { fields, columns, valid, is_closed: _ } => {
                let arrays: Vec<ArrayRef> = columns.iter_mut().map(Self::finish).collect();
                let nulls = NullBuffer::from_iter(valid.drain(..));
                match arrays.is_empty() {
                    true => Arc::new(StructArray::new_empty_fields(nulls.len(), Some(nulls))),
                    false => Arc::new(StructArray::new(fields.clone(), arrays, Some(nulls))),
                }
            }
        }
    }
}
