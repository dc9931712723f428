//! Which `.sql` files a path stands for, and their text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Location, Result};

/// An SQL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// The file as the user named it, for errors.
    pub(crate) name: String,
    /// Its absolute path, symbolic links resolved: two names of one file are equal here.
    pub(crate) path: PathBuf,
    /// The folder of `path`.
    pub(crate) folder: PathBuf,
}

/// The files that `paths` stand for, without repetition; those of one folder are sorted by path.
///
/// # Errors
/// [`ErrorKind::Usage`]: a path that is missing, unreadable or not SQL, a folder without a `.sql` file, no path.
pub(crate) fn find<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut known = BTreeSet::new();
    for path in paths {
        for name in files_of(path.as_ref())? {
            let path = fs::canonicalize(&name).map_err(|cause| unreadable(&name, cause))?;
            if known.insert(path.clone()) {
                let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
                files.push(File { name: name.display().to_string(), path, folder });
            }
        }
    }
    if files.is_empty() {
        return Err(usage("no path given; name a .sql file or a folder of .sql files".into()));
    }
    Ok(files)
}

/// The text of `file`.
///
/// # Errors
/// [`ErrorKind::Usage`] when it can't be read, [`ErrorKind::Sql`] with the place when it is not UTF-8.
pub(crate) fn read(file: &File) -> Result<String> {
    let bytes = fs::read(&file.path).map_err(|cause| unreadable(Path::new(&file.name), cause))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let text = String::from_utf8_lossy(valid);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let line = text.matches('\n').count() + 1;
        let column = text.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Error::new(ErrorKind::Sql, "the file is not UTF-8; save it as UTF-8 text").with_location(Location::new(
            &file.name,
            line as u64,
            column as u64,
        ))
    })
}

/// `path` itself, or the `.sql` files below it.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => {
            usage(format!("{} does not exist; name a .sql file or a folder of .sql files", path.display()))
        }
        _ => unreadable(path, cause),
    })?;
    if metadata.is_dir() {
        let files = files_below(path)?;
        if files.is_empty() {
            return Err(usage(format!("the folder {} has no .sql file; name one that has", path.display())));
        }
        return Ok(files);
    }
    if !metadata.is_file() || !is_sql(path) {
        return Err(usage(format!("{} is not a .sql file; name one, or a folder of .sql files", path.display())));
    }
    Ok(vec![path.to_path_buf()])
}

/// Visits each folder once, whatever symbolic links lead to it, so that loops end.
fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut visited = BTreeSet::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        if !visited.insert(fs::canonicalize(&folder).map_err(|cause| unreadable(&folder, cause))?) {
            continue;
        }
        for entry in fs::read_dir(&folder).map_err(|cause| unreadable(&folder, cause))? {
            let entry = entry.map_err(|cause| unreadable(&folder, cause))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => pending.push(path),
                Ok(metadata) if metadata.is_file() && is_sql(&path) => files.push(path),
                Err(cause) if is_sql(&path) => return Err(unreadable(&path, cause)),
                Ok(_) | Err(_) => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_sql(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    usage(format!("can't read {}; check that it exists and that you may read it", path.display())).with_source(cause)
}

fn usage(message: String) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::error::ErrorKind;
    use crate::sql::files::{find, read};
    use crate::sql::load;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        }
        folder
    }

    fn names(root: &Path, paths: &[PathBuf]) -> Vec<String> {
        let root = format!("{}/", root.display());
        find(paths).expect("files").into_iter().map(|f| f.name.replacen(&root, "", 1)).collect()
    }

    fn refusal(paths: &[PathBuf]) -> String {
        let error = find(paths).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.to_string()
    }

    #[test]
    fn a_folder_stands_for_its_sql_files_at_any_depth_sorted_and_without_hidden_ones() {
        let root = folder(&[
            ("b.sql", b""),
            ("a/z.SQL", b""),
            ("a/c/d.sql", b""),
            ("a/readme.md", b""),
            ("sql", b""),
            (".hidden.sql", b""),
            (".git/x.sql", b""),
        ]);
        assert_eq!(names(root.path(), &[root.path().into()]), ["a/c/d.sql", "a/z.SQL", "b.sql"]);
    }

    #[test]
    fn a_file_reached_twice_is_read_once() {
        let root = folder(&[("a.sql", b"CREATE TABLE t AS SELECT 1"), ("sub/b.sql", b"")]);
        let path = root.path();
        let paths = [path.join("sub/../a.sql"), path.to_path_buf(), path.join("sub")];
        assert_eq!(names(path, &paths), ["sub/../a.sql", "sub/b.sql"]);
        assert!(load(paths).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_followed_without_looping() {
        let root = folder(&[("a.sql", b""), ("sub/b.sql", b"")]);
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.path().join(name)).expect("a link");
        link(root.path(), "sub/up");
        link(Path::new("."), "self");
        link(&root.path().join("a.sql"), "c.sql");
        link(Path::new("nowhere"), "ignored.txt");
        let found = find([root.path()]).expect("files");
        assert_eq!(found.len(), 2);
        link(Path::new("nowhere"), "d.sql");
        assert!(refusal(&[root.path().into()]).contains("d.sql; check that it exists"));
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_file_keeps_its_own_folder() {
        let root =
            folder(&[("real/a.sql", b"CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x.csv'"), ("tasks/b.sql", b"")]);
        std::os::unix::fs::symlink("../real/a.sql", root.path().join("tasks/a.sql")).expect("a link");
        let pipeline = load([root.path().join("tasks")]).expect("valid");
        let source = pipeline.source("e").expect("defined");
        let real = fs::canonicalize(root.path().join("real")).expect("a folder");
        assert_eq!(source.places[0].path(), real.join("x.csv"));
        assert_eq!(source.location.file, root.path().join("tasks/a.sql").display().to_string());
    }

    #[test]
    fn paths_that_stand_for_no_sql_are_refused() {
        let root = folder(&[("empty/readme.md", b""), ("data.parquet", b"")]);
        let path = root.path();
        let cases = [
            (vec![path.join("missing.sql")], "missing.sql does not exist; name a .sql file or a folder of .sql files"),
            (vec![path.join("empty")], "empty has no .sql file; name one that has"),
            (vec![path.join("data.parquet")], "data.parquet is not a .sql file; name one, or a folder of .sql files"),
            (vec![], "no path given; name a .sql file or a folder of .sql files"),
        ];
        for (paths, expected) in cases {
            assert!(refusal(&paths).ends_with(expected), "{}", refusal(&paths));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_where_they_stand() {
        let root = folder(&[("a.sql", "\u{feff}-- é\n-- ö".as_bytes())]);
        let file = find([root.path()]).expect("files").remove(0);
        assert!(read(&file).is_ok());
        for (bytes, place) in [
            (b"\xff\xfeC\0" as &[u8], "1:1"),
            (b"\xef\xbb\xbf\xff", "1:1"),
            (b"-- \xc3\xa9\r\n-- \xc3\xa9\xe9 x", "2:5"),
        ] {
            fs::write(root.path().join("a.sql"), bytes).expect("a file");
            let error = load([root.path()]).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Sql);
            let expected = format!("{}:{place}: the file is not UTF-8; save it as UTF-8 text", file.name);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn errors_name_the_file_as_the_user_did() {
        let root = folder(&[("sub/a.sql", b"\n SELECT 1")]);
        let error = load([root.path().join("sub/../sub")]).expect_err("refused");
        let place = error.location().expect("a place");
        assert_eq!(place.file, root.path().join("sub/../sub/a.sql").display().to_string());
        assert_eq!((place.line, place.column), (2, 2));
    }
}
