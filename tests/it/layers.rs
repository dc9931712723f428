//! A module imports only from rows above its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows of the layers' table in `lib.rs`, top down; modules of one row may import each other.
const ROWS: &[&[&str]] = &[
    &["error", "config", "event", "failpoint", "shown"],
    &["arithmetic", "zone", "chunk"],
    &["hook", "task", "pipeline"],
    &["sql"],
    &["plan"],
    &["execute"],
    &["cache"],
    &["table"],
    &["source"],
    &["schedule", "run"],
    &["engine"],
    &["testing"],
    &["cli"],
];

#[test]
fn imports_point_up_the_rows_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let module = module_of(&source, &file);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(row) = row_of(&module) else { panic!("{module} is in no row: add it to the table") };
        seen.insert(module.clone());
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for imported in imports(line) {
                match row_of(&imported) {
                    Some(other) if other <= row => {}
                    Some(_) => wrong.push(format!("{}:{} {module} imports {imported}", file.display(), number + 1)),
                    None => wrong.push(format!("{}:{} {imported} is in no row", file.display(), number + 1)),
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen.len(), ROWS.iter().map(|row| row.len()).sum::<usize>(), "a module of the table is gone");
}

#[test]
fn an_import_is_found_wherever_it_stands() {
    assert_eq!(imports("use crate::cache::store;"), ["cache"]);
    assert_eq!(imports("    let x: crate::run::Context = crate::engine::f();"), ["run", "engine"]);
    assert_eq!(imports("use crate::{error::Error, run};"), ["error", "run"]);
    assert_eq!(imports("//! see [`crate::engine::Engine`]"), Vec::<String>::new());
}

/// Modules that a line names by `crate::`, comments aside.
fn imports(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        let names = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
            None => vec![after],
        };
        let word = |name: &str| name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
        found.extend(names.into_iter().map(word).filter(|name| !name.is_empty()));
    }
    found
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn module_of(source: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(source).unwrap().with_extension("");
    relative.components().next().unwrap().as_os_str().to_str().unwrap().to_string()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}
