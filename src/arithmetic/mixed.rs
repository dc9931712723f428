//! Values of different types that are compared, or become one column.
//!
//! **Decimals beside floats.** DataFusion 55 makes both DECIMAL(30, 15). The DOUBLE 8.38 is 8.380000000000001 there,
//! which no decimal in a column is; what is smaller than 1e-15 becomes 0, and what is larger than 1e15 fails. Here a
//! number that is written in the query is the decimal that it says, if it fits beside the others; all else is compared,
//! and put together, as DOUBLE: as in PostgreSQL and DuckDB.
//!
//! **Numbers beside dates, times and intervals** DataFusion takes for days, nanoseconds or months, which one depends on
//! the type and the place. Here they are an error, as in PostgreSQL and DuckDB.
//!
//! **Times of day** of different units, which DataFusion does not compare, have the finer unit; **dates and
//! timestamps** are compared exactly ([`moments`](crate::arithmetic::moments)).
//!
//! **Intervals** are compared by their length ([`interval`](crate::arithmetic::interval)).

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{
    Between, Case, InList, InSubquery, ScalarFunction, SetComparison, WindowFunctionParams,
};
use datafusion::logical_expr::expr_rewriter::coerce_plan_expr_for_schema;
use datafusion::logical_expr::expr_schema::cast_subquery;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, Join, LogicalPlan, Operator, Subquery, TryCast, Union, WindowFrame,
    WindowFrameBound, WindowFrameUnits,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use sqlparser::ast::BinaryOperator;

use crate::arithmetic::cast::check_certain_casts;
use crate::arithmetic::checked::{map_keeping_names, schema_below};
use crate::arithmetic::compare::is_comparison;
use crate::arithmetic::interval::{check_frame, compare_by_length, keys_by_length, sort_by_length};
use crate::arithmetic::moments::{by_nanoseconds, type_of_dates, unify_compared_dates, unify_dates};
use crate::arithmetic::nested::compare_in_order;
use crate::arithmetic::written::{as_float, decimal_of, written_as_float, written_as_integer};
use crate::shown::type_name;

/// Functions whose arguments become one type, from which of them on.
const OF_ONE_TYPE: [(&str, usize); 7] =
    [("coalesce", 0), ("nullif", 0), ("nvl", 0), ("nvl2", 1), ("greatest", 0), ("least", 0), ("make_array", 0)];

/// DataFusion's type coercion, in which what has no type in common keeps apart.
///
/// From inside out, each part after all below it has its type: what a CASE or a branch of a union gives is not known
/// before. DataFusion's own rule does the same with nothing in between.
#[derive(Debug)]
pub struct Coercion;

impl AnalyzerRule for Coercion {
    fn name(&self) -> &str {
        "type_coercion"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(coerced).data()
    }
}

/// A node over inputs that are coerced.
fn coerced(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = schema_below(&node)?;
    let node = match node {
        LogicalPlan::Join(join) => keys_apart(join)?,
        LogicalPlan::Union(union) => branches_apart(union)?,
        other => other,
    };
    let node = sort_by_length(node, &schema)?;
    let coerced = map_keeping_names(node, |expr| {
        let coerced = expr.rewrite(&mut Parts { schema: &schema })?;
        check_certain_casts(&coerced.data)?;
        Ok(coerced)
    })?;
    let coerced = coerced.map_data(|node| match node {
        // For WHERE NULL.
        LogicalPlan::Filter(mut filter) => {
            filter.predicate = filter.predicate.cast_to(&DataType::Boolean, &schema)?;
            Ok(LogicalPlan::Filter(filter))
        }
        other => TypeCoercionRewriter::new(&schema).coerce_plan(other),
    })?;
    Ok(Transformed::yes(coerced.data.recompute_schema()?))
}

/// Coerces the parts of an expression.
struct Parts<'a> {
    schema: &'a DFSchema,
}

impl TreeNodeRewriter for Parts<'_> {
    type Node = Expr;

    fn f_up(&mut self, mut part: Expr) -> Result<Transformed<Expr>> {
        keep_apart(&mut part, self.schema)?;
        if let Expr::WindowFunction(window) = &mut part {
            let WindowFunctionParams { order_by, window_frame, .. } = &mut window.params;
            if let Some(key) = order_by.first_mut() {
                measure(window_frame, &mut key.expr, self.schema)?;
            }
        }
        refuse_nested_extremes(&part, self.schema)?;
        let coerced = TypeCoercionRewriter::new(self.schema).f_up(part)?;
        let coerced = coerced.transform_data(|part| match part {
            Expr::ScalarFunction(_) => part.map_children(|part| Ok(written_as_integer(part))),
            _ => part.map_children(|part| Ok(written_as_float(part))),
        })?;
        let mut coerced = coerced.transform_data(|part| Ok(written_as_float(part)))?;
        compare_by_length(&mut coerced.data, self.schema)?;
        compare_in_order(&mut coerced.data, self.schema);
        if let Expr::WindowFunction(window) = &coerced.data
            && let [key] = window.params.order_by.as_slice()
        {
            check_frame(&window.params.window_frame, &key.expr.get_type(self.schema)?)?;
        }
        Ok(coerced)
    }
}

/// Makes of a frame by distance one that is right.
///
/// Where no bound has a distance, it counts in peers: that is the same, and DataFusion knows distances of few types.
/// Where one has, integers become wide enough for all bounds: one beyond the type would have the rows of NULLs in its
/// frame.
fn measure(frame: &mut WindowFrame, key: &mut Expr, schema: &DFSchema) -> Result<()> {
    if frame.units != WindowFrameUnits::Range {
        let too_far = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::Preceding(rows) | WindowFrameBound::Following(rows) => {
                rows.to_string().parse::<u64>().is_ok_and(|rows| i64::try_from(rows).is_err())
            }
            WindowFrameBound::CurrentRow => false,
        };
        if too_far(&frame.start_bound) || too_far(&frame.end_bound) {
            return plan_err!("a frame reaches at most {} rows; write UNBOUNDED", i64::MAX);
        }
        let rows = |distance: &ScalarValue| distance.to_string().parse::<u64>();
        let is_empty = match (&frame.start_bound, &frame.end_bound) {
            (WindowFrameBound::Preceding(start), WindowFrameBound::Preceding(end)) => {
                matches!((rows(start), rows(end)), (Ok(start), Ok(end)) if start < end)
            }
            (WindowFrameBound::Following(start), WindowFrameBound::Following(end)) => {
                matches!((rows(start), rows(end)), (Ok(start), Ok(end)) if start > end)
            }
            _ => false,
        };
        return match is_empty {
            true => plan_err!("the frame {frame} ends before it starts; write the bounds the other way round"),
            false => Ok(()),
        };
    }
    let data_type = key.get_type(schema)?;
    let distance = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) if !distance.is_null() => {
            Some(distance.clone())
        }
        _ => None,
    };
    let distances: Vec<ScalarValue> = [&frame.start_bound, &frame.end_bound].into_iter().filter_map(distance).collect();
    // Others have a type already.
    let written: Vec<String> =
        distances.iter().filter_map(|distance| distance.try_as_str().flatten().map(str::to_string)).collect();
    let has_distances =
        data_type.is_numeric() || matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    if distances.is_empty() {
        let is_unknown = matches!(
            data_type,
            DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Duration(_)
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
                | DataType::Struct(_)
        );
        if is_unknown {
            let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
            *frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
        }
        return Ok(());
    }
    if !has_distances && !matches!(data_type, DataType::Interval(_) | DataType::Dictionary(..) | DataType::Null) {
        return plan_err!(
            "RANGE with a distance is for windows that are ordered by a number, a date or a timestamp, not by {}; write ROWS, \
             or order by one",
            type_name(&data_type)
        );
    }
    let is_number = |text: &&String| text.parse::<f64>().is_ok();
    if let (DataType::Date32 | DataType::Date64 | DataType::Timestamp(..), Some(number)) =
        (&data_type, written.iter().find(is_number))
    {
        return plan_err!("RANGE {number} has no unit; write INTERVAL '{number} days', or another one");
    }
    if let DataType::Decimal32(_, scale)
    | DataType::Decimal64(_, scale)
    | DataType::Decimal128(_, scale)
    | DataType::Decimal256(_, scale) = data_type
    {
        let is_exact = |text: &&String| {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let is_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
            is_digits && i64::try_from(fraction.len()).is_ok_and(|digits| digits <= i64::from(scale))
        };
        if let Some(other) = written.iter().find(|text| !is_exact(text)) {
            return plan_err!(
                "RANGE {other} has more digits than {}, by which the window is ordered; CAST that to one with as many",
                type_name(&data_type)
            );
        }
    }
    if matches!(data_type, DataType::Float16 | DataType::Float32) {
        *key = as_float(std::mem::take(key));
    }
    if data_type.is_integer() {
        if let Some(other) = written.iter().find(|text| !text.bytes().all(|byte| byte.is_ascii_digit())) {
            return plan_err!(
                "RANGE {other} is no whole number, as what the window is ordered by; CAST that to DOUBLE"
            );
        }
        let wider = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
        for bound in [&mut frame.start_bound, &mut frame.end_bound] {
            if let WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) = bound {
                *distance = distance.cast_to(&wider)?;
            }
        }
        *key = Expr::Cast(Cast::new(Box::new(std::mem::take(key)), wider));
    }
    Ok(())
}

/// Fails for the least and largest of lists and structs, where DataFusion 55 compares the NULLs inside of them otherwise than
/// ORDER BY does.
fn refuse_nested_extremes(part: &Expr, schema: &DFSchema) -> Result<()> {
    let (name, args) = match part {
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
        Expr::ScalarFunction(call) => (call.func.name(), &call.args),
        _ => return Ok(()),
    };
    let is_of_one = ["min", "max"].contains(&name);
    if !is_of_one && !["greatest", "least"].contains(&name) {
        return Ok(());
    }
    for arg in args {
        let data_type = arg.get_type(schema)?;
        let is_flat_list = match &data_type {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                is_of_one && !item.data_type().is_nested()
            }
            _ => false,
        };
        if data_type.is_nested() && !is_flat_list {
            let remedy = match name {
                "min" => "first_value(x ORDER BY x)",
                "max" => "first_value(x ORDER BY x DESC NULLS LAST)",
                "least" => "CASE WHEN a < b THEN a ELSE b END",
                _ => "CASE WHEN a > b THEN a ELSE b END",
            };
            return plan_err!("{name} does not take {}; write {remedy}", type_name(&data_type));
        }
    }
    Ok(())
}

/// Whether some of the types are decimals and some floats.
fn are_mixed<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> bool {
    types.clone().into_iter().any(DataType::is_decimal) && types.into_iter().any(DataType::is_floating)
}

/// The finest of the types that are times of day; `None` where these are one type.
fn finest_time<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let unit = |data_type: &DataType| match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    };
    let times: Vec<&DataType> = types.into_iter().filter(|data_type| is_time(data_type)).collect();
    let finest = *times.iter().max_by_key(|data_type| unit(data_type))?;
    times.iter().any(|other| *other != finest).then(|| finest.clone())
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// Casts times of day to the finest one.
fn unify_times(parts: &mut [&mut Expr], types: &[DataType]) {
    let Some(finest) = finest_time(types) else { return };
    for (part, _) in parts.iter_mut().zip(types).filter(|(_, own)| is_time(own) && **own != finest) {
        **part = Expr::Cast(Cast::new(Box::new(std::mem::take(*part)), finest.clone()));
    }
}

/// A comparison of expressions over `schema` that has a type before it is coerced.
pub fn comparison(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Expr {
    let (mut left, mut right) = (left, right);
    let types = [&left, &right].map(|part| part.get_type(schema).unwrap_or(DataType::Null));
    unify_times(&mut [&mut left, &mut right], &types);
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Plans comparisons that have types before they are coerced.
#[derive(Debug)]
pub struct Comparisons;

impl ExprPlanner for Comparisons {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_of_times = |part: &Expr| part.get_type(schema).is_ok_and(|data_type| is_time(&data_type));
        Ok(match is_of_times(&expr.left) && is_of_times(&expr.right) {
            true => PlannerResult::Planned(comparison(expr.left, op, expr.right, schema)),
            false => PlannerResult::Original(expr),
        })
    }
}

/// Fails for a number beside a date or a time.
fn refuse_unlike<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> Result<()> {
    let is_temporal = |data_type: &DataType| data_type.is_temporal() || matches!(data_type, DataType::Interval(_));
    let number = types.clone().into_iter().find(|data_type| data_type.is_numeric());
    match (number, types.into_iter().find(|data_type| is_temporal(data_type))) {
        (Some(number), Some(other)) => {
            let (number, other) = (type_name(number), type_name(other));
            plan_err!("{number} and {other} have no type in common; CAST one side, or write the {other} as one")
        }
        _ => Ok(()),
    }
}

/// Gives those parts of an expression that become one type either decimals or floats.
fn keep_apart(expr: &mut Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            unify_compared([&mut **left, right], schema)?;
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            move_exactly(left, right, schema);
            move_exactly(right, left, schema);
        }
        Expr::Between(Between { expr, negated: _, low, high }) => {
            unify_compared([&mut **expr, low, high], schema)?;
        }
        Expr::InList(InList { expr, list, negated: _ }) => {
            unify_compared(list.iter_mut().chain([&mut **expr]), schema)?;
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let results = when_then_expr.iter_mut().map(|(_, then)| &mut **then);
            unify(results.chain(else_expr.as_deref_mut()), schema)?;
            if let Some(expr) = expr {
                unify_compared(when_then_expr.iter_mut().map(|(when, _)| &mut **when).chain([&mut **expr]), schema)?;
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            if let Some((_, from)) = OF_ONE_TYPE.iter().find(|(name, _)| *name == func.name()) {
                unify(args.iter_mut().skip(*from), schema)?;
            }
            if func.name() == "get_field" {
                use_type_of_keys(args, schema);
            }
        }
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) if field.data_type().is_decimal() => {
            if let Some(value) = decimal_of(expr) {
                **expr = Expr::Literal(value, None);
            }
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: _ })
        | Expr::SetComparison(SetComparison { expr, subquery, op: _, quantifier: _ }) => {
            unify_with(expr, subquery, schema)?;
        }
        _ => {}
    }
    Ok(())
}

/// Makes an interval of a duration that moves a timestamp of a coarser unit: DataFusion would cut it to that unit.
fn move_exactly(moved: &Expr, duration: &mut Expr, schema: &DFSchema) {
    if let (Ok(DataType::Timestamp(unit, _)), Ok(DataType::Duration(finer))) =
        (moved.get_type(schema), duration.get_type(schema))
        && unit < finer
    {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        *duration = Expr::Cast(Cast::new(Box::new(std::mem::take(duration)), interval));
    }
}

/// Writes the key that a value of a map is looked up by in the type of the map's keys, which text has several of.
fn use_type_of_keys(args: &mut [Expr], schema: &DFSchema) {
    let [map, Expr::Literal(key, _), ..] = args else { return };
    if let Ok(DataType::Map(entries, _)) = map.get_type(schema)
        && let DataType::Struct(fields) = entries.data_type()
        && let Some(field) = fields.first()
        && key.data_type().is_string()
        && let Ok(cast) = key.cast_to(field.data_type())
    {
        *key = cast;
    }
}

/// As [`unify`], of expressions that are compared.
fn unify_compared<'a>(parts: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> Result<()> {
    let mut parts: Vec<&mut Expr> = parts.into_iter().collect();
    let types: Vec<DataType> = parts.iter().map(|part| part.get_type(schema).unwrap_or(DataType::Null)).collect();
    if by_nanoseconds(&mut parts, &types) {
        return Ok(());
    }
    unify_compared_dates(&mut parts, &types);
    unify(parts, schema)
}

/// Makes expressions that become one type all decimals, where all floats are written numbers, or all floats.
fn unify<'a>(parts: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> Result<()> {
    let mut parts: Vec<&mut Expr> = parts.into_iter().collect();
    // Of what has no type, DataFusion says what is wrong.
    let types: Vec<DataType> = parts.iter().map(|part| part.get_type(schema).unwrap_or(DataType::Null)).collect();
    refuse_unlike(&types)?;
    unify_times(&mut parts, &types);
    unify_dates(&mut parts, &types);
    if !are_mixed(&types) {
        return Ok(());
    }
    let floats = parts.iter().zip(&types).filter(|(_, data_type)| data_type.is_floating());
    let written: Option<Vec<ScalarValue>> = floats.map(|(part, _)| decimal_of(part)).collect();
    let written = written.filter(|written| fit(written, &types));
    let is_changed = if written.is_some() { DataType::is_floating } else { DataType::is_decimal };
    let mut written = written.into_iter().flatten();
    for (part, _) in parts.iter_mut().zip(&types).filter(|(_, data_type)| is_changed(data_type)) {
        **part = match written.next() {
            Some(value) => Expr::Literal(value, None),
            None => as_float(std::mem::take(*part)),
        };
    }
    Ok(())
}

/// As [`unify`], of an expression and the column of a subquery.
fn unify_with(expr: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> Result<()> {
    let (Ok(own), [field]) = (expr.get_type(schema), subquery.subquery.schema().fields().as_ref()) else {
        return Ok(());
    };
    let other = field.data_type();
    refuse_unlike([&own, other])?;
    if let Some(common) = finest_time([&own, other]).or_else(|| type_of_dates([&own, other])) {
        *expr = Expr::Cast(Cast::new(Box::new(std::mem::take(expr)), common.clone()));
        *subquery = cast_subquery(subquery.clone(), &common)?;
        return Ok(());
    }
    if are_mixed([&own, other]) {
        match decimal_of(expr).filter(|value| fit(std::slice::from_ref(value), std::slice::from_ref(other))) {
            Some(value) => *expr = Expr::Literal(value, None),
            None if own.is_decimal() => *expr = as_float(std::mem::take(expr)),
            None => *subquery = cast_subquery(subquery.clone(), &DataType::Float64)?,
        }
    }
    Ok(())
}

/// Whether the decimals that are written fit into one type with the other types.
fn fit(written: &[ScalarValue], types: &[DataType]) -> bool {
    let others = types.iter().filter(|data_type| !data_type.is_floating()).cloned();
    let (mut whole, mut fraction) = (0, 0);
    for data_type in written.iter().map(ScalarValue::data_type).chain(others) {
        let (precision, scale) = match data_type {
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale) => (i32::from(precision), i32::from(scale)),
            DataType::Null => continue,
            integer if integer.is_integer() => (20, 0),
            _ => return false,
        };
        whole = whole.max(precision - scale);
        fraction = fraction.max(scale);
    }
    whole + fraction <= i32::from(DECIMAL128_MAX_PRECISION)
}

/// A union, of whose columns none is a decimal in one branch and a float in another, has times of day of two units, or
/// dates beside timestamps that don't count nanoseconds.
fn branches_apart(Union { inputs, schema }: Union) -> Result<LogicalPlan> {
    let types = |at: usize| inputs.iter().map(move |input| input.schema().field(at).data_type());
    (0..schema.fields().len()).try_for_each(|at| refuse_unlike(types(at)))?;
    let wanted = |at: usize| match are_mixed(types(at)) {
        true => Some(DataType::Float64),
        false => finest_time(types(at)).or_else(|| type_of_dates(types(at))),
    };
    let wanted: Vec<Option<DataType>> = (0..schema.fields().len()).map(wanted).collect();
    // What the union was planned with may be what a branch no longer is.
    let is_stale = |at: usize| schema.field(at).data_type().is_decimal() && types(at).any(DataType::is_floating);
    if !(0..wanted.len()).any(is_stale) && wanted.iter().all(Option::is_none) {
        return Ok(LogicalPlan::Union(Union { inputs, schema }));
    }
    let with_wanted = |input: Arc<LogicalPlan>| {
        let fields = input.schema().iter().zip(&wanted).map(|((qualifier, field), wanted)| {
            let data_type = field.data_type();
            let is_changed = data_type.is_decimal() || is_time(data_type) || *data_type == DataType::Date32;
            let field = field.as_ref().clone();
            let field = match wanted {
                Some(wanted) if is_changed => field.with_data_type(wanted.clone()),
                _ => field,
            };
            (qualifier.cloned(), Arc::new(field))
        });
        let wanted = DFSchema::new_with_metadata(fields.collect(), input.schema().metadata().clone())?;
        Ok(Arc::new(coerce_plan_expr_for_schema(Arc::unwrap_or_clone(input), &wanted)?))
    };
    let inputs = inputs.into_iter().map(with_wanted).collect::<Result<_>>()?;
    Union::try_new_with_loose_types(inputs).map(LogicalPlan::Union)
}

/// A join, of whose keys none compares what has no type in common.
fn keys_apart(mut join: Join) -> Result<LogicalPlan> {
    for (left, right) in &mut join.on {
        let schemas = [join.left.schema().as_ref(), join.right.schema()];
        let types = (left.get_type(schemas[0])?, right.get_type(schemas[1])?);
        refuse_unlike([&types.0, &types.1])?;
        let (mut keys, types_of_keys) = ([&mut *left, &mut *right], [types.0.clone(), types.1.clone()]);
        if !by_nanoseconds(&mut keys, &types_of_keys) {
            unify_times(&mut keys, &types_of_keys);
            unify_compared_dates(&mut keys, &types_of_keys);
        }
        keys_by_length(left, right, schemas);
        if are_mixed([&types.0, &types.1]) {
            let decimal = if types.0.is_decimal() { left } else { right };
            *decimal = as_float(std::mem::take(decimal));
        }
    }
    Ok(LogicalPlan::Join(join))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::lit;

    #[test]
    fn written_numbers_are_the_decimals_that_they_say() {
        let of = |value: f64| decimal_of(&lit(value));
        let decimal = |value, precision, scale| Some(ScalarValue::Decimal128(Some(value), precision, scale));
        assert_eq!(of(8.38), decimal(838, 3, 2));
        assert_eq!(of(-0.05), decimal(-5, 2, 2));
        assert_eq!(of(0.0), decimal(0, 1, 0));
        assert_eq!(of(1e20), decimal(100_000_000_000_000_000_000, 21, 0));
        assert_eq!(of(1e-17), decimal(1, 17, 17));
        assert_eq!(of(5e-324), None);
        assert_eq!(of(1e38), None);
        assert_eq!(of(f64::NAN), None);
    }
}
