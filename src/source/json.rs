//! JSON: objects one after the other, or in one array, whose keys are columns.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::execute::text::{TextColumn, text_column};
use crate::source::fault::{Fault, quoted};
use crate::source::open::open;
use crate::source::read::{BATCH_BYTES, MOST_RECORD_BYTES, Origin, TextTable};
use crate::task::format::JsonOptions;

/// At least so many bytes are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// An object: its keys and the text of their values, in order.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, {\"column\": value, …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A key that is borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_string())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// The objects of a file, one at a time.
struct Objects {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// Where what was not read yet begins in the buffer.
    start: usize,
    /// The line of that, from 1.
    line: u64,
    is_at_end: bool,
    /// Whether the objects stand in an array; not known before the first.
    is_array: Option<bool>,
    /// Whether the array has begun, and whether it has ended.
    is_within: bool,
    is_over: bool,
    /// Whether a comma or the end of the array comes next.
    is_after_object: bool,
}

impl Objects {
    fn open(path: &Path, options: &JsonOptions) -> Result<Self, Fault> {
        let JsonOptions { is_array, infer_rows: _, compression } = options;
        let text = open(path, *compression)?;
        let (path, buffer, is_array) = (path.to_path_buf(), Vec::new(), *is_array);
        Ok(Self {
            path,
            text,
            buffer,
            start: 0,
            line: 1,
            is_at_end: false,
            is_array,
            is_within: false,
            is_over: false,
            is_after_object: false,
        })
    }

    /// Calls `take` with the next object and its line; `None` when there is none.
    fn next<T>(&mut self, take: impl FnOnce(Object<'_>, u64) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        if !self.at_object()? {
            return Ok(None);
        }
        loop {
            let rest = &self.buffer[self.start..];
            let mut objects = serde_json::Deserializer::from_slice(rest).into_iter::<Object<'_>>();
            match objects.next() {
                Some(Ok(object)) => {
                    let (end, line) = (objects.byte_offset(), self.line);
                    let taken = take(object, line)?;
                    self.skip(end);
                    self.is_after_object = true;
                    return Ok(Some(taken));
                }
                Some(Err(error)) if error.is_eof() && !self.is_at_end => self.fill()?,
                Some(Err(error)) => return Err(self.fault(&error)),
                None => return Ok(None),
            }
        }
    }

    /// Moves to the next object.
    fn at_object(&mut self) -> Result<bool, Fault> {
        let mut is_after_comma = false;
        loop {
            let Some(byte) = self.peek()? else {
                let message = "ends before the array does, at ]; the file is cut off";
                return if self.is_within && !self.is_over { Err(self.here(message)) } else { Ok(false) };
            };
            match (byte, self.is_array) {
                (b'[', None | Some(true)) if !self.is_within => {
                    (self.is_array, self.is_within) = (Some(true), true);
                    self.skip(1);
                }
                (_, Some(true)) if !self.is_within => {
                    return Err(
                        self.here("is not an array; write format.newline_delimited 'true' for one object a line")
                    );
                }
                _ if self.is_over => return Err(self.here("goes on after the end of its array")),
                (b']', Some(true)) if !is_after_comma => {
                    self.is_over = true;
                    self.skip(1);
                }
                (b',', Some(true)) if self.is_after_object => {
                    (self.is_after_object, is_after_comma) = (false, true);
                    self.skip(1);
                }
                (_, Some(true)) if self.is_after_object => return Err(self.here("has no comma before this object")),
                (b'[', Some(false)) => {
                    return Err(
                        self.here("is an array; write format.newline_delimited 'false', or leave the option out")
                    );
                }
                (_, None) => self.is_array = Some(false),
                (_, Some(_)) => return Ok(true),
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            while let Some(byte) = self.buffer.get(self.start) {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.skip(1),
                    byte => return Ok(Some(*byte)),
                }
            }
            if self.is_at_end {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn skip(&mut self, bytes: usize) {
        let skipped = &self.buffer[self.start..self.start + bytes];
        self.line += skipped.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.start += bytes;
    }

    /// Reads at least as much as is there, so that an object is parsed again few times, however long it is.
    fn fill(&mut self) -> Result<(), Fault> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() as u64 > MOST_RECORD_BYTES {
            let message = format!("the object that begins here has more than {} MiB", MOST_RECORD_BYTES >> 20);
            return Err(self.here(&message));
        }
        let wanted = self.buffer.len() + self.buffer.len().max(PIECE_BYTES);
        while self.buffer.len() < wanted {
            let piece = self.text.fill_buf();
            let piece = piece.map_err(|cause: io::Error| Fault::new(&self.path, "can't be read").because(cause))?;
            if piece.is_empty() {
                self.is_at_end = true;
                break;
            }
            let read = piece.len();
            self.buffer.extend_from_slice(piece);
            self.text.consume(read);
        }
        Ok(())
    }

    fn here(&self, message: &str) -> Fault {
        Fault::new(&self.path, message).at(self.line)
    }

    fn fault(&self, error: &serde_json::Error) -> Fault {
        let line = self.line + (error.line() as u64).saturating_sub(1);
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let message = match error.classify() {
            serde_json::error::Category::Eof => format!("the object that begins here has no end ({what})"),
            serde_json::error::Category::Data => format!("has a value that is not an object ({what})"),
            _ => format!("is not JSON: {what}; the object begins in line {}", self.line),
        };
        let line = if error.is_eof() { self.line } else { line };
        Fault::new(&self.path, message).at(line)
    }
}

/// Lists and objects stand in each other at most so deep.
const MOST_NESTED: usize = 100;

/// Which values a key has, as far as they were seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seen {
    /// NULLs only.
    #[default]
    Nothing,
    /// `true` and `false`.
    Boolean,
    /// Whole numbers: whether one is negative, and the most digits.
    Integer { is_negative: bool, digits: usize, is_beyond_signed: bool },
    /// Numbers with a fraction or exponent, and maybe whole ones.
    Float,
    /// Texts.
    Text,
    /// Lists of these.
    List(Box<Seen>),
    /// Objects with these keys, in the order in which they came.
    Object(Vec<(String, Seen)>),
    /// Lists or objects that stand too deep in others.
    TooDeep,
    /// Values of two kinds.
    Mixed(&'static str, &'static str),
}

impl Seen {
    fn of(value: &RawValue) -> Self {
        Self::at_depth(value, 0)
    }

    fn at_depth(value: &RawValue, depth: usize) -> Self {
        let of = |value| Self::at_depth(value, depth + 1);
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'n') | None => Self::Nothing,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[' | b'{') if depth == MOST_NESTED => Self::TooDeep,
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                Self::List(Box::new(items.into_iter().map(of).fold(Self::Nothing, Self::and)))
            }
            Some(b'{') => {
                let Object(entries) = serde_json::from_str(text).unwrap_or(Object(Vec::new()));
                Self::Object(entries.into_iter().map(|(key, value)| (key.into_owned(), of(value))).collect())
            }
            _ if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Self::Integer {
                is_negative: text.starts_with('-'),
                digits: text.trim_start_matches('-').len(),
                is_beyond_signed: text.parse::<i64>().is_err(),
            },
            _ => Self::Float,
        }
    }

    /// What both have.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::TooDeep, _) | (_, Self::TooDeep) => Self::TooDeep,
            (mixed @ Self::Mixed(..), _) | (_, mixed @ Self::Mixed(..)) => mixed,
            (Self::Boolean, Self::Boolean) => Self::Boolean,
            (Self::Text, Self::Text) => Self::Text,
            (Self::Float, Self::Float | Self::Integer { .. }) | (Self::Integer { .. }, Self::Float) => Self::Float,
            (
                Self::Integer { is_negative: a, digits: a_digits, is_beyond_signed: a_beyond },
                Self::Integer { is_negative: b, digits: b_digits, is_beyond_signed: b_beyond },
            ) => Self::Integer {
                is_negative: a || b,
                digits: a_digits.max(b_digits),
                is_beyond_signed: a_beyond || b_beyond,
            },
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.and(*b))),
            (Self::Object(a), Self::Object(b)) => Self::Object(keys_and(a, b)),
            (a, b) => Self::Mixed(a.kind(), b.kind()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "NULL",
            Self::Boolean => "a boolean",
            Self::Integer { .. } | Self::Float => "a number",
            Self::Text => "a text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
            Self::TooDeep | Self::Mixed(..) => "a value of another kind",
        }
    }

    /// The type of a column with these values.
    ///
    /// # Errors
    /// What is wrong, when they have no common type.
    pub fn data_type(&self) -> Result<DataType, String> {
        Ok(match self {
            Self::Nothing => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Integer { is_beyond_signed: false, .. } => DataType::Int64,
            Self::Integer { is_negative: false, digits, .. } if *digits <= 19 => DataType::UInt64,
            Self::Integer { digits, .. } if *digits <= 38 => DataType::Decimal128(38, 0),
            Self::Integer { .. } => return Err("is a number of more than 38 digits".into()),
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8View,
            Self::List(items) => DataType::List(Arc::new(Field::new_list_field(items.data_type()?, true))),
            Self::Object(keys) => {
                let field = |(key, seen): &(String, Self)| Ok(Field::new(key, seen.data_type()?, true));
                DataType::Struct(keys.iter().map(field).collect::<Result<Fields, String>>()?)
            }
            Self::TooDeep => return Err(format!("has values in more than {MOST_NESTED} others")),
            Self::Mixed(a, b) => return Err(format!("is {a} in one object and {b} in another")),
        })
    }
}

/// All keys of both, those of the first objects first.
pub fn keys_and(mut all: Vec<(String, Seen)>, other: Vec<(String, Seen)>) -> Vec<(String, Seen)> {
    for (key, seen) in other {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = std::mem::take(known).and(seen),
            None => all.push((key, seen)),
        }
    }
    all
}

/// The keys of the first `rows` objects of a file.
///
/// # Errors
/// What is not JSON, or no object.
pub fn sample(path: &Path, options: &JsonOptions, rows: usize) -> Result<Vec<(String, Seen)>, Fault> {
    let mut objects = Objects::open(path, options)?;
    let (mut all, mut seen) = (Vec::new(), 0);
    while seen < rows {
        let keys = objects.next(|Object(entries), _| {
            Ok(entries.into_iter().map(|(key, value)| (key.into_owned(), Seen::of(value))).collect())
        })?;
        let Some(keys) = keys else { break };
        all = keys_and(all, keys);
        seen += 1;
    }
    Ok(all)
}

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
        let path = objects.path.clone();
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
                        let message = message.unwrap_or_else(|| {
                            known.no_value_within(&inside, value.map(RawValue::get).filter(|_| !is_null))
                        });
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
        let arrays = columns.iter_mut().map(|(_, column)| column.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options);
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
                                message: Some(format!("a text can't be read: {e}")),
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
