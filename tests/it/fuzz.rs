//! Random queries over random tables, chunked against unchunked: what the prover accepts must give the same rows.
//!
//! Everything follows from a seed. A batch is a few small tables, written once, and many queries over them, each a task
//! with random keys and number of chunks. Plain DataFusion runs the query whole; what it can't run is skipped.
//! Queries are deterministic: windows and limits have a total order, floats are never summed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use arrow::util::pretty::pretty_format_batches;
use chunkwise::{Engine, RunOptions, Status};
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Queries that share their tables and run in one pipeline.
const BATCH: usize = 25;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub cases: usize,
}

impl Plan {
    /// `CHUNKWISE_FUZZ_SEED` and `CHUNKWISE_FUZZ_CASES`, or these.
    pub fn from_env(seed: u64, cases: usize) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        Self {
            seed: number("CHUNKWISE_FUZZ_SEED").unwrap_or(seed),
            cases: number("CHUNKWISE_FUZZ_CASES").map_or(cases, |cases| cases as usize),
        }
    }
}

/// What became of the cases.
#[derive(Debug, Default)]
pub struct Tally {
    pub accepted: usize,
    /// Accepted with at least one row.
    pub with_rows: usize,
    /// Refusals by their rule.
    pub refused: BTreeMap<String, usize>,
    /// Cases that plain DataFusion can't run, by its error.
    pub skipped: BTreeMap<String, usize>,
    /// Reproductions of wrong rows, and of failures of accepted tasks.
    pub wrong: Vec<String>,
}

impl Tally {
    fn cases(&self) -> usize {
        self.accepted + self.refused.values().sum::<usize>() + self.skipped.values().sum::<usize>() + self.wrong.len()
    }
}

/// Runs `plan` a batch at a time, each in a folder of its own below `folder`.
pub async fn fuzz(plan: Plan, folder: &Path) -> Tally {
    let mut tally = Tally::default();
    for batch in 0..plan.cases.div_ceil(BATCH) {
        let cases = BATCH.min(plan.cases - batch * BATCH);
        let folder = folder.join(batch.to_string());
        std::fs::create_dir(&folder).unwrap();
        let seed = plan.seed.wrapping_add(batch as u64);
        run_batch(seed, cases, &folder, &mut tally).await;
        std::fs::remove_dir_all(&folder).unwrap();
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_give_the_same_rows_chunk_by_chunk_as_whole() {
    let plan = Plan::from_env(1, 400);
    let folder = tempfile::tempdir().unwrap();
    let tally = fuzz(plan, folder.path()).await;
    println!("{plan:?}: {} cases", tally.cases());
    println!("accepted {}, of these {} with rows", tally.accepted, tally.with_rows);
    for (what, counts) in [("refused", &tally.refused), ("skipped", &tally.skipped)] {
        println!("{what} {}", counts.values().sum::<usize>());
        for (why, count) in counts {
            println!("  {count:5} {why}");
        }
    }
    for wrong in &tally.wrong {
        println!("{wrong}");
    }
    assert!(tally.wrong.is_empty(), "{} of {} cases are wrong", tally.wrong.len(), tally.cases());
    assert!(2 * tally.accepted >= tally.cases(), "only {} of {} cases accepted", tally.accepted, tally.cases());
}

/// A query and how it is cut.
struct Case {
    name: String,
    sql: String,
    keys: String,
    chunks: u32,
}

async fn run_batch(seed: u64, cases: usize, folder: &Path, tally: &mut Tally) {
    let mut random = Random(seed);
    let mut tables: Vec<Table> = random.tables();
    let mut sources = String::new();
    for table in &tables {
        let file = folder.join(&table.name).with_extension("parquet");
        table.write(&file);
        let (name, file) = (&table.name, file.display());
        writeln!(sources, "CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{file}';").unwrap();
    }
    // Some queries read the first table through a task or a view.
    let (copied, renamed) = (tables[0].renamed("u"), tables[0].renamed("v"));
    let list: Vec<&str> = renamed.columns.iter().map(|c| c.name.as_str()).collect();
    let view = format!("CREATE VIEW v ({}) AS SELECT * FROM t0;\n", list.join(", "));
    let views = format!("CREATE VIEW u AS SELECT * FROM t0;\n{view}");
    let files = tables.len();
    write!(sources, "CREATE TABLE u CLUSTERED BY (k) INTO 4 BUCKETS AS SELECT * FROM t0;\n{view}").unwrap();
    tables.extend([copied, renamed]);
    let whole = whole(&tables[..files], &views, 2).await;
    let mut runnable: Vec<(Case, Vec<String>)> = Vec::new();
    for at in 0..cases {
        let mut case = Generator::new(&mut random, &tables).case(format!("q{at}"));
        if let Some((before, _)) = runnable.last()
            && random.chance(12)
        {
            // Nearly the same query must not be taken for the same.
            case.sql = random.mutated(&before.sql);
            case.keys.clone_from(&before.keys);
            case.chunks = before.chunks;
        }
        match rows_of(&whole, &case.sql).await {
            Ok(rows) => runnable.push((case, rows)),
            Err(error) => count(&mut tally.skipped, shortened(&error)),
        }
    }
    let engine = Engine::builder().cache_folder(folder.join("cache")).jobs(2).build().unwrap();
    let (pipeline, report) = loop {
        let tasks: String = runnable.iter().map(|(case, _)| case.statement()).collect();
        let sql = format!("{sources}{tasks}");
        let pipeline = chunkwise::sql::parse(&sql, "fuzz.sql", folder);
        let pipeline = pipeline.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{sql}"));
        match engine.run(&pipeline, &RunOptions::default()).await {
            Ok(report) => break (pipeline, report),
            // Nothing was run: a key that the query doesn't read is an error in the SQL.
            Err(error) if error.message().starts_with("no input of the query has the key") => {
                runnable.retain(|(case, _)| error.task() != Some(case.name.as_str()));
                count(&mut tally.refused, "no input of the query has the key".into());
            }
            Err(error) => panic!("seed {seed}: {error}\n{sql}"),
        }
    };
    if seed.is_multiple_of(4) {
        let again = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
        let ran: Vec<_> = again.tasks.iter().filter(|task| task.status == Status::Executed).map(|t| &t.name).collect();
        if !ran.is_empty() {
            tally.wrong.push(format!("seed {seed}: these ran again although nothing changed: {ran:?}"));
        }
    }
    for (case, expected) in runnable {
        let task = report.task(&case.name).unwrap();
        let found = match task.status {
            Status::Executed | Status::Reused => {
                let published = SessionContext::new();
                published.register_table("found", engine.table(&case.name).await.unwrap()).unwrap();
                rows_of(&published, "SELECT * FROM found").await
            }
            Status::Failed | Status::Skipped => Err(task.reason.clone()),
        };
        match found {
            Ok(found) if found == expected => {
                tally.accepted += 1;
                tally.with_rows += usize::from(!expected.is_empty());
            }
            Err(reason) if reason.contains("can't be cut at") => count(&mut tally.refused, rule(&reason)),
            // Which rows an expression is computed for before others drop out is the optimizer's choice.
            Err(reason) if reason.contains("Cast error") || reason.contains("Parser error") => {
                count(&mut tally.skipped, "a value can't be cast".into());
            }
            found => {
                // What depends on the order of rows, such as which of -0.0 and 0.0 is a minimum, is no question for
                // the prover.
                let files: Vec<Table> = tables[..files].iter().map(Table::reversed).collect();
                let mut others = Vec::new();
                for (files, partitions) in [(&tables[..files.len()], 1), (&files, 1), (&files, 2)] {
                    others.push(rows_of(&self::whole(files, &views, partitions).await, &case.sql).await);
                }
                if others.iter().any(|rows| rows.as_ref() != Ok(&expected)) {
                    count(
                        &mut tally.skipped,
                        "DataFusion gives other rows in another order or with one partition".into(),
                    );
                    continue;
                }
                let mut text = format!("seed {seed}, case {}\n", case.name);
                for table in &tables[..files.len()] {
                    writeln!(text, "{}\n{}", table.name, pretty_format_batches(&[table.batch()]).unwrap()).unwrap();
                }
                text.push_str(&sources);
                writeln!(text, "{}\n{}", case.statement(), differences(&expected, found)).unwrap();
                tally.wrong.push(text);
            }
        }
    }
}

impl Case {
    fn statement(&self) -> String {
        let Self { name, sql, keys, chunks } = self;
        // A third of the cases leaves the key to the engine.
        match sql.len() % 3 {
            0 => format!("CREATE TABLE {name} WITH (chunk_by = 'auto', chunks = {chunks}) AS\n{sql};\n"),
            _ => format!("CREATE TABLE {name} CLUSTERED BY ({keys}) INTO {chunks} BUCKETS AS\n{sql};\n"),
        }
    }
}

/// Plain DataFusion over tables in memory: in Parquet it overlooks NaN where it skips row groups.
async fn whole(tables: &[Table], views: &str, partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    for table in tables {
        context.register_batch(&table.name, table.batch()).unwrap();
    }
    for statement in views.lines() {
        context.sql(statement).await.unwrap().collect().await.unwrap();
    }
    context
}

/// The rows as sorted lines of text; -0.0 is written as 0.0, since a group of both has either.
async fn rows_of(context: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let batches = async { context.sql(sql).await?.collect().await }.await.map_err(|e| e.strip_backtrace())?;
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| match column.is_null(row) {
                true => "NULL".into(),
                false => match array_value_to_string(column, row).unwrap().as_str() {
                    "-0.0" => "0.0".into(),
                    text if *column.data_type() == DataType::Float64 => text.into(),
                    text => format!("{text:?}"),
                },
            });
            rows.push(cells.collect::<Vec<String>>().join(", "));
        }
    }
    rows.sort();
    Ok(rows)
}

fn differences(expected: &[String], found: Result<Vec<String>, String>) -> String {
    let found = match found {
        Ok(found) => found,
        Err(error) => return format!("it failed: {error}"),
    };
    let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    found.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    let mut text =
        format!("{} rows whole, {} rows chunked; lacking (+) or too many (-):\n", expected.len(), found.len());
    for (row, count) in counts.iter().filter(|(_, count)| **count != 0) {
        writeln!(text, "  {count:+} {row}").unwrap();
    }
    text
}

fn count(counts: &mut BTreeMap<String, usize>, what: String) {
    *counts.entry(what).or_default() += 1;
}

/// The rule of a refusal, which stands between its node and its advice.
fn rule(reason: &str) -> String {
    const RULES: [&str; 14] = [
        "this operator is not known to be right",
        "both sides are cut, but the join's equalities",
        "the side whose unmatched rows are kept is whole",
        "rows of one group may lie in different chunks",
        "equal rows may lie in different chunks",
        "rows of one window partition may lie",
        "one branch is cut and another is not",
        "NOT IN over a cut subquery",
        "its scalar subquery",
        "this subquery can't be turned into a join",
        "the result does not depend on the chunk",
        "every chunk computes the replicated side again",
        "its key columns hash differently",
        "table functions and limited scans",
    ];
    match RULES.iter().find(|rule| reason.contains(**rule)) {
        Some(rule) if *rule == RULES[0] => {
            let node = reason.split("can't be cut at ").nth(1).unwrap_or_default();
            format!("{rule}: {}", node.split([' ', ':']).take(2).collect::<Vec<_>>().join(" "))
        }
        Some(rule) => rule.to_string(),
        None => shortened(reason),
    }
}

fn shortened(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(90).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// `sql` with one of its words replaced by a similar one.
    fn mutated(&mut self, sql: &str) -> String {
        const PAIRS: [(&str, &str); 16] = [
            (".k", ".j"),
            (".j", ".k"),
            ("LEFT JOIN", "JOIN"),
            (" JOIN", " LEFT JOIN"),
            ("LEFT SEMI", "LEFT ANTI"),
            ("min(", "max("),
            ("max(", "min("),
            ("count(DISTINCT ", "count("),
            ("SELECT DISTINCT", "SELECT"),
            (" = ", " IS NOT DISTINCT FROM "),
            ("EXISTS", "NOT EXISTS"),
            ("UNION ALL", "UNION"),
            ("<", ">"),
            (">=", ">"),
            (" DESC", ""),
            ("t0", "t1"),
        ];
        let (from, to) = *self.pick(&PAIRS);
        let places: Vec<usize> = sql.match_indices(from).map(|(at, _)| at).collect();
        match places.as_slice() {
            [] => sql.to_string(),
            places => {
                let at = *self.pick(places);
                format!("{}{to}{}", &sql[..at], &sql[at + from.len()..])
            }
        }
    }

    /// Position of the weight that was hit.
    fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut hit = self.below(weights.iter().sum());
        for (at, weight) in weights.iter().enumerate() {
            if hit < *weight {
                return at;
            }
            hit -= weight;
        }
        0
    }

    /// Two to four tables, all with keys `k` and `j` of types that mostly fit each other.
    fn tables(&mut self) -> Vec<Table> {
        const FAMILIES: [&[Kind]; 6] = [
            &[Kind::Int32, Kind::Int64],
            &[Kind::Text],
            &[Kind::Decimal(9), Kind::Decimal(12)],
            &[Kind::Date],
            &[Kind::Float],
            &[Kind::Millis, Kind::Micros],
        ];
        let families = [FAMILIES[self.weighted(&[5, 3, 2, 1, 2, 1])], FAMILIES[self.weighted(&[4, 3, 1, 2, 1, 1])]];
        let values = ["a", "b", "c", "d", "f"].into_iter().zip([
            Kind::Int32,
            Kind::Text,
            Kind::Decimal(9),
            Kind::Date,
            Kind::Float,
        ]);
        let tables = 2 + self.below(3);
        let table = |random: &mut Self, at: usize| {
            let rows = if random.chance(8) { 0 } else { 5 + random.below(40) };
            let mut columns = Vec::new();
            for (name, family) in ["k", "j"].into_iter().zip(families) {
                let family = if random.chance(6) { FAMILIES[random.below(FAMILIES.len())] } else { family };
                columns.push((Column { name: name.into(), kind: *random.pick(family) }, 3 + random.below(6)));
            }
            for (name, kind) in values.clone() {
                if name == "a" || random.chance(45) {
                    columns.push((Column { name: name.into(), kind }, 2 + random.below(8)));
                }
            }
            let data = columns.iter().map(|(column, domain)| random.values(column.kind, *domain, rows)).collect();
            Table { name: format!("t{at}"), columns: columns.into_iter().map(|(column, _)| column).collect(), data }
        };
        (0..tables).map(|at| table(self, at)).collect()
    }

    /// `rows` values out of `domain`, some of them NULL, often one of them far more frequent than the others.
    fn values(&mut self, kind: Kind, domain: usize, rows: usize) -> ArrayRef {
        let nulls = *self.pick(&[0, 0, 10, 30]);
        let skew = *self.pick(&[0, 0, 60]);
        let picked: Vec<Option<usize>> = (0..rows)
            .map(|_| match (self.chance(nulls), self.chance(skew)) {
                (true, _) => None,
                (false, true) => Some(1),
                (false, false) => Some(self.below(domain)),
            })
            .collect();
        let values = picked.into_iter();
        match kind {
            Kind::Int32 => Arc::new(values.map(|v| v.map(|v| v as i32 - 2)).collect::<Int32Array>()),
            Kind::Int64 | Kind::Bool => Arc::new(values.map(|v| v.map(|v| v as i64 - 2)).collect::<Int64Array>()),
            Kind::Text => Arc::new(values.map(|v| v.map(|v| TEXTS[v % TEXTS.len()])).collect::<StringArray>()),
            Kind::Decimal(precision) => {
                let array: Decimal128Array = values.map(|v| v.map(|v| (v as i128 - 2) * 125)).collect();
                Arc::new(array.with_precision_and_scale(precision, 2).unwrap())
            }
            Kind::Date => Arc::new(values.map(|v| v.map(|v| 19_000 + v as i32)).collect::<Date32Array>()),
            Kind::Float => Arc::new(values.map(|v| v.map(|v| FLOATS[v % FLOATS.len()])).collect::<Float64Array>()),
            Kind::Millis => {
                Arc::new(values.map(|v| v.map(|v| v as i64 * 1_000 - 2)).collect::<TimestampMillisecondArray>())
            }
            Kind::Micros => {
                Arc::new(values.map(|v| v.map(|v| v as i64 * 1_000_000 - 2_000)).collect::<TimestampMicrosecondArray>())
            }
        }
    }
}

const TEXTS: [&str; 9] = ["a", "", "b", "ab", "A", "é", "abcdefghijklmnop", "-1", "1"];
const FLOATS: [f64; 9] = [0.0, -0.0, f64::NAN, 1.5, -2.0, f64::INFINITY, 1.0, 2.0, 0.1];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int32,
    Int64,
    Text,
    /// Of this precision, scale 2.
    Decimal(u8),
    Date,
    Float,
    Millis,
    Micros,
    Bool,
}

impl Kind {
    fn is_like(self, other: Self) -> bool {
        match self {
            Self::Int32 | Self::Int64 => matches!(other, Self::Int32 | Self::Int64),
            Self::Decimal(_) => matches!(other, Self::Decimal(_)),
            Self::Millis | Self::Micros => matches!(other, Self::Millis | Self::Micros),
            _ => self == other,
        }
    }

    fn is_summable(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::Decimal(_))
    }

    fn sql(self) -> String {
        match self {
            Self::Int32 => "INT".into(),
            Self::Int64 => "BIGINT".into(),
            Self::Text => "VARCHAR".into(),
            Self::Decimal(precision) => format!("DECIMAL({precision}, 2)"),
            Self::Date => "DATE".into(),
            Self::Float => "DOUBLE".into(),
            Self::Millis => "TIMESTAMP(3)".into(),
            Self::Micros => "TIMESTAMP(6)".into(),
            Self::Bool => "BOOLEAN".into(),
        }
    }
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
}

struct Table {
    name: String,
    columns: Vec<Column>,
    data: Vec<ArrayRef>,
}

impl Table {
    fn renamed(&self, name: &str) -> Self {
        Self { name: name.into(), columns: self.columns.clone(), data: self.data.clone() }
    }

    /// The same rows, the last first.
    fn reversed(&self) -> Self {
        let rows = self.data[0].len() as u64;
        let order: UInt64Array = (0..rows).rev().collect();
        let data = self.data.iter().map(|column| take(column, &order, None).unwrap()).collect();
        Self { name: self.name.clone(), columns: self.columns.clone(), data }
    }

    fn batch(&self) -> RecordBatch {
        let names = self.columns.iter().map(|c| c.name.as_str());
        RecordBatch::try_from_iter_with_nullable(names.zip(&self.data).map(|(n, d)| (n, Arc::clone(d), true))).unwrap()
    }

    /// Writes row groups of ten rows, so that some of them can be skipped.
    fn write(&self, path: &Path) {
        let batch = self.batch();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

/// A name in a FROM and its columns.
#[derive(Debug, Clone)]
struct Relation {
    alias: String,
    columns: Vec<Column>,
}

/// An expression or a column of a scope.
#[derive(Debug, Clone)]
struct Typed {
    sql: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Select {
    sql: String,
    columns: Vec<Column>,
}

/// Makes one query.
struct Generator<'a> {
    random: &'a mut Random,
    tables: &'a [Table],
    aliases: usize,
    ctes: Vec<Relation>,
}

impl<'a> Generator<'a> {
    fn new(random: &'a mut Random, tables: &'a [Table]) -> Self {
        Self { random, tables, aliases: 0, ctes: Vec::new() }
    }

    fn case(mut self, name: String) -> Case {
        let sql = self.statement();
        let keys = match self.random.weighted(&[60, 15, 10, 5]) {
            0 => "k".into(),
            1 => "j".into(),
            2 => "k, j".into(),
            _ => "a".into(),
        };
        let chunks = [1, 2, 3, 7, 16][self.random.weighted(&[6, 34, 34, 20, 6])];
        Case { name, sql, keys, chunks }
    }

    fn statement(&mut self) -> String {
        let mut with = String::new();
        if self.random.chance(12) {
            let query = self.query(1);
            with = format!("WITH w AS ({})\n", query.sql);
            self.ctes.push(Relation { alias: "w".into(), columns: query.columns });
        }
        let query = self.query(2);
        let mut sql = query.sql;
        let order: Vec<String> = (1..=query.columns.len()).map(|at| at.to_string()).collect();
        match self.random.weighted(&[88, 9, 3]) {
            0 => {}
            1 => sql = format!("SELECT * FROM ({sql}) AS o ORDER BY {}", order.join(", ")),
            _ => {
                let (order, limit) = (order.join(", "), 1 + self.random.below(12));
                sql = format!("SELECT * FROM ({sql}) AS o ORDER BY {order} LIMIT {limit}");
            }
        }
        format!("{with}{sql}")
    }

    fn query(&mut self, depth: usize) -> Select {
        if depth > 0 && self.random.chance(14) { self.set_operation(depth - 1) } else { self.select(depth) }
    }

    fn set_operation(&mut self, depth: usize) -> Select {
        const OPERATORS: [&str; 6] = ["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"];
        let operator = OPERATORS[self.random.weighted(&[30, 20, 20, 20, 5, 5])];
        let wanted: Vec<Column> = {
            let table = self.random.pick(self.tables);
            let count = 1 + self.random.below(table.columns.len());
            table.columns.iter().take(count).cloned().collect()
        };
        let left = self.projected(&wanted, depth);
        let right = self.projected(&wanted, depth);
        Select { sql: format!("({left}) {operator} ({right})"), columns: wanted }
    }

    /// A query with columns like `wanted`.
    fn projected(&mut self, wanted: &[Column], depth: usize) -> String {
        let (from, relations) = self.from(depth);
        let scope = columns(&relations);
        let exprs: Vec<String> = wanted
            .iter()
            .map(|column| {
                let end = format!(".{}", column.name);
                let same = scope.iter().find(|c| c.sql.ends_with(&end) && c.kind.is_like(column.kind));
                let like: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(column.kind)).collect();
                let expr = match (same, like.as_slice()) {
                    (Some(same), _) if self.random.chance(85) => same.sql.clone(),
                    (_, []) => format!("CAST(NULL AS {})", column.kind.sql()),
                    (_, like) => self.random.pick(like).sql.clone(),
                };
                format!("{expr} AS {}", column.name)
            })
            .collect();
        let distinct = if self.random.chance(10) { "DISTINCT " } else { "" };
        format!("SELECT {distinct}{} {from}{}", exprs.join(", "), self.filter(&relations, depth))
    }

    fn select(&mut self, depth: usize) -> Select {
        let (from, relations) = self.from(depth);
        let filter = self.filter(&relations, depth);
        match self.random.weighted(&[40, 30, 10, 17, 3]) {
            0 => {
                let items = self.items(&relations, depth);
                named("SELECT", items, &format!("{from}{filter}"))
            }
            1 => self.aggregate(&relations, &format!("{from}{filter}"), depth),
            2 => {
                let items = self.items(&relations, depth);
                named("SELECT DISTINCT", items, &format!("{from}{filter}"))
            }
            3 => {
                let mut items = self.columns_of(&relations, 1 + self.random.0 as usize % 3);
                for _ in 0..1 + self.random.below(2) {
                    items.push(self.window(&relations));
                }
                named("SELECT", items, &format!("{from}{filter}"))
            }
            _ => {
                let on = self.key_or_any(&relations);
                let mut items = vec![on.clone()];
                items.extend(self.columns_of(&relations, 2));
                let others = columns(&relations).into_iter().map(|c| c.sql).filter(|sql| *sql != on.sql);
                let order: Vec<String> = [on.sql.clone()].into_iter().chain(others).collect();
                let head = format!("SELECT DISTINCT ON ({})", on.sql);
                named(&head, items, &format!("{from}{filter} ORDER BY {}", order.join(", ")))
            }
        }
    }

    fn aggregate(&mut self, relations: &[Relation], rest: &str, depth: usize) -> Select {
        let mut groups: Vec<Typed> = Vec::new();
        if self.random.chance(75) {
            groups.push(self.key(relations));
        }
        for _ in 0..self.random.below(3) {
            let next = if self.random.chance(70) { self.any(relations) } else { self.expr(relations) };
            if groups.iter().all(|group| group.sql != next.sql) {
                groups.push(next);
            }
        }
        let aggregates: Vec<Typed> = (0..1 + self.random.below(3)).map(|_| self.aggregate_of(relations)).collect();
        let list: Vec<&str> = groups.iter().map(|group| group.sql.as_str()).collect();
        let mut group_by = match (list.len(), self.random.weighted(&[92, 3, 3, 2])) {
            (0, _) => String::new(),
            (_, 1) => format!(" GROUP BY ROLLUP ({})", list.join(", ")),
            (1 | 2, 2) => format!(" GROUP BY CUBE ({})", list.join(", ")),
            (2.., 3) => format!(" GROUP BY GROUPING SETS (({}), ({}))", list.join(", "), list[0]),
            _ => format!(" GROUP BY {}", list.join(", ")),
        };
        if self.random.chance(15) {
            let value = self.random.below(4);
            write!(group_by, " HAVING count(*) > {value}").unwrap();
        }
        // A correlated subquery over the groups.
        let mut items = groups.clone();
        if depth > 0 && !groups.is_empty() && self.random.chance(4) {
            let group = groups[0].clone();
            items.extend(self.scalar_subquery(&[group]));
        }
        items.extend(aggregates);
        named("SELECT", items, &format!("{rest}{group_by}"))
    }

    fn aggregate_of(&mut self, relations: &[Relation]) -> Typed {
        let of = self.any(relations);
        let x = &of.sql;
        let (call, kind) = match self.random.weighted(&[20, 12, 8, 25, 12, 12, 6, 5]) {
            0 => ("count(*)".to_string(), Kind::Int64),
            1 => (format!("count({x})"), Kind::Int64),
            2 => (format!("count(DISTINCT {x})"), Kind::Int64),
            3 if of.kind.is_summable() => (format!("CAST(sum({x}) AS {})", of.kind.sql()), of.kind),
            4 => (format!("min({x})"), of.kind),
            5 => (format!("max({x})"), of.kind),
            6 if of.kind.is_summable() => (format!("CAST(avg({x}) AS {})", of.kind.sql()), of.kind),
            7 if of.kind == Kind::Text => (format!("string_agg({x}, '-' ORDER BY {x})"), Kind::Text),
            _ => (format!("bool_or({x} IS NULL)"), Kind::Bool),
        };
        if call == "count(*)" && self.random.chance(20) {
            let filter = self.simple_predicate(relations);
            return Typed { sql: format!("count(*) FILTER (WHERE {filter})"), kind };
        }
        Typed { sql: call, kind }
    }

    fn window(&mut self, relations: &[Relation]) -> Typed {
        let mut by = Vec::new();
        if self.random.chance(85) {
            by.push(one_zero(self.key(relations)));
        }
        if self.random.chance(25) {
            by.push(one_zero(self.any(relations)));
        }
        let by = if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", by.join(", ")) };
        let total: Vec<String> = columns(relations).into_iter().map(one_zero).collect();
        let total = format!("ORDER BY {}", total.join(", "));
        let of = self.any(relations);
        let (x, some) = (&of.sql, one_zero(self.any(relations)));
        let kind = of.kind;
        let (sql, kind) = match self.random.below(10) {
            0 => (format!("row_number() OVER ({by}{total})"), Kind::Int64),
            1 => (format!("rank() OVER ({by}ORDER BY {some} DESC)"), Kind::Int64),
            2 => (format!("dense_rank() OVER ({by}ORDER BY {some} NULLS FIRST)"), Kind::Int64),
            3 => (format!("lag({x}) OVER ({by}{total})"), kind),
            4 => (format!("first_value({x}) OVER ({by}{total})"), kind),
            5 => (format!("count({x}) OVER ({by}ORDER BY {some})"), Kind::Int64),
            6 => (format!("max({x}) OVER ({by}{total} ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)"), kind),
            7 if kind.is_summable() => (format!("CAST(sum({x}) OVER ({by}) AS {})", kind.sql()), kind),
            8 => (format!("ntile(3) OVER ({by}{total})"), Kind::Int64),
            _ => (format!("count(*) OVER ({by})"), Kind::Int64),
        };
        Typed { sql, kind }
    }

    /// Relations joined; those that a semi or anti join hides are not among the returned.
    fn from(&mut self, depth: usize) -> (String, Vec<Relation>) {
        let (first, relation) = self.source(depth);
        let mut sql = format!("FROM {first}");
        let mut visible = vec![relation];
        for _ in 0..self.random.weighted(&[45, 38, 17]) {
            let (next, relation) = self.source(depth);
            let join = self.random.weighted(&[40, 20, 10, 4, 4, 6, 6, 3]);
            let using = visible.len() == 1 && self.random.chance(15);
            let (left, right) = (columns(&visible), columns(std::slice::from_ref(&relation)));
            let shares_key = [&left, &right].iter().all(|side| side.iter().any(|c| c.sql.ends_with(".k")));
            let keyword =
                ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN", ","]
                    [join];
            if matches!(keyword, "CROSS JOIN" | ",") {
                let separator = if keyword == "," { ", " } else { " CROSS JOIN " };
                write!(sql, "{separator}{next}").unwrap();
            } else if using && shares_key && join < 3 && comparable_keys(&left, &right) {
                write!(sql, " {keyword} {next} USING (k)").unwrap();
            } else {
                let on = self.join_condition(&left, &right);
                write!(sql, " {keyword} {next} ON {on}").unwrap();
            }
            if !matches!(keyword, "LEFT SEMI JOIN" | "LEFT ANTI JOIN") {
                visible.push(relation);
            }
        }
        (sql, visible)
    }

    fn source(&mut self, depth: usize) -> (String, Relation) {
        self.aliases += 1;
        let alias = format!("r{}", self.aliases);
        if !self.ctes.is_empty() && self.random.chance(50) {
            let cte = self.random.pick(&self.ctes).clone();
            return (format!("{} AS {alias}", cte.alias), Relation { alias, columns: cte.columns });
        }
        if depth > 0 && self.random.chance(22) {
            let mut query = self.query(depth - 1);
            if self.random.chance(5) {
                let order: Vec<String> = (1..=query.columns.len()).map(|at| at.to_string()).collect();
                query.sql = format!("{} ORDER BY {} LIMIT 3", wrapped(&query.sql), order.join(", "));
            }
            return (format!("({}) AS {alias}", query.sql), Relation { alias, columns: query.columns });
        }
        if self.random.chance(1) {
            let column = Column { name: "a".into(), kind: Kind::Int64 };
            return (format!("(VALUES (1), (2), (NULL)) AS {alias}(a)"), Relation { alias, columns: vec![column] });
        }
        let table = self.random.pick(self.tables);
        (format!("{} AS {alias}", table.name), Relation { alias, columns: table.columns.clone() })
    }

    fn join_condition(&mut self, left: &[Typed], right: &[Typed]) -> String {
        let mut parts = Vec::new();
        for name in [".k", ".j"] {
            let l: Vec<&Typed> = left.iter().filter(|c| c.sql.ends_with(name)).collect();
            let r: Vec<&Typed> = right.iter().filter(|c| c.sql.ends_with(name)).collect();
            if l.is_empty() || r.is_empty() || self.random.chance(if name == ".k" { 12 } else { 75 }) {
                continue;
            }
            let (l, r) = (*self.random.pick(&l), *self.random.pick(&r));
            if !l.kind.is_like(r.kind) {
                continue;
            }
            parts.push(match self.random.weighted(&[80, 6, 5, 5, 4]) {
                0 => format!("{} = {}", l.sql, r.sql),
                1 => format!("{} = {}", r.sql, l.sql),
                2 => format!("{} IS NOT DISTINCT FROM {}", l.sql, r.sql),
                3 if l.kind == Kind::Int32 => format!("CAST({} AS BIGINT) = {}", l.sql, r.sql),
                4 if matches!(l.kind, Kind::Int32 | Kind::Int64) => format!("{} = {} + 0", l.sql, r.sql),
                _ => format!("({} = {} OR {} < {})", l.sql, r.sql, l.sql, r.sql),
            });
        }
        if parts.is_empty() || self.random.chance(20) {
            let pairs: Vec<(&Typed, &Typed)> = left
                .iter()
                .flat_map(|l| right.iter().map(move |r| (l, r)))
                .filter(|(l, r)| l.kind.is_like(r.kind))
                .collect();
            if !pairs.is_empty() {
                let (l, r) = *self.random.pick(&pairs);
                let operator = ["=", "<", "<>"][self.random.weighted(&[60, 25, 15])];
                parts.push(format!("{} {operator} {}", l.sql, r.sql));
            }
        }
        if self.random.chance(12) {
            let side = if self.random.chance(50) { left } else { right };
            let column = self.random.pick(side).clone();
            parts.push(self.comparison(&column));
        }
        if parts.is_empty() { "1 = 1".into() } else { parts.join(" AND ") }
    }

    fn filter(&mut self, relations: &[Relation], depth: usize) -> String {
        let parts: Vec<String> =
            (0..self.random.weighted(&[52, 36, 12])).map(|_| self.predicate(relations, depth)).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }

    fn predicate(&mut self, relations: &[Relation], depth: usize) -> String {
        let scope = columns(relations);
        match self.random.weighted(&[45, 8, 10, 3, 9, 9, 6, 4, 6]) {
            0 => self.simple_predicate(relations),
            1 => format!("({} OR {})", self.simple_predicate(relations), self.simple_predicate(relations)),
            2 => format!("{} IN ({})", self.key(relations).sql, self.list(relations, depth)),
            3 => format!("{} NOT IN ({})", self.key(relations).sql, self.list(relations, depth)),
            4 => format!("EXISTS ({})", self.correlated("1", &scope)),
            5 => format!("NOT EXISTS ({})", self.correlated("1", &scope)),
            6 => match self.scalar_subquery(&scope) {
                Some(subquery) => {
                    let like: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(subquery.kind)).collect();
                    match like.as_slice() {
                        [] => format!("{} IS NOT NULL", subquery.sql),
                        like => format!("{} <= {}", self.random.pick(like).sql, subquery.sql),
                    }
                }
                None => self.simple_predicate(relations),
            },
            7 => {
                let of = self.any(relations);
                let table = self.random.pick(self.tables);
                match table.columns.iter().find(|c| c.kind.is_like(of.kind)) {
                    Some(column) => format!("{} >= (SELECT min({}) FROM {})", of.sql, column.name, table.name),
                    None => format!("{} IS NOT NULL", of.sql),
                }
            }
            _ => {
                let of = self.any(relations);
                let other: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(of.kind) && c.sql != of.sql).collect();
                match other.as_slice() {
                    [] => self.comparison(&of),
                    other => format!("{} = {}", of.sql, self.random.pick(other).sql),
                }
            }
        }
    }

    /// A list or subquery of values like a key's, right of IN.
    fn list(&mut self, relations: &[Relation], depth: usize) -> String {
        let key = self.key(relations);
        if self.random.chance(15) {
            return format!("{}, {}", self.literal(key.kind), self.literal(key.kind));
        }
        let scope = columns(relations);
        if self.random.chance(20) {
            return self.correlated("k", &scope);
        }
        let (from, inner) = self.from(depth.saturating_sub(1));
        let like: Vec<Typed> = columns(&inner).into_iter().filter(|c| c.kind.is_like(key.kind)).collect();
        let keys: Vec<&Typed> = like.iter().filter(|c| c.sql.ends_with(".k")).collect();
        let value = match (keys.as_slice(), like.as_slice()) {
            ([key, ..], _) => key.sql.clone(),
            (_, [first, ..]) => first.sql.clone(),
            _ => self.literal(key.kind),
        };
        format!("SELECT {value} {from}{}", self.filter(&inner, 0))
    }

    /// `SELECT what FROM a table WHERE its column = one of the scope's AND …`.
    fn correlated(&mut self, what: &str, scope: &[Typed]) -> String {
        let (source, inner) = self.source(0);
        let right = columns(std::slice::from_ref(&inner));
        let mut on = self.join_condition(&right, scope);
        if self.random.chance(40) {
            write!(on, " AND {}", self.simple_predicate(std::slice::from_ref(&inner))).unwrap();
        }
        let what = if what == "1" { "1".into() } else { format!("{}.{what}", inner.alias) };
        format!("SELECT {what} FROM {source} WHERE {on}")
    }

    fn scalar_subquery(&mut self, scope: &[Typed]) -> Option<Typed> {
        let (source, inner) = self.source(0);
        let right = columns(std::slice::from_ref(&inner));
        let pairs: Vec<(&Typed, &Typed)> = scope
            .iter()
            .flat_map(|l| right.iter().map(move |r| (l, r)))
            .filter(|(l, r)| l.kind == r.kind && l.sql.rsplit('.').next() == r.sql.rsplit('.').next())
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let (outer, own) = *self.random.pick(&pairs[..pairs.len().min(2)]);
        let aggregate = self.aggregate_of(std::slice::from_ref(&inner));
        let mut filter = format!("{} = {}", own.sql, outer.sql);
        if self.random.chance(30) {
            write!(filter, " AND {}", self.simple_predicate(std::slice::from_ref(&inner))).unwrap();
        }
        let sql = format!("(SELECT {} FROM {source} WHERE {filter})", aggregate.sql);
        Some(Typed { sql, kind: aggregate.kind })
    }

    fn simple_predicate(&mut self, relations: &[Relation]) -> String {
        let of = if self.random.chance(75) { self.any(relations) } else { self.expr(relations) };
        self.comparison(&of)
    }

    fn comparison(&mut self, of: &Typed) -> String {
        let (x, value) = (&of.sql, self.literal(of.kind));
        match self.random.weighted(&[20, 20, 15, 10, 8, 10, 5]) {
            0 => format!("{x} >= {value}"),
            1 => format!("{x} <> {value}"),
            2 => format!("{x} = {value}"),
            3 => format!("{x} IS NOT NULL"),
            4 => format!("{x} IS NULL"),
            5 => format!("{x} BETWEEN {value} AND {}", self.literal(of.kind)),
            _ => format!("NOT ({x} < {value})"),
        }
    }

    fn literal(&mut self, kind: Kind) -> String {
        let n = self.random.below(8) as i64 - 2;
        match kind {
            Kind::Int32 | Kind::Int64 => n.to_string(),
            Kind::Text => format!("'{}'", self.random.pick(&TEXTS)),
            Kind::Decimal(_) => format!("CAST({}.25 AS DECIMAL(9, 2))", n.abs()),
            Kind::Date => format!("DATE '2022-01-{:02}'", 8 + n),
            Kind::Float => format!("CAST('{:?}' AS DOUBLE)", self.random.pick(&FLOATS)),
            Kind::Millis | Kind::Micros => format!("TIMESTAMP '1970-01-01 00:00:0{}'", n + 2),
            Kind::Bool => if n > 0 { "true" } else { "false" }.into(),
        }
    }

    fn items(&mut self, relations: &[Relation], depth: usize) -> Vec<Typed> {
        let mut items = Vec::new();
        if self.random.chance(80) {
            items.push(self.key(relations));
        }
        for _ in 0..1 + self.random.below(3) {
            items.push(match self.random.weighted(&[60, 35, 5]) {
                0 => self.any(relations),
                1 => self.expr(relations),
                _ if depth > 0 => match self.scalar_subquery(&columns(relations)) {
                    Some(subquery) => subquery,
                    None => self.any(relations),
                },
                _ => self.any(relations),
            });
        }
        items
    }

    fn columns_of(&mut self, relations: &[Relation], more: usize) -> Vec<Typed> {
        let key = self.key(relations);
        let others: Vec<Typed> = (0..more).map(|_| self.any(relations)).collect();
        [key].into_iter().chain(others).collect()
    }

    fn expr(&mut self, relations: &[Relation]) -> Typed {
        let of = self.any(relations);
        let Typed { sql: x, kind } = &of;
        let (sql, kind) = match (kind, self.random.below(5)) {
            (Kind::Int32, 0) => (format!("CAST({x} AS BIGINT)"), Kind::Int64),
            (Kind::Int32 | Kind::Int64, 1) => (format!("{x} + 1"), Kind::Int64),
            (Kind::Int32 | Kind::Int64, 2) => (format!("CAST({x} AS VARCHAR)"), Kind::Text),
            (Kind::Text, 0) => (format!("upper({x})"), Kind::Text),
            (Kind::Text, 1) => (format!("{x} || 'x'"), Kind::Text),
            (Kind::Text, 2) => (format!("CAST(length({x}) AS BIGINT)"), Kind::Int64),
            (Kind::Decimal(_), 0) => (format!("CAST({x} AS DECIMAL(14, 2))"), Kind::Decimal(14)),
            (Kind::Date, 0) => (format!("CAST(date_part('day', {x}) AS INT)"), Kind::Int32),
            (_, 3) => {
                let test = self.simple_predicate(relations);
                (format!("CASE WHEN {test} THEN {x} END"), *kind)
            }
            _ => (format!("coalesce({x}, {})", self.literal(*kind)), *kind),
        };
        Typed { sql, kind }
    }

    fn any(&mut self, relations: &[Relation]) -> Typed {
        let scope = columns(relations);
        self.random.pick(&scope).clone()
    }

    /// A column named `k`, of the first relation that has one; any other column when none has.
    fn key(&mut self, relations: &[Relation]) -> Typed {
        let scope = columns(relations);
        let name = if self.random.chance(85) { ".k" } else { ".j" };
        let keys: Vec<&Typed> = scope.iter().filter(|c| c.sql.ends_with(name)).collect();
        match keys.as_slice() {
            [first, ..] if self.random.chance(75) => (*first).clone(),
            [] => self.random.pick(&scope).clone(),
            keys => (*self.random.pick(keys)).clone(),
        }
    }

    fn key_or_any(&mut self, relations: &[Relation]) -> Typed {
        if self.random.chance(80) { self.key(relations) } else { self.any(relations) }
    }
}

/// All columns of `relations`, qualified.
fn columns(relations: &[Relation]) -> Vec<Typed> {
    let of = |r: &Relation| {
        r.columns.iter().map(|c| Typed { sql: format!("{}.{}", r.alias, c.name), kind: c.kind }).collect::<Vec<_>>()
    };
    relations.iter().flat_map(of).collect()
}

/// Whether -0.0 and 0.0 are one partition of a window depends on DataFusion's plan: they are made equal first.
fn one_zero(of: Typed) -> String {
    if of.kind == Kind::Float { format!("{} + CAST(0 AS DOUBLE)", of.sql) } else { of.sql }
}

fn comparable_keys(left: &[Typed], right: &[Typed]) -> bool {
    let key = |side: &[Typed]| side.iter().find(|c| c.sql.ends_with(".k")).map(|c| c.kind);
    key(left).zip(key(right)).is_some_and(|(l, r)| l.is_like(r))
}

/// `head items rest`, every item under a name of its own: a bare column keeps its name where that is free.
fn named(head: &str, items: Vec<Typed>, rest: &str) -> Select {
    let mut columns: Vec<Column> = Vec::new();
    let mut list = Vec::new();
    for (at, Typed { sql, kind }) in items.into_iter().enumerate() {
        let bare = sql.split_once('.').filter(|(_, name)| name.len() == 1).map(|(_, name)| name.to_string());
        let name = bare.filter(|name| columns.iter().all(|c| c.name != *name)).unwrap_or_else(|| format!("x{at}"));
        list.push(format!("{sql} AS {name}"));
        columns.push(Column { name, kind });
    }
    Select { sql: format!("{head} {} {rest}", list.join(", ")), columns }
}

fn wrapped(sql: &str) -> String {
    format!("SELECT * FROM ({sql}) AS l")
}
