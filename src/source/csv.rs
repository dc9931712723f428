//! CSV: rows of fields, by the names in the first line where there is one.

use std::collections::HashSet;
use std::io::{self, BufRead, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};
use memchr::memchr;
use regex::{Regex, RegexSet};

use crate::execute::budget::BATCH_BYTES;
use crate::execute::text::{TextColumn, text_column};
use crate::source::fault::{Fault, quoted};
use crate::source::open::open;
use crate::source::read::{MOST_RECORD_BYTES, TextTable};
use crate::task::format::{Compression, CsvOptions};

/// Which values a column has, as far as they were seen: a bit for each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(u16);

/// A kind of value, and what its text looks like; the first that matches is taken. Digits with zeros before them are a
/// code, no number.
const KINDS: [(Kinds, &str); 7] = [
    (Kinds::BOOLEAN, r"^(?i:true|false)$"),
    (Kinds::INTEGER, r"^-?(?:0|[1-9][0-9]*)$"),
    (
        Kinds::FLOAT,
        r"^-?(?:(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.)(?:[eE][-+]?[0-9]+)?$|^-?(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+$|^(?:NaN|nan|-?inf)$",
    ),
    (Kinds::DATE, r"^[0-9]{4}-[0-9][0-9]-[0-9][0-9]$"),
    (Kinds::MICROSECONDS, r"^[0-9]{4}-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9](?:\.[0-9]{1,6})?$"),
    (Kinds::NANOSECONDS, r"^[0-9]{4}-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]{7,9}$"),
    (
        Kinds::INSTANT,
        r"^[0-9]{4}-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9](?:\.[0-9]{1,6})?(?:[zZ]|[-+][0-9][0-9]:?[0-9][0-9]|[-+][0-9][0-9])$",
    ),
];

static PATTERNS: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(KINDS.iter().map(|(_, p)| p)).ok());

impl Kinds {
    const BOOLEAN: Self = Self(1);
    const INTEGER: Self = Self(2);
    const FLOAT: Self = Self(4);
    const DATE: Self = Self(8);
    const MICROSECONDS: Self = Self(16);
    const NANOSECONDS: Self = Self(32);
    const INSTANT: Self = Self(64);
    const TEXT: Self = Self(128);

    /// Notes a value that is not NULL.
    fn add(&mut self, text: &str) {
        let matching = PATTERNS.as_ref().and_then(|patterns| patterns.matches(text).into_iter().next());
        let kind = matching.map_or(Self::TEXT, |kind| KINDS[kind].0);
        // More digits than 64 bits hold are no float, which would take two numbers for one.
        self.0 |= if kind == Self::INTEGER && text.parse::<i64>().is_err() { Self::TEXT.0 } else { kind.0 };
    }

    /// All that either has.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The type of a column with these values.
    pub fn data_type(self) -> DataType {
        let is_of = |kinds: &[Self]| self.0 & !kinds.iter().fold(0, |all, kind| all | kind.0) == 0;
        match self.0 {
            0 => DataType::Null,
            _ if is_of(&[Self::BOOLEAN]) => DataType::Boolean,
            _ if is_of(&[Self::INTEGER]) => DataType::Int64,
            _ if is_of(&[Self::INTEGER, Self::FLOAT]) => DataType::Float64,
            _ if is_of(&[Self::DATE]) => DataType::Date32,
            _ if is_of(&[Self::DATE, Self::MICROSECONDS]) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ if is_of(&[Self::DATE, Self::MICROSECONDS, Self::NANOSECONDS]) => {
                DataType::Timestamp(TimeUnit::Nanosecond, None)
            }
            _ if is_of(&[Self::INSTANT]) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8View,
        }
    }
}

/// The columns of a file in order: their names, `column_1`, … without a header, and the kinds of values in the first
/// `rows` rows.
///
/// # Errors
/// A header that names columns twice or not at all, and what [`Rows`] can't read.
pub fn sample(path: &Path, options: &CsvOptions, rows: usize) -> Result<Vec<(String, Kinds)>, Fault> {
    let mut records = Records::open(path, options)?;
    let mut columns: Vec<(String, Kinds)> = match records.header.take() {
        Some(header) => header.into_iter().map(|name| (name, Kinds::default())).collect(),
        None => Vec::new(),
    };
    let mut seen = 0;
    while seen < rows && records.next()? {
        if !options.has_header {
            for at in columns.len()..records.record.len() {
                columns.push((format!("column_{}", at + 1), Kinds::default()));
            }
            records.fields = records.fields.max(records.record.len());
        }
        for ((_, kinds), field) in columns.iter_mut().zip(&records.record) {
            if !records.is_null(field) {
                kinds.add(field);
            }
        }
        seen += 1;
    }
    Ok(columns)
}

/// What a file's bytes were seen to be.
#[derive(Debug)]
struct Watch {
    /// Bytes that were read for the record at hand, and what the parser reads ahead.
    read_bytes: AtomicU64,
    /// Length of the file's text, once it is read.
    text_bytes: AtomicU64,
    /// Whether a carriage return stood before anything but a line feed; where there are comments.
    has_lone_return: AtomicBool,
    /// The first byte behind an escape that is neither a quote nor an escape; [`u64::MAX`] for none.
    lone_escape: AtomicU64,
    /// The first byte of text behind a closing quote; [`u64::MAX`] for none.
    behind_quote: AtomicU64,
}

/// Text that is watched while it is read.
struct Watched {
    text: Box<dyn BufRead + Send>,
    /// A line behind the file's last one, so that a quote that is still open there is noticed: the parser takes the end
    /// for its close.
    end: Cursor<[u8; 2]>,
    /// Bytes of the text so far.
    bytes: u64,
    watch: Arc<Watch>,
    was_return: bool,
    was_escape: bool,
    quotes: Quotes,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        if read == 0 {
            self.watch.text_bytes.store(self.bytes, Ordering::Relaxed);
            return self.end.read(buffer);
        }
        let before = self.watch.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        if before + read as u64 > MOST_RECORD_BYTES {
            let most = MOST_RECORD_BYTES >> 20;
            return Err(io::Error::other(format!("a record has more than {most} MiB; is a quote never closed?")));
        }
        self.watch_quotes(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Watched {
    /// Takes the next bytes of the text.
    fn watch_quotes(&mut self, bytes: &[u8]) {
        let mut at = 0;
        loop {
            at += self.quotes.pass_over(&bytes[at..]);
            let Some(byte) = bytes.get(at) else { return };
            // Only the first is kept.
            let note = |first: &AtomicU64| {
                let found = self.bytes + at as u64;
                let _ = first.compare_exchange(u64::MAX, found, Ordering::Relaxed, Ordering::Relaxed);
            };
            if self.was_return && *byte != b'\n' {
                self.watch.has_lone_return.store(true, Ordering::Relaxed);
            }
            self.was_return = *byte == b'\r';
            if let Some(escape) = self.quotes.escape {
                if self.was_escape && ![escape, self.quotes.quote].contains(byte) {
                    note(&self.watch.lone_escape);
                }
                self.was_escape = !self.was_escape && *byte == escape;
            }
            if self.quotes.is_behind_quote(*byte) {
                note(&self.watch.behind_quote);
            }
            at += 1;
        }
    }
}

/// Where in a file's quotes a byte is, as the parser sees it.
struct Quotes {
    quote: u8,
    delimiter: u8,
    escape: Option<u8>,
    double_quote: bool,
    comment: Option<u8>,
    terminator: Option<u8>,
    at: At,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    FieldStart,
    Field,
    Comment,
    Quoted,
    Escaped,
    /// What stands behind a quote that may have closed a field.
    Closed,
}

impl Quotes {
    /// Takes the bytes before the next one that may change anything: their number. With escapes or comments it takes
    /// none.
    fn pass_over(&mut self, bytes: &[u8]) -> usize {
        let is_outside = matches!(self.at, At::LineStart | At::FieldStart | At::Field);
        if !(is_outside || self.at == At::Quoted) || self.escape.is_some() || self.comment.is_some() {
            return 0;
        }
        let passed = memchr(self.quote, bytes).unwrap_or(bytes.len());
        if let Some(last) = bytes[..passed].last()
            && is_outside
        {
            self.at = self.behind(*last);
        }
        passed
    }

    /// What comes behind a byte outside of quotes.
    fn behind(&self, byte: u8) -> At {
        let is_end = self.terminator.map_or(matches!(byte, b'\r' | b'\n'), |end| byte == end);
        match byte {
            _ if byte == self.delimiter => At::FieldStart,
            _ if is_end => At::LineStart,
            _ => At::Field,
        }
    }

    /// Takes the next byte: whether it is text of a field whose quotes have been closed.
    fn is_behind_quote(&mut self, byte: u8) -> bool {
        let unquoted = self.behind(byte);
        let (next, is_behind) = match self.at {
            At::LineStart if self.comment == Some(byte) => (At::Comment, false),
            At::LineStart | At::FieldStart if byte == self.quote => (At::Quoted, false),
            At::LineStart | At::FieldStart | At::Field => (unquoted, false),
            At::Comment => (if byte == b'\n' { At::LineStart } else { At::Comment }, false),
            At::Quoted if byte == self.quote => (At::Closed, false),
            At::Quoted if self.escape == Some(byte) => (At::Escaped, false),
            At::Quoted | At::Escaped => (At::Quoted, false),
            At::Closed if byte == self.quote && self.double_quote => (At::Quoted, false),
            At::Closed => (unquoted, unquoted == At::Field),
        };
        self.at = next;
        is_behind
    }
}

/// The records of a file, one at a time.
struct Records {
    path: PathBuf,
    reader: csv::Reader<Watched>,
    watch: Arc<Watch>,
    compression: Option<Compression>,
    /// What a line that is skipped begins with.
    comment: Option<u8>,
    /// Whether the line behind the last one was read.
    is_at_end: bool,
    record: StringRecord,
    header: Option<Vec<String>>,
    /// Fields that a record must have; 0 as long as that is not known.
    fields: usize,
    /// What has as many.
    fields_of: &'static str,
    truncated_rows: bool,
    null: Option<Regex>,
}

impl Records {
    fn open(path: &Path, options: &CsvOptions) -> Result<Self, Fault> {
        let CsvOptions {
            has_header,
            delimiter,
            quote,
            escape,
            double_quote,
            terminator,
            comment,
            null_regex,
            truncated_rows,
            infer_rows: _,
            compression,
        } = options;
        let special = [Some(*delimiter), Some(*quote), *escape, *comment, *terminator];
        let mark = (1..b' ').rev().find(|byte| !special.contains(&Some(*byte))).unwrap_or_default();
        let escape = escape.filter(|escape| escape != quote);
        let watch = Arc::new(Watch {
            read_bytes: AtomicU64::default(),
            text_bytes: AtomicU64::new(u64::MAX),
            has_lone_return: AtomicBool::default(),
            lone_escape: AtomicU64::new(u64::MAX),
            behind_quote: AtomicU64::new(u64::MAX),
        });
        let text = Watched {
            text: open(path, *compression)?,
            end: Cursor::new([terminator.unwrap_or(b'\n'), mark]),
            bytes: 0,
            watch: Arc::clone(&watch),
            was_return: false,
            was_escape: false,
            quotes: Quotes {
                quote: *quote,
                delimiter: *delimiter,
                escape,
                double_quote: *double_quote,
                comment: *comment,
                terminator: *terminator,
                at: At::LineStart,
            },
        };
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(*delimiter)
            .quote(*quote)
            .escape(escape)
            .double_quote(*double_quote)
            .terminator(terminator.map_or(Terminator::CRLF, Terminator::Any))
            .comment(*comment)
            .from_reader(text);
        let whole = |pattern: &String| Regex::new(&format!("^(?:{pattern})$"));
        let null = null_regex.as_ref().map(whole).transpose();
        let null = null.map_err(|e| Fault::new(path, "can't be read with this format.null_regex").because(e))?;
        let (path, record, truncated_rows) = (path.to_path_buf(), StringRecord::new(), *truncated_rows);
        let mut records = Self {
            path,
            reader,
            watch,
            compression: *compression,
            comment: *comment,
            is_at_end: false,
            record,
            header: None,
            fields: 0,
            fields_of: "the first line",
            truncated_rows,
            null,
        };
        if *has_header && records.next()? {
            let header: Vec<String> = records.record.iter().map(str::to_string).collect();
            check_header(&records.path, &header)?;
            records.fields = header.len();
            records.header = Some(header);
        }
        Ok(records)
    }

    /// Whether there is a next record, which is the one at hand then.
    fn next(&mut self) -> Result<bool, Fault> {
        self.watch.read_bytes.store(0, Ordering::Relaxed);
        match self.reader.read_record(&mut self.record) {
            Ok(false) if self.is_at_end => return Ok(false),
            Ok(false) => return Err(Fault::new(&self.path, "can't be read to its end; check quotes and comments")),
            Ok(true) => {}
            Err(error) => return Err(self.fault(error)),
        }
        // Not only at the end, which a query with a LIMIT may never reach.
        if self.comment.is_some() && self.watch.has_lone_return.load(Ordering::Relaxed) {
            let message = "has carriage returns without line feeds, which do not end comments; convert the line ends";
            return Err(Fault::new(&self.path, message));
        }
        let lone_escape = self.watch.lone_escape.load(Ordering::Relaxed);
        if lone_escape != u64::MAX {
            let message = "has format.escape before a character that is neither a quote nor itself, which programs read in \
                           several ways; write it twice there, or leave format.escape out";
            return Err(Fault::new(&self.path, message).at(self.line_at(lone_escape)));
        }
        let behind_quote = self.watch.behind_quote.load(Ordering::Relaxed);
        if behind_quote != u64::MAX {
            let message = "has text behind a quote that closes a field, which programs read in several ways; write quotes \
                           within a field twice, or set format.quote to another character";
            return Err(Fault::new(&self.path, message).at(self.line_at(behind_quote)));
        }
        // Behind the text are the end of its last line, and one character.
        if self.reader.position().byte() > self.watch.text_bytes.load(Ordering::Relaxed).saturating_add(1) {
            if self.record.len() == 1 && self.record[0].len() == 1 {
                self.is_at_end = true;
                return Ok(false);
            }
            let message =
                "a quote that opens in this row is never closed; close it, or set format.quote to another character";
            return Err(Fault::new(&self.path, message).at(self.line()));
        }
        let (has, must) = (self.record.len(), self.fields);
        if must == 0 {
            self.fields = has;
        } else if has > must || (has < must && !self.truncated_rows) {
            let advice = if has < must { "; format.truncated_rows 'true' makes the missing ones NULL" } else { "" };
            let message =
                format!("has {has} fields, and {} has {must}; check delimiters and quotes{advice}", self.fields_of);
            return Err(Fault::new(&self.path, message).at(self.line()));
        }
        Ok(true)
    }

    /// The line in which the record at hand begins, from 1. It reads the file again from its start: only errors ask for
    /// it.
    fn line(&self) -> u64 {
        self.record.position().map_or(0, |position| self.line_at(position.byte()))
    }

    /// The line of a byte, from 1; 0 where the file can't be read any more.
    fn line_at(&self, byte: u64) -> u64 {
        let text = open(&self.path, self.compression);
        text.ok().and_then(|text| line_of_record(text, byte, self.comment).ok()).unwrap_or_default()
    }

    fn is_null(&self, field: &str) -> bool {
        match &self.null {
            Some(pattern) => pattern.is_match(field),
            None => field.is_empty(),
        }
    }

    fn fault(&self, error: csv::Error) -> Fault {
        let line = error.position().map(|position| self.line_at(position.byte()));
        let fault = match error.into_kind() {
            ErrorKind::Utf8 { err, .. } => {
                let message = format!("field {} is not UTF-8; save the file as UTF-8", err.field() + 1);
                Fault::new(&self.path, message)
            }
            ErrorKind::Io(cause) => Fault::unreadable(&self.path, cause),
            _ => Fault::new(&self.path, "can't be read"),
        };
        match line {
            Some(line) => fault.at(line),
            None => fault,
        }
    }
}

/// The line, from 1, of the first record at or behind a byte: line ends, blank lines and comments may come before it.
fn line_of_record(text: impl BufRead, byte: u64, comment: Option<u8>) -> io::Result<u64> {
    let (mut line, mut was_return, mut is_comment) = (1, false, false);
    // Whether a line begins at the byte at hand, and whether it did where the record is looked for.
    let mut is_start = true;
    for (at, found) in (0..).zip(text.bytes()) {
        let found = found?;
        if was_return && found != b'\n' {
            line += 1;
        }
        was_return = found == b'\r';
        line += u64::from(found == b'\n');
        let is_end = matches!(found, b'\r' | b'\n');
        is_comment = at >= byte && !is_end && (is_comment || (is_start && comment == Some(found)));
        if at >= byte && !is_end && !is_comment {
            break;
        }
        is_start = is_end;
    }
    Ok(line)
}

fn check_header(path: &Path, header: &[String]) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for (at, name) in header.iter().enumerate() {
        if name.trim().is_empty() {
            let message = format!(
                "the header has no name for column {}; give it one, or write format.has_header 'false' and declare the columns",
                at + 1
            );
            return Err(Fault::new(path, message).at(1));
        }
        if !seen.insert(name) {
            let message = format!(
                "the header names column {} twice; rename one, or write format.has_header 'false' and declare the columns",
                quoted(name)
            );
            return Err(Fault::new(path, message).at(1));
        }
    }
    Ok(())
}

/// The rows of a file, in batches.
pub struct Rows {
    records: Records,
    schema: SchemaRef,
    /// The table's columns that are read.
    columns: Vec<Column>,
    table: Arc<TextTable>,
    batch_rows: usize,
}

struct Column {
    /// Number among the table's columns.
    number: usize,
    /// Number of the field, if the file has it.
    field: Option<usize>,
    values: Box<dyn TextColumn>,
}

impl Rows {
    /// The columns `columns` of `table`, by number, of one file.
    ///
    /// # Errors
    /// A header that has not all columns, or others.
    pub fn open(
        path: &Path,
        options: &CsvOptions,
        table: &Arc<TextTable>,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Self, Fault> {
        let mut records = Records::open(path, options)?;
        let fields: Vec<Option<usize>> = match records.header.take() {
            Some(header) => table.fields_of(path, &header)?,
            // An empty file has neither.
            None if options.has_header => vec![None; table.columns.len()],
            None => {
                records.fields = table.columns.len();
                records.fields_of = "the table";
                (0..table.columns.len()).map(Some).collect()
            }
        };
        let schema = Arc::new(table.schema().project(columns).map_err(|e| Fault::new(path, "columns").because(e))?);
        let column = |number: &usize| {
            let column = &table.columns[*number];
            let no_text = || Fault::new(path, format!("a column of type {} can't be read from CSV", column.data_type));
            let values = text_column(&column.data_type, batch_rows).ok_or_else(no_text)?;
            Ok(Column { number: *number, field: fields[*number], values })
        };
        let columns = columns.iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { records, schema, columns, table: Arc::clone(table), batch_rows })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, Fault> {
        let mut rows = 0;
        let mut bytes = 0;
        while rows < self.batch_rows && bytes < BATCH_BYTES && self.records.next()? {
            bytes += self.records.record.as_slice().len();
            for column in &mut self.columns {
                let text = column.field.and_then(|field| self.records.record.get(field));
                let text = text.filter(|text| !self.records.is_null(text));
                let known = &self.table.columns[column.number];
                if known.append(column.values.as_mut(), text).is_err() {
                    let message = known.no_value(text);
                    return Err(Fault::new(&self.records.path, message).at(self.records.line()));
                }
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.columns.iter_mut().map(|column| column.values.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        batch.map(Some).map_err(|e| Fault::new(&self.records.path, "can't be read").because(e))
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use crate::source::csv::Kinds;

    fn of(texts: &[&str]) -> DataType {
        let mut kinds = Kinds::default();
        texts.iter().for_each(|text| kinds.add(text));
        kinds.data_type()
    }

    #[test]
    fn types_are_those_of_all_values_that_were_seen() {
        let microseconds = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (texts, expected) in [
            (&[][..], DataType::Null),
            (&["true", "FALSE"], DataType::Boolean),
            (&["1", "-20", "0"], DataType::Int64),
            (&["9223372036854775807"], DataType::Int64),
            (&["9223372036854775808"], DataType::Utf8View),
            (&["1", "007"], DataType::Utf8View),
            (&["1", "2.5"], DataType::Float64),
            (&["1e3", "-.5", "NaN"], DataType::Float64),
            (&["12345678901234567890.5"], DataType::Float64),
            (&["1", "true"], DataType::Utf8View),
            (&["2024-01-01"], DataType::Date32),
            (&["2024-01-01", "2024-01-01 10:00:00"], microseconds.clone()),
            (&["2024-01-01T10:00:00.123456"], microseconds),
            (&["2024-01-01T10:00:00.1234567"], DataType::Timestamp(TimeUnit::Nanosecond, None)),
            (
                &["2024-01-01T10:00:00Z", "2024-01-01 10:00:00+02:00"],
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ),
            (&["2024-01-01T10:00:00Z", "2024-01-01 10:00:00"], DataType::Utf8View),
            (&["10:00:00"], DataType::Utf8View),
            (&["a"], DataType::Utf8View),
            (&[" 1"], DataType::Utf8View),
        ] {
            assert_eq!(of(texts), expected, "{texts:?}");
        }
    }
}
