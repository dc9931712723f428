//! What becomes of every clause of a query: planned, mended or refused, never ignored.
//!
//! sqlparser reads the SQL of twenty systems; DataFusion plans a part of it and silently drops much of the rest. So
//! this is a walk over every field of every node that a query can have. Nodes are taken apart without `..`, so that a
//! field or variant of a later sqlparser does not compile before somebody decides about it. A field is one of
//!
//! - *planned*: DataFusion gives it its meaning, or it has none for the rows (`ROW` or `ROWS` behind `OFFSET`): it is
//!   walked, or bound to `_`;
//! - *mended*: [`crate::plan::query`] rewrites it into what DataFusion plans rightly; it is walked like what is
//!   planned, and a
//!   comment says so;
//! - *refused*: an error at its place, with what to write instead.
//!
//! What depends on the schema or on which functions there are (`abs(x) OVER ()`) is decided while the query is planned.

mod columns;
mod expr;
mod from;
mod function;
mod literal;
mod operator;
mod pipe;
mod select;

use sqlparser::ast::{
    Cte, CteAsMaterialized, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interpolate,
    LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, Query, SetExpr, SetOperator, SetQuantifier,
    TableAlias, TableAliasColumnDef, UnaryOperator, Value, ValueWithSpan, Values, With, WithFill,
};
use sqlparser::tokenizer::{Location as SqlPlace, Span};

use crate::error::{Error, Location, Result};
use crate::sql::tokens::Statement;

pub(crate) use columns::declared;
pub(crate) use literal::widen_floats;

/// Walks `query`, a part of `statement`.
///
/// # Errors
/// At its place: the first clause that is neither planned nor mended.
pub(crate) fn check(statement: &Statement<'_>, query: &Query) -> Result<()> {
    Clauses { statement, near: SqlPlace::new(0, 0) }.query(query)
}

/// The walk, in the order of the text as far as the tree has it.
struct Clauses<'a> {
    statement: &'a Statement<'a>,
    /// Where the walk is: the place of what it saw last. Clauses without a place of their own are looked for from here
    /// on.
    near: SqlPlace,
}

impl Clauses<'_> {
    /// The walk is at `span` now, if the parser recorded it.
    fn at(&mut self, span: Span) {
        if span.start.line > 0 {
            self.near = span.start;
        }
    }

    /// Where `words` stand next, else where the walk is.
    fn place(&self, words: &str) -> Location {
        self.statement.next(words, self.near).unwrap_or_else(|| self.here())
    }

    fn here(&self) -> Location {
        self.statement.place(Span::new(self.near, self.near))
    }

    /// Refuses with `message`, at the next `words`, what is set.
    fn refuse(&self, is_set: bool, words: &str, message: &str) -> Result<()> {
        if !is_set {
            return Ok(());
        }
        Err(self.statement.error(self.place(words), message))
    }

    /// Refuses with `message`, at the last `word` before the walk's place.
    fn refuse_before(&self, word: &str, message: &str) -> Result<()> {
        let place = self.statement.previous(word, self.near).unwrap_or_else(|| self.here());
        Err(self.statement.error(place, message))
    }

    fn error(&self, message: impl Into<String>) -> Error {
        self.statement.error(self.here(), message)
    }

    fn query(&mut self, query: &Query) -> Result<()> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if let Some(with) = with {
            self.with(with)?;
        }
        self.set_expr(body)?;
        if let Some(order_by) = order_by {
            self.order_by(order_by)?;
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        self.refuse(
            settings.is_some(),
            "SETTINGS",
            "SETTINGS has no meaning here; remove it, memory and jobs are set for the whole run",
        )?;
        if let Some(fetch) = fetch {
            self.refuse(
                limit_clause_has_limit(limit_clause.as_ref()),
                "FETCH",
                "LIMIT and FETCH both say how many rows; remove one of them",
            )?;
            self.fetch(fetch)?;
        }
        self.refuse(
            !locks.is_empty(),
            "FOR",
            "FOR UPDATE and FOR SHARE have no meaning here, nothing is locked; remove it",
        )?;
        self.refuse(for_clause.is_some(), "FOR", "FOR XML, FOR JSON and FOR BROWSE have no meaning here; remove it")?;
        self.refuse(
            format_clause.is_some(),
            "FORMAT",
            "FORMAT has no meaning here; remove it, `chunkwise query --format` says how rows are printed",
        )?;
        pipe_operators.iter().try_for_each(|operator| self.pipe_operator(operator))
    }

    fn with(&mut self, with: &With) -> Result<()> {
        let With { with_token, recursive, cte_tables } = with;
        self.at(with_token.0.span);
        for cte in cte_tables {
            let Cte { alias, query, from, materialized, closing_paren_token } = cte;
            self.table_alias(alias)?;
            match materialized {
                // How it is computed; the rows are the same.
                None | Some(CteAsMaterialized::Materialized | CteAsMaterialized::NotMaterialized) => {}
            }
            if *recursive {
                self.recursive_cte(query)?;
            }
            self.query(query)?;
            self.at(closing_paren_token.0.span);
            self.refuse(from.is_some(), "FROM", "FROM behind a CTE has no meaning; write it into the CTE's query")?;
        }
        Ok(())
    }

    /// Of a recursive `UNION` DataFusion plans both sides, and neither what stands around them nor names.
    fn recursive_cte(&mut self, query: &Query) -> Result<()> {
        let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, .. } = query.body.as_ref() else {
            return Ok(());
        };
        let by_name = match set_quantifier {
            SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => false,
            SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => true,
        };
        self.refuse(
            by_name,
            "BY NAME",
            "a recursive CTE can't be a UNION BY NAME; name and order the columns in both parts alike",
        )?;
        // The other fields are refused or walked with the query.
        let Query { order_by, limit_clause, fetch, pipe_operators, .. } = query;
        for (is_set, words) in [
            (order_by.is_some(), "ORDER BY"),
            (limit_clause.is_some(), "LIMIT"),
            (fetch.is_some(), "FETCH"),
            (!pipe_operators.is_empty(), "|>"),
        ] {
            let message = format!(
                "{words} can't stand in the UNION of a recursive CTE; write it in the query that reads the CTE"
            );
            self.refuse(is_set, words, &message)?;
        }
        Ok(())
    }

    fn table_alias(&mut self, alias: &TableAlias) -> Result<()> {
        let TableAlias { explicit: _, name, columns, at } = alias;
        self.at(name.span);
        for TableAliasColumnDef { name, data_type } in columns {
            self.at(name.span);
            if data_type.is_some() {
                let message = format!(
                    "column `{}` of an alias takes a name only; write CAST in the query for a type",
                    name.value
                );
                return Err(self.error(message));
            }
        }
        self.refuse(
            at.is_some(),
            "AT",
            "AT behind an alias has no meaning here; write row_number() OVER (…) in the query",
        )
    }

    fn set_expr(&mut self, body: &SetExpr) -> Result<()> {
        // Set operations are as deep to the left as the text is long.
        let mut pending = vec![body];
        while let Some(body) = pending.pop() {
            match body {
                SetExpr::Select(select) => self.select(select)?,
                SetExpr::Query(query) => self.query(query)?,
                SetExpr::SetOperation { left, op, set_quantifier, right } => {
                    self.set_operation(*op, *set_quantifier)?;
                    pending.push(right);
                    pending.push(left);
                }
                SetExpr::Values(values) => self.values(values)?,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    return Err(self.error("a query only reads; write a SELECT"));
                }
                SetExpr::Table(_) => {
                    let message = "a query is a SELECT here; write SELECT * FROM the table for TABLE";
                    self.refuse(true, "TABLE", message)?;
                }
            }
        }
        Ok(())
    }

    fn set_operation(&mut self, op: SetOperator, quantifier: SetQuantifier) -> Result<()> {
        match (op, quantifier) {
            (SetOperator::Union, _) => Ok(()),
            // MINUS, EXCEPT ALL and INTERSECT ALL are mended.
            (
                SetOperator::Except | SetOperator::Intersect | SetOperator::Minus,
                SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None,
            ) => Ok(()),
            (
                SetOperator::Except | SetOperator::Intersect | SetOperator::Minus,
                SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName,
            ) => {
                let message =
                    format!("{op} BY NAME is not supported; name the columns in both SELECTs in the same order");
                self.refuse(true, "BY NAME", &message)
            }
        }
    }

    fn values(&mut self, values: &Values) -> Result<()> {
        let Values { explicit_row: _, value_keyword, rows } = values;
        self.refuse(*value_keyword, "VALUE", "VALUE is not supported; write VALUES")?;
        let columns = rows.first().map_or(0, |row| row.content.len());
        for row in rows {
            self.at(row.opening_token.0.span);
            let count = row.content.len();
            if count != columns {
                return Err(self.error(format!(
                    "this row has {count} values, the first one has {columns}; give all rows the same number"
                )));
            }
            row.content.iter().try_for_each(|value| self.expr(value))?;
        }
        Ok(())
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Result<()> {
        let OrderBy { kind, interpolate } = order_by;
        match kind {
            // Mended.
            OrderByKind::All(OrderByOptions { asc: _, nulls_first: _ }) => {}
            OrderByKind::Expressions(keys) => keys.iter().try_for_each(|key| self.order_by_expr(key))?,
        }
        match interpolate {
            None => Ok(()),
            Some(Interpolate { exprs: _ }) => self.refuse(
                true,
                "INTERPOLATE",
                "INTERPOLATE is not supported; join the missing rows from generate_series and fill them with last_value(x IGNORE NULLS) OVER (…)",
            ),
        }
    }

    fn order_by_expr(&mut self, key: &OrderByExpr) -> Result<()> {
        let OrderByExpr { expr, options, with_fill } = key;
        let OrderByOptions { asc: _, nulls_first: _ } = options;
        self.expr(expr)?;
        match with_fill {
            None => Ok(()),
            Some(WithFill { from: _, to: _, step: _ }) => {
                self.refuse(true, "WITH FILL", "WITH FILL is not supported; join the missing rows from generate_series")
            }
        }
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<()> {
        match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => {
                if let Some(limit) = limit {
                    self.count("LIMIT", limit)?;
                }
                // OFFSET without LIMIT is mended.
                if let Some(Offset { value, rows: _ }) = offset {
                    self.count("OFFSET", value)?;
                }
                self.refuse(
                    !limit_by.is_empty(),
                    "BY",
                    "LIMIT n BY is not supported; write QUALIFY row_number() OVER (PARTITION BY … ORDER BY …) <= n",
                )
            }
            LimitClause::OffsetCommaLimit { offset, limit } => {
                self.count("OFFSET", offset)?;
                self.count("LIMIT", limit)
            }
        }
    }

    /// A number of rows, which is the same for all rows.
    fn count(&mut self, clause: &str, count: &Expr) -> Result<()> {
        self.expr(count)?;
        match is_count(count) {
            true => Ok(()),
            false => {
                let message = format!("{clause} takes a number of rows that is not negative; write it as a number");
                Err(self
                    .statement
                    .error(self.statement.previous(clause, self.near).unwrap_or_else(|| self.here()), message))
            }
        }
    }

    /// `FETCH FIRST n ROWS ONLY` is mended: it is `LIMIT n`.
    fn fetch(&mut self, fetch: &Fetch) -> Result<()> {
        let Fetch { with_ties, percent, quantity } = fetch;
        self.refuse(
            *with_ties,
            "WITH TIES",
            "WITH TIES is not supported; write QUALIFY rank() OVER (ORDER BY …) <= n in place of FETCH",
        )?;
        self.refuse(
            *percent,
            "PERCENT",
            "PERCENT is not supported; write QUALIFY percent_rank() OVER (ORDER BY …) < 0.1 for 10 percent, in place of FETCH",
        )?;
        quantity.iter().try_for_each(|quantity| self.count("FETCH", quantity))
    }
}

fn limit_clause_has_limit(clause: Option<&LimitClause>) -> bool {
    match clause {
        None => false,
        Some(LimitClause::LimitOffset { limit, .. }) => limit.is_some(),
        Some(LimitClause::OffsetCommaLimit { .. }) => true,
    }
}

/// Whether it is a whole number that is not negative, a parameter, or computed of them.
fn is_count(count: &Expr) -> bool {
    match count {
        Expr::Value(ValueWithSpan { value, span: _ }) => match value {
            Value::Number(digits, _) => digits.replace('_', "").parse::<u64>().is_ok(),
            Value::Null | Value::Placeholder(_) => true,
            _ => false,
        },
        Expr::Nested(count)
        | Expr::UnaryOp { op: UnaryOperator::Plus, expr: count }
        | Expr::Cast { expr: count, .. } => is_count(count),
        Expr::BinaryOp { left, op: _, right } => is_constant(left) && is_constant(right),
        Expr::Function(_) => is_constant(count),
        _ => false,
    }
}

/// Whether a number is computed of constants.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_constant(expr),
        Expr::Function(Function { args: FunctionArguments::List(list), over: None, .. }) => list
            .args
            .iter()
            .all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if is_constant(expr))),
        other => is_count(other),
    }
}
