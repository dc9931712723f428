//! The files of a batch in another engine: DuckDB reads them by itself, and runs queries that both understand alike.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use chunkwise::{RunOptions, Status};
use serde_json::{Value, json};

use super::correlated::correlated;
use super::files::in_duckdb;
use super::kind::Kind;
use super::query::{Case, case};
use super::random::Random;
use super::rows::{Row, are_equal, differences, rows_of};
use super::table::Table;
use super::world::{Outcome, World, batches_in, batches_of};

/// Queries of the tables `{t}` and `{u}`, their common key `{k}` and the number `a` that both have.
const QUERIES: [&str; 32] = [
    "SELECT * FROM {t}",
    "SELECT {k}, count(*) AS n, count(a) AS filled, min(a) AS low, max(a) AS high FROM {t} GROUP BY {k}",
    "SELECT {k}, CAST(sum(a) AS BIGINT) AS total FROM {t} WHERE a > 1 GROUP BY {k} HAVING count(*) > 1",
    "SELECT count(*) AS n, count(DISTINCT a) AS different, CAST(sum(a) AS BIGINT) AS total FROM {t}",
    "SELECT DISTINCT {k}, a FROM {t}",
    "SELECT x.{k}, x.a, y.a AS other FROM {t} x JOIN {u} y ON x.{k} = y.{k}",
    "SELECT x.{k}, x.a, y.a AS other FROM {t} x LEFT JOIN {u} y ON x.{k} = y.{k} AND y.a > 0",
    "SELECT {k}, x.a, y.a AS other FROM {t} x FULL JOIN {u} y USING ({k})",
    "SELECT {k}, x.a, y.a AS other FROM {t} x RIGHT JOIN {u} y USING ({k})",
    "SELECT {k}, a FROM {t} x WHERE EXISTS (SELECT 1 FROM {u} y WHERE y.{k} = x.{k} AND y.a > 0)",
    "SELECT {k}, a FROM {t} WHERE {k} NOT IN (SELECT {k} FROM {u})",
    "SELECT {k}, a FROM {t} WHERE {k} IN (SELECT {k} FROM {u} WHERE {k} IS NOT NULL)",
    "SELECT {k}, a FROM {t} WHERE a > (SELECT min(a) FROM {u})",
    "SELECT {k} FROM {t} UNION SELECT {k} FROM {u}",
    "SELECT {k} FROM {t} INTERSECT ALL SELECT {k} FROM {u}",
    "SELECT {k} FROM {t} EXCEPT ALL SELECT {k} FROM {u}",
    "SELECT {k}, a, count(*) OVER (PARTITION BY {k}) AS n, max(a) OVER (PARTITION BY {k}) AS high FROM {t}",
    "SELECT {k}, a, rank() OVER (w ORDER BY a) AS place FROM {t} WINDOW w AS (PARTITION BY {k})",
    "SELECT {k}, a, CAST(sum(a) OVER (PARTITION BY {k} ORDER BY a RANGE UNBOUNDED PRECEDING) AS BIGINT) AS so_far FROM {t}",
    "SELECT {k}, a, count(*) AS n FROM {t} GROUP BY GROUPING SETS (({k}, a), ({k}))",
    // What is constant or sorted below, and no longer is so above.
    "SELECT x.{k}, y.c, rank() OVER (ORDER BY y.c, x.a, x.{k}) AS place FROM {t} x LEFT JOIN (SELECT {k}, 1 AS c FROM {u} WHERE a = 1) y ON x.{k} = y.{k}",
    "SELECT x.a, y.b, count(*) OVER (PARTITION BY y.b) AS n FROM {t} x LEFT JOIN (SELECT a AS b FROM {u} WHERE a = 1) y ON x.a > y.b",
    "SELECT c, {k}, count(*) AS n, rank() OVER (ORDER BY c, {k}) AS place FROM (SELECT 7 AS c, {k} FROM {t}) q GROUP BY CUBE (c, {k})",
    "SELECT a, {k}, count(*) AS n FROM {t} WHERE a = 1 GROUP BY ROLLUP (a, {k}) ORDER BY a, {k}, n LIMIT 3",
    "SELECT x.{k}, x.m, y.a FROM (SELECT {k}, max(a) OVER (PARTITION BY {k} ORDER BY a) AS m FROM {t}) x FULL JOIN {u} y ON x.{k} = y.{k} AND x.m = 2",
    "SELECT m, count(*) AS n, rank() OVER (ORDER BY m DESC) AS place FROM (SELECT min(a) OVER (ORDER BY {k}, a ROWS UNBOUNDED PRECEDING) AS m FROM {t}) q GROUP BY m",
    "SELECT * FROM (SELECT x.a AS p, y.a AS q FROM {t} x FULL JOIN (SELECT * FROM {u} WHERE a = 2) y ON x.{k} = y.{k}) z ORDER BY q DESC, p LIMIT 4",
    // Both zeros, and what is not a number, are one.
    "SELECT {k}, a, dense_rank() OVER (ORDER BY {k}) AS place, lag(a) OVER (PARTITION BY {k} ORDER BY a) AS before FROM {t}",
    "SELECT a, count(DISTINCT {k}) AS n FROM {t} GROUP BY a",
    "SELECT a, nullif({k}, {k}) IS NULL AS x, {k} IN (SELECT {k} FROM {u}) AS y FROM {t}",
    "SELECT count(*) AS n FROM (SELECT DISTINCT [{k}] AS l FROM {t} WHERE {k} IS NOT NULL) q",
    "SELECT DISTINCT ON ({k}) a, count(*) OVER (PARTITION BY {k}) AS n FROM {t} ORDER BY {k}, a",
];
/// Queries with correlated subqueries beside them.
const CORRELATED_QUERIES: usize = 12;
/// Random queries beside them.
const RANDOM_QUERIES: usize = 20;

/// What DuckDB has under these names, but does otherwise: it rounds where a number becomes a whole one, and writes NaN
/// and timestamps in another way.
const NOT_ALIKE: [&str; 2] = ["TRY_CAST", " AS VARCHAR"];

/// Their value is 0 in DuckDB where there is one number and that is NaN.
const MOMENTS: [&str; 3] = ["stddev_pop", "var_pop", "covar_pop"];

/// A process of Python with DuckDB in it.
#[derive(Debug)]
pub struct DuckDb {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl DuckDb {
    /// Starts it.
    ///
    /// # Panics
    /// Without a `python3`.
    pub fn start() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("duckdb.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 with duckdb and pyarrow");
        let (questions, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, questions, answers: BufReader::new(answers) }
    }

    /// What `query` gives over views.
    fn batches(
        &mut self,
        views: &[(String, String, Vec<PathBuf>)],
        query: &str,
        path: &Path,
    ) -> Result<Vec<RecordBatch>, String> {
        let question = json!({"views": views, "query": query, "path": path});
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect("an answer of DuckDB: are duckdb and pyarrow there?");
        match answer["error"].as_str() {
            Some(error) => Err(error.lines().next().unwrap_or_default().to_string()),
            None => batches_of(path),
        }
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The rows in these types. Of an instant the zone is only how it is shown.
fn rows_in(types: &[DataType], batches: Vec<RecordBatch>) -> Result<Vec<Row>, ArrowError> {
    let all = CastOptions { safe: false, ..CastOptions::default() };
    let of_batch = |batch: RecordBatch| {
        let columns = batch.columns().iter().zip(types).map(|(column, to)| match to {
            DataType::Timestamp(unit, Some(_)) => {
                cast_with_options(column, &DataType::Timestamp(*unit, Some("UTC".into())), &all)
            }
            to => cast_with_options(column, to, &all),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let fields = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
        RecordBatch::try_new(Schema::new(fields.collect::<Vec<_>>()).into(), columns)
    };
    Ok(rows_of(&batches.into_iter().map(of_batch).collect::<Result<Vec<_>, _>>()?))
}

fn types_of(batches: &[RecordBatch]) -> Vec<DataType> {
    let of_first = batches.first().map(|batch| batch.schema_ref().fields().clone());
    of_first.iter().flat_map(|fields| fields.iter().map(|field| field.data_type().clone())).collect()
}

/// What became of the queries over two of the tables; what differs comes with its case.
pub async fn beside(world: &World, seed: u64, folder: &Path, duckdb: &mut DuckDb) -> Vec<(Case, Outcome)> {
    let mut random = Random::new(seed);
    let folder = folder.join("beside");
    std::fs::create_dir_all(&folder).unwrap();
    let declarations: String = world.tables.iter().map(|table| table.write(&folder)).collect();
    let (t, u) = (random.pick(&world.tables).clone(), random.pick(&world.tables).clone());
    let kind = |table: &Table, name: &str| {
        table.columns.iter().find(|column| column.name == name).map(|column| column.kind).unwrap()
    };
    // Floats that are equal may be told apart, and what text is compared with differs from engine to engine.
    let is_key = |name: &&str| {
        let (l, r) = (kind(&t, name), kind(&u, name));
        // DuckDB puts unsigned and signed 64 bits together as DOUBLE.
        let is_one = l.is_integer() && r.is_integer() && (l == Kind::UInt(64)) == (r == Kind::UInt(64));
        l == r || (l.is_text() && r.is_text()) || is_one
    };
    let keys: Vec<&str> = ["k", "j"].into_iter().filter(is_key).collect();
    let mut cases: Vec<Case> = Vec::new();
    if !keys.is_empty() {
        let key = *random.pick(&keys);
        cases.extend(QUERIES.iter().enumerate().map(|(at, query)| Case {
            name: format!("d{at}"),
            sql: query.replace("{t}", &t.name).replace("{u}", &u.name).replace("{k}", key),
            keys: None,
            chunks: 1 + random.below(4) as u32,
        }));
        for at in 0..CORRELATED_QUERIES {
            let query = correlated(&mut random);
            let sql = query.replace("{t}", &t.name).replace("{u}", &u.name).replace("{k}", key);
            cases.push(Case { name: format!("rc{at}"), sql, keys: None, chunks: 1 + random.below(4) as u32 });
        }
    }
    // DuckDB sums numbers as DOUBLE beside floats, and knows one zone.
    let has_zone = world.tables.iter().flat_map(|table| &table.columns).any(|c| matches!(c.kind, Kind::Instant(_)));
    let queries = if has_zone || world.has_large_numbers() { 0 } else { RANDOM_QUERIES };
    let has_nan = world.tables.iter().any(|table| table.as_sql().contains("'NaN'"));
    let is_alike =
        |sql: &str| !NOT_ALIKE.iter().chain(MOMENTS.iter().filter(|_| has_nan)).any(|words| sql.contains(words));
    for at in 0..queries {
        let one = case(&mut random, &world.tables, format!("r{at}"), None);
        let parses =
            || chunkwise::sql::parse(&format!("{declarations}{}", one.statement()), "fuzz.sql", &folder).is_ok();
        if is_alike(&one.sql) && parses() {
            cases.push(one);
        }
    }
    let mut outcomes = Vec::new();
    let mut views = Vec::new();
    for table in &world.tables {
        match in_duckdb(table, &folder) {
            Some((query, paths)) => views.push((table.name.clone(), query, paths)),
            None => {
                let why = format!("DuckDB can't read {:?} laid out so", table.files.format);
                return cases.into_iter().map(|case| (case, Outcome::Skipped(why.clone()))).collect();
            }
        }
    }
    let tasks: String = cases.iter().map(Case::statement).collect();
    let pipeline = chunkwise::sql::parse(&format!("{declarations}{tasks}"), "fuzz.sql", &folder).unwrap();
    let report = match world.engine(&folder).run(&pipeline, &RunOptions::default()).await {
        Ok(report) => report,
        Err(error) => return vec![(cases.swap_remove(0), Outcome::Failed(error.to_string()))],
    };
    for case in cases {
        let task = report.task(&case.name).unwrap();
        let found = match task.status {
            Status::Executed | Status::Reused => batches_in(&folder.join("cache/tables").join(&case.name)),
            _ => Err(task.reason.clone()),
        };
        let expected = duckdb.batches(&views, &case.sql, &folder.join(format!("{}.parquet", case.name)));
        // No rows have no types.
        let types =
            [&found, &expected].into_iter().flatten().map(|batches| types_of(batches)).find(|types| !types.is_empty());
        let types = types.unwrap_or_default();
        let rows = |batches: Result<Vec<RecordBatch>, String>| {
            batches.and_then(|batches| rows_in(&types, batches).map_err(|e| e.to_string()))
        };
        let outcome = match (rows(found), rows(expected)) {
            (Ok(found), Ok(expected)) if are_equal(&found, &expected) => Outcome::Same(found.len()),
            (Ok(found), Ok(expected)) => {
                Outcome::Wrong(format!("-- beside DuckDB:\n{}", differences(&expected, &found)))
            }
            (_, Err(error)) => Outcome::Skipped(format!("DuckDB: {}", error.chars().take(60).collect::<String>())),
            (Err(reason), Ok(_)) if reason.contains("can't be cut at") => Outcome::Refused("beside DuckDB".into()),
            // Whether a random query should run, the fuzzer's other cases ask plain DataFusion.
            (Err(_), Ok(_)) if case.name.starts_with('r') => Outcome::Skipped("it fails, but not in DuckDB".into()),
            (Err(reason), Ok(_)) => Outcome::Failed(reason),
        };
        outcomes.push((case, outcome));
    }
    outcomes
}
