//! The names of a source's columns, and of the fields of structs in them: which go together, and which only look so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::source::fault::{Fault, quoted};
use crate::source::hive::Partitions;

/// The names in all files, of which two must not differ by case only.
#[derive(Default)]
pub struct Names {
    /// By place, `` for columns and `v.a[]` for fields, and by name in lower case: the name, and the first file that
    /// has it.
    seen: BTreeMap<(String, String), (String, PathBuf)>,
}

impl Names {
    /// Adds the columns of a file.
    ///
    /// # Errors
    /// One that is in the names of folders, too, or that another file has in another case.
    pub fn add_columns(&mut self, path: &Path, names: &[&str], partitions: &Partitions) -> Result<(), Fault> {
        if let Some(name) = names.iter().find(|name| partitions.columns.iter().any(|column| column.name() == *name)) {
            let message = format!(
                "column {} is in the file and in the name of its folder; write PARTITIONED BY ({name}) to take the folder's",
                quoted(name)
            );
            return Err(Fault::new(path, message));
        }
        match self.add("", path, names) {
            None => Ok(()),
            Some((name, known, first)) => {
                let message = format!(
                    "column {} is {} in {}, which is another column; write both alike, or declare the columns",
                    quoted(name),
                    quoted(&known),
                    first.display()
                );
                Err(Fault::new(path, message))
            }
        }
    }

    /// Adds the fields in a file's column.
    ///
    /// # Errors
    /// One that another file has in another case.
    pub fn add_fields(&mut self, path: &Path, column: &str, data_type: &DataType) -> Result<(), Fault> {
        for (way, names) in structs(data_type) {
            let place = format!("{column}{way}");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Some((name, known, first)) = self.add(&place, path, &names) {
                let message = format!(
                    "field {} of column {} is {} in {}, which is another field; write both alike, or declare the columns",
                    quoted(name),
                    quoted(&place),
                    quoted(&known),
                    first.display()
                );
                return Err(Fault::new(path, message));
            }
        }
        Ok(())
    }

    /// Adds names; gives the first that is there in another case, with that and the file that has it.
    fn add<'a>(&mut self, place: &str, path: &Path, names: &[&'a str]) -> Option<(&'a str, String, PathBuf)> {
        for name in names {
            let at = (place.to_string(), name.to_lowercase());
            let (known, first) = self.seen.entry(at).or_insert_with(|| (name.to_string(), path.to_path_buf()));
            // Within one file both are there for all to see.
            if known != name && first != path && !names.contains(&known.as_str()) {
                return Some((*name, known.clone(), first.clone()));
            }
        }
        None
    }
}

/// Checks the declared fields against those of the files: each must be in at least one file, and no file may have it in
/// another case only.
///
/// # Errors
/// A field that is not there.
pub fn check_fields(files: &[(PathBuf, SchemaRef)], columns: &[(Field, bool)]) -> Result<(), Fault> {
    for (column, _) in columns {
        let declared = structs(column.data_type());
        let place = |way: &str| quoted(&format!("{}{way}", column.name()));
        let mut all: BTreeMap<String, (&Path, Vec<String>)> = BTreeMap::new();
        for (path, schema) in files.iter().filter(|_| !declared.is_empty()) {
            let Ok(given) = schema.field_with_name(column.name()) else { continue };
            for (way, names) in structs(given.data_type()) {
                let Some(wanted) = declared.get(&way) else { continue };
                if let Some((other, wanted)) = in_other_case(wanted, &names) {
                    let message = format!(
                        "has field {} of column {} and not {}; declare it as \"{other}\", in double quotes",
                        quoted(other),
                        place(&way),
                        quoted(wanted)
                    );
                    return Err(Fault::new(path, message));
                }
                let (_, known) = all.entry(way).or_insert_with(|| (path, Vec::new()));
                let new: Vec<String> = names.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(new);
            }
        }
        for (way, wanted) in &declared {
            let Some((path, names)) = all.get(way) else { continue };
            if let Some(name) = wanted.iter().find(|name| !names.contains(name)) {
                let message = format!(
                    "field {} of column {} is declared, but no file has it; correct its name, or leave it out (the fields are: {})",
                    quoted(name),
                    place(way),
                    names.join(", ")
                );
                return Err(Fault::new(path, message));
            }
        }
    }
    Ok(())
}

/// The first of `names` that is a wanted one but for its case, which it has not as it is; and that. SQL takes names
/// without quotes in lower case.
fn in_other_case<'a>(wanted: &'a [String], names: &'a [String]) -> Option<(&'a String, &'a String)> {
    let missing = |name: &&String| !names.contains(name);
    let is_meant = |name: &&String, wanted: &String| name.eq_ignore_ascii_case(wanted);
    let mut undeclared = names.iter().filter(|name| !wanted.contains(name));
    undeclared.find_map(|name| Some((name, wanted.iter().filter(missing).find(|wanted| is_meant(&name, wanted))?)))
}

/// The names of the fields of each struct in a type, by the way to it, such as `.a[]`.
fn structs(data_type: &DataType) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    add_structs(data_type, String::new(), &mut all);
    all
}

fn add_structs(data_type: &DataType, way: String, all: &mut BTreeMap<String, Vec<String>>) {
    match data_type {
        DataType::Dictionary(_, values) => add_structs(values, way, all),
        DataType::RunEndEncoded(_, values) => add_structs(values.data_type(), way, all),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => add_structs(item.data_type(), format!("{way}[]"), all),
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { return };
            // Keys and values go by their place, whatever they are called.
            for (part, field) in ["key", "value"].iter().zip(fields) {
                add_structs(field.data_type(), format!("{way}.{part}"), all);
            }
        }
        DataType::Struct(fields) => {
            for field in fields {
                add_structs(field.data_type(), format!("{way}.{}", field.name()), all);
            }
            all.insert(way, fields.iter().map(|field| field.name().clone()).collect());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Fields, Schema};

    use crate::source::names::{Names, check_fields};

    /// Fields that are declared, those of each file, and the error.
    type Case<'a> = (&'a [&'a str], &'a [&'a [&'a str]], Option<&'a str>);

    fn a_struct(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Fields>())
    }

    /// The places where a struct with these fields of integers may stand.
    fn places(fields: &[&str]) -> [(&'static str, DataType); 4] {
        let inner = a_struct(&fields.iter().map(|name| (*name, DataType::Int32)).collect::<Vec<_>>());
        let entries = Field::new("entries", a_struct(&[("k", DataType::Utf8), ("v", inner.clone())]), false);
        [
            ("v", inner.clone()),
            ("v[]", DataType::new_list(inner.clone(), true)),
            ("v.a", a_struct(&[("a", inner)])),
            ("v.value", DataType::Map(Arc::new(entries), false)),
        ]
    }

    #[test]
    fn declared_fields_are_in_some_file_and_in_no_other_case() {
        let cases: [Case<'_>; 7] = [
            (&["a"], &[&["a", "b"]], None),
            (&["a", "b"], &[&["a"], &["b"]], None),
            (&["a", "A"], &[&["A", "a"], &["A"]], None),
            (&["userid"], &[&["userid", "userId"]], None),
            (
                &["userid"],
                &[&["userid"], &["userId"]],
                Some(
                    "1: has field 'userId' of column '{}' and not 'userid'; declare it as \"userId\", in double quotes",
                ),
            ),
            (
                &["a", "x"],
                &[&["a", "b"], &["c"]],
                Some(
                    "0: field 'x' of column '{}' is declared, but no file has it; correct its name, or leave it out (the fields are: a, b, c)",
                ),
            ),
            (&["x"], &[], None),
        ];
        for (declared, files, expected) in cases {
            for (at, (place, wanted)) in places(declared).into_iter().enumerate() {
                let file = |(number, fields): (usize, &&[&str])| {
                    let field = Field::new("v", places(fields)[at].1.clone(), true);
                    (PathBuf::from(number.to_string()), Arc::new(Schema::new(vec![field])))
                };
                let files: Vec<_> = files.iter().enumerate().map(file).collect();
                let error = check_fields(&files, &[(Field::new("v", wanted, true), false)]).err();
                let error = error.map(|fault| fault.to_string());
                assert_eq!(error, expected.map(|text| text.replace("{}", place)), "{declared:?} {place}");
            }
        }
    }

    #[test]
    fn fields_of_two_files_must_not_differ_by_case_only() {
        for (first, second, expected) in [
            (&["a"][..], &["a", "b"][..], None),
            (&["a", "A"], &["A", "a"], None),
            (
                &["a"],
                &["b", "A"],
                Some(
                    "1: field 'A' of column '{}' is 'a' in 0, which is another field; write both alike, or declare the columns",
                ),
            ),
        ] {
            for ((place, first), (_, second)) in places(first).into_iter().zip(places(second)) {
                let mut names = Names::default();
                names.add_fields(&PathBuf::from("0"), "v", &first).unwrap();
                let error = names.add_fields(&PathBuf::from("1"), "v", &second).err().map(|fault| fault.to_string());
                assert_eq!(error, expected.map(|text| text.replace("{}", place)), "{place}");
            }
        }
    }
}
