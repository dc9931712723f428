//! `CREATE TABLE … AS` → a task.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlparser::ast::{
    ClusteredBy, CreateTable, CreateTableOptions, HiveDistributionStyle, HiveFormat, HiveIOFormat, SqlOption, Value,
};

use crate::chunk::{ChunkBy, Chunking, MAX_CHUNKS};
use crate::error::{Error, Result};
use crate::sql::options::{WithOptions, task_options};
use crate::sql::tokens::Statement;
use crate::sql::{checked, name};
use crate::task::{Task, TaskQuery};

/// The task that `create` defines.
///
/// # Errors
/// At its place: a table without a query, a clause without meaning here, an option or key that can't be.
pub(crate) fn task(statement: &Statement<'_>, mut create: CreateTable) -> Result<Task> {
    let name = name::published(statement, &create.name)?;
    let named = |error: Error| error.with_task(&name);
    let query = create.query.take();
    let clustered_by = create.clustered_by.take();
    let options = match std::mem::take(&mut create.table_options) {
        CreateTableOptions::With(options) => options,
        other => {
            create.table_options = other;
            Vec::new()
        }
    };
    refuse_other_clauses(statement, create).map_err(named)?;
    let Some(mut query) = query else {
        let message = "a table needs the query that it is made of; write AS and a SELECT, \
                       or CREATE EXTERNAL TABLE for files";
        return Err(named(statement.error(statement.end(), message)));
    };
    let keys_location = clustered_by.as_ref().map(|_| statement.after("CLUSTERED BY", 1));
    let chunking = clustered_by.map(|clustered| chunking(statement, &clustered)).transpose().map_err(named)?;
    let WithOptions { task: options, chunking: found, read_by, stage } =
        task_options(statement, &options, chunking.is_some()).map_err(named)?;
    let chunking = chunking.or(found);
    let reads = checked(statement, &mut query).map_err(named)?;
    let task = Task::new(name, TaskQuery::Sql(Arc::from(query)), reads, statement.start());
    Ok(Task { chunking, options, read_by, stage, keys_location, ..task })
}

fn chunking(statement: &Statement<'_>, clustered: &ClusteredBy) -> Result<Chunking> {
    let ClusteredBy { columns, sorted_by, num_buckets } = clustered;
    if sorted_by.is_some() {
        return Err(statement.refuse("SORTED BY", "write ORDER BY in the query, or remove it"));
    }
    let mut keys = Vec::with_capacity(columns.len());
    let mut seen = BTreeSet::new();
    for (at, column) in columns.iter().enumerate() {
        let key = name::normalised(column);
        let refuse = |message: String| Err(statement.error(statement.after("CLUSTERED BY", at + 1), message));
        if key.is_empty() || column.quote_style == Some('\'') {
            return refuse("a key is the name of a column; write it bare or in double quotes".into());
        }
        if !seen.insert(key.clone()) {
            return refuse(format!("key `{key}` stands twice; remove one of them"));
        }
        keys.push(key);
    }
    let chunks = match num_buckets {
        Value::Number(digits, _) => digits.parse().ok().filter(|chunks| (1..=MAX_CHUNKS).contains(chunks)),
        _ => None,
    };
    match chunks {
        Some(chunks) => Ok(Chunking { keys, chunks, by: ChunkBy::Hash }),
        None => {
            let message = format!("can't make {num_buckets} chunks; write a whole number from 1 to {MAX_CHUNKS}");
            Err(statement.error(statement.after("INTO", 1), message))
        }
    }
}

/// Refuses what is set of all clauses but the name, the query, `CLUSTERED BY` and `WITH`.
fn refuse_other_clauses(statement: &Statement<'_>, create: CreateTable) -> Result<()> {
    // Every field is named, so that a clause of a later sqlparser is refused or read, but never ignored.
    let CreateTable {
        or_replace,
        temporary,
        external,
        dynamic,
        global,
        if_not_exists,
        transient,
        volatile,
        iceberg,
        snapshot,
        name: _,
        columns,
        constraints,
        hive_distribution,
        hive_formats,
        table_options,
        file_format,
        location,
        query: _,
        without_rowid,
        like,
        clone,
        version,
        comment,
        on_commit,
        on_cluster,
        primary_key,
        order_by,
        partition_by,
        cluster_by,
        clustered_by: _,
        inherits,
        partition_of,
        for_values,
        strict,
        copy_grants,
        enable_schema_evolution,
        change_tracking,
        data_retention_time_in_days,
        max_data_extension_time_in_days,
        default_ddl_collation,
        with_aggregation_policy,
        with_row_access_policy,
        with_storage_lifecycle_policy,
        with_tags,
        external_volume,
        base_location,
        catalog,
        catalog_sync,
        storage_serialization_policy,
        target_lag,
        warehouse,
        refresh_mode,
        initialize,
        require_user,
        diststyle,
        distkey,
        sortkey,
        backup,
    } = create;
    if external {
        let message =
            "can't read this EXTERNAL table; write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'";
        return Err(statement.error(statement.clause("EXTERNAL"), message));
    }
    if let Some(column) = columns.first() {
        let message = "column definitions have no meaning here; the query decides: write CAST and AS in it";
        return Err(statement.error(statement.place(column.name.span), message));
    }
    if !constraints.is_empty() {
        let message = "constraints have no meaning here; they are not checked, so remove them";
        return Err(statement.error(statement.first_parenthesis(), message));
    }
    let hive = hive_formats.unwrap_or_default();
    let HiveFormat { row_format, serde_properties, storage, location: hive_location } = hive;
    let (is_using, is_stored_as) = match &storage {
        Some(HiveIOFormat::Using { .. }) => (true, false),
        Some(_) => (false, true),
        None => (false, false),
    };
    let plain = match &table_options {
        CreateTableOptions::Plain(options) => options.first().map(first_word),
        _ => None,
    };
    let once = "a name is defined once, so remove it";
    let cut = "cut the task with CLUSTERED BY (columns) INTO n BUCKETS";
    let stored = "a task's table is stored as Parquet in the cache, so remove it";
    let other = "remove it";
    let refused = [
        (or_replace, "OR REPLACE", once),
        (if_not_exists, "IF NOT EXISTS", once),
        (temporary && !statement.has("TEMPORARY"), "TEMP", "a query that is not stored is a CREATE VIEW"),
        (temporary, "TEMPORARY", "a query that is not stored is a CREATE VIEW"),
        (global == Some(true), "GLOBAL", other),
        (global == Some(false), "LOCAL", other),
        (transient, "TRANSIENT", other),
        (volatile, "VOLATILE", other),
        (dynamic, "DYNAMIC", other),
        (iceberg, "ICEBERG", stored),
        (snapshot, "SNAPSHOT", other),
        (hive_distribution != HiveDistributionStyle::NONE, "PARTITIONED BY", cut),
        (row_format.is_some(), "ROW FORMAT", stored),
        (serde_properties.is_some(), "WITH SERDEPROPERTIES", stored),
        (is_using, "USING", stored),
        (is_stored_as || file_format.is_some(), "STORED AS", stored),
        (hive_location.is_some() || location.is_some(), "LOCATION", stored),
        (matches!(table_options, CreateTableOptions::Options(_)), "OPTIONS", "write WITH (option = value)"),
        (
            matches!(table_options, CreateTableOptions::TableProperties(_)),
            "TBLPROPERTIES",
            "write WITH (option = value)",
        ),
        (plain.is_some(), plain.as_deref().unwrap_or_default(), other),
        (comment.is_some(), "COMMENT", "write it as an SQL comment"),
        (without_rowid, "WITHOUT ROWID", other),
        (like.is_some(), "LIKE", "write AS SELECT * FROM the table"),
        (clone.is_some(), "CLONE", "write AS SELECT * FROM the table"),
        (version.is_some(), "VERSION", other),
        (on_commit.is_some(), "ON COMMIT", other),
        (on_cluster.is_some(), "ON CLUSTER", other),
        (primary_key.is_some(), "PRIMARY KEY", other),
        (order_by.is_some(), "ORDER BY", "write ORDER BY in the query, or remove it"),
        (partition_by.is_some(), "PARTITION BY", cut),
        (cluster_by.is_some(), "CLUSTER BY", cut),
        (inherits.is_some(), "INHERITS", other),
        (partition_of.is_some() || for_values.is_some(), "PARTITION OF", other),
        (strict, "STRICT", other),
        (copy_grants, "COPY GRANTS", other),
        (enable_schema_evolution.is_some(), "ENABLE_SCHEMA_EVOLUTION", other),
        (change_tracking.is_some(), "CHANGE_TRACKING", other),
        (data_retention_time_in_days.is_some(), "DATA_RETENTION_TIME_IN_DAYS", other),
        (max_data_extension_time_in_days.is_some(), "MAX_DATA_EXTENSION_TIME_IN_DAYS", other),
        (default_ddl_collation.is_some(), "DEFAULT_DDL_COLLATION", other),
        (with_aggregation_policy.is_some(), "WITH AGGREGATION POLICY", other),
        (with_row_access_policy.is_some(), "WITH ROW ACCESS POLICY", other),
        (with_storage_lifecycle_policy.is_some(), "WITH STORAGE LIFECYCLE POLICY", other),
        (with_tags.is_some(), "WITH TAG", other),
        (external_volume.is_some(), "EXTERNAL_VOLUME", other),
        (base_location.is_some(), "BASE_LOCATION", other),
        (catalog.is_some(), "CATALOG", other),
        (catalog_sync.is_some(), "CATALOG_SYNC", other),
        (storage_serialization_policy.is_some(), "STORAGE_SERIALIZATION_POLICY", other),
        (target_lag.is_some(), "TARGET_LAG", other),
        (warehouse.is_some(), "WAREHOUSE", other),
        (refresh_mode.is_some(), "REFRESH_MODE", other),
        (initialize.is_some(), "INITIALIZE", other),
        (require_user, "REQUIRE USER", other),
        (diststyle.is_some(), "DISTSTYLE", other),
        (distkey.is_some(), "DISTKEY", other),
        (sortkey.is_some(), "SORTKEY", other),
        (backup.is_some(), "BACKUP", other),
    ];
    match refused.iter().find(|(is_set, ..)| *is_set) {
        Some((_, clause, advice)) => Err(statement.refuse(clause, advice)),
        None => Ok(()),
    }
}

/// The keyword that an option without `WITH` begins with.
fn first_word(option: &SqlOption) -> String {
    option.to_string().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::chunk::{ChunkBy, Chunking};
    use crate::error::Location;
    use crate::sql::parse_items;
    use crate::sql::tests::{assert_refused, task};
    use crate::task::{TaskOptions, TaskQuery};

    #[test]
    fn a_task_has_a_name_a_query_and_reads() {
        let task = task("\n create table My_Task as select a.x from Orders a join \"Items\" using (k)");
        assert_eq!(task.name, "my_task");
        let TaskQuery::Sql(query) = &task.query else { panic!("no SQL") };
        assert_eq!(query.to_string(), "SELECT a.x FROM Orders a JOIN \"Items\" USING(k)");
        assert_eq!(task.reads.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["Items", "orders"]);
        assert_eq!((task.chunking, task.keys_location, task.options), (None, None, TaskOptions::default()));
        assert_eq!(task.location, Location::new("f.sql", 2, 2));
    }

    #[test]
    fn names_keep_their_case_and_hyphens_in_quotes() {
        for (written, name) in [("T1", "t1"), ("\"T1\"", "T1"), ("\"a-b_C\"", "a-b_C"), ("`x`", "x")] {
            assert_eq!(task(&format!("CREATE TABLE {written} AS SELECT 1")).name, name);
        }
    }

    #[test]
    fn keys_and_chunks_come_from_clustered_by() {
        let task = task("CREATE TABLE t CLUSTERED BY\n (A, \"B\") INTO 4096 BUCKETS AS SELECT 1");
        assert_eq!(
            task.chunking,
            Some(Chunking { keys: vec!["a".into(), "B".into()], chunks: 4096, by: ChunkBy::Hash })
        );
        assert_eq!(task.keys_location, Some(Location::new("f.sql", 2, 3)));
    }

    #[test]
    fn queries_are_datafusion_sql() {
        for query in [
            "SELECT a::INT, count(*) FILTER (WHERE a > 1), INTERVAL '1 day' FROM t GROUP BY ALL",
            "SELECT *, rank() OVER (ORDER BY a) AS r FROM t QUALIFY r = 1",
            "SELECT * EXCLUDE (a) FROM t WHERE b IS DISTINCT FROM c",
            "(SELECT 1) UNION ALL BY NAME SELECT 2 ORDER BY 1 LIMIT 3",
            "FROM t",
            "VALUES (1, 'a'), (2, 'b')",
            "SELECT [1, 2][1], {'a': 1}, date '2020-01-01' FROM t",
            "SELECT * FROM t LEFT ANTI JOIN u USING (a)",
        ] {
            task(&format!("CREATE TABLE x AS {query}"));
        }
    }

    #[test]
    fn keys_and_chunks_that_can_not_be_are_refused_where_they_stand() {
        let columns = "the columns by their names alone";
        assert_refused(&[
            ("CREATE TABLE t CLUSTERED BY (a.b) INTO 4 BUCKETS AS SELECT 1", "1:31", columns),
            ("CREATE TABLE t CLUSTERED BY\n (lower(a)) INTO 4 BUCKETS AS SELECT 1", "2:8", columns),
            ("CREATE TABLE t CLUSTERED BY (a + 1) INTO 4 BUCKETS AS SELECT 1", "1:32", columns),
            ("CREATE TABLE t CLUSTERED BY () INTO 4 BUCKETS AS SELECT 1", "1:30", columns),
            ("CREATE TABLE t CLUSTERED BY a INTO 4 BUCKETS AS SELECT 1", "1:29", columns),
            ("CREATE TABLE t CLUSTERED BY (a, 'b') INTO 4 BUCKETS AS SELECT 1", "1:33", "bare or in double quotes"),
            ("CREATE TABLE t CLUSTERED BY (a, b, A) INTO 4 BUCKETS AS SELECT 1", "1:36", "key `a` stands twice"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO\n 0 BUCKETS AS SELECT 1", "2:2", "whole number from 1 to 4096"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO 4097 BUCKETS AS SELECT 1", "1:38", "can't make 4097 chunks"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO 1.5 BUCKETS AS SELECT 1", "1:38", "can't make 1.5 chunks"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO -1 BUCKETS AS SELECT 1", "1:38", "INTO n BUCKETS"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO n BUCKETS AS SELECT 1", "1:38", "INTO n BUCKETS"),
            ("CREATE TABLE t CLUSTERED BY (a) INTO 9999999999999 BUCKETS AS SELECT 1", "1:38", "can't make"),
            ("CREATE TABLE t CLUSTERED BY (a) AS SELECT 1", "1:33", "INTO n BUCKETS"),
            ("CREATE TABLE t CLUSTERED BY (a)\nSORTED BY (b) INTO 4 BUCKETS AS SELECT 1", "2:1", "write ORDER BY in"),
        ]);
    }

    #[test]
    fn names_that_can_not_be_a_folder_are_refused() {
        assert_refused(&[
            ("CREATE TABLE a.b AS SELECT 1", "1:14", "`a.b` is qualified"),
            ("CREATE TABLE\n \"a b\" AS SELECT 1", "2:2", "use ASCII letters, digits, `_` and `-` only"),
            ("CREATE TABLE \"../a\" AS SELECT 1", "1:14", "use ASCII letters"),
            ("CREATE TABLE \"a.b\" AS SELECT 1", "1:14", "use ASCII letters"),
            ("CREATE TABLE tür AS SELECT 1", "1:14", "use ASCII letters"),
            ("CREATE TABLE \"\" AS SELECT 1", "1:14", "the name is empty"),
        ]);
    }

    #[test]
    fn other_clauses_of_a_table_are_refused_where_they_stand() {
        assert_refused(&[
            ("CREATE TABLE t", "1:15", "write AS and a SELECT"),
            ("CREATE TABLE t;", "1:15", "write AS and a SELECT"),
            ("CREATE TABLE t (a INT)", "1:17", "column definitions have no meaning"),
            ("CREATE TABLE t\n (a INT) AS SELECT 1", "2:3", "column definitions have no meaning"),
            ("CREATE TABLE t (PRIMARY KEY (a)) AS SELECT 1", "1:16", "constraints have no meaning"),
            ("CREATE OR REPLACE TABLE t AS SELECT 1", "1:8", "OR REPLACE has no meaning"),
            ("CREATE TEMP TABLE t AS SELECT 1", "1:8", "TEMP has no meaning"),
            ("CREATE GLOBAL TEMPORARY TABLE t AS SELECT 1", "1:15", "TEMPORARY has no meaning"),
            ("CREATE GLOBAL TABLE t AS SELECT 1", "1:8", "GLOBAL has no meaning"),
            ("CREATE LOCAL TABLE t AS SELECT 1", "1:8", "LOCAL has no meaning"),
            ("CREATE TRANSIENT TABLE t AS SELECT 1", "1:8", "TRANSIENT has no meaning"),
            ("CREATE SNAPSHOT TABLE t CLONE u", "1:8", "SNAPSHOT has no meaning"),
            ("CREATE TABLE IF NOT EXISTS t AS SELECT 1", "1:14", "IF NOT EXISTS has no meaning"),
            ("CREATE TABLE t COMMENT 'x' AS SELECT 1", "1:16", "COMMENT has no meaning"),
            ("CREATE TABLE t ENGINE = InnoDB AS SELECT 1", "1:16", "ENGINE has no meaning"),
            ("CREATE TABLE t ORDER BY a AS SELECT 1", "1:16", "ORDER BY has no meaning"),
            ("CREATE TABLE t PARTITION BY a AS SELECT 1", "1:16", "PARTITION BY has no meaning"),
            ("CREATE TABLE t PARTITIONED BY (a INT) AS SELECT 1", "1:16", "PARTITIONED BY has no meaning"),
            ("CREATE TABLE t CLUSTER BY a AS SELECT 1", "1:16", "CLUSTER BY has no meaning"),
            ("CREATE TABLE t STORED AS PARQUET AS SELECT 1", "1:16", "STORED AS has no meaning"),
            ("CREATE TABLE t USING parquet AS SELECT 1", "1:16", "expected the end of the statement, found USING"),
            ("CREATE TABLE t LOCATION 'x' AS SELECT 1", "1:16", "LOCATION has no meaning"),
            ("CREATE TABLE t ROW FORMAT DELIMITED AS SELECT 1", "1:16", "ROW FORMAT has no meaning"),
            ("CREATE TABLE t WITH SERDEPROPERTIES ('a' = 'b') AS SELECT 1", "1:16", "WITH SERDEPROPERTIES has no"),
            ("CREATE TABLE t TBLPROPERTIES ('a' = 'b') AS SELECT 1", "1:16", "write WITH (option = value)"),
            ("CREATE TABLE t OPTIONS (a = 1) AS SELECT 1", "1:16", "write WITH (option = value)"),
            ("CREATE TABLE t LIKE u", "1:16", "LIKE has no meaning"),
            ("CREATE TABLE t CLONE u", "1:16", "CLONE has no meaning"),
            ("CREATE TABLE t ON COMMIT DROP AS SELECT 1", "1:16", "ON COMMIT has no meaning"),
            ("CREATE TABLE t ON CLUSTER c AS SELECT 1", "1:16", "ON CLUSTER has no meaning"),
            ("CREATE TABLE t STRICT AS SELECT 1", "1:16", "STRICT has no meaning"),
            ("CREATE TABLE t WITHOUT ROWID AS SELECT 1", "1:16", "WITHOUT ROWID has no meaning"),
            ("CREATE TABLE t INHERITS (u) AS SELECT 1", "1:16", "INHERITS has no meaning"),
            ("CREATE TABLE t PRIMARY KEY a AS SELECT 1", "1:16", "PRIMARY KEY has no meaning"),
            ("CREATE TABLE t PARTITION OF u DEFAULT AS SELECT 1", "1:16", "PARTITION OF has no meaning"),
            ("CREATE TABLE t BACKUP NO AS SELECT 1", "1:16", "BACKUP has no meaning"),
            ("CREATE TABLE t DISTSTYLE ALL AS SELECT 1", "1:16", "DISTSTYLE has no meaning"),
            ("CREATE TABLE t DISTKEY (a) AS SELECT 1", "1:16", "DISTKEY has no meaning"),
            ("CREATE TABLE t SORTKEY (a) AS SELECT 1", "1:16", "SORTKEY has no meaning"),
            ("CREATE TABLE t AS INSERT INTO u SELECT 1", "1:1", "a query only reads; write a SELECT"),
        ]);
    }

    #[test]
    fn errors_name_the_task() {
        let error =
            parse_items("CREATE OR REPLACE TABLE T AS SELECT 1", "f.sql", Path::new("/w")).expect_err("refused");
        assert_eq!(error.task(), Some("t"));
    }
}
