//! The files of a batch in another engine: DuckDB reads them by itself, and runs queries that both understand alike.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use chunkwise::{RunOptions, Status};
use serde_json::{Value, json};

use super::files::in_duckdb;
use super::kind::Kind;
use super::query::Case;
use super::random::Random;
use super::rows::{Row, are_equal, differences, rows_of};
use super::table::Table;
use super::world::{Outcome, World, batches_in, batches_of};

/// Queries of the tables `{t}` and `{u}`, their common key `{k}` and the number `a` that both have.
const QUERIES: [&str; 20] = [
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
];

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

    /// The rows of `query` over views.
    fn rows(&mut self, views: &[(String, String, Vec<PathBuf>)], query: &str, path: &Path) -> Result<Vec<Row>, String> {
        let question = json!({"views": views, "query": query, "path": path});
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect("an answer of DuckDB: are duckdb and pyarrow there?");
        match answer["error"].as_str() {
            Some(error) => Err(error.lines().next().unwrap_or_default().to_string()),
            None => Ok(rows_of(&in_utc(batches_of(path)?))),
        }
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Zones are how an instant is shown.
fn in_utc(batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let of_batch = |batch: RecordBatch| {
        let columns = batch.columns().iter().map(|column| match column.data_type() {
            DataType::Timestamp(unit, Some(_)) => {
                cast(column, &DataType::Timestamp(*unit, Some("UTC".into()))).unwrap()
            }
            _ => column.clone(),
        });
        let columns: Vec<_> = columns.collect();
        let fields = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
        RecordBatch::try_new(Schema::new(fields.collect::<Vec<_>>()).into(), columns).unwrap()
    };
    batches.into_iter().map(of_batch).collect()
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
        (l == r || (l.is_text() && r.is_text()) || is_one) && !matches!(l, Kind::Float(_))
    };
    let keys: Vec<&str> = ["k", "j"].into_iter().filter(is_key).collect();
    if keys.is_empty() {
        return Vec::new();
    }
    let key = *random.pick(&keys);
    let cases: Vec<Case> = QUERIES
        .iter()
        .enumerate()
        .map(|(at, query)| Case {
            name: format!("d{at}"),
            sql: query.replace("{t}", &t.name).replace("{u}", &u.name).replace("{k}", key),
            keys: None,
            chunks: 2 + random.below(4) as u32,
        })
        .collect();
    let mut outcomes = Vec::new();
    let mut views = Vec::new();
    for table in [&t, &u] {
        match in_duckdb(table, &folder) {
            Some((query, paths)) => views.push((table.name.clone(), query, paths)),
            None => {
                let why = format!("DuckDB can't read {:?} laid out so", table.files.format);
                return cases.into_iter().map(|case| (case, Outcome::Skipped(why.clone()))).collect();
            }
        }
    }
    views.dedup_by(|a, b| a.0 == b.0);
    let tasks: String = cases.iter().map(Case::statement).collect();
    let pipeline = chunkwise::sql::parse(&format!("{declarations}{tasks}"), "fuzz.sql", &folder).unwrap();
    let report = world.engine(&folder).run(&pipeline, &RunOptions::default()).await.unwrap();
    for case in cases {
        let task = report.task(&case.name).unwrap();
        let found = match task.status {
            Status::Executed | Status::Reused => batches_in(&folder.join("cache/tables").join(&case.name)),
            _ => Err(task.reason.clone()),
        };
        let found = found.map(|batches| rows_of(&in_utc(batches)));
        let expected = duckdb.rows(&views, &case.sql, &folder.join(format!("{}.parquet", case.name)));
        let outcome = match (found, expected) {
            (Ok(found), Ok(expected)) if are_equal(&found, &expected) => Outcome::Same(found.len()),
            (Ok(found), Ok(expected)) => {
                Outcome::Wrong(format!("-- beside DuckDB:\n{}", differences(&expected, &found)))
            }
            (_, Err(error)) => Outcome::Skipped(format!("DuckDB: {}", error.chars().take(60).collect::<String>())),
            (Err(reason), Ok(_)) if reason.contains("can't be cut at") => Outcome::Refused("beside DuckDB".into()),
            (Err(reason), Ok(_)) => Outcome::Failed(reason),
        };
        outcomes.push((case, outcome));
    }
    outcomes
}
