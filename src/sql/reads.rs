//! Which tables a query reads, and where it names each first.
//!
//! As DataFusion plans it: a CTE hides the table of its name in the rest of its `WITH`, in the query below and in all
//! queries inside, but not in its own text (there it is the table), unless it is a recursive `UNION`, in whose second
//! half it is itself. A name with arguments is a table function, not a table. DataFusion's
//! `resolve_table_references` takes table functions for tables and hides the later CTEs of a `WITH RECURSIVE`
//! from the earlier ones, so that a dependency could be missed: hence a visitor of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, SetExpr, SetOperator, TableFactor, Visit, Visitor, With};

use crate::error::{Error, Location, Result};
use crate::sql::name::{normalised, place, qualified, unqualified};
use crate::sql::tokens::Statement;
use crate::task::TableRead;

/// The tables, views and tasks that `query`, a part of `statement`, reads. Its clauses were looked at.
///
/// # Errors
/// At its place: a qualified name, and a recursive CTE whose query DataFusion would not read to the end.
pub(crate) fn reads(statement: &Statement<'_>, query: &Query) -> Result<BTreeSet<TableRead>> {
    let mut reader = Reader { statement, reads: BTreeMap::new(), scopes: Vec::new(), is_function: false };
    match query.visit(&mut reader) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => {
            Ok(reader.reads.into_iter().map(|(name, location)| TableRead { name, location }).collect())
        }
    }
}

struct Reader<'a> {
    statement: &'a Statement<'a>,
    reads: BTreeMap<String, Location>,
    /// One per query around the visited place, outermost first.
    scopes: Vec<Scope>,
    /// Whether the next relation is the name of a table function.
    is_function: bool,
}

/// The CTEs of one query's `WITH`.
struct Scope {
    ctes: Vec<Binding>,
    /// How many of them, from the first, are known at the visited place.
    known: usize,
}

struct Binding {
    name: String,
    /// Identifies the CTE's query among those that the visitor enters; never followed.
    query: *const Query,
    is_recursive: bool,
}

impl Visitor for Reader<'_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if let Some(at) = self.cte(query) {
            self.know(at);
            if self.is_recursive(at)
                && let SetExpr::SetOperation { op: SetOperator::Union, left, .. } = query.body.as_ref()
            {
                if let Some(with) = &query.with {
                    let message = "the query of a recursive CTE can't have a WITH of its own; \
                                   move its CTEs before the recursive one";
                    let place = self.statement.place(with.with_token.0.span);
                    return ControlFlow::Break(Box::new(self.statement.error(place, message)));
                }
                left.visit(self)?;
                self.know(at + 1);
            }
        }
        let ctes: Vec<_> = query.with.iter().flat_map(Binding::all).collect();
        self.scopes.push(Scope { known: ctes.len(), ctes });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.scopes.pop();
        if self.cte(query).is_some() {
            self.know(usize::MAX);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        self.is_function = match factor {
            TableFactor::Table { args, .. } => args.is_some(),
            TableFactor::Function { .. } => true,
            _ => false,
        };
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Self::Break> {
        if std::mem::take(&mut self.is_function) {
            return ControlFlow::Continue(());
        }
        let at = place(self.statement, name);
        let Some(ident) = unqualified(name) else {
            return ControlFlow::Break(Box::new(self.statement.error(at, qualified(name))));
        };
        if ident.quote_style == Some('\'') {
            let message = "a string is not a table; declare the files with CREATE EXTERNAL TABLE and read that by name";
            return ControlFlow::Break(Box::new(self.statement.error(self.statement.string(&ident.value), message)));
        }
        let name = normalised(ident);
        let is_cte = self.scopes.iter().flat_map(|s| s.ctes.iter().take(s.known)).any(|cte| cte.name == name);
        if !is_cte {
            let first = self.reads.entry(name).or_insert_with(|| at.clone());
            if at < *first {
                *first = at;
            }
        }
        ControlFlow::Continue(())
    }
}

impl Reader<'_> {
    /// The position of `query` in the innermost `WITH`, if it is a CTE of that.
    fn cte(&self, query: &Query) -> Option<usize> {
        self.scopes.last()?.ctes.iter().position(|cte| std::ptr::eq(cte.query, query))
    }

    fn is_recursive(&self, at: usize) -> bool {
        self.scopes.last().is_some_and(|scope| scope.ctes[at].is_recursive)
    }

    /// From here on, the first `count` CTEs of the innermost `WITH` are known.
    fn know(&mut self, count: usize) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.known = count;
        }
    }
}

impl Binding {
    fn all(with: &With) -> impl Iterator<Item = Self> {
        with.cte_tables.iter().map(|cte| Self {
            name: normalised(&cte.alias.name),
            query: std::ptr::from_ref(cte.query.as_ref()),
            is_recursive: with.recursive,
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
    use datafusion::sql::resolve::resolve_table_references;

    use crate::sql::tests::{assert_refused, task};

    /// `name@line:column` of each read of `query`, which begins in line 2.
    fn reads(query: &str) -> Vec<String> {
        let task = task(&format!("CREATE TABLE x AS\n{query}"));
        task.reads.iter().map(|r| format!("{}@{}:{}", r.name, r.location.line, r.location.column)).collect()
    }

    /// What DataFusion would look up.
    fn resolved(query: &str) -> Vec<String> {
        let statement: Parsed = DFParserBuilder::new(query).build().expect("tokens").parse_statement().expect("SQL");
        let (tables, _) = resolve_table_references(&statement, true).expect("names");
        tables.iter().map(|t| t.table().to_string()).collect()
    }

    #[test]
    fn reads_are_what_datafusion_would_look_up_each_at_its_first_mention() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT 1", &[]),
            ("SELECT * FROM t", &["t@2:15"]),
            ("SELECT t.a FROM T t, u AS t2, T", &["t@2:17", "u@2:22"]),
            ("SELECT * FROM \"T\" JOIN t USING (a)", &["T@2:15", "t@2:24"]),
            ("SELECT (SELECT max(a) FROM u) FROM t WHERE a IN (SELECT b FROM v)", &["t@2:36", "u@2:28", "v@2:64"]),
            ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", &["t@2:15", "u@2:45"]),
            ("SELECT * FROM (SELECT * FROM t) s, LATERAL (SELECT * FROM u) l", &["t@2:30", "u@2:59"]),
            ("SELECT * FROM t UNION SELECT * FROM u EXCEPT\nSELECT * FROM t", &["t@2:15", "u@2:37"]),
            ("SELECT * FROM (t JOIN u ON t.a = u.a)", &["t@2:16", "u@2:23"]),
            (
                "SELECT CASE WHEN (SELECT true FROM z) THEN 1 END FROM a ORDER BY (SELECT 1 FROM b)",
                &["a@2:55", "b@2:81", "z@2:36"],
            ),
            ("FROM t", &["t@2:6"]),
            // CTEs.
            ("WITH c AS (SELECT * FROM t) SELECT * FROM c, C, \"c\"", &["t@2:26"]),
            ("WITH C AS (SELECT 1) SELECT * FROM \"C\"", &["C@2:36"]),
            ("WITH t AS (SELECT * FROM t) SELECT * FROM t", &["t@2:26"]),
            ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a, b", &["b@2:26"]),
            ("WITH c AS (SELECT 1) SELECT * FROM t WHERE a IN (SELECT a FROM c)", &["t@2:36"]),
            ("(WITH t AS (SELECT 1) SELECT * FROM t) UNION (SELECT * FROM t)", &["t@2:61"]),
            ("SELECT * FROM (WITH c AS (SELECT 1) SELECT * FROM c) s, c", &["c@2:57"]),
            ("WITH t AS (WITH u AS (SELECT 1) SELECT * FROM u) SELECT * FROM u CROSS JOIN t", &["u@2:64"]),
            ("WITH a AS (WITH a AS (SELECT * FROM a) SELECT * FROM a) SELECT * FROM a", &["a@2:37"]),
            ("WITH a AS (SELECT 1), b AS (WITH c AS (SELECT * FROM a) SELECT * FROM c) SELECT * FROM b", &[]),
            // Recursive CTEs.
            ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n", &[]),
            (
                "WITH RECURSIVE n AS (SELECT a FROM t UNION SELECT u.a FROM n JOIN u USING (a)) SELECT * FROM n",
                &["t@2:36", "u@2:67"],
            ),
            // Table functions that are not DataFusion's `TableFactor::Table`.
            ("SELECT * FROM unnest([1, 2]) u(a)", &[]),
            ("SELECT unnest([1, 2]) FROM t", &["t@2:28"]),
        ];
        for (query, expected) in cases {
            assert_eq!(reads(query), *expected, "{query}");
            let names: Vec<_> = expected.iter().filter_map(|e| e.split('@').next()).collect();
            assert_eq!(resolved(query), names, "{query}");
        }
    }

    #[test]
    fn a_table_function_is_not_a_read() {
        for (query, expected) in [
            ("SELECT * FROM range(1, 10)", vec![]),
            ("SELECT * FROM generate_series(1, 10) AS g(a) JOIN t USING (a)", vec!["t@2:51"]),
            ("SELECT * FROM range(1, 10) JOIN range USING (a)", vec!["range@2:33"]),
        ] {
            assert_eq!(reads(query), expected, "{query}");
        }
    }

    #[test]
    fn names_before_a_recursive_cte_is_known_are_tables() {
        for (query, expected) in [
            ("WITH RECURSIVE n AS (SELECT * FROM n) SELECT * FROM n", vec!["n@2:36"]),
            ("WITH RECURSIVE n AS (SELECT * FROM n UNION ALL SELECT * FROM n) SELECT * FROM n", vec!["n@2:36"]),
            ("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", vec!["b@2:36"]),
            ("WITH RECURSIVE a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b", vec![]),
        ] {
            assert_eq!(reads(query), expected, "{query}");
        }
    }

    #[test]
    fn deeply_nested_ctes_resolve_in_reasonable_time() {
        let mut query = String::from("SELECT * FROM t");
        for depth in 0..14 {
            query = format!("WITH c{depth} AS ({query}) SELECT * FROM c{depth}");
        }
        assert_eq!(reads(&query).len(), 1);
    }

    #[test]
    fn what_a_query_can_not_have_is_refused_where_it_stands() {
        for (query, place, words) in [
            ("SELECT * FROM t JOIN\n a.b USING (c)", "3:2", "`a.b` is qualified"),
            ("SELECT * FROM a.b.c", "2:15", "`a.b.c` is qualified"),
            ("WITH b AS (SELECT 1) SELECT * FROM a.b", "2:36", "`a.b` is qualified"),
            ("SELECT * FROM\n 'x.parquet'", "3:2", "declare the files with CREATE EXTERNAL TABLE"),
            ("SELECT * INTO u FROM t", "2:10", "SELECT … INTO has no meaning"),
            ("SELECT * FROM t TABLESAMPLE (10)", "2:17", "TABLESAMPLE has no meaning"),
            ("SELECT * FROM t WITH (NOLOCK)", "2:17", "WITH (hints) behind a table has no meaning here"),
            ("SELECT * FROM t FOR UPDATE", "2:17", "FOR UPDATE and FOR SHARE have no meaning"),
            ("SELECT * FROM t FORMAT JSON", "2:17", "FORMAT has no meaning"),
            ("SELECT * FROM t SETTINGS a = 1", "2:17", "SETTINGS has no meaning"),
            ("SELECT 1 UNION TABLE t", "2:16", "write SELECT * FROM the table"),
            (
                "WITH RECURSIVE t AS (WITH x AS (SELECT 1) SELECT * FROM x UNION ALL SELECT * FROM t) SELECT * FROM t",
                "2:22",
                "move its CTEs before the recursive one",
            ),
        ] {
            assert_refused(&[(&format!("CREATE TABLE x AS\n{query}"), place, words)]);
        }
    }
}
