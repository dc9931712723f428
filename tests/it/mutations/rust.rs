//! Edits of tasks that are Rust: parameters, options, hooks and functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chunkwise::testing::Planning;
use chunkwise::{
    DematerializationHook, InputPlan, MaterializationHook, Pipeline, Task, TaskOptions, UserFunction, async_trait,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan, Volatility, create_udf};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};

use super::corpus::{SOURCES, inputs};

/// Looks at nothing.
#[derive(Debug)]
struct Idle(&'static str, &'static str);

impl DematerializationHook for Idle {
    fn name(&self) -> &str {
        self.0
    }

    fn version(&self) -> &str {
        self.1
    }

    fn rewrite(&self, input: InputPlan<'_>) -> Result<LogicalPlan> {
        Ok(input.plan().clone())
    }
}

#[async_trait]
impl MaterializationHook for Idle {
    fn name(&self) -> &str {
        self.0
    }

    fn version(&self) -> &str {
        self.1
    }
}

fn function(version: &str) -> UserFunction {
    let same = |args: &[ColumnarValue]| Ok(args[0].clone());
    let udf = create_udf("same", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(same));
    UserFunction::scalar(udf, version)
}

fn task(query: &str) -> Task {
    chunkwise::sql::task("task", query).unwrap()
}

fn names(task: Task, version: &str) -> Vec<String> {
    let sources = chunkwise::sql::definitions(SOURCES, "t.sql", std::path::Path::new("/")).unwrap();
    let pipeline = Pipeline::builder().with(sources).with(function(version)).with(task).build().unwrap();
    let names = Planning::new(&pipeline, "task", &inputs()).unwrap().names().unwrap();
    names.iter().map(ToString::to_string).collect()
}

/// Values that are all another, some of which print alike.
fn values() -> Vec<ScalarValue> {
    let zone = |zone: &str| Some(Arc::from(zone));
    let mut values = vec![
        ScalarValue::Null,
        ScalarValue::Boolean(Some(true)),
        ScalarValue::Boolean(Some(false)),
        ScalarValue::Int32(Some(1)),
        ScalarValue::Int64(Some(1)),
        ScalarValue::Int64(Some(2)),
        ScalarValue::Int64(None),
        ScalarValue::from(""),
        ScalarValue::from("1"),
        ScalarValue::Utf8View(Some("1".into())),
        ScalarValue::Date32(Some(1)),
        ScalarValue::Date64(Some(1)),
        ScalarValue::Date64(Some(2)),
        ScalarValue::TimestampMicrosecond(Some(1), None),
        ScalarValue::TimestampMicrosecond(Some(1), zone("UTC")),
        ScalarValue::TimestampMicrosecond(Some(1), zone("+00:00")),
        ScalarValue::Decimal128(Some(10), 10, 1),
        ScalarValue::Decimal128(Some(100), 10, 2),
    ];
    values.extend([f64::NAN, -f64::NAN, 0.0, -0.0, 1.0, f64::MIN_POSITIVE].map(ScalarValue::from));
    values
}

#[test]
fn whatever_is_edited_in_a_task_of_rust_gets_other_names() {
    let mut all = BTreeMap::new();
    let mut add = |what: String, task: Task, version: &str| {
        let first = all.insert(names(task, version), what.clone());
        assert_eq!(first, None, "has the names of {what}");
    };
    for value in values() {
        let query = "SELECT k, coalesce($a, $a) AS a, $b AS b FROM t";
        for other in ["b", "c"] {
            let task = task(query).parameter("a", value.clone()).parameter("b", ScalarValue::from(other));
            add(format!("parameters {value:?} {other}"), task, "1");
        }
    }
    let query = "SELECT k, same(v) AS v FROM t";
    add("a function".into(), task(query), "1");
    add("a function of another version".into(), task(query), "2");
    add("a parameter that nobody reads".into(), task(query).parameter("a", 1_i64), "1");
    add("another value of it".into(), task(query).parameter("a", 2_i64), "1");
    let query = "SELECT k, v FROM t";
    let level = |level| Compression::ZSTD(ZstdLevel::try_new(level).unwrap());
    let gzip = |level| Compression::GZIP(GzipLevel::try_new(level).unwrap());
    let brotli = |level| Compression::BROTLI(BrotliLevel::try_new(level).unwrap());
    let codecs = [level(1), level(2), level(3), gzip(1), gzip(2), brotli(1), brotli(2), Compression::SNAPPY];
    for compression in codecs.into_iter().chain([Compression::LZ4_RAW, Compression::UNCOMPRESSED]) {
        add(
            format!("{compression:?}"),
            task(query).options(TaskOptions { compression, ..TaskOptions::default() }),
            "1",
        );
    }
    for version in ["", "1", "None", "2"] {
        let options = TaskOptions { version: Some(version.into()), ..TaskOptions::default() };
        add(format!("version {version:?}"), task(query).options(options), "1");
    }
    for row_group_rows in [1, 2, 1 << 19, (1 << 20) + 1] {
        let options = TaskOptions { row_group_rows, ..TaskOptions::default() };
        add(format!("{row_group_rows} rows"), task(query).options(options), "1");
    }
    for (name, version) in [("a", "1"), ("a", "2"), ("b", "1"), ("a 1", "")] {
        add(format!("hook {name} {version} of t"), task(query).dematerialize("t", Idle(name, version)), "1");
        add(format!("hook {name} {version} of rows"), task(query).materialize(Idle(name, version)), "1");
        let twice = task(query).dematerialize("t", Idle(name, version)).dematerialize("t", Idle("z", "1"));
        add(format!("hooks {name} {version} and z"), twice, "1");
        let turned = task(query).dematerialize("t", Idle("z", "1")).dematerialize("t", Idle(name, version));
        add(format!("hooks z and {name} {version}"), turned, "1");
    }
    println!("tasks of Rust: edits {}, all of other names", all.len());
}
