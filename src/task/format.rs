//! How the files of a source are read: `STORED AS` and `OPTIONS` of `CREATE EXTERNAL TABLE`.

use std::fmt;
use std::path::Path;

/// The format of a source's files, with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Parquet; the options are DataFusion's, by name.
    Parquet(Vec<(String, String)>),
    /// Arrow IPC, files or streams.
    Arrow,
    /// Text in rows and columns.
    Csv(CsvOptions),
    /// JSON objects, one after the other or in one array.
    Json(JsonOptions),
}

/// How CSV is read. Characters are single bytes of ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// Whether the first line of each file names its columns. Default: true.
    pub has_header: bool,
    /// What separates fields. Default: a comma.
    pub delimiter: u8,
    /// What stands around a field that has delimiters, quotes or line breaks in it. Default: `"`.
    pub quote: u8,
    /// What stands before a quote in a quoted field. Default: nothing does.
    pub escape: Option<u8>,
    /// Whether two quotes in a quoted field are one. Default: true.
    pub double_quote: bool,
    /// What ends a line. Default: `\n`, `\r` or `\r\n`.
    pub terminator: Option<u8>,
    /// What begins a line that is left out. Default: nothing does.
    pub comment: Option<u8>,
    /// What a field that is NULL matches as a whole, a regular expression. Default: the empty field, quoted or not.
    pub null_regex: Option<String>,
    /// Whether fields and columns that are missing at the end of a row, or in a file, are NULL. Default: false.
    pub truncated_rows: bool,
    /// From how many rows of each file types are inferred. Default: 1,000, fewer for many files.
    pub infer_rows: Option<usize>,
    /// Default: by the file's ending.
    pub compression: Option<Compression>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            has_header: true,
            delimiter: b',',
            quote: b'"',
            escape: None,
            double_quote: true,
            terminator: None,
            comment: None,
            null_regex: None,
            truncated_rows: false,
            infer_rows: None,
            compression: None,
        }
    }
}

/// How JSON is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// Whether a file is one array of objects. Default: if it begins with `[`.
    pub is_array: Option<bool>,
    /// From how many objects of each file columns are inferred. Default: 1,000, fewer for many files.
    pub infer_rows: Option<usize>,
    /// Default: by the file's ending.
    pub compression: Option<Compression>,
}

/// How a text file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`
    Gzip,
    /// `.bz2`
    Bzip2,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// How a file of this name is compressed.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        match name.rsplit_once('.') {
            Some((_, "gz" | "gzip")) => Self::Gzip,
            Some((_, "bz2")) => Self::Bzip2,
            Some((_, "xz")) => Self::Xz,
            Some((_, "zst" | "zstd")) => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl Format {
    /// The name after `STORED AS`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parquet(_) => "PARQUET",
            Self::Arrow => "ARROW",
            Self::Csv(_) => "CSV",
            Self::Json(_) => "JSON",
        }
    }

    /// What the names of its files end with, without the dot and without what compression adds.
    pub fn endings(&self) -> &'static [&'static str] {
        match self {
            Self::Parquet(_) => &["parquet", "pq", "parq"],
            Self::Arrow => &["arrow", "arrows", "feather", "ipc"],
            Self::Csv(_) => &["csv"],
            Self::Json(_) => &["json", "jsonl", "ndjson"],
        }
    }

    /// The name of the format whose files end with `ending`, such as `.csv.gz`, if there is one.
    pub fn named_by(ending: &str) -> Option<&'static str> {
        let all = [
            Self::Parquet(Vec::new()),
            Self::Arrow,
            Self::Csv(CsvOptions::default()),
            Self::Json(JsonOptions::default()),
        ];
        let ending = ending.trim_start_matches('.').split('.').next().unwrap_or_default();
        all.iter().find(|format| format.endings().contains(&ending)).map(Self::name)
    }

    /// Whether its files may be compressed as a whole.
    pub fn may_be_compressed(&self) -> bool {
        matches!(self, Self::Csv(_) | Self::Json(_))
    }

    /// Whether a file in a folder is one of the format's, by its name: it has one of the endings, or none at all.
    pub fn is_of(&self, file_name: &str) -> bool {
        let name = file_name.to_ascii_lowercase();
        let name = match Compression::of(Path::new(&name)) {
            Compression::None => name.as_str(),
            _ if !self.may_be_compressed() => return false,
            _ => name.rsplit_once('.').map_or(name.as_str(), |(name, _)| name),
        };
        name.rsplit_once('.').is_none_or(|(_, ending)| self.endings().contains(&ending))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use crate::task::format::{CsvOptions, Format, JsonOptions};

    #[test]
    fn files_of_a_format_are_known_by_their_names() {
        let csv = Format::Csv(CsvOptions::default());
        let json = Format::Json(JsonOptions::default());
        let parquet = Format::Parquet(Vec::new());
        for (format, name, is_of) in [
            (&csv, "a.csv", true),
            (&csv, "a.CSV.gz", true),
            (&csv, "a.csv.zst", true),
            (&csv, "a.b.csv", true),
            (&csv, "a.gz", true),
            (&csv, "a.txt", false),
            (&csv, "a.txt.gz", false),
            (&csv, "part-0000", true),
            (&json, "a.jsonl", true),
            (&json, "a.ndjson.bz2", true),
            (&json, "a.csv", false),
            (&parquet, "a.parquet", true),
            (&parquet, "a.pq", true),
            (&parquet, "000000_0", true),
            (&parquet, "a.parquet.gz", false),
            (&parquet, "README.md", false),
            (&Format::Arrow, "a.arrow", true),
        ] {
            assert_eq!(format.is_of(name), is_of, "{format} {name}");
        }
    }
}
