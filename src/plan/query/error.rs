//! Errors of planning, for the author of the SQL: one line, with the place and what to write instead.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::error::ArrowError;
use datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
use datafusion::common::{Column, DataFusionError, Diagnostic, SchemaError, Span};
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, SelectItem, SetExpr, Spanned, TableFactor, UnaryOperator, Value, ValueWithSpan,
    Visit, Visitor,
};
use sqlparser::tokenizer::Span as SqlSpan;

use crate::error::Error;
use crate::plan::query::syntax::normalised;

/// Most columns that a message names.
const MAX_NAMES: usize = 12;

/// How alike a name must be to be suggested, of 1.
const ALIKE: f64 = 0.6;

/// An error at `span`.
pub(super) fn at(span: SqlSpan, message: impl Into<String>) -> DataFusionError {
    let message = message.into();
    let diagnostic = Diagnostic::new_error(message.clone(), Span::try_from_sqlparser_span(span));
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}

/// The error with its place in `query`, if it has none and says what it is about.
pub fn placed(error: DataFusionError, query: &Query) -> DataFusionError {
    if error.diagnostic().is_some_and(|diagnostic| diagnostic.span.is_some()) {
        return error;
    }
    let wanted = match error.find_root() {
        DataFusionError::SchemaError(cause, _) => match cause.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields: _ } | SchemaError::AmbiguousReference { field } => {
                Wanted::Column(field.as_ref().clone())
            }
            SchemaError::DuplicateQualifiedField { qualifier: _, name }
            | SchemaError::DuplicateUnqualifiedField { name } => Wanted::Column(Column::from_name(name)),
        },
        root => match Wanted::of(&root.strip_backtrace()) {
            Some(wanted) => wanted,
            None => return error,
        },
    };
    let mut find = Find { wanted, found: None };
    let _ = query.visit(&mut find);
    match find.found.and_then(Span::try_from_sqlparser_span) {
        Some(span) => error.with_diagnostic(Diagnostic::new_error("here", Some(span))),
        None => error,
    }
}

enum Wanted {
    Column(Column),
    TableFunction(String),
    /// Of a constant of this text.
    Cast(String),
    /// The only call of this function.
    Call(String),
    /// An interval that is multiplied or divided.
    Product,
    /// A column of SELECT that is written twice.
    Twice,
}

impl Wanted {
    fn of(message: &str) -> Option<Self> {
        if let Some(name) = between(message, "unknown table function `", "`") {
            return Some(Self::TableFunction(name.to_string()));
        }
        if is_product(message) {
            return Some(Self::Product);
        }
        if message.contains("Projections require unique expression names") {
            return Some(Self::Twice);
        }
        let cast = uncastable(message).map(|value| Self::Cast(value.to_string()));
        let function = function_of(message).or_else(|| unlisted(message).map(|(name, _)| name));
        let function = function.or_else(|| between(message, "`", "` of constants is a list of "));
        cast.or_else(|| function.map(|name| Self::Call(name.to_string())))
    }
}

/// What stands between two types that can't be compared, the longer ones first.
const OPERATORS: [&str; 8] =
    [" IS NOT DISTINCT FROM ", " IS DISTINCT FROM ", " != ", " <= ", " >= ", " = ", " < ", " > "];

/// The function that can't take its arguments.
fn function_of(message: &str) -> Option<&str> {
    const UNFIT: [(&str, &str); 6] = [
        ("satisfy a call to '", "' function"),
        ("For function '", "' "),
        ("Function '", "' user-defined coercion failed"),
        ("Function '", "' failed to match any signature"),
        ("Function '", "' expects "),
        ("Function '", "' requires "),
    ];
    UNFIT.iter().find_map(|(start, end)| between(message, start, end).filter(|name| !name.contains('\'')))
}

/// The function of lists that does not take a type, and the type.
fn unlisted(message: &str) -> Option<(&str, &str)> {
    let (before, data_type) = message.split_once(" does not support type ")?;
    let function = before.rsplit(' ').next().filter(|function| function.starts_with("array_"))?;
    Some((function, data_type.split(". No function").next().unwrap_or(data_type)))
}

/// Whether an interval is multiplied or divided.
fn is_product(message: &str) -> bool {
    let operation = between(message, "temporal operation ", ":").unwrap_or_default();
    operation.contains("Interval") && (operation.contains(" * ") || operation.contains(" / "))
}

/// The constant that a failed cast is of.
fn uncastable(message: &str) -> Option<&str> {
    between(message, "Can't cast value ", " to type ")
        .or_else(|| between(message, "Cannot cast string '", "' to value of "))
        .or_else(|| between(message, "Error parsing timestamp from '", "'"))
}

/// Where something is named first.
struct Find {
    wanted: Wanted,
    found: Option<SqlSpan>,
}

impl Find {
    fn is_column(&self, names: &[Ident]) -> Option<SqlSpan> {
        let Wanted::Column(column) = &self.wanted else { return None };
        let name = names.iter().rposition(|name| normalised(name) == column.name)?;
        let is_of = match (&column.relation, name.checked_sub(1)) {
            (Some(relation), Some(before)) => normalised(&names[before]) == relation.table(),
            (_, None) | (None, Some(_)) => true,
        };
        is_of.then(|| names[0].span)
    }
}

impl Find {
    fn is_constant(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Value(value) => self.is_value(value),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: _ } => {
                matches!(&self.wanted, Wanted::Cast(wanted) if *wanted == expr.to_string())
            }
            Expr::Nested(expr) => self.is_constant(expr),
            _ => false,
        }
    }

    /// Where the function is called that an error names in its own way.
    fn called(&self, expr: &Expr) -> Option<SqlSpan> {
        let Wanted::Call(wanted) = &self.wanted else { return None };
        let is_called = match expr {
            Expr::Function(function) => {
                let name = function.name.to_string().to_ascii_lowercase();
                let is_of_lists =
                    name.strip_prefix("list_").is_some_and(|rest| wanted.strip_prefix("array_") == Some(rest));
                return (name == *wanted || is_of_lists).then(|| function.name.span());
            }
            Expr::Substring { .. } => wanted == "substr",
            Expr::CompoundFieldAccess { .. } => matches!(wanted.as_str(), "array_element" | "array_slice"),
            _ => false,
        };
        is_called.then(|| expr.span())
    }

    fn is_product(&self, expr: &Expr) -> bool {
        let is_interval = |operand: &Expr| match operand {
            Expr::Nested(inner) => matches!(inner.as_ref(), Expr::Interval(_)),
            other => matches!(other, Expr::Interval(_)),
        };
        matches!(self.wanted, Wanted::Product)
            && matches!(expr, Expr::BinaryOp { left, op: BinaryOperator::Multiply | BinaryOperator::Divide, right }
                if is_interval(left) || is_interval(right))
    }

    fn is_value(&self, value: &ValueWithSpan) -> bool {
        let Wanted::Cast(wanted) = &self.wanted else { return false };
        match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text == wanted,
            _ => false,
        }
    }
}

impl Visitor for Find {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Some(call) = self.called(expr)
            && let Some(_) = self.found.replace(call)
        {
            // Nobody knows which of two it is.
            self.found = None;
            return ControlFlow::Break(());
        }
        let found = match expr {
            Expr::Identifier(name) => self.is_column(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(names) => self.is_column(names),
            Expr::Cast { expr, .. } => self.is_constant(expr).then(|| expr.span()),
            Expr::TypedString(typed) => self.is_value(&typed.value).then_some(typed.value.span),
            other if self.is_product(other) => Some(other.span()),
            _ => None,
        };
        match found.filter(|span| span.start.line > 0) {
            Some(span) => {
                self.found = Some(span);
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let (Wanted::Twice, SetExpr::Select(select)) = (&self.wanted, query.body.as_ref()) else {
            return ControlFlow::Continue(());
        };
        let mut seen = HashSet::new();
        let mut columns = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) => Some(expr),
            _ => None,
        });
        self.found = columns.find(|column| !seen.insert(column.to_string())).map(Spanned::span);
        if self.found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let (Wanted::TableFunction(wanted), TableFactor::Table { name, args: Some(_), .. }) = (&self.wanted, factor)
            && let Some(name) = name.0.first().and_then(|part| part.as_ident())
            && name.to_string() == *wanted
        {
            self.found = Some(name.span);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// DataFusion's error as one line that says what is wrong and what to do.
pub fn readable(error: &DataFusionError) -> String {
    let root = error.find_root();
    let message = match root {
        DataFusionError::SchemaError(cause, _) => return schema_error(cause),
        DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Configuration(message) => message.clone(),
        DataFusionError::External(cause) if let Some(ours) = cause.downcast_ref::<Error>() => {
            return ours.message().to_string();
        }
        DataFusionError::Internal(message) => format!("DataFusion fails: {message}; write the query in another way"),
        DataFusionError::ArrowError(cause, _) => match cause.as_ref() {
            ArrowError::CastError(message) | ArrowError::ParseError(message) => message.clone(),
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    };
    planning_error(&one_line(&message))
}

/// Without line breaks, what DataFusion says of itself, and text of its structures.
fn one_line(message: &str) -> String {
    let message = message.split("This issue was likely caused by a bug in DataFusion").next().unwrap_or_default();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // Structures begin with a name and a brace, or with an enumeration's variant inside of one.
    let dumps =
        [" { ", "(Some(", "Column(Column", "(WindowFunction", "(ScalarFunction", "(AggregateFunction", "Literal("];
    let end = dumps.iter().filter_map(|dump| message.find(dump)).min();
    let text = match end {
        // The word before the brace is its name.
        Some(end) => {
            let start = &message[..end];
            start.rsplit_once([' ', '(']).map_or(start, |(before, _)| before).to_string()
        }
        None => message,
    };
    text.trim().trim_end_matches(['.', ':', ',', ';']).to_string()
}

fn planning_error(message: &str) -> String {
    if let Some(name) = between(message, "Invalid function '", "'") {
        let hint = match (instead(name), between(message, "Did you mean '", "'")) {
            (Some(instead), _) => format!("; write {instead}"),
            (None, Some(other)) if normalized_levenshtein(name, other) >= ALIKE => format!("; did you mean `{other}`?"),
            (None, _) => "; DataFusion's functions are listed in its manual".to_string(),
        };
        return format!("there is no function `{name}`{hint}");
    }
    if let Some(name) = between(message, "unknown table function `", "`") {
        return match name.starts_with("read_") || name.ends_with("_scan") || name.ends_with("scan_parquet") {
            true => format!(
                "{name} does not read files here; declare them with CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION \
                 'path', and read name"
            ),
            false => format!(
                "there is no table function `{name}`; there are range and generate_series, and unnest for lists"
            ),
        };
    }
    if let Some(column) = between(message, "column \"", "\" must appear in the GROUP BY clause") {
        let column = column.replace('"', "");
        return format!(
            "`{column}` is neither in GROUP BY nor inside an aggregate; add it to GROUP BY, or write min({column})"
        );
    }
    if let Some(name) =
        between(message, "Projections require unique expression names but the expression \"", "\" at position")
    {
        // What counts rows has a name of its own.
        let alias = name.rsplit_once(" AS ").map(|(_, alias)| alias);
        let is_whole = |alias: &&str| alias.matches('(').count() == alias.matches(')').count();
        let name = alias.filter(is_whole).unwrap_or(name);
        return format!("two columns are called `{}`; name one of them with AS", name.replace('"', ""));
    }
    if let Some(function) = between(message, "[return_type] ", " not supported for Null") {
        return format!("{function} can't take NULL, which has no type; write CAST(NULL AS BIGINT)");
    }
    if is_product(message) {
        return "an INTERVAL can't be multiplied or divided; write CAST(x || ' days' AS INTERVAL) for one of x days"
            .to_string();
    }
    if let Some((function, data_type)) = unlisted(message) {
        return format!(
            "{function} takes lists, not {data_type}; write [x] for a list of one value, CAST(NULL AS BIGINT[]) for NULL"
        );
    }
    if let Some(function) = function_of(message) {
        let remedy = if message.contains("user-defined coercion failed with") { "one type" } else { "what it takes" };
        let given = between(message, "argument types '", "'. You might need").map(without_names_of_items);
        // Some signatures may want another number of arguments.
        let received =
            message.split("but received ").skip(1).filter(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
        let received = received.last().map(|rest| rest.split(" (DataType").next().unwrap_or(rest));
        return match (given, received) {
            (Some(given), _) => format!("{function} can't take these arguments: {given}; CAST them to {remedy}"),
            (None, Some(received)) => format!("{function} can't take {received} there; CAST it to {remedy}"),
            (None, None) => format!("{function} can't take these arguments; CAST them to {remedy}"),
        };
    }
    // What it got is a structure.
    if let Some(rule) = message.strip_suffix(", got") {
        return format!("{}; CAST it", first_lower(rule));
    }
    if let Some(name) = between(message, "No value found for placeholder with name ", " ")
        .or(message.strip_prefix("No value found for placeholder with name ").map(str::trim))
    {
        return no_value(name);
    }
    if message.contains("Correlated scalar subquery must be aggregated") {
        return "a subquery that names columns of the query around it must give one row; write an aggregate in it, such as \
                max(x), or join with it"
            .to_string();
    }
    if message.contains("DISTINCT ON expressions must match initial ORDER BY") {
        return "ORDER BY must begin with the columns of DISTINCT ON; add them before the others".to_string();
    }
    if let Some(rest) = message.strip_prefix("Too many columns! The subquery should only return one column: ") {
        return format!(
            "the subquery gives several columns ({rest}), and one is compared; select one column in it, or write EXISTS \
             (SELECT * … WHERE x = a AND y = b) to compare several"
        );
    }
    if message.contains("unnest should be rewritten to LogicalPlan::Unnest") {
        return "unnest can't stand inside an aggregate or another function of rows; write it in a subquery: SELECT max(x) \
                FROM (SELECT unnest(list) AS x FROM …)"
            .to_string();
    }
    if message.contains("unnest() does not support null") {
        return "unnest can't take NULL, which has no type; write CAST(NULL AS BIGINT[])".to_string();
    }
    if let Some(types) = message.strip_prefix("Cannot infer common argument type for comparison operation ") {
        let types = OPERATORS.iter().find_map(|operator| types.split_once(operator));
        let (left, right) = types.unwrap_or((message, "another type"));
        return format!("{left} and {right} can't be compared; CAST one side to the type of the other");
    }
    if message.contains("Cannot access field at argument") {
        return "in `name.column`, `name` is both a table and a column without fields, and the column is taken; give the \
                table another alias"
            .to_string();
    }
    if message.contains("Aggregate functions are not allowed in the WHERE clause") {
        return "aggregates can't stand in WHERE, which is of rows before they are grouped; write HAVING".to_string();
    }
    first_lower(message)
}

/// A sentence as a part of one, but for names.
fn first_lower(message: &str) -> String {
    let mut letters = message.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second))
            if first.is_ascii_uppercase() && second.is_ascii_lowercase() && !message.starts_with("DataFusion") =>
        {
            format!("{}{}", first.to_ascii_lowercase(), &message[1..])
        }
        _ => message.to_string(),
    }
}

/// Types of arguments, without what the items of lists are called: `List(Int64, field: 'item')`.
fn without_names_of_items(types: &str) -> String {
    let mut parts = types.split(", field: '");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once('\'').map_or(part, |(_, rest)| rest))
}

/// What a parameter without a value is told.
fn no_value(name: &str) -> String {
    format!("`{name}` has no value; write the value, or give it with Task::parameter in a program")
}

/// What DataFusion calls a function of another system.
fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "list" | "collect_list" | "group_array" => "array_agg(x)",
        "collect_set" => "array_agg(DISTINCT x)",
        "listagg" | "group_concat" => "string_agg(x, ',')",
        "isnull" | "ifnull" => "coalesce(x, y)",
        "iff" | "if" => "CASE WHEN … THEN … ELSE … END",
        "date_format" | "strftime" => "to_char(x, '%Y-%m-%d')",
        "str_to_date" | "strptime" => "to_timestamp(x, '%Y-%m-%d')",
        "datediff" | "date_diff" => "CAST(b AS DATE) - CAST(a AS DATE)",
        "dateadd" | "date_add" => "x + INTERVAL '1 day'",
        "getdate" | "sysdate" => "now()",
        "len" => "length(x)",
        "size" | "array_size" | "len_array" => "cardinality(x)",
        "explode" => "unnest(x)",
        "countif" | "count_if" => "count(*) FILTER (WHERE …)",
        "sumif" | "sum_if" => "sum(x) FILTER (WHERE …)",
        "sign" => "signum(x)",
        "mod" => "x % y",
        "arg_min" | "min_by" => "first_value(x ORDER BY y)",
        "arg_max" | "max_by" => "first_value(x ORDER BY y DESC NULLS LAST)",
        "year" | "month" | "day" | "hour" | "minute" | "second" => "date_part('year', x) and the like",
        "charindex" | "locate" => "strpos(text, part)",
        "regexp_extract" => "regexp_match(x, 'expression')[1]",
        "json_extract" | "get_json_object" | "json_extract_string" => {
            "column['field'] of a column that is declared as a struct"
        }
        _ => return None,
    })
}

fn schema_error(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => not_found(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            let name = &field.name;
            format!("several columns are called `{name}`; write it with its table, table.{name}, or name one with AS")
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            format!("two columns are called `{qualifier}.{name}`; name one of the tables, or of the columns, with AS")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            format!("two columns are called `{name}`; name one of them with AS")
        }
    }
}

/// That there is no column, and which one may be meant.
fn not_found(field: &Column, valid: &[Column]) -> String {
    let wanted = shown(field);
    let is_of = |other: &&Column| field.relation.is_none() || other.relation == field.relation;
    let same = valid.iter().filter(is_of).find(|other| other.name.eq_ignore_ascii_case(&field.name));
    if let Some(other) = same {
        let name = &other.name;
        return format!(
            "there is no column {wanted}; names without quotes are lower case, so write \"{name}\" in double quotes"
        );
    }
    let lower = field.name.to_lowercase();
    let alike = |other: &&Column| (normalized_levenshtein(&other.name.to_lowercase(), &lower) * 1000.0) as u32;
    let best = valid.iter().max_by_key(alike).filter(|other| alike(other) >= (ALIKE * 1000.0) as u32);
    if let Some(other) = best {
        return format!("there is no column {wanted}; did you mean {}?", shown(other));
    }
    match valid {
        [] => format!("there is no column {wanted} here"),
        valid => {
            let names: Vec<_> = valid.iter().take(MAX_NAMES).map(shown).collect();
            let more = valid.len().saturating_sub(MAX_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("there is no column {wanted}; the columns are {}{more}", names.join(", "))
        }
    }
}

/// The column as it is written in SQL.
fn shown(column: &Column) -> String {
    let part = |name: &str| {
        let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if is_plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    match &column.relation {
        Some(relation) => format!("`{}.{}`", part(relation.table()), part(&column.name)),
        None => format!("`{}`", part(&column.name)),
    }
}

/// What stands between two texts.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use datafusion::common::{Column, DataFusionError};

    use crate::plan::query::error::{not_found, readable};

    #[test]
    fn planning_errors_are_one_line_without_structures() {
        for (message, expected) in [
            (
                "Invalid function 'nulif'.\nDid you mean 'nullif'?",
                "there is no function `nulif`; did you mean `nullif`?",
            ),
            (
                "Invalid function 'listagg'.\nDid you mean 'least'?",
                "there is no function `listagg`; write string_agg(x, ',')",
            ),
            (
                "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"t.a\" must \
                 appear in the GROUP BY clause or must be part of an aggregate function, currently only \"t.k\" appears",
                "`t.a` is neither in GROUP BY nor inside an aggregate; add it to GROUP BY, or write min(t.a)",
            ),
            (
                "Unsupported JOIN operator Semi(On(BinaryOp { left: Identifier(Ident { value: \"a\" }) }))",
                "unsupported JOIN operator Semi(On",
            ),
            (
                "Failed to coerce arguments to satisfy a call to 'abs' function: coercion from Utf8 to the signature \
              Numeric(1) failed No function matches the given name and argument types 'abs(Utf8)'. You might need",
                "abs can't take these arguments: abs(Utf8); CAST them to what it takes",
            ),
            (
                "Failed to coerce arguments to satisfy a call to 'array_element' function: coercion from List(Int64, field: \
                 'item'), UInt64 to the signature no failed No function matches the given name and argument types \
                 'array_element(List(Int64, field: 'item'), UInt64)'. You might need",
                "array_element can't take these arguments: array_element(List(Int64), UInt64); CAST them to what it takes",
            ),
            (
                "Function 'range' failed to match any signature, errors: Error during planning: Function 'range' expected 1 \
                 arguments but received 2,Error during planning: Function 'range' requires Int64, but received List(Int64) \
                 (DataType: List(Int64)).,Error during planning: Function 'range' expected 3 arguments but received 2",
                "range can't take List(Int64) there; CAST it to what it takes",
            ),
            (
                "Argument #2 must be an INTEGER or NULL, got Column(Column { relation: None, name: \"k\" })",
                "argument #2 must be an INTEGER or NULL; CAST it",
            ),
            (
                "Projections require unique expression names but the expression \"count(Int64(1)) AS count(*)\" at position 0",
                "two columns are called `count(*)`; name one of them with AS",
            ),
            (
                "Projections require unique expression names but the expression \"CAST(t.v AS Int64)\" at position 0",
                "two columns are called `CAST(t.v AS Int64)`; name one of them with AS",
            ),
        ] {
            assert_eq!(readable(&DataFusionError::Plan(message.to_string())), expected, "{message}");
        }
        let context = DataFusionError::Plan("no".to_string()).context("type_coercion");
        assert_eq!(readable(&context), "no");
    }

    #[test]
    fn a_column_that_is_not_there_is_told_from_one_in_other_letters() {
        let valid = [
            Column::new(Some("hits"), "UserID"),
            Column::new(Some("hits"), "ClientTimeZone"),
            Column::new(Some("hits"), "k"),
        ];
        for (name, expected) in [
            ("clienttimezone", "names without quotes are lower case, so write \"ClientTimeZone\" in double quotes"),
            ("userids", "did you mean `hits.\"UserID\"`?"),
            ("something_else", "the columns are `hits.\"UserID\"`, `hits.\"ClientTimeZone\"`, `hits.k`"),
        ] {
            let message = not_found(&Column::from_name(name), &valid);
            assert!(message.contains(expected), "{message}");
        }
    }
}
