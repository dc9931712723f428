//! `query |> operator |> operator …`.

use sqlparser::ast::{
    ExprWithAlias, ExprWithAliasAndOrderBy, Join, JoinConstraint, JoinOperator, OrderByOptions, PipeOperator,
    SetOperator, TableFactor,
};
use sqlparser::tokenizer::Span;

use crate::error::Result;
use crate::sql::clauses::Clauses;

impl Clauses<'_> {
    pub(super) fn pipe_operator(&mut self, operator: &PipeOperator) -> Result<()> {
        let refused = match operator {
            PipeOperator::Limit { expr, offset } => {
                self.count("LIMIT", expr)?;
                return offset.iter().try_for_each(|offset| self.count("OFFSET", offset));
            }
            PipeOperator::Where { expr } => return self.expr(expr),
            PipeOperator::OrderBy { exprs } => return exprs.iter().try_for_each(|key| self.order_by_expr(key)),
            PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => {
                return exprs.iter().try_for_each(|item| self.select_item(item));
            }
            PipeOperator::As { alias } => {
                self.at(alias.span);
                return Ok(());
            }
            PipeOperator::Union { set_quantifier, queries } => {
                self.set_operation(SetOperator::Union, *set_quantifier)?;
                return queries.iter().try_for_each(|query| self.query(query));
            }
            PipeOperator::Intersect { set_quantifier, queries } => {
                return self.multiset(SetOperator::Intersect, *set_quantifier, queries);
            }
            PipeOperator::Except { set_quantifier, queries } => {
                return self.multiset(SetOperator::Except, *set_quantifier, queries);
            }
            PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
                return full_table_exprs.iter().chain(group_by_expr).try_for_each(|expr| self.aggregated(expr));
            }
            PipeOperator::Join(join) => return self.piped_join(join),
            PipeOperator::Set { assignments: _ } => {
                ("SET", "|> SET is not supported; write |> SELECT * REPLACE (value AS column)")
            }
            PipeOperator::Drop { columns: _ } => {
                ("DROP", "|> DROP is not supported; write |> SELECT * EXCLUDE (column)")
            }
            PipeOperator::Rename { mappings: _ } => {
                ("RENAME", "|> RENAME is not supported; write |> SELECT column AS name")
            }
            PipeOperator::TableSample { sample: _ } => {
                ("TABLESAMPLE", "|> TABLESAMPLE has no meaning in a query that is reused; write |> WHERE or |> LIMIT")
            }
            PipeOperator::Call { function: _, alias: _ } => {
                ("CALL", "|> CALL is not supported; write FROM function(…)")
            }
            PipeOperator::Pivot { aggregate_functions: _, value_column: _, value_source: _, alias: _ } => (
                "PIVOT",
                "|> PIVOT is not supported; write |> AGGREGATE sum(v) FILTER (WHERE name = 'a') AS a GROUP BY k",
            ),
            PipeOperator::Unpivot { value_column: _, name_column: _, unpivot_columns: _, alias: _ } => {
                ("UNPIVOT", "|> UNPIVOT is not supported; write a UNION ALL with a SELECT for each column")
            }
        };
        self.refuse(true, refused.0, refused.1)
    }

    fn multiset(
        &mut self,
        op: SetOperator,
        quantifier: sqlparser::ast::SetQuantifier,
        queries: &[sqlparser::ast::Query],
    ) -> Result<()> {
        self.set_operation(op, quantifier)?;
        // The plan of what stands before it is not in the tree, so that it can't be mended as the operator is.
        let is_all = matches!(quantifier, sqlparser::ast::SetQuantifier::All);
        let message = format!("|> {op} ALL is not supported; write SELECT … {op} ALL SELECT …");
        self.refuse(is_all, &format!("{op} ALL"), &message)?;
        queries.iter().try_for_each(|query| self.query(query))
    }

    /// DataFusion drops the order.
    fn aggregated(&mut self, expr: &ExprWithAliasAndOrderBy) -> Result<()> {
        let ExprWithAliasAndOrderBy {
            expr: ExprWithAlias { expr, alias },
            order_by: OrderByOptions { asc, nulls_first },
        } = expr;
        self.expr(expr)?;
        alias.iter().for_each(|alias| self.at(alias.span));
        match asc.is_some() || nulls_first.is_some() {
            true => Err(self.error("|> AGGREGATE does not sort; write |> ORDER BY behind it")),
            false => Ok(()),
        }
    }

    /// DataFusion takes NULLs for the columns of USING, and there is no FROM that it could be mended in.
    fn piped_join(&mut self, join: &Join) -> Result<()> {
        let here = Span::new(self.near, self.near);
        let nothing = TableFactor::UNNEST {
            alias: None,
            array_exprs: Vec::new(),
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        };
        self.join(&nothing, join)?;
        let (JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint)) = &join.join_operator
        else {
            return Ok(());
        };
        match constraint {
            JoinConstraint::On(_) | JoinConstraint::None => Ok(()),
            JoinConstraint::Using(_) | JoinConstraint::Natural => {
                let place = self.statement.next("JOIN", here.start).unwrap_or_else(|| self.here());
                Err(self.statement.error(place, "|> JOIN takes ON only; write ON left.column = right.column"))
            }
        }
    }
}
