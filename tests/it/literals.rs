//! A constant of a query that changes is never served from the cache, however alike both constants print.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use chunkwise::{Engine, ErrorKind, Pipeline, RunOptions, Status, Task};
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::logical_expr::in_subquery;
use datafusion::prelude::{col, lit};

use crate::support::{engine, make_parquet, parquet_source, run};

/// The only value of a query of the engine, as an integer.
async fn number(engine: &Engine, query: &str) -> i64 {
    let rows = engine.query(query).await.unwrap().collect().await.unwrap();
    cast(rows[0].column(0), &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn constants_that_print_alike_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    // Whatever a constant is, the number that it is stored as.
    let cases = [
        ("arrow_cast(1, 'Date64')", 1),
        ("arrow_cast(2, 'Date64')", 2),
        ("arrow_cast(-9223372036854775807, 'Date64')", -9_223_372_036_854_775_807),
        ("arrow_cast(-9223372036854775806, 'Date64')", -9_223_372_036_854_775_806),
        ("arrow_cast(2147483647, 'Date32')", 2_147_483_647),
        ("arrow_cast(2147483646, 'Date32')", 2_147_483_646),
        ("arrow_cast(9223372036854775807, 'Timestamp(Microsecond, None)')", 9_223_372_036_854_775_807),
        ("arrow_cast(9223372036854775806, 'Timestamp(Microsecond, None)')", 9_223_372_036_854_775_806),
        ("arrow_cast(9223372036854775806, 'Duration(Nanosecond)')", 9_223_372_036_854_775_806),
        ("arrow_cast(9223372036854775805, 'Duration(Nanosecond)')", 9_223_372_036_854_775_805),
        ("CAST(9007199254740993 AS DECIMAL(38, 0))", 9_007_199_254_740_993),
        ("CAST(9007199254740992 AS DECIMAL(38, 0))", 9_007_199_254_740_992),
    ];
    for (constant, expected) in cases {
        let sql = format!("CREATE TABLE t AS SELECT arrow_cast(x, 'Int64') AS x FROM (VALUES ({constant})) AS v(x)");
        let report = run(&engine, &sql, folder.path()).await;
        assert_eq!(report.tasks[0].status, Status::Executed, "{constant}: {report:#?}");
        assert_eq!(number(&engine, "SELECT x FROM t").await, expected, "{constant}");
        assert_eq!(run(&engine, &sql, folder.path()).await.tasks[0].status, Status::Reused, "{constant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_told_apart_by_the_bits_of_floats() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    let values = "SELECT value AS k, CASE value WHEN 1 THEN CAST('NaN' AS DOUBLE) WHEN 2 THEN CAST('-NaN' AS DOUBLE)
                  WHEN 3 THEN CAST('0.0' AS DOUBLE) ELSE CAST('-0.0' AS DOUBLE) END AS x FROM generate_series(1, 4)";
    make_parquet(folder.path(), "f", values).await;
    let constants = ["'NaN'", "'-NaN'", "'0.0'", "'-0.0'"];
    let task = |(at, constant): (usize, &&str)| {
        format!(
            "CREATE TABLE kept{at} AS SELECT k FROM f WHERE x = CAST({constant} AS DOUBLE);
             CREATE TABLE cut{at} CLUSTERED BY (k) INTO 2 BUCKETS AS SELECT k FROM f WHERE x = CAST({constant} AS DOUBLE);
             CREATE TABLE over{at} CLUSTERED BY (k) INTO 2 BUCKETS AS
             SELECT k, arrow_cast(CAST({constant} AS DOUBLE), 'Utf8') AS x FROM f;"
        )
    };
    let tasks: String = constants.iter().enumerate().map(task).collect();
    let report = run(&engine, &format!("{}; {tasks}", parquet_source(folder.path(), "f")), folder.path()).await;
    let is_own = |task: &&str| report.task(task).unwrap().executed > 0;
    assert!(["kept0", "kept1", "kept2", "kept3", "cut0", "cut1", "cut2", "cut3"].iter().all(is_own), "{report:#?}");
    for (at, constant) in constants.iter().enumerate() {
        for table in ["kept", "cut"] {
            let found = number(&engine, &format!("SELECT count(*) FROM {table}{at}")).await;
            // Zeros are equal, and so are both NaNs.
            assert_eq!(found, 2, "{table} {constant}");
        }
        // Both NaNs have one text.
        let written = format!("SELECT count(*) FROM over{at} WHERE x = {constant}");
        assert_eq!(number(&engine, &written.replace("'-NaN'", "'NaN'")).await, 4, "{constant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constant_that_cannot_be_printed_is_an_error_of_its_task() {
    let folder = tempfile::tempdir().unwrap();
    for query in [
        "SELECT arrow_cast(-9223372036854775808, 'Date64') AS d",
        "SELECT * FROM (VALUES (arrow_cast(-9223372036854775807 - 1, 'Date64'))) AS v(d)",
        "SELECT max(arrow_cast(-9223372036854775808, 'Date64')) AS d FROM generate_series(1, 2)",
    ] {
        let engine = engine(&folder.path().join("cache"));
        let pipeline = chunkwise::sql::parse(&format!("CREATE TABLE t AS {query}"), "t.sql", folder.path()).unwrap();
        let report = engine.run(&pipeline, &Default::default()).await.unwrap();
        assert_eq!(report.tasks[0].error, Some(ErrorKind::Sql), "{report:#?}");
        assert!(report.tasks[0].reason.contains("DATE64"), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_tasks_are_made_of_is_in_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    make_parquet(folder.path(), "a", "SELECT value AS k, value % 3 AS g FROM generate_series(1, 30)").await;
    // DataFusion makes up names with numbers for each of these subqueries and common expressions.
    let tasks = |names: &[&str]| {
        let mut sql = format!("{};", parquet_source(folder.path(), "a"));
        for name in names {
            sql += &format!(
                "CREATE TABLE {name} CLUSTERED BY (k) INTO 2 BUCKETS AS
                 SELECT k, (g + k) * (g + k) AS x, (SELECT count(*) FROM a b WHERE b.g = a.g) AS n FROM a
                 WHERE k IN (SELECT k FROM a WHERE g < 2) OR EXISTS (SELECT 1 FROM a c WHERE c.k = a.k + 1 AND c.g > 0);
                 CREATE TABLE {name}_too AS WITH RECURSIVE r AS
                 (SELECT 1 AS d UNION ALL SELECT d + 1 FROM r WHERE d < (SELECT max(g) FROM a))
                 SELECT d, (SELECT min(k) FROM a WHERE g = d) AS k FROM r;"
            );
        }
        sql
    };
    let in_rust = || {
        Task::dataframe("m_in_rust", ["a"], |inputs| {
            let few = inputs.table("a")?.filter(col("g").lt(lit(2)))?.select(vec![col("k")])?;
            let few = in_subquery(col("k"), Arc::new(few.into_unoptimized_plan()));
            inputs.table("a")?.filter(few)?.select(vec![col("k"), make_array(vec![lit(1), lit(2)]).alias("both")])
        })
    };
    let mut reports = Vec::new();
    for names in [&["m"][..], &["a_first", "m", "z_last"]] {
        let definitions = chunkwise::sql::definitions(&tasks(names), "test.sql", folder.path()).unwrap();
        let pipeline = Pipeline::builder().with(definitions).with(in_rust()).build().unwrap();
        let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
        assert!(report.succeeded(), "{report:#?}");
        reports.push(report);
    }
    let status = |task: &str| reports[1].task(task).unwrap().status;
    for task in ["m", "m_too", "m_in_rust"] {
        assert_eq!(status(task), Status::Reused, "{task}: {:#?}", reports[1]);
    }
}
