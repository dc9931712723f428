//! FROM: tables, joins, and what may stand behind a table's name.

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableFunctionArgs,
    TableSampleKind, TableWithJoins,
};

use crate::error::Result;
use crate::sql::clauses::Clauses;
use crate::sql::name::{qualified, unqualified};

/// Words that another system puts before JOIN, and that are taken for the alias of the table before them here.
const JOIN_WORDS: [(&str, &str); 7] = [
    ("asof", ASOF),
    ("positional", "number the rows of both tables with row_number() OVER (ORDER BY …) and join on the number"),
    ("any", "number the rows of a key with row_number() OVER (PARTITION BY key ORDER BY …) and join those of number 1"),
    ("hash", "write JOIN: how a join is computed is not said in SQL here"),
    ("loop", "write JOIN: how a join is computed is not said in SQL here"),
    ("merge", "write JOIN: how a join is computed is not said in SQL here"),
    ("paste", "number the rows of both tables with row_number() OVER (ORDER BY …) and join on the number"),
];

const ASOF: &str = "join on the key and the comparison, and keep the nearest row with QUALIFY row_number() OVER \
                    (PARTITION BY the left row ORDER BY the right time DESC) = 1";

const SAMPLE: &str = "TABLESAMPLE has no meaning in a query that is reused, other rows each time; write WHERE with a condition on a \
                      column, or LIMIT";

impl Clauses<'_> {
    pub(super) fn table_with_joins(&mut self, table: &TableWithJoins) -> Result<()> {
        let TableWithJoins { relation, joins } = table;
        self.table_factor(relation)?;
        let mut before = relation;
        for join in joins {
            self.join(before, join)?;
            before = &join.relation;
        }
        Ok(())
    }

    /// `before` is what stands before the JOIN in the text.
    pub(super) fn join(&mut self, before: &TableFactor, join: &Join) -> Result<()> {
        let Join { relation, global, join_operator } = join;
        if let Some(alias) = alias_of(before).filter(|alias| !alias.explicit && alias.name.quote_style.is_none())
            && let Some((word, advice)) =
                JOIN_WORDS.iter().find(|(word, _)| alias.name.value.eq_ignore_ascii_case(word))
        {
            self.at(alias.name.span);
            return Err(self.error(format!("{} JOIN is not supported; {advice}", word.to_ascii_uppercase())));
        }
        self.refuse(*global, "GLOBAL", "GLOBAL before JOIN has no meaning here; remove it")?;
        let from = self.near;
        self.table_factor(relation)?;
        let refuse = |words: &str, message: String| {
            let place = self.statement.next(words, from).unwrap_or_else(|| self.here());
            Err(self.statement.error(place, message))
        };
        match join_operator {
            // Semi and anti joins without a side keep the left rows: mended.
            JoinOperator::Join(constraint)
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
            | JoinOperator::RightAnti(constraint)
            | JoinOperator::CrossJoin(constraint @ JoinConstraint::None) => self.constraint(constraint),
            JoinOperator::CrossJoin(JoinConstraint::On(_) | JoinConstraint::Using(_) | JoinConstraint::Natural) => {
                refuse("CROSS", "CROSS JOIN pairs all rows and takes no condition; write JOIN … ON".to_string())
            }
            JoinOperator::CrossApply => {
                refuse("CROSS", "CROSS APPLY is not supported; write CROSS JOIN LATERAL (SELECT …)".to_string())
            }
            JoinOperator::OuterApply => {
                refuse("OUTER", "OUTER APPLY is not supported; write LEFT JOIN LATERAL (SELECT …) ON true".to_string())
            }
            JoinOperator::AsOf { match_condition: _, constraint: _ } => {
                refuse("ASOF", format!("ASOF JOIN is not supported; {ASOF}"))
            }
            JoinOperator::StraightJoin(_) => {
                refuse("STRAIGHT_JOIN", "STRAIGHT_JOIN is not supported; write JOIN".to_string())
            }
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => refuse(
                "ARRAY",
                "ARRAY JOIN is not supported; write CROSS JOIN UNNEST(list) AS name(column)".to_string(),
            ),
        }
    }

    /// NATURAL and USING are mended.
    fn constraint(&mut self, constraint: &JoinConstraint) -> Result<()> {
        match constraint {
            JoinConstraint::On(condition) => self.expr(condition),
            JoinConstraint::Using(names) => names.iter().try_for_each(|name| {
                self.name(name);
                match unqualified(name) {
                    Some(_) => Ok(()),
                    None => Err(self.error(format!(
                        "`{name}` is qualified; USING takes columns that both sides have, write the last part alone"
                    ))),
                }
            }),
            JoinConstraint::Natural | JoinConstraint::None => Ok(()),
        }
    }

    pub(super) fn table_factor(&mut self, factor: &TableFactor) -> Result<()> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                self.name(name);
                if let Some(TableFunctionArgs { args, settings }) = args {
                    if unqualified(name).is_none() {
                        return Err(self.error(qualified(name)));
                    }
                    args.iter().try_for_each(|arg| self.table_function_arg(arg))?;
                    self.refuse(settings.is_some(), "SETTINGS", "SETTINGS has no meaning here; remove it")?;
                }
                for (is_set, words, message) in [
                    (
                        version.is_some(),
                        "FOR",
                        "a table's version has no meaning here, sources are read as they are; remove it",
                    ),
                    (*with_ordinality, "WITH ORDINALITY", ORDINALITY),
                    (!partitions.is_empty(), "PARTITION", "PARTITION has no meaning here; write WHERE"),
                    (
                        json_path.is_some(),
                        "[",
                        "a path behind a table has no meaning here; select the field in the query",
                    ),
                    (sample.is_some(), "TABLESAMPLE", SAMPLE),
                ] {
                    self.refuse(is_set, words, message)?;
                }
                self.optional_alias(alias.as_ref())?;
                self.refuse(
                    !with_hints.is_empty(),
                    "WITH",
                    "WITH (hints) behind a table has no meaning here; remove it",
                )?;
                self.refuse(!index_hints.is_empty(), "INDEX", "an index hint has no meaning here; remove it")
            }
            TableFactor::Derived { lateral: _, subquery, alias, sample } => {
                self.query(subquery)?;
                self.sample(sample.as_ref())?;
                self.optional_alias(alias.as_ref())
            }
            TableFactor::TableFunction { expr, alias: _ } => {
                self.expr(expr)?;
                self.refuse_before("TABLE", "TABLE(…) is not supported; write FROM function(…)")
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                self.name(name);
                if unqualified(name).is_none() {
                    return Err(self.error(qualified(name)));
                }
                args.iter().try_for_each(|arg| self.table_function_arg(arg))?;
                self.refuse(*with_ordinality, "WITH ORDINALITY", ORDINALITY)?;
                self.optional_alias(alias.as_ref())
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias: _, with_ordinality } => {
                array_exprs.iter().try_for_each(|list| self.expr(list))?;
                self.refuse(*with_ordinality, "WITH ORDINALITY", ORDINALITY)?;
                self.optional_alias(alias.as_ref())?;
                self.refuse(*with_offset, "WITH OFFSET", &ORDINALITY.replace("WITH ORDINALITY", "WITH OFFSET"))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.table_with_joins(table_with_joins)?;
                self.optional_alias(alias.as_ref())
            }
            TableFactor::Pivot {
                table,
                aggregate_functions: _,
                value_column: _,
                value_source: _,
                default_on_null: _,
                alias: _,
            } => {
                self.table_factor(table)?;
                let message = "PIVOT is not supported; write an aggregate with a FILTER for each column: \
                               SELECT k, sum(v) FILTER (WHERE name = 'a') AS a, … GROUP BY k";
                self.refuse(true, "PIVOT", message)
            }
            TableFactor::Unpivot { table, value: _, name: _, columns: _, null_inclusion: _, alias: _ } => {
                self.table_factor(table)?;
                let message = "UNPIVOT is not supported; write a UNION ALL with a SELECT for each column: \
                               SELECT id, 'a' AS name, a AS value FROM t WHERE a IS NOT NULL UNION ALL …";
                self.refuse(true, "UNPIVOT", message)
            }
            TableFactor::MatchRecognize {
                table,
                partition_by: _,
                order_by: _,
                measures: _,
                rows_per_match: _,
                after_match_skip: _,
                pattern: _,
                symbols: _,
                alias: _,
            } => {
                self.table_factor(table)?;
                let message =
                    "MATCH_RECOGNIZE is not supported; compare rows with lag and lead OVER (PARTITION BY … ORDER BY …)";
                self.refuse(true, "MATCH_RECOGNIZE", message)
            }
            TableFactor::JsonTable { json_expr: _, json_path: _, columns: _, alias: _ } => {
                self.refuse(true, "JSON_TABLE", "JSON_TABLE is not supported; declare the files STORED AS JSON")
            }
            TableFactor::OpenJsonTable { json_expr: _, json_path: _, columns: _, alias: _ } => {
                self.refuse(true, "OPENJSON", "OPENJSON is not supported; declare the files STORED AS JSON")
            }
            TableFactor::XmlTable { namespaces: _, row_expression: _, passing: _, columns: _, alias: _ } => {
                self.refuse(true, "XMLTABLE", "XMLTABLE is not supported; convert the files to JSON or CSV")
            }
            TableFactor::SemanticView { name: _, dimensions: _, metrics: _, facts: _, where_clause: _, alias: _ } => {
                self.refuse(true, "SEMANTIC_VIEW", "SEMANTIC_VIEW is not supported; write a SELECT with GROUP BY")
            }
        }
    }

    fn optional_alias(&mut self, alias: Option<&TableAlias>) -> Result<()> {
        alias.map_or(Ok(()), |alias| self.table_alias(alias))
    }

    fn sample(&mut self, sample: Option<&TableSampleKind>) -> Result<()> {
        match sample {
            None => Ok(()),
            Some(TableSampleKind::BeforeTableAlias(_) | TableSampleKind::AfterTableAlias(_)) => {
                self.refuse(true, "TABLESAMPLE", SAMPLE)
            }
        }
    }

    fn table_function_arg(&mut self, arg: &FunctionArg) -> Result<()> {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            return Err(self
                .error(format!("`{arg}` can't be an argument of a table function; write the values alone, in order")));
        };
        match expr {
            Expr::Subquery(_) => Err(self.error("a table function takes constants, not a subquery; write unnest(generate_series(…)) in a SELECT over it")),
            expr => self.expr(expr),
        }
    }
}

const ORDINALITY: &str = "WITH ORDINALITY is not supported; unnest the positions beside the list: SELECT unnest(list) AS x, \
                          unnest(range(1, cardinality(list) + 1)) AS i";

fn alias_of(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::JsonTable { alias, .. }
        | TableFactor::OpenJsonTable { alias, .. }
        | TableFactor::NestedJoin { alias, .. }
        | TableFactor::Pivot { alias, .. }
        | TableFactor::Unpivot { alias, .. }
        | TableFactor::MatchRecognize { alias, .. }
        | TableFactor::XmlTable { alias, .. }
        | TableFactor::SemanticView { alias, .. } => alias.as_ref(),
    }
}
