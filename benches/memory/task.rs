//! What is measured: a join that doesn't reduce much, and a window over everything.

/// A query over TPC-H's `lineitem` and `orders`.
#[derive(Debug)]
pub struct Task {
    /// Its name, for `--tasks` and in what is written.
    pub name: &'static str,
    /// The query, which all systems understand.
    pub query: &'static str,
    /// The column that it is cut by when N is given.
    pub key: &'static str,
    /// The output's columns in the types that all systems' answers are compared in, whatever a system's own are.
    pub compared: &'static str,
}

/// All tasks.
pub const TASKS: [Task; 2] = [
    Task {
        name: "join",
        query: "SELECT o_orderkey, max(o_orderdate) AS ordered, sum(l_extendedprice) AS price, \
                max(l_shipdate) AS shipped, string_agg(l_comment, '|') AS comments \
                FROM lineitem JOIN orders ON l_orderkey = o_orderkey GROUP BY o_orderkey",
        key: "o_orderkey",
        // An order's comments come in any order; none has a `|` in it.
        compared: "CAST(o_orderkey AS BIGINT), CAST(ordered AS DATE), CAST(price AS DECIMAL(38, 2)), \
                   CAST(shipped AS DATE), \
                   array_to_string(array_sort(string_to_array(CAST(comments AS VARCHAR), '|')), '|')",
    },
    Task {
        name: "window",
        query: "SELECT l_partkey, l_orderkey, l_linenumber, \
                sum(l_quantity) OVER (PARTITION BY l_partkey ORDER BY l_orderkey, l_linenumber \
                ROWS UNBOUNDED PRECEDING) AS quantity, \
                lag(l_extendedprice) OVER (PARTITION BY l_partkey ORDER BY l_orderkey, l_linenumber) AS price_before \
                FROM lineitem",
        key: "l_partkey",
        compared: "CAST(l_partkey AS BIGINT), CAST(l_orderkey AS BIGINT), CAST(l_linenumber AS BIGINT), \
                   CAST(quantity AS DECIMAL(38, 2)), CAST(price_before AS DECIMAL(38, 2))",
    },
];

/// The tables that tasks read; the data folder has `<table>.parquet` of each.
pub const TABLES: [&str; 2] = ["lineitem", "orders"];

/// The task of this name.
pub fn task(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name)
}
