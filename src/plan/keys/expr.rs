//! Expressions that carry a key: a column, a cast of one, `coalesce(a, b)`, `date_trunc('day', t)`, `k % 10`, …
//!
//! Any function of a key is a valid chunk function, as long as equal keys give equal values and computing it never
//! fails: a chunk's predicate sees rows that the query's own filters would have dropped before. So only functions that
//! are known to be both are taken, a CAST is computed as TRY_CAST, and integers wrap around: where the query itself evaluates
//! the expression for such a row it fails, in whichever chunk the row is.
//!
//! Expressions are kept over positions of a node's columns and compared as trees. Casts around the whole that keep each
//! value and its hash are left out: `CAST(k AS BIGINT)` of an INT is `k`.
//!
//! Where each input has predicates of its own, the key is the number of the only one that holds. They are the user's, so they
//! are computed as they are, and may fail.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case, ScalarFunction, TryCast};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, lit};

use crate::arithmetic::function::lenient_function;
use crate::arithmetic::moments::NANOSECONDS_OF;
use crate::arithmetic::operator::wrapping;
use crate::chunk::given::number_of;
use crate::chunk::key::{KeyFamily, key_family, lossless_cast};
use crate::chunk::only::predicates_of;
use crate::plan::prove::rule::{Rule, Rules};

/// Functions that give one value for equal arguments, not floats, and never fail on a row.
const FUNCTIONS: [&str; 17] = [
    "btrim",
    "character_length",
    "concat",
    "date_part",
    "date_trunc",
    // Of structs only.
    "get_field",
    "left",
    "lower",
    "ltrim",
    "md5",
    NANOSECONDS_OF,
    "octet_length",
    "reverse",
    "right",
    "rtrim",
    "substr",
    "upper",
];

/// An expression of more parts than this is no key. Equalities put one expression into another, and so could make ever
/// longer ones: `a = b * b` and `b = a * a`.
const MOST_PARTS: usize = 128;

/// An expression over the columns of a node, by position, whose type can be a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyExpr {
    expr: Expr,
    data_type: DataType,
    /// How many columns, constants, functions and operators it has.
    parts: usize,
}

impl KeyExpr {
    fn new(expr: Expr, data_type: DataType) -> Self {
        Self { parts: parts(&expr, usize::MAX), expr, data_type }
    }

    /// The column at a position.
    pub fn column(at: usize, data_type: &DataType) -> Self {
        Self { expr: positional(at), data_type: data_type.clone(), parts: 1 }
    }

    /// What `expr`, over the columns of `schema`, carries; `None` when that can't be a key.
    pub fn of(expr: &Expr, schema: &DFSchema, rules: Rules) -> Option<Self> {
        if is_too_long(expr) {
            return None;
        }
        let kept = without_lossless_casts(expr, schema, rules)?;
        let data_type = kept.get_type(schema).ok()?;
        key_family(&data_type)?;
        let expr = exact(kept, schema, rules)?;
        let found = Self::new(expr, data_type);
        (!found.columns().is_empty()).then_some(found)
    }

    /// The values that the column at a position has or, where it is a struct, its fields, as far as they can be keys.
    pub fn all_of_column(at: usize, field: &Field, rules: Rules) -> Vec<Self> {
        if key_family(field.data_type()).is_some() {
            return vec![Self::column(at, field.data_type())];
        }
        let columns = (0..=at).map(|other| if other == at { field.clone() } else { unnamed(other) });
        let named = columns.enumerate().map(|(at, field)| field.with_name(at.to_string())).collect::<Vec<_>>();
        let Ok(schema) = DFSchema::try_from(Schema::new(named)) else { return Vec::new() };
        let DataType::Struct(_) = field.data_type() else { return Vec::new() };
        let fields = fields_of(&positional(at), &[], field.data_type());
        fields.iter().filter_map(|of_field| Self::of(of_field, &schema, rules)).collect()
    }

    /// How many columns, constants, functions and operators it has.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Whether it is too long to be a key, and was made of others that are not.
    pub fn is_too_long(&self) -> bool {
        self.parts > MOST_PARTS && self.predicates().is_none()
    }

    /// Whether `expr` is a part of it.
    pub fn has(&self, expr: &Expr) -> bool {
        // The closure never fails.
        self.expr.exists(|part| Ok(part == expr)).unwrap_or_default()
    }

    /// `coalesce(first, second)` of two expressions of one type.
    pub fn coalesce(first: &Self, second: &Self) -> Self {
        Self::new(coalesce(vec![first.expr.clone(), second.expr.clone()]), first.data_type.clone())
    }

    /// This expression, cast to a type.
    pub fn cast(&self, to: &DataType) -> Self {
        if &self.data_type == to {
            return self.clone();
        }
        Self { expr: try_cast(self.expr.clone(), to), data_type: to.clone(), parts: self.parts + 1 }
    }

    /// The number of the only predicate that holds, as [`number_of`] makes it over positions.
    ///
    /// # Errors
    /// As [`number_of`].
    pub fn number_of(input: &str, predicates: &[Expr], schema: &Schema) -> Result<Self> {
        Ok(Self::new(number_of(input, predicates, schema, positional)?, DataType::Int32))
    }

    /// The predicates over positions, when it is the number of the only one that holds.
    pub fn predicates(&self) -> Option<&[Expr]> {
        predicates_of(&self.expr)
    }

    /// Whether rows with equal values in its columns are known to have equal values of it. Predicates may tell -0.0 from 0.0,
    /// and those over no columns have a value where there is no row.
    pub fn is_of_equals(&self, columns: &[Column], schema: &DFSchema) -> bool {
        let is_told_apart = |part: &Expr| {
            if part.column_refs().is_empty() {
                return Ok(false);
            }
            let family = part.get_type(schema).ok().and_then(|data_type| key_family(&data_type));
            Ok(matches!(family, None | Some(KeyFamily::Float)))
        };
        let Some(predicates) = self.predicates() else { return true };
        !self.columns().is_empty()
            && predicates.iter().all(|predicate| {
                let predicate = over(predicate, columns);
                !predicate.exists(is_told_apart).unwrap_or(true)
            })
    }

    /// Its type.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The expression over positions.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The position, when it is a bare column.
    pub fn as_column(&self) -> Option<usize> {
        as_position(&self.expr)
    }

    /// Positions of the columns in it.
    pub fn columns(&self) -> BTreeSet<usize> {
        self.expr.column_refs().into_iter().filter_map(position_of).collect()
    }

    /// The first argument, when it is a `coalesce`.
    pub fn first_of_coalesce(&self, schema: &DFSchema) -> Option<Self> {
        let [first, ..] = coalesced(&self.expr)? else { return None };
        let at = as_position(first)?;
        Some(Self::column(at, schema.field(at).data_type()))
    }

    /// Whether it is NULL where all its columns are.
    pub fn is_null_of_nulls(&self) -> bool {
        is_null_of_nulls(&self.expr)
    }

    /// Whether equal values of both have equal hashes.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.family().is_some() && self.family() == other.family()
    }

    /// The family of its type.
    pub fn family(&self) -> Option<KeyFamily> {
        key_family(&self.data_type)
    }

    /// The expression with its parts replaced, from the outside in; `None` when a column is left that nothing replaced.
    pub fn replaced(&self, replace: impl Fn(&Expr) -> Option<Expr>) -> Option<Self> {
        let mut is_left = false;
        let replaced = self.expr.clone().transform_down(|part| match replace(&part) {
            Some(new) => Ok(Transformed::new(new, true, TreeNodeRecursion::Jump)),
            None => {
                is_left |= matches!(part, Expr::Column(_));
                Ok(Transformed::no(part))
            }
        });
        let expr = replaced.ok()?.data;
        (!is_left).then(|| Self::new(expr, self.data_type.clone()))
    }

    /// The expression after each column moved to another position, or `None` when one has none.
    pub fn moved(&self, position: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        self.replaced(|part| position(as_position(part)?).map(positional))
    }

    /// The expression with `new` wherever `old` is a part of it.
    pub fn substituted(&self, old: &Expr, new: &Expr) -> Option<Self> {
        let mut found = false;
        let replaced = self.expr.clone().transform_down(|part| {
            if &part == old {
                found = true;
                return Ok(Transformed::new(new.clone(), true, TreeNodeRecursion::Jump));
            }
            Ok(Transformed::no(part))
        });
        let expr = replaced.ok()?.data;
        found.then(|| Self::new(expr, self.data_type.clone()))
    }

    /// The expression over these columns, as it is evaluated: it never fails, unless it is a number of the user's predicates.
    pub fn over(&self, columns: &[Column]) -> Expr {
        let expr = over(&self.expr, columns);
        if self.predicates().is_some() { expr } else { never_failing(expr) }
    }

    /// The expression in SQL, its columns by these names.
    pub fn shown(&self, name: impl Fn(usize) -> String) -> String {
        match self.as_column() {
            Some(at) => name(at),
            // As many as there are chunks would tell less.
            None if self.predicates().is_some() => self.columns().into_iter().map(name).collect::<Vec<_>>().join(", "),
            None => {
                let columns: Vec<Column> = match self.columns().last() {
                    Some(last) => (0..=*last).map(|at| Column::new_unqualified(name(at))).collect(),
                    None => Vec::new(),
                };
                over(&self.expr, &columns).to_string()
            }
        }
    }
}

fn unnamed(at: usize) -> Field {
    Field::new(at.to_string(), DataType::Null, true)
}

/// The fields of a struct, and those of structs in it, which have this path, as DataFusion writes them.
fn fields_of(value: &Expr, path: &[Expr], data_type: &DataType) -> Vec<Expr> {
    let DataType::Struct(fields) = data_type else {
        let args = [value.clone()].into_iter().chain(path.iter().cloned()).collect();
        return vec![datafusion::functions::core::get_field().call(args)];
    };
    let of_field = |field: &FieldRef| {
        let path: Vec<Expr> = path.iter().cloned().chain([lit(field.name().as_str())]).collect();
        fields_of(value, &path, field.data_type())
    };
    fields.iter().flat_map(of_field).collect()
}

/// Whether an expression has more parts than a key may have.
pub fn is_too_long(expr: &Expr) -> bool {
    parts(expr, MOST_PARTS) > MOST_PARTS
}

/// The number of an expression's parts, counted no further than just beyond `most`.
fn parts(expr: &Expr, most: usize) -> usize {
    let mut count = 0;
    // The closure never fails.
    let _ = expr.apply(|_| {
        count += 1;
        Ok(if count > most { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    count
}

/// An expression over positions, over these columns.
pub fn over(expr: &Expr, columns: &[Column]) -> Expr {
    let replace = |part: Expr| match as_position(&part).and_then(|at| columns.get(at)) {
        Some(column) => Ok(Transformed::yes(Expr::Column(column.clone()))),
        None => Ok(Transformed::no(part)),
    };
    // The closure never fails.
    expr.clone().transform_up(replace).map_or_else(|_| expr.clone(), |replaced| replaced.data)
}

/// `expr` with integers that wrap around where they overflow, and functions of dates that are NULL where they fail.
fn never_failing(expr: Expr) -> Expr {
    let replace = |part: Expr| match part {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match wrapping(op, (*left).clone(), (*right).clone()) {
            Some(wrapping) => Ok(Transformed::yes(wrapping)),
            None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let func = lenient_function(&func).unwrap_or(func);
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        other => Ok(Transformed::no(other)),
    };
    // The closure never fails.
    expr.clone().transform_up(replace).map_or(expr, |replaced| replaced.data)
}

/// `expr` over positions, every cast in it as one that gives NULL where it fails; `None` when it is not known to give
/// one value for equal arguments, or might fail, or is too long to be a part of a key.
pub fn exact(expr: &Expr, schema: &DFSchema, rules: Rules) -> Option<Expr> {
    if is_too_long(expr) { None } else { exact_parts(expr, schema, rules) }
}

fn exact_parts(expr: &Expr, schema: &DFSchema, rules: Rules) -> Option<Expr> {
    let go = |e: &Expr| exact_parts(e, schema, rules);
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column).map(positional),
        Expr::Literal(value, _) => Some(Expr::Literal(value.clone(), None)),
        Expr::Alias(alias) => go(&alias.expr),
        Expr::Cast(cast) => exact_cast(&cast.expr, cast.field.data_type(), schema, rules),
        Expr::TryCast(cast) => exact_cast(&cast.expr, cast.field.data_type(), schema, rules),
        Expr::Case(case) => Some(coalesce(case_as_coalesce(case)?.into_iter().map(go).collect::<Option<_>>()?)),
        Expr::ScalarFunction(f) if f.func.name() == "coalesce" => {
            Some(coalesce(f.args.iter().map(go).collect::<Option<_>>()?))
        }
        Expr::ScalarFunction(f) if FUNCTIONS.contains(&f.func.name()) => {
            if rules.ask(Rule::ExactArguments) && f.args.iter().any(|arg| is_float(arg, schema)) {
                return None;
            }
            let of_struct = |arg: &Expr| arg.get_type(schema).is_ok_and(|t| matches!(t, DataType::Struct(_)));
            if f.func.name() == "get_field" && !f.args.first().is_some_and(of_struct) {
                return None;
            }
            // A length that is a column may be one that fails, in rows that the query drops before.
            let columns = f.args.iter().filter(|arg| !matches!(arg, Expr::Literal(..))).count();
            if columns > 1 && f.func.name() != "concat" {
                return None;
            }
            let args = f.args.iter().map(go).collect::<Option<_>>()?;
            Some(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&f.func), args }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let is_integer = |e: &Expr| e.get_type(schema).is_ok_and(|t| t.is_integer());
            let is_known = match op {
                Operator::Plus | Operator::Minus | Operator::Multiply => is_integer(left) && is_integer(right),
                Operator::Divide | Operator::Modulo => is_integer(left) && is_positive(right),
                _ => false,
            };
            let new = || Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(go(left)?), *op, Box::new(go(right)?))));
            if is_known { new() } else { None }
        }
        _ => None,
    }
}

/// What an expression carries through casts that keep every value and its hash.
///
/// Inner ones keep every value too, so only the innermost type and that of each cast matter.
fn without_lossless_casts<'e>(expr: &'e Expr, schema: &DFSchema, rules: Rules) -> Option<&'e Expr> {
    match expr {
        Expr::Alias(alias) => without_lossless_casts(&alias.expr, schema, rules),
        Expr::Cast(cast) => {
            let inner = without_lossless_casts(&cast.expr, schema, rules)?;
            let keeps = lossless_cast(&inner.get_type(schema).ok()?, cast.field.data_type());
            Some(if keeps || !rules.ask(Rule::LosslessCasts) { inner } else { expr })
        }
        _ => Some(expr),
    }
}

/// Casts of a float are taken to numbers only: as texts, -0.0 and 0.0 differ.
fn exact_cast(of: &Expr, to: &DataType, schema: &DFSchema, rules: Rules) -> Option<Expr> {
    if rules.ask(Rule::ExactArguments) && is_float(of, schema) && !to.is_numeric() {
        return None;
    }
    key_family(to)?;
    let inner = exact_parts(of, schema, rules)?;
    Some(if of.get_type(schema).ok()? == *to { inner } else { try_cast(inner, to) })
}

/// Whether an expression is known to be NULL where all its columns are.
fn is_null_of_nulls(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Literal(value, _) => value.is_null(),
        Expr::TryCast(cast) => is_null_of_nulls(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: _, right }) => is_null_of_nulls(left) || is_null_of_nulls(right),
        Expr::ScalarFunction(f) if f.func.name() == "coalesce" => f.args.iter().all(is_null_of_nulls),
        // NULL is an empty text to it.
        Expr::ScalarFunction(f) if f.func.name() == "concat" => false,
        Expr::ScalarFunction(f) if FUNCTIONS.contains(&f.func.name()) => f.args.iter().any(is_null_of_nulls),
        _ => false,
    }
}

/// The arguments of the `coalesce` that a CASE is: `CASE WHEN a IS NOT NULL THEN a … ELSE c END`, as the simplifier
/// writes it.
fn case_as_coalesce(case: &Case) -> Option<Vec<&Expr>> {
    let Case { expr: None, when_then_expr, else_expr: Some(last) } = case else { return None };
    let mut arguments = Vec::new();
    for (when, then) in when_then_expr {
        let Expr::IsNotNull(tested) = when.as_ref() else { return None };
        if tested != then {
            return None;
        }
        arguments.push(then.as_ref());
    }
    arguments.push(last.as_ref());
    Some(arguments)
}

/// `coalesce` of these, those within it that are such themselves taken apart.
fn coalesce(arguments: Vec<Expr>) -> Expr {
    let flat = arguments.into_iter().flat_map(|argument| match coalesced(&argument) {
        Some(inner) => inner.to_vec(),
        None => vec![argument],
    });
    let func = datafusion::functions::core::coalesce();
    Expr::ScalarFunction(ScalarFunction { func, args: flat.collect() })
}

fn coalesced(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(f) if f.func.name() == "coalesce" => Some(&f.args),
        _ => None,
    }
}

fn try_cast(expr: Expr, to: &DataType) -> Expr {
    Expr::TryCast(TryCast::new(Box::new(expr), to.clone()))
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|t| t.is_floating())
}

fn is_positive(expr: &Expr) -> bool {
    let Expr::Literal(value, _) = expr else { return false };
    let zero = ScalarValue::new_zero(&value.data_type());
    value.data_type().is_integer() && zero.is_ok_and(|zero| value.partial_cmp(&zero).is_some_and(|o| o.is_gt()))
}

fn positional(at: usize) -> Expr {
    Expr::Column(Column::new_unqualified(at.to_string()))
}

fn position_of(column: &Column) -> Option<usize> {
    column.name.parse().ok()
}

/// The position that a bare column stands for.
pub fn as_position(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => position_of(column),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, cast, col, lit};
    use datafusion::prelude::{coalesce, concat, upper};

    use super::KeyExpr;
    use crate::plan::prove::rule::Rules;

    fn schema() -> Schema {
        let list = DataType::new_list(DataType::Int32, true);
        let columns = [("k", DataType::Int64), ("s", DataType::Utf8View), ("x", DataType::Float64), ("l", list)];
        Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec())
    }

    #[test]
    fn rows_with_equal_columns_are_of_one_chunk_as_far_as_no_float_tells_them_apart() {
        let floats = || cast(col("k"), DataType::Float64);
        let lists = || cast(col("l"), DataType::new_list(DataType::Int64, true)).is_null();
        let cases: [(Vec<Expr>, bool); 9] = [
            (vec![col("k").lt(lit(5)), upper(col("s")).eq(lit("A"))], true),
            (vec![col("k").lt(lit(5.5))], true),
            (vec![col("s").is_null().or(col("k").is_null())], true),
            (vec![col("k").lt(lit(5)), col("x").is_null()], false),
            (vec![floats().lt(lit(5.5))], false),
            (vec![(col("k") + lit(0.5)).lt(lit(5.5))], false),
            (vec![col("l").is_null()], false),
            (vec![lists()], false),
            // Where there are no rows there is no chunk.
            (vec![lit(true), lit(false)], false),
        ];
        let schema = schema();
        let all = DFSchema::try_from(schema.clone()).unwrap();
        for (predicates, is_known) in cases {
            let key = KeyExpr::number_of("t", &predicates, &schema).unwrap();
            assert_eq!(key.predicates().map(<[Expr]>::len), Some(predicates.len()));
            assert_eq!(key.is_of_equals(&all.columns(), &all), is_known, "{predicates:?}");
            assert!(!key.is_null_of_nulls(), "{predicates:?}");
        }
        assert_eq!(key_of(upper(col("s"))).predicates(), None);
    }

    fn key_of(expr: Expr) -> KeyExpr {
        KeyExpr::of(&expr, &DFSchema::try_from(schema()).unwrap(), Rules::default()).unwrap()
    }

    #[test]
    fn some_keys_are_null_where_all_their_columns_are() {
        let text = || cast(col("k"), DataType::Utf8View);
        let second = DataType::Timestamp(TimeUnit::Second, None);
        for (key, is_null) in [
            (col("k"), true),
            (col("k") + lit(1i64), true),
            (cast(col("s"), second), true),
            (upper(text()), true),
            (coalesce(vec![col("s"), text()]), true),
            (coalesce(vec![col("s"), lit("a")]), false),
            (concat(vec![col("s"), lit("a")]), false),
            (upper(concat(vec![col("s"), text()])), false),
        ] {
            assert_eq!(key_of(key.clone()).is_null_of_nulls(), is_null, "{key}");
        }
    }
}
