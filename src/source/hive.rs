//! Columns whose values are in the names of folders: `year=2024/month=01/…`.
//!
//! Without PARTITIONED BY they are the names below a folder, and those that `**` or `key=*` stand for (not `*`), if all
//! files have the same ones; their values are text. With it they are looked for in the whole path, and have the types
//! that are declared. `%` and two hexadecimal digits stand for a byte, `__HIVE_DEFAULT_PARTITION__` for NULL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use percent_encoding::percent_decode_str;

use crate::execute::text::text_column;
use crate::shown::type_name;
use crate::source::fault::{Fault, quoted};
use crate::source::find::FoundFile;

/// What Hive and Spark write for NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns of folders' names.
#[derive(Debug, Default)]
pub struct Partitions {
    /// The columns, in order.
    pub columns: Vec<Field>,
    /// For each file, in order, the value of each.
    pub values: Vec<Vec<ScalarValue>>,
    /// Keys that some files' folders have and others' have not, and a file without them.
    pub not_in_all: Option<(String, PathBuf)>,
}

impl Partitions {
    /// The columns that are in the path of file number `file`, and their values, in words that change when these do.
    pub fn in_words(&self, file: usize) -> String {
        let values = self.values.get(file).into_iter().flatten();
        let of_each = self
            .columns
            .iter()
            .zip(values)
            .map(|(field, value)| format!("{:?} {} {value:?}", field.name(), field.data_type()));
        of_each.collect::<Vec<_>>().join(", ")
    }
}

/// The keys and values of a file's folders, in order.
type Pairs = Vec<(String, Option<String>)>;

/// The keys of the names that the location leaves open, those that all files have.
///
/// # Errors
/// A folder's value that is not UTF-8.
pub fn keys(files: &BTreeMap<PathBuf, FoundFile>) -> Result<BTreeSet<String>, Fault> {
    let of_file = |pairs: Pairs| pairs.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();
    let in_all = open_pairs(files)?.into_iter().map(of_file).reduce(|all, keys| &all & &keys);
    Ok(in_all.unwrap_or_default())
}

/// The columns of the names that the location leaves open.
///
/// # Errors
/// A folder's value that is not UTF-8, and a key in two folders of a file.
pub fn found(files: &BTreeMap<PathBuf, FoundFile>) -> Result<Partitions, Fault> {
    let pairs = open_pairs(files)?;
    let keys = |pairs: &Pairs| pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let Some(first) = pairs.iter().map(&keys).max_by_key(Vec::len).filter(|keys| !keys.is_empty()) else {
        return Ok(Partitions { values: vec![Vec::new(); files.len()], ..Partitions::default() });
    };
    if let Some(at) = pairs.iter().position(|other| keys(other) != first) {
        let without = files.keys().nth(at).cloned().unwrap_or_default();
        let not_in_all = Some((first.join(", "), without));
        return Ok(Partitions { values: vec![Vec::new(); files.len()], not_in_all, ..Partitions::default() });
    }
    let twice = first.iter().enumerate().find(|(at, key)| first[..*at].contains(key));
    if let (Some((_, key)), Some(path)) = (twice, files.keys().next()) {
        return Err(in_two_folders(path, key));
    }
    let columns = first.iter().map(|key| Field::new(key, DataType::Utf8View, true)).collect();
    let values =
        pairs.into_iter().map(|pairs| pairs.into_iter().map(|(_, value)| ScalarValue::Utf8View(value)).collect());
    Ok(Partitions { columns, values: values.collect(), not_in_all: None })
}

/// The columns `declared`, of which every file's path has a value.
///
/// # Errors
/// A file whose path has not, or one that is not of the column's type.
pub fn declared(files: &BTreeMap<PathBuf, FoundFile>, declared: &[Field]) -> Result<Partitions, Fault> {
    let mut values = Vec::with_capacity(files.len());
    for path in files.keys() {
        let folders = path.parent().map(Path::components).into_iter().flatten();
        let names: Vec<_> = folders.map(|component| component.as_os_str().to_string_lossy()).collect();
        let mut pairs = BTreeMap::new();
        for (key, value) in pairs_of(path, names.iter().map(AsRef::as_ref))? {
            if declared.iter().any(|field| field.name().eq_ignore_ascii_case(&key)) && pairs.contains_key(&key) {
                return Err(in_two_folders(path, &key));
            }
            pairs.insert(key, value);
        }
        values.push(declared.iter().map(|field| value(path, &pairs, field)).collect::<Result<_, _>>()?);
    }
    Ok(Partitions { columns: declared.to_vec(), values, not_in_all: None })
}

fn value(path: &Path, pairs: &BTreeMap<String, Option<String>>, field: &Field) -> Result<ScalarValue, Fault> {
    let (name, data_type) = (field.name(), field.data_type());
    // SQL takes names without quotes in any case.
    let found = pairs.get(name).or_else(|| {
        let mut folded = pairs.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        folded.next().filter(|_| folded.next().is_none()).map(|(_, value)| value)
    });
    let Some(text) = found else {
        let message =
            format!("is in no folder {name}=…, which PARTITIONED BY ({name}) asks for; move it, or leave it out");
        return Err(Fault::new(path, message));
    };
    let shown = quoted(text.as_deref().unwrap_or(NULL));
    if text.is_none() && !field.is_nullable() {
        return Err(Fault::new(path, format!("column {} is NULL, and is declared NOT NULL", quoted(name))));
    }
    let no_value = || {
        let message = format!(
            "column {}: {shown} is not a valid {}; declare it as VARCHAR, or rename the folder",
            quoted(name),
            type_name(data_type)
        );
        Fault::new(path, message)
    };
    let mut column = text_column(data_type, 1).ok_or_else(no_value)?;
    column.append(text.as_deref()).map_err(|_| no_value())?;
    ScalarValue::try_from_array(&column.finish(), 0).map_err(|e| no_value().because(e))
}

fn in_two_folders(path: &Path, key: &str) -> Fault {
    Fault::new(path, format!("is in two folders {key}=…, one below the other; rename one of them"))
}

/// For each file the keys and values of the names that the location leaves open.
fn open_pairs(files: &BTreeMap<PathBuf, FoundFile>) -> Result<Vec<Pairs>, Fault> {
    let of_file = |(path, file): (&PathBuf, &FoundFile)| {
        // The last name is the file's own.
        let folders = file.open_names.split_last().map_or(&[][..], |(_, folders)| folders);
        pairs_of(path, folders.iter().map(String::as_str))
    };
    files.iter().map(of_file).collect()
}

/// The keys and values of folders' names, those that have them.
fn pairs_of<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<Pairs, Fault> {
    let not_utf8 = |name: &str| {
        let message = format!("is in the folder {name}, whose value is not UTF-8; rename the folder");
        Fault::new(path, message)
    };
    names.filter_map(|name| pair(name).map(|found| found.ok_or_else(|| not_utf8(name)))).collect()
}

/// The key and value of a folder's name, if it has them; `Some(None)` if they are not UTF-8.
#[expect(clippy::option_option, reason = "a name without a pair is not a broken one")]
fn pair(name: &str) -> Option<Option<(String, Option<String>)>> {
    let (key, value) = name.split_once('=').filter(|(key, _)| !key.is_empty())?;
    // What is not UTF-8 on disk has become this character.
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().ok()?;
        (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| decoded.into_owned())
    };
    let value = if value == NULL { Some(None) } else { decoded(value).map(Some) };
    Some(decoded(key).zip(value))
}

#[cfg(test)]
mod tests {
    use crate::source::hive::pair;

    #[test]
    fn names_of_folders_are_keys_and_values() {
        let some = |key: &str, value: &str| Some((key.to_string(), Some(value.to_string())));
        for (name, expected) in [
            ("year=2024", some("year", "2024")),
            ("at=2023-11-05 00%3A00%3A00", some("at", "2023-11-05 00:00:00")),
            ("code=São Paulo", some("code", "São Paulo")),
            ("code=", some("code", "")),
            ("a=b=c", some("a", "b=c")),
            ("code=__HIVE_DEFAULT_PARTITION__", Some(("code".into(), None))),
            ("=x", None),
            ("plain", None),
        ] {
            assert_eq!(pair(name), expected.map(Some), "{name}");
        }
        for name in ["k=%FF", "k=\u{fffd}", "%FF=1"] {
            assert_eq!(pair(name), Some(None), "{name}");
        }
    }
}
