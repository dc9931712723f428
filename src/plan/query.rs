//! From a query's syntax tree to DataFusion's plan, with what DataFusion's SQL planner drops or misreads mended.
//!
//! Tasks, views and questions are all planned here. [`crate::sql`] has looked at the clauses before: what is left is
//! planned rightly by DataFusion, or
//!
//! | what | mended by |
//! |---|---|
//! | `AT TIME ZONE`, `now()`, far timestamps | [`zone`] |
//! | `FETCH`, `ORDER BY ALL`, `FROM t` alone, `MINUS`, `SEMI JOIN`, `LIKE … ESCAPE`, `SIMILAR TO`, lists with queries in them | [`syntax`] |
//! | named windows | [`windows`] |
//! | `WITH ROLLUP`, `GROUPING SETS`, tuples and positions in `GROUP BY` | [`grouping`] |
//! | scalar functions with `OVER`, `FILTER` and the like | [`calls`] |
//! | `USING`, `NATURAL`, `*` with `ILIKE`, `REPLACE`, `RENAME` | [`names`] |
//! | `EXCEPT ALL`, `INTERSECT ALL`, long `UNION ALL` | [`sets`] |
//! | `EXISTS`, `IN` and other subqueries, LATERAL | [`subqueries`] |
//! | a column and its cast in two calls | [`casts`] |
//! | counts and positions as operands and arguments | [`counts`] |
//! | windows and aggregates where nothing computes them | [`misplaced`] |
//! | recursive queries whose rounds have other types | [`recursion`] |
//! | queries of WITH that call volatile functions | [`volatile`] |
//! | regular expressions that are none, or too large | [`patterns`] |
//!
//! The tree is a copy; places stay in it, so that errors have theirs.

mod calls;
mod casts;
mod counts;
mod error;
mod grouping;
mod misplaced;
mod names;
mod patterns;
mod provider;
mod recursion;
mod relation;
mod sets;
mod subqueries;
mod syntax;
mod volatile;
mod windows;

use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use sqlparser::ast::{Query, Statement};

use crate::plan::query::provider::Mended;
use crate::zone;

pub use error::{placed, readable};

/// The plan of `query` over what `tables` knows.
///
/// # Errors
/// DataFusion's, and with its place what it would plan into something else.
pub fn plan_query(query: &Query, tables: &dyn ContextProvider) -> Result<LogicalPlan> {
    let planned = |mut mended: Query| {
        zone::rewrite(&mut mended);
        syntax::rewrite(&mut mended)?;
        calls::check(&mended, tables)?;
        volatile::check(&mended, tables)?;
        patterns::check(&mended)?;
        counts::widen(&mut mended, tables);
        names::bind(&mut mended, tables)?;
        sets::mark(&mut mended);
        let casts = casts::planner(&mended);
        let plan = plan_as_it_is(mended, &Mended::new(tables, sets::planner(), casts))?;
        misplaced::check(&plan, query)?;
        recursion::check(&plan, query)?;
        subqueries::mend(plan)
    };
    planned(query.clone()).map_err(|e| error::placed(e, query))
}

/// DataFusion's plan of the tree.
fn plan_as_it_is(query: Query, tables: &Mended<'_>) -> Result<LogicalPlan> {
    let options = ParserOptions { collect_spans: true, ..ParserOptions::from(&tables.options().sql_parser) };
    SqlToRel::new_with_options(tables, options).sql_statement_to_plan(Statement::Query(Box::new(query)))
}
