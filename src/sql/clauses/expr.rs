//! Expressions.

use sqlparser::ast::{
    AccessExpr, Array, CaseWhen, CastFormat, CastKind, CeilFloorKind, DateTimeField, DictionaryField, Expr,
    ExtractSyntax, JsonPath, LambdaFunction, LambdaFunctionParameter, Map, MapEntry, MemberOf, OneOrManyWithParens,
    StructField, Subscript, TrimWhereField, TypedString, Value, ValueWithSpan,
};

use crate::error::Result;
use crate::sql::clauses::Clauses;

impl Clauses<'_> {
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<()> {
        // `a OR b OR c …` is as deep to the left as it is long.
        let mut pending = vec![expr];
        while let Some(expr) = pending.pop() {
            match expr {
                Expr::BinaryOp { left, op, right } => {
                    self.binary_operator(op, left)?;
                    pending.push(right);
                    pending.push(left);
                }
                other => self.other_expr(other)?,
            }
        }
        Ok(())
    }

    fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Result<()> {
        exprs.into_iter().try_for_each(|expr| self.expr(expr))
    }

    fn boxed(&mut self, expr: Option<&Expr>) -> Result<()> {
        expr.map_or(Ok(()), |expr| self.expr(expr))
    }

    fn other_expr(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            Expr::BinaryOp { .. } => self.expr(expr),
            Expr::Identifier(name) => {
                self.at(name.span);
                match name.value.starts_with('@') && name.quote_style.is_none() {
                    true => {
                        Err(self
                            .error(format!("`{}` is a variable, and there are none here; write the value", name.value)))
                    }
                    false => Ok(()),
                }
            }
            Expr::CompoundIdentifier(names) => {
                names.iter().for_each(|name| self.at(name.span));
                Ok(())
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root)?;
                access_chain.iter().try_for_each(|access| self.access(access))
            }
            Expr::JsonAccess { value, path: JsonPath { path: _ } } => {
                self.expr(value)?;
                Err(self.error(
                    "a path behind `:` is not supported; declare the column as a struct and write column['field']",
                ))
            }
            Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr)
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr)
            | Expr::IsUnknown(expr)
            | Expr::IsNotUnknown(expr)
            | Expr::Nested(expr) => self.expr(expr),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.exprs([left.as_ref(), right.as_ref()])
            }
            Expr::IsNormalized { expr, form: _, negated: _ } => {
                self.expr(expr)?;
                Err(self.error("IS NORMALIZED is not supported; remove it"))
            }
            Expr::InList { expr, list, negated: _ } => {
                self.expr(expr)?;
                self.exprs(list)
            }
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.expr(expr)?;
                self.query(subquery)
            }
            Expr::InUnnest { expr, array_expr: _, negated: _ } => {
                self.expr(expr)?;
                self.refuse(true, "UNNEST", "IN UNNEST(list) is not supported; write array_has(list, value)")
            }
            Expr::Between { expr, negated: _, low, high } => self.exprs([expr.as_ref(), low.as_ref(), high.as_ref()]),
            Expr::Like { negated: _, any, expr, pattern, escape_char }
            | Expr::ILike { negated: _, any, expr, pattern, escape_char } => {
                self.expr(expr)?;
                self.refuse(*any, "ANY", "LIKE ANY is not supported; join the patterns with OR")?;
                self.expr(pattern)?;
                self.escape(escape_char.as_ref(), pattern)
            }
            Expr::SimilarTo { negated: _, expr, pattern, escape_char } => {
                self.exprs([expr.as_ref(), pattern.as_ref()])?;
                match escape_char {
                    None => Ok(()),
                    Some(_) => {
                        Err(self.error("SIMILAR TO … ESCAPE is not supported; write value ~ 'regular expression'"))
                    }
                }
            }
            Expr::RLike { negated, expr, pattern, regexp } => {
                self.exprs([expr.as_ref(), pattern.as_ref()])?;
                let (word, sign) = (if *regexp { "REGEXP" } else { "RLIKE" }, if *negated { "!~" } else { "~" });
                self.refuse_before(word, &format!("{word} is not supported; write value {sign} 'regular expression'"))
            }
            Expr::AnyOp { left, compare_op, right, is_some: _ } | Expr::AllOp { left, compare_op, right } => {
                self.binary_operator(compare_op, left)?;
                self.exprs([left.as_ref(), right.as_ref()])
            }
            Expr::UnaryOp { op, expr } => {
                self.expr(expr)?;
                self.unary_operator(op)
            }
            Expr::Convert { is_try, expr, data_type: _, charset: _, target_before_value: _, styles: _ } => {
                self.expr(expr)?;
                let (word, cast) = if *is_try { ("TRY_CONVERT", "TRY_CAST") } else { ("CONVERT", "CAST") };
                self.refuse_before(word, &format!("{word} is not supported; write {cast}(value AS type)"))
            }
            Expr::Cast { kind, expr, data_type, array, format } => {
                match kind {
                    CastKind::Cast | CastKind::TryCast | CastKind::SafeCast | CastKind::DoubleColon => {}
                }
                self.expr(expr)?;
                self.refuse(*array, "ARRAY", "a cast to `type ARRAY` is not supported; write CAST(value AS type[])")?;
                match format {
                    None => {}
                    Some(CastFormat::Value(_) | CastFormat::ValueAtTimeZone(_, _)) => self.refuse(
                        true,
                        "FORMAT",
                        "CAST … FORMAT is not supported; write to_timestamp(text, format) or to_char(value, format)",
                    )?,
                }
                self.data_type(data_type)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                self.exprs([timestamp.as_ref(), time_zone.as_ref()])?;
                let is_name = matches!(
                    time_zone.as_ref(),
                    Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), span: _ })
                );
                match is_name {
                    true => Ok(()),
                    false => Err(self.error("AT TIME ZONE takes the name of a zone; write it in single quotes")),
                }
            }
            Expr::Extract { field, syntax: ExtractSyntax::From | ExtractSyntax::Comma, expr } => {
                self.expr(expr)?;
                match field {
                    DateTimeField::Week(Some(day)) => {
                        let message = format!("WEEK({day}) is not supported; write WEEK, whose weeks begin on Monday");
                        self.refuse_before("WEEK", &message)
                    }
                    _ => Ok(()),
                }
            }
            Expr::Ceil { expr, field } | Expr::Floor { expr, field } => {
                self.expr(expr)?;
                match field {
                    CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(()),
                    CeilFloorKind::DateTimeField(_) => Err(self
                        .error("CEIL and FLOOR to a part of a date are not supported; write date_trunc('day', value)")),
                    CeilFloorKind::Scale(_) => {
                        Err(self.error("CEIL and FLOOR with a scale are not supported; write floor(value * 100) / 100"))
                    }
                }
            }
            Expr::Position { expr, r#in } => self.exprs([expr.as_ref(), r#in.as_ref()]),
            // How it was written.
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expr(expr)?;
                self.boxed(substring_from.as_deref())?;
                self.boxed(substring_for.as_deref())?;
                match substring_from.is_none() && substring_for.is_none() {
                    true => Err(self.error("substring needs where it begins; write substring(text, from, length)")),
                    false => Ok(()),
                }
            }
            Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                match trim_where {
                    None | Some(TrimWhereField::Both | TrimWhereField::Leading | TrimWhereField::Trailing) => {}
                }
                self.boxed(trim_what.as_deref())?;
                self.expr(expr)?;
                self.exprs(trim_characters.iter().flatten())?;
                // DataFusion takes the first one alone.
                match trim_characters.as_ref().is_some_and(|texts| texts.len() > 1) {
                    true => Err(self.error("trim takes one text of characters to remove; write them as one text")),
                    false => Ok(()),
                }
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                self.exprs([expr.as_ref(), overlay_what.as_ref(), overlay_from.as_ref()])?;
                self.boxed(overlay_for.as_deref())
            }
            Expr::Collate { expr, collation } => {
                self.expr(expr)?;
                let message = format!(
                    "COLLATE {collation} is not supported, text is compared byte by byte; write lower(text) to ignore case"
                );
                self.refuse(true, "COLLATE", &message)
            }
            Expr::Value(value) => self.value(value),
            Expr::Prefixed { prefix, value: _ } => {
                self.at(prefix.span);
                Err(self
                    .error(format!("the prefix `{prefix}` of a text is not supported; remove it, all text is UTF-8")))
            }
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: _ }) => {
                self.value(value)?;
                self.data_type(data_type)
            }
            Expr::Function(function) => self.function(function),
            Expr::Case { case_token, end_token, operand, conditions, else_result } => {
                self.at(case_token.0.span);
                self.boxed(operand.as_deref())?;
                for CaseWhen { condition, result } in conditions {
                    self.exprs([condition, result])?;
                }
                self.boxed(else_result.as_deref())?;
                self.at(end_token.0.span);
                Ok(())
            }
            Expr::Exists { subquery, negated: _ } => self.query(subquery),
            Expr::Subquery(subquery) => self.query(subquery),
            Expr::GroupingSets(sets) => self.grouping("GROUPING SETS", sets),
            Expr::Cube(sets) => self.grouping("CUBE", sets),
            Expr::Rollup(sets) => self.grouping("ROLLUP", sets),
            Expr::Tuple(values) => self.exprs(values),
            Expr::Struct { values, fields } => {
                for value in values {
                    match value {
                        Expr::Named { expr, name } => {
                            self.expr(expr)?;
                            self.at(name.span);
                        }
                        other => self.expr(other)?,
                    }
                }
                match fields.first() {
                    None => Ok(()),
                    Some(StructField { field_name: _, field_type: _, options: _ }) => {
                        Err(self.error("STRUCT<…>(…) is not supported; write named_struct('name', value, …)"))
                    }
                }
            }
            Expr::Named { expr, name } => {
                self.expr(expr)?;
                self.at(name.span);
                Err(self.error("AS has no meaning inside an expression; write it behind the whole one"))
            }
            Expr::Dictionary(fields) => fields.iter().try_for_each(|DictionaryField { key, value }| {
                self.at(key.span);
                self.expr(value)
            }),
            Expr::Map(Map { entries }) => {
                entries.iter().try_for_each(|MapEntry { key, value }| self.exprs([key.as_ref(), value.as_ref()]))
            }
            // Queries in a list are mended: DataFusion does not know CTEs and outer columns there.
            Expr::Array(Array { elem, named: _ }) => self.exprs(elem),
            Expr::Interval(interval) => self.interval(interval),
            Expr::MatchAgainst { columns: _, match_value: _, opt_search_modifier: _ } => {
                self.refuse(true, "MATCH", "MATCH … AGAINST is not supported; write column LIKE '%word%'")
            }
            Expr::Wildcard(token) => {
                self.at(token.0.span);
                Err(self.error("* has no meaning inside an expression; write a column"))
            }
            Expr::QualifiedWildcard(name, token) => {
                self.at(token.0.span);
                Err(self.error(format!("{name}.* has no meaning inside an expression; write a column")))
            }
            Expr::OuterJoin(column) => {
                self.expr(column)?;
                Err(self.error("(+) is not supported; write LEFT JOIN … ON"))
            }
            Expr::Prior(column) => {
                self.expr(column)?;
                self.refuse_before("PRIOR", "PRIOR is not supported; write WITH RECURSIVE")
            }
            Expr::Lambda(LambdaFunction { params, body, syntax: _ }) => {
                let params: &[LambdaFunctionParameter] = match params {
                    OneOrManyWithParens::One(param) => std::slice::from_ref(param),
                    OneOrManyWithParens::Many(params) => params,
                };
                for LambdaFunctionParameter { name, data_type } in params {
                    self.at(name.span);
                    if data_type.is_some() {
                        return Err(self.error("a parameter of -> takes a name only; remove its type"));
                    }
                }
                self.expr(body)
            }
            Expr::MemberOf(MemberOf { value, array: _ }) => {
                self.expr(value)?;
                self.refuse(true, "MEMBER", "MEMBER OF is not supported; write array_has(list, value)")
            }
        }
    }

    fn grouping(&mut self, words: &str, sets: &[Vec<Expr>]) -> Result<()> {
        self.exprs(sets.iter().flatten())?;
        Err(self.error(format!("{words} is a part of GROUP BY and has no meaning elsewhere; remove it")))
    }

    fn access(&mut self, access: &AccessExpr) -> Result<()> {
        match access {
            AccessExpr::Dot(Expr::Identifier(name)) => {
                self.at(name.span);
                Ok(())
            }
            AccessExpr::Dot(Expr::Value(value)) => self.value(value),
            AccessExpr::Dot(other) => {
                self.expr(other)?;
                Err(self
                    .error("only the name of a field can stand behind `.`; write function(value) for value.function()"))
            }
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index),
            AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                self.exprs(lower_bound.iter().chain(upper_bound).chain(stride))?;
                match lower_bound.is_none() || upper_bound.is_none() {
                    true => Err(self.error("a slice needs both bounds; write list[1:cardinality(list)]")),
                    false => Ok(()),
                }
            }
        }
    }

    /// Another letter than DataFusion's is mended in a pattern that is known.
    fn escape(&mut self, escape: Option<&ValueWithSpan>, pattern: &Expr) -> Result<()> {
        let Some(ValueWithSpan { value, span }) = escape else { return Ok(()) };
        self.at(*span);
        let is_text = matches!(pattern, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), span: _ }));
        match value {
            Value::SingleQuotedString(text) if text == "\\" => Ok(()),
            Value::SingleQuotedString(text) if text.chars().count() == 1 && is_text => Ok(()),
            Value::SingleQuotedString(text) if text.chars().count() == 1 => Err(self.error(
                "ESCAPE needs a pattern that is a text; write \\ before % and _ in the pattern, without ESCAPE",
            )),
            _ => Err(self.error("ESCAPE takes one letter in single quotes")),
        }
    }
}
