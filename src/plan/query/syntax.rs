//! What is written in one way and means what DataFusion plans when it is written in another.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use datafusion::common::{DataFusionError, Result};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    Array, BinaryOperator, CastKind, DataType, ExactNumberInfo, ExceptSelectItem, ExcludeSelectItem, Expr, Fetch,
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Join, JoinOperator,
    LimitClause, ObjectName, ObjectNamePart, Offset, OrderBy, OrderByKind, PipeOperator, Query, RenameSelectItem,
    Select, SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned, TableAliasColumnDef, TableFactor,
    TableWithJoins, TypedString, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use sqlparser::tokenizer::Span;

use crate::plan::query::error::at;
use crate::plan::query::grouping;
use crate::plan::query::windows;
use crate::sql::widen_floats;

/// Rewrites all that needs no schema.
///
/// # Errors
/// At its place: invalid windows and groups, and patterns that are not constant.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    query.visit(&mut Rewrite).break_value().map_or(Ok(()), Err)
}

/// The name as DataFusion sees it: unquoted in lower case, quoted as it is.
pub(super) fn normalised(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// The name in quotes, so that it is taken as it is.
pub(super) fn quoted(name: impl Into<String>, span: Span) -> Ident {
    Ident { value: name.into(), quote_style: Some('"'), span }
}

/// A call of a function of DataFusion's.
pub(super) fn call(name: &str, args: Vec<Expr>, span: Span) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident { value: name.to_string(), quote_style: None, span })]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `*`.
pub(super) fn wildcard() -> SelectItem {
    SelectItem::Wildcard(all_columns())
}

/// What `*` says when it says nothing more.
pub(super) fn all_columns() -> WildcardAdditionalOptions {
    WildcardAdditionalOptions {
        wildcard_token: AttachedToken::empty(),
        opt_ilike: None,
        opt_exclude: None,
        opt_except: None,
        opt_replace: None,
        opt_rename: None,
        opt_alias: None,
    }
}

/// Calls `change` for each SELECT of a body that is not in a query of its own.
pub(super) fn each_select(body: &mut SetExpr, change: &mut dyn FnMut(&mut Select) -> Result<()>) -> Result<()> {
    let mut pending = vec![body];
    while let Some(body) = pending.pop() {
        match body {
            SetExpr::Select(select) => change(select)?,
            SetExpr::SetOperation { op, left, right, set_quantifier: _ } => {
                if *op == SetOperator::Minus {
                    *op = SetOperator::Except;
                }
                pending.extend([right.as_mut(), left.as_mut()]);
            }
            SetExpr::Query(_)
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => {}
        }
    }
    Ok(())
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        match rewrite_query(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        lower_function(factor);
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor {
            name_twins(&mut subquery.body, &alias.columns);
        }
        ControlFlow::Continue(())
    }

    /// From below, so that what is taken out of an expression was looked at.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match rewrite_expr(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Names columns of SELECT that are written twice as the list behind the alias does: to DataFusion they have one name
/// until then. A cast has that of its value.
fn name_twins(body: &mut SetExpr, columns: &[TableAliasColumnDef]) {
    match body {
        SetExpr::Select(select) if select.projection.len() == columns.len() => {
            let written = select.projection.clone();
            for (at, (item, column)) in select.projection.iter_mut().zip(columns).enumerate() {
                let SelectItem::UnnamedExpr(expr) = &item else { continue };
                let is_twin = |other: &SelectItem| matches!(other, SelectItem::UnnamedExpr(other) if without_casts(other) == without_casts(expr));
                if written.iter().enumerate().any(|(other, written)| other != at && is_twin(written)) {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: column.name.clone() };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_twins(left, columns);
            name_twins(right, columns);
        }
        SetExpr::Query(query) => name_twins(&mut query.body, columns),
        _ => {}
    }
}

fn without_casts(mut expr: &Expr) -> &Expr {
    while let Expr::Cast { expr: value, .. } | Expr::Nested(value) = expr {
        expr = value;
    }
    expr
}

fn rewrite_query(query: &mut Query) -> Result<()> {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name_twins(&mut cte.query.body, &cte.alias.columns);
    }
    if let Some(order_by) = &mut query.order_by {
        order_by_all(order_by);
    }
    fetch(query);
    names_once(&mut query.body);
    let mut order_by = query.order_by.as_mut();
    // Only a SELECT by itself shares its windows with ORDER BY.
    if !matches!(*query.body, SetExpr::Select(_)) {
        order_by = None;
    }
    each_select(&mut query.body, &mut |select| {
        if select.flavor == SelectFlavor::FromFirstNoSelect && select.projection.is_empty() {
            select.projection.push(wildcard());
        }
        select.projection.iter_mut().for_each(lower_names);
        select.from.iter_mut().for_each(name_sides);
        windows::expand(select, order_by.as_deref_mut())?;
        grouping::rewrite(select)
    })?;
    for operator in &mut query.pipe_operators {
        match operator {
            PipeOperator::Join(join) => name_side(join),
            PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => exprs.iter_mut().for_each(lower_names),
            PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
                let aliases = full_table_exprs.iter_mut().chain(group_by_expr).filter_map(|e| e.expr.alias.as_mut());
                aliases.for_each(|alias| *alias = quoted(normalised(alias), alias.span));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names equal columns of those SELECTs of which a set operation takes the rows, but not the names.
fn names_once(body: &mut SetExpr) {
    let mut pending = vec![(body, true)];
    while let Some((body, is_named)) = pending.pop() {
        match body {
            SetExpr::SetOperation { op: _, left, right, set_quantifier } => {
                use SetQuantifier::{AllByName, ByName, DistinctByName};
                let is_by_name = matches!(set_quantifier, ByName | AllByName | DistinctByName);
                pending.extend([(left.as_mut(), is_named), (right.as_mut(), is_named && is_by_name)]);
            }
            SetExpr::Select(select) if !is_named => {
                let mut seen = HashSet::new();
                for (number, item) in select.projection.iter_mut().enumerate() {
                    let SelectItem::UnnamedExpr(expr) = item else { continue };
                    if !seen.insert(expr.to_string()) {
                        let alias = quoted(format!("{expr} {number}"), expr.span());
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                    }
                }
            }
            _ => {}
        }
    }
}

/// The parser takes ALL for a column.
fn order_by_all(order_by: &mut OrderBy) {
    if let OrderByKind::Expressions(keys) = &order_by.kind
        && let [key] = keys.as_slice()
        && matches!(&key.expr, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all"))
    {
        order_by.kind = OrderByKind::All(key.options);
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`, and without n it is `LIMIT 1`.
fn fetch(query: &mut Query) {
    let Some(Fetch { with_ties: _, percent: _, quantity }) = query.fetch.take() else { return };
    let one = || Expr::Value(Value::Number("1".to_string(), false).into());
    let limit = Some(quantity.unwrap_or_else(one));
    let offset: Option<Offset> = match query.limit_clause.take() {
        Some(LimitClause::LimitOffset { offset, .. }) => offset,
        _ => None,
    };
    query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
}

/// DataFusion finds table functions by their letters, while it knows other functions in any case.
fn lower_function(factor: &mut TableFactor) {
    let (TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. }) = factor else { return };
    for part in &mut name.0 {
        if let ObjectNamePart::Identifier(name) = part {
            name.value = normalised(name);
        }
    }
}

/// Columns that `*` names are found by their letters, also those in quotes: so others in lower case.
fn lower_names(item: &mut SelectItem) {
    let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else { return };
    let lower = |name: &mut Ident| *name = quoted(normalised(name), name.span);
    let lower_object = |name: &mut ObjectName| {
        for part in &mut name.0 {
            if let ObjectNamePart::Identifier(name) = part {
                lower(name);
            }
        }
    };
    match &mut options.opt_exclude {
        None => {}
        Some(ExcludeSelectItem::Single(name)) => lower_object(name),
        Some(ExcludeSelectItem::Multiple(names)) => names.iter_mut().for_each(lower_object),
    }
    if let Some(ExceptSelectItem { first_element, additional_elements }) = &mut options.opt_except {
        lower(first_element);
        additional_elements.iter_mut().for_each(lower);
    }
    if let Some(replace) = &mut options.opt_replace {
        replace.items.iter_mut().for_each(|item| lower(&mut item.column_name));
    }
    match &mut options.opt_rename {
        None => {}
        Some(RenameSelectItem::Single(rename)) => lower(&mut rename.ident),
        Some(RenameSelectItem::Multiple(renames)) => renames.iter_mut().for_each(|rename| lower(&mut rename.ident)),
    }
}

/// A semi or anti join keeps rows of its left side, unless it says which.
fn name_sides(table: &mut TableWithJoins) {
    let TableWithJoins { relation, joins } = table;
    if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
        name_sides(table_with_joins);
    }
    joins.iter_mut().for_each(name_side);
}

fn name_side(join: &mut Join) {
    if let TableFactor::NestedJoin { table_with_joins, .. } = &mut join.relation {
        name_sides(table_with_joins);
    }
    let operator = std::mem::replace(&mut join.join_operator, JoinOperator::CrossApply);
    join.join_operator = match operator {
        JoinOperator::Semi(constraint) => JoinOperator::LeftSemi(constraint),
        JoinOperator::Anti(constraint) => JoinOperator::LeftAnti(constraint),
        other => other,
    };
}

fn rewrite_expr(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, false), span }) => {
            if let Some(decimal) = as_decimal(text, *span)? {
                *expr = decimal;
            }
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: number } => {
            let Expr::Value(ValueWithSpan { value: Value::Number(text, false), span }) = number.as_ref() else {
                return Ok(());
            };
            // What 64 bits hold without a sign alone.
            if text.parse::<u64>().is_ok_and(|number| number > i64::MIN.unsigned_abs()) {
                *expr = decimal(format!("-{text}"), text.len(), 0, *span);
            }
        }
        // The parser takes `t.user` for a call of a function.
        Expr::Function(Function { name, args: FunctionArguments::None, .. }) if name.0.len() > 1 => {
            let parts = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
            *expr = Expr::CompoundIdentifier(parts);
        }
        // DataFusion plans an element as if there were no query around it.
        Expr::Array(Array { elem, named: _ }) => {
            let elements = std::mem::take(elem);
            *expr = call("make_array", elements, Span::empty());
        }
        // DataFusion plans ANY of a list without the NULLs in it, and ALL with them.
        Expr::AnyOp { left, compare_op, right, is_some: _ } if !matches!(right.as_ref(), Expr::Subquery(_)) => {
            if let Some(opposite) = opposite(compare_op) {
                let nothing = || Box::new(Expr::Value(Value::Null.into()));
                let (left, right) = (std::mem::replace(left, nothing()), std::mem::replace(right, nothing()));
                let all = Expr::Nested(Box::new(Expr::AllOp { left, compare_op: opposite, right }));
                *expr = Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(all) }));
            }
        }
        Expr::Cast { data_type, .. } => widen_floats(data_type),
        Expr::TypedString(TypedString { data_type, .. }) => widen_floats(data_type),
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                with_backslashes(pattern, &escape)?;
            }
        }
        Expr::SimilarTo { negated, expr: value, pattern, escape_char: _ } => {
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            let nothing = || Box::new(Expr::Value(Value::Null.into()));
            let (value, pattern) = (std::mem::replace(value, nothing()), std::mem::replace(pattern, nothing()));
            let regex = similar_to(&pattern)?;
            *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: value, op, right: Box::new(regex) }));
        }
        _ => {}
    }
    Ok(())
}

/// The comparison that is true where this one is false.
fn opposite(operator: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match operator {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        _ => return None,
    })
}

/// A number that neither 64 bits nor a DOUBLE hold, as a DECIMAL; `None` for others. DataFusion takes it for a DOUBLE.
fn as_decimal(text: &str, span: Span) -> Result<Option<Expr>> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let Ok(double) = text.parse::<f64>() else { return Ok(None) };
    if double.is_infinite() {
        let message = format!("{text} is larger than any number; the largest DOUBLE is {:e}", f64::MAX);
        return Err(at(span, message));
    }
    if !is_plain {
        return Ok(None);
    }
    let digits = |number: &str| -> (String, String) {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        (whole.trim_start_matches('0').to_string(), fraction.trim_end_matches('0').to_string())
    };
    let (whole, fraction) = digits(text);
    // A float is written with as many digits as tell it from all others.
    let is_exact = if text.contains('.') {
        digits(&double.to_string()) == (whole.clone(), fraction.clone())
    } else {
        text.parse::<u64>().is_ok()
    };
    if is_exact {
        return Ok(None);
    }
    let (precision, scale) = (whole.len() + fraction.len(), fraction.len());
    if precision > usize::from(DECIMAL128_MAX_PRECISION) {
        let message = format!(
            "{text} has more digits than DECIMAL, which has {DECIMAL128_MAX_PRECISION}; write a DOUBLE, {double:e}"
        );
        return Err(at(span, message));
    }
    Ok(Some(decimal(text.to_string(), precision, scale, span)))
}

/// A number that is written, as a DECIMAL with so many digits, of which `scale` are behind the point.
fn decimal(text: String, precision: usize, scale: usize, span: Span) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span })),
        data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision as u64, scale as i64)),
        array: false,
        format: None,
    }
}

/// The pattern with `\` for another escape, which is the only one that DataFusion runs.
fn with_backslashes(pattern: &mut Expr, escape: &ValueWithSpan) -> Result<()> {
    let span = escape.span;
    let mut letters = match &escape.value {
        Value::SingleQuotedString(text) => text.chars(),
        _ => "".chars(),
    };
    let (Some(escape), None) = (letters.next(), letters.next()) else {
        return Err(at(span, "ESCAPE takes one letter in single quotes"));
    };
    if escape == '\\' {
        return Ok(());
    }
    if matches!(pattern, Expr::Value(ValueWithSpan { value: Value::Null, span: _ })) {
        return Ok(());
    }
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern else {
        return Err(at(
            span,
            "ESCAPE needs a pattern that is a text; write \\ before % and _ in the pattern, without ESCAPE",
        ));
    };
    let mut written = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        let literal = match letter {
            letter if letter == escape => {
                rest.next().ok_or_else(|| at(span, "the pattern ends with its ESCAPE; write it twice"))?
            }
            '\\' => '\\',
            letter => {
                written.push(letter);
                continue;
            }
        };
        if matches!(literal, '%' | '_' | '\\') {
            written.push('\\');
        }
        written.push(literal);
    }
    *text = written;
    Ok(())
}

/// The regular expression of a pattern of SQL (ISO/IEC 9075-2, 8.6): it is compared with the whole text, `%` stands for
/// any letters and `_` for one. DataFusion takes the pattern for a regular expression as it is, and looks for it
/// anywhere.
fn similar_to(pattern: &Expr) -> Result<Expr> {
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) = pattern else {
        return Err(at(pattern.span(), "SIMILAR TO needs a pattern that is a text; write value ~ regular_expression"));
    };
    let mut regex = String::from("^(?s:");
    let mut letters = text.chars();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                let literal = letters.next().ok_or_else(|| at(*span, "the pattern ends with \\; write \\\\"))?;
                regex.push_str(&escaped(literal));
            }
            '[' => {
                in_class = true;
                regex.push('[');
            }
            ']' => {
                in_class = false;
                regex.push(']');
            }
            letter if in_class => regex.push(letter),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => regex.push(letter),
            letter => regex.push_str(&escaped(letter)),
        }
    }
    regex.push_str(")$");
    Ok(Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(regex), span: *span }))
}

/// The letter as a regular expression that matches it.
fn escaped(letter: char) -> String {
    match letter {
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&' | '-' | '~' => {
            format!("\\{letter}")
        }
        letter => letter.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::{Expr, Value, ValueWithSpan};

    use crate::plan::query::syntax::{similar_to, with_backslashes};

    fn text(text: &str) -> Expr {
        Expr::Value(Value::SingleQuotedString(text.to_string()).into())
    }

    fn written(expr: &Expr) -> &str {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => text,
            other => panic!("no text: {other}"),
        }
    }

    #[test]
    fn patterns_of_similar_to_are_of_the_whole_text() {
        for (pattern, regex) in [
            ("a", "^(?s:a)$"),
            ("%a_", "^(?s:.*a.)$"),
            ("(a|b)+c{2}", "^(?s:(a|b)+c{2})$"),
            ("a.b$", "^(?s:a\\.b\\$)$"),
            ("a\\%b\\\\", "^(?s:a%b\\\\)$"),
            ("[%_a-z]", "^(?s:[%_a-z])$"),
        ] {
            assert_eq!(written(&similar_to(&text(pattern)).expect("a pattern")), regex, "{pattern}");
        }
        assert!(similar_to(&text("a\\")).is_err());
    }

    #[test]
    fn patterns_of_like_have_backslashes_for_another_escape() {
        for (pattern, escape, expected) in [
            ("a!%b", "!", "a\\%b"),
            ("a!!b", "!", "a!b"),
            ("a\\b!_", "!", "a\\\\b\\_"),
            ("a%b", "!", "a%b"),
            ("a%%b", "%", "a\\%b"),
        ] {
            let mut like = text(pattern);
            with_backslashes(&mut like, &Value::SingleQuotedString(escape.to_string()).into()).expect("a pattern");
            assert_eq!(written(&like), expected, "{pattern}");
        }
        for (pattern, escape) in [("a!", "!"), ("a", ""), ("a", "ab")] {
            let escape = Value::SingleQuotedString(escape.to_string()).into();
            assert!(with_backslashes(&mut text(pattern), &escape).is_err(), "{pattern} {escape}");
        }
    }
}
