//! SQL text → sources, views and tasks: Hive and Spark DDL over DataFusion's SQL.
//!
//! | statement | becomes |
//! |---|---|
//! | `CREATE EXTERNAL TABLE name … STORED AS format LOCATION 'path'` | a source |
//! | `CREATE TABLE name [CLUSTERED BY (keys) INTO n BUCKETS] [WITH (option = value, …)] AS query` | a task |
//! | `CREATE VIEW name [(columns)] AS query` | a view |
//!
//! Everything else is refused where it stands, and so is every clause of these statements that has no meaning here:
//! no part of the text is ignored. The order of statements and files has no meaning.

mod clauses;
mod depth;
mod files;
mod format;
mod name;
mod options;
mod precedence;
mod reads;
mod source;
mod table;
mod tokens;
mod view;

pub(crate) use clauses::widen_floats;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use datafusion::common::format::ExplainStatementOptions;
use datafusion::sql::parser::{ExplainStatement, Statement as Parsed};
use sqlparser::ast::{Query, Statement as Standard};

use crate::error::{Error, ErrorKind, Location, Result};
use crate::pipeline::{Definitions, FOLDER_CHARACTERS, Item, Pipeline, is_of_folder};
use crate::sql::tokens::Statement;
use crate::task::{TableRead, Task};

/// Reads `.sql` files into one pipeline.
///
/// Each path is a `.sql` file, or a folder of which all `.sql` files are read, at any depth, except hidden ones.
/// A file that is reached twice is read once. Relative locations count from the folder of the file that names them,
/// symbolic links resolved.
///
/// # Errors
/// [`ErrorKind::Usage`]: a path that is missing, unreadable or not SQL, a folder without a `.sql` file.
/// [`ErrorKind::Sql`] with the place: a file that is not UTF-8, and whatever [`parse`] refuses.
pub fn load<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Pipeline> {
    Pipeline::builder().with(read(paths)?).build()
}

/// As [`load`], for a pipeline that has other parts, too: names are resolved when it is built.
///
/// # Errors
/// As for [`load`], without those of names.
pub fn read<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Definitions> {
    let mut items = Vec::new();
    for file in files::find(paths)? {
        let text = files::read(&file)?;
        items.extend(parse_items(&text, &file.name, &file.folder)?);
    }
    Ok(Definitions(items))
}

/// As [`parse`], for a pipeline that has other parts, too: names are resolved when it is built.
///
/// # Errors
/// As for [`parse`], without those of names.
pub fn definitions(text: &str, file: &str, folder: &Path) -> Result<Definitions> {
    Ok(Definitions(parse_items(text, file, folder)?))
}

/// The task `name` of a query, to be cut by a hook. `$parameter` in the query stands for [`Task::parameter`].
///
/// # Errors
/// [`ErrorKind::Sql`] with the place in the query: text that is not a query, a name that can't be a folder's.
pub fn task(name: &str, query: &str) -> Result<Task> {
    let invalid = |message: &str| Error::new(ErrorKind::Sql, message).with_task(name);
    if !name.chars().all(is_of_folder) {
        return Err(invalid(&format!("a task's name is also a folder's; use {FOLDER_CHARACTERS} only")));
    }
    // The query is last, so that places in it can be told.
    let text = format!("CREATE TABLE \"{name}\" AS {query}");
    let before = text.len() - query.len();
    let placed = |error: Error| match error.location() {
        Some(place) if place.line == 1 => {
            let column = place.column.saturating_sub(before as u64).max(1);
            error.moved_to(Location::new(SQL, 1, column))
        }
        _ => error,
    };
    let mut items = parse_items(&text, SQL, Path::new(".")).map_err(placed)?;
    match (items.pop(), items.is_empty()) {
        (Some(Item::Task(task)), true) => Ok(*task),
        _ => Err(invalid("a task is one query; write one SELECT without a `;`")),
    }
}

/// What errors call text without a file.
pub(crate) const SQL: &str = "<sql>";

/// Parses SQL text into a pipeline. `file` is what errors show; relative locations count from `folder`.
///
/// # Errors
/// [`ErrorKind::Sql`] with the place: text that is not SQL, a statement or clause that has no meaning in a task
/// file, and the names that [`PipelineBuilder::build`](crate::PipelineBuilder::build) refuses. [`ErrorKind::Usage`]: a `folder` that can't stand in front of
/// a location.
pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Pipeline> {
    Pipeline::new(parse_items(text, file, folder)?)
}

/// What the statements of `text` define, in their order, before names are resolved.
///
/// # Errors
/// As for [`parse`], without those of names.
pub(crate) fn parse_items(text: &str, file: &str, folder: &Path) -> Result<Vec<Item>> {
    let folder = absolute(folder)?;
    depth::on_deep_stack(|| {
        let statements = tokens::split(text, file)?;
        statements.iter().map(|statement| item(statement, &folder)).collect()
    })
}

/// What is asked of tables that are there already.
#[derive(Debug)]
pub(crate) struct Question {
    /// The query.
    pub query: Box<Query>,
    /// Whether its plan is wanted in place of its rows.
    pub explained: Option<Explained>,
    /// Names of the tables that it reads.
    pub reads: BTreeSet<TableRead>,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explained {
    /// With what came of running it.
    pub analyze: bool,
    /// With all that was done to it.
    pub verbose: bool,
}

/// Parses a query, or EXPLAIN and a query.
///
/// # Errors
/// [`ErrorKind::Sql`] with the place: text that is not a query, and clauses of a query that have no meaning.
pub(crate) fn question(text: &str) -> Result<Question> {
    depth::on_deep_stack(|| {
        let statements = tokens::split(text, SQL)?;
        let message = "a question is one query; write a SELECT";
        let [statement] = statements.as_slice() else {
            let place = statements.get(1).map_or_else(|| Location::new(SQL, 1, 1), Statement::start);
            return Err(Error::new(ErrorKind::Sql, message).with_location(place));
        };
        let (parsed, explained) = match statement.parse()? {
            Parsed::Explain(ExplainStatement { options, statement: explained }) => {
                let ExplainStatementOptions {
                    analyze,
                    verbose,
                    format: None,
                    analyze_level: None,
                    analyze_categories: None,
                    show_statistics: None,
                } = options
                else {
                    let message = "EXPLAIN takes ANALYZE and VERBOSE only; remove the other options";
                    return Err(statement.error(statement.start(), message));
                };
                (*explained, Some(Explained { analyze, verbose }))
            }
            other => (other, None),
        };
        match parsed {
            Parsed::Statement(standard) => match *standard {
                Standard::Query(mut query) => {
                    let reads = checked(statement, &mut query)?;
                    Ok(Question { query, explained, reads })
                }
                _ => Err(statement.error(statement.start(), message)),
            },
            _ => Err(statement.error(statement.start(), message)),
        }
    })
}

/// Makes long chains of a query flat, looks at all of its clauses, and says which tables it reads.
fn checked(statement: &Statement<'_>, query: &mut Query) -> Result<BTreeSet<TableRead>> {
    precedence::order(statement, query)?;
    depth::balance(statement, query)?;
    clauses::check(statement, query)?;
    reads::reads(statement, query)
}

fn item(statement: &Statement<'_>, folder: &Path) -> Result<Item> {
    if !statement.starts_with("CREATE") {
        return Err(foreign(statement));
    }
    if let Some(word) = ["TEMPORARY", "TEMP"].into_iter().find(|w| statement.has(&format!("CREATE {w} EXTERNAL"))) {
        return Err(statement.refuse(word, source::NOT_STORED));
    }
    match statement.parse()? {
        Parsed::CreateExternalTable(create) => source::source(statement, create, folder).map(Item::Source),
        Parsed::Statement(standard) => match *standard {
            Standard::CreateTable(create) => table::task(statement, create).map(Box::new).map(Item::Task),
            Standard::CreateView(create) => view::view(statement, create).map(Item::View),
            _ => Err(foreign(statement)),
        },
        Parsed::CopyTo(_) | Parsed::Explain(_) | Parsed::Reset(_) => Err(foreign(statement)),
    }
}

fn foreign(statement: &Statement<'_>) -> Error {
    let message = "only CREATE EXTERNAL TABLE, CREATE TABLE … AS and CREATE VIEW belong in a task file; \
                   remove this statement";
    statement.error(statement.start(), message)
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    std::path::absolute(folder).map_err(|cause| {
        let message = format!("can't make the folder {} absolute; give its full path", folder.display());
        Error::new(ErrorKind::Usage, message).with_source(cause)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use crate::error::{ErrorKind, Location};
    use crate::pipeline::{Item, Pipeline};
    use crate::sql::{parse, parse_items};
    use crate::task::Task;

    /// `line:column message` of the error that `text` gives by itself; its kind is checked.
    pub(crate) fn refusal(text: &str) -> String {
        let error = match parse_items(text, "f.sql", Path::new("/w")) {
            Ok(items) => panic!("accepted: {text}\n{items:?}"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Sql, "{text}");
        let place = error.location().expect("a place");
        assert_eq!(place.file, "f.sql", "{text}");
        format!("{}:{} {}", place.line, place.column, error.message())
    }

    /// Asserts that each text is refused at its place, with a message that contains the words.
    pub(crate) fn assert_refused(cases: &[(&str, &str, &str)]) {
        for (text, place, words) in cases {
            let refusal = refusal(text);
            let (found_place, message) = refusal.split_once(' ').expect("a place and a message");
            assert_eq!(found_place, *place, "{text}\n{message}");
            assert!(message.contains(words), "{text}\n{message}");
        }
    }

    /// The only task of `text`.
    pub(crate) fn task(text: &str) -> Task {
        let mut items = parse_items(text, "f.sql", Path::new("/w")).expect("valid");
        match (items.pop(), items.len()) {
            (Some(Item::Task(task)), 0) => *task,
            other => panic!("not one task: {other:?}"),
        }
    }

    fn pipeline(text: &str) -> Pipeline {
        parse(text, "f.sql", Path::new("/w")).expect("valid")
    }

    fn pipeline_error(text: &str) -> String {
        parse(text, "f.sql", Path::new("/w")).expect_err("invalid").to_string()
    }

    fn order(pipeline: &Pipeline) -> Vec<&str> {
        pipeline.tasks().map(|t| t.name.as_str()).collect()
    }

    #[test]
    fn text_without_statements_defines_nothing() {
        for text in ["", "\u{feff}", " \r\n\t", ";;", "-- only a comment; here", "/* a ; b */ ;"] {
            assert_eq!(parse_items(text, "f.sql", Path::new("/w")).expect("valid").len(), 0, "{text:?}");
        }
    }

    #[test]
    fn statements_of_other_kinds_are_refused_where_they_stand() {
        let words = "only CREATE EXTERNAL TABLE, CREATE TABLE … AS and CREATE VIEW belong in a task file";
        for text in [
            "SELECT 1",
            "INSERT INTO t SELECT 1",
            "DROP TABLE t",
            "SET x = 1",
            "COPY t TO 'x'",
            "EXPLAIN SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "not sql at all",
            ") (",
        ] {
            assert_refused(&[(&format!("CREATE VIEW v AS SELECT 1;\n  {text}"), "2:3", words)]);
        }
        assert_refused(&[
            ("CREATE INDEX i ON t (a)", "1:1", words),
            ("CREATE SCHEMA s", "1:1", words),
            ("CREATE", "1:7", "expected an object type after CREATE, found the end of the statement"),
            ("CREATE ;", "1:8", "expected an object type after CREATE, found the end of the statement"),
        ]);
    }

    #[test]
    fn statements_stand_in_any_order() {
        let statements = [
            "CREATE EXTERNAL TABLE files STORED AS PARQUET LOCATION 'x.parquet'",
            "CREATE TABLE b AS SELECT * FROM files",
            "CREATE VIEW v AS SELECT * FROM b",
            "CREATE TABLE a AS SELECT * FROM v",
        ];
        let forwards = pipeline(&statements.join(";\n"));
        let backwards = pipeline(&statements.iter().rev().copied().collect::<Vec<_>>().join(";\n"));
        assert_eq!(order(&forwards), ["b", "a"]);
        assert_eq!(order(&backwards), ["b", "a"]);
    }

    #[test]
    fn tasks_read_through_views_and_views_read_tasks() {
        let pipeline = pipeline(
            "CREATE EXTERNAL TABLE files STORED AS CSV LOCATION 'x.csv';
             CREATE TABLE first AS SELECT * FROM files;
             CREATE VIEW inner_view AS SELECT * FROM first;
             CREATE VIEW outer_view AS SELECT * FROM inner_view JOIN files USING (a);
             CREATE TABLE second AS SELECT * FROM outer_view;",
        );
        assert_eq!(order(&pipeline), ["first", "second"]);
        let inputs = pipeline.inputs(pipeline.task("second").expect("defined"));
        assert_eq!(inputs.into_iter().collect::<Vec<_>>(), ["files", "first"]);
        assert_eq!(order(&pipeline.select(&["first".into()]).expect("a task")), ["first"]);
        assert!(pipeline.source("files").is_some() && pipeline.view("outer_view").is_some());
    }

    #[test]
    fn views_over_views_resolve_in_reasonable_time() {
        let mut text = String::from("CREATE VIEW a0 AS SELECT 1; CREATE VIEW b0 AS SELECT 1;");
        for at in 1..64 {
            let before = at - 1;
            for name in ["a", "b"] {
                text.push_str(&format!("CREATE VIEW {name}{at} AS SELECT * FROM a{before}, b{before};"));
            }
        }
        text.push_str("CREATE TABLE t AS SELECT * FROM a63");
        let pipeline = pipeline(&text);
        assert_eq!(pipeline.inputs(pipeline.task("t").expect("defined")).len(), 0);
    }

    #[test]
    fn names_that_do_not_resolve_are_refused_where_they_are_read() {
        let cases = [
            (
                "CREATE TABLE orders AS SELECT 1;\nCREATE TABLE t AS\n  SELECT * FROM ordres",
                "f.sql:3:17: unknown table `ordres`; define it with CREATE EXTERNAL TABLE, CREATE TABLE … AS or \
                 CREATE VIEW (did you mean `orders`?)",
            ),
            (
                "CREATE VIEW v AS SELECT * FROM somewhere_else",
                "f.sql:1:32: unknown table `somewhere_else`; define it with CREATE EXTERNAL TABLE, CREATE TABLE … AS \
                 or CREATE VIEW",
            ),
            (
                "CREATE TABLE t AS SELECT 1;\r\nCREATE VIEW T AS SELECT 1",
                "f.sql:2:1: `t` is defined twice, first at f.sql:1:1; rename one of them",
            ),
            ("CREATE TABLE t AS SELECT * FROM t", "f.sql:1:33: these read each other in a cycle: t → t; break it"),
            (
                "CREATE TABLE a AS SELECT * FROM v;\nCREATE VIEW v AS SELECT * FROM b;\nCREATE TABLE b AS SELECT * FROM a",
                "f.sql:3:33: these read each other in a cycle: a → v → b → a; break it",
            ),
            (
                "CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT * FROM v",
                "f.sql:1:66: these read each other in a cycle: v → w → v; break it",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(pipeline_error(text), expected);
        }
    }

    #[test]
    fn a_quoted_name_and_an_unquoted_one_differ_by_case() {
        let pipeline = pipeline("CREATE VIEW \"T\" AS SELECT 1; CREATE TABLE T AS SELECT * FROM \"T\"");
        assert_eq!(order(&pipeline), ["t"]);
    }

    #[test]
    fn statements_know_where_they_begin() {
        let text = "-- ü;\r\nCREATE VIEW v AS SELECT ';' AS a; /* é; */ CREATE\nTABLE t AS SELECT 1;";
        let items = parse_items(text, "dir/f.sql", Path::new("/w")).expect("valid");
        let places: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Source(s) => Some(s.location.clone()),
                Item::View(v) => Some(v.location.clone()),
                Item::Task(t) => Some(t.location.clone()),
                Item::UserSource(_) | Item::Function(_) => None,
            })
            .collect();
        assert_eq!(places, [Location::new("dir/f.sql", 2, 1), Location::new("dir/f.sql", 2, 44)]);
    }
}
