//! A plan as the prover reads it: DataFusion's analysis, then the few of its rules that the prover relies on, and what
//! plans say of their columns as constants.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::arithmetic::average::integers::of_integers;
use crate::arithmetic::checked::map_keeping_names;
use crate::plan::repair::{EquijoinsOfOneKind, JoinsOfOneKind, OptimizerRules, simplification};
use crate::plan::resolve::equalities::EqualitiesBelowJoins;

/// Functions whose value is what a plan says of their argument, not what is in its rows.
const OF_FIELDS: [&str; 2] = ["arrow_field", "arrow_metadata"];

/// Analysis, then the rules that the prover relies on.
///
/// # Errors
/// DataFusion's, and of constants that it can't print.
pub fn normalise(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let rules: OptimizerRules = vec![
        Arc::new(RewriteSetComparison::new()),
        simplification(),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(EqualitiesBelowJoins),
        Arc::new(EquijoinsOfOneKind),
        Arc::new(JoinsOfOneKind),
    ];
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    check_constants(&plan, state)?;
    let plan = of_rows_alone(plan, state)?;
    Optimizer::with_rules(rules).optimize(plan, state, |_, _| {})
}

/// The plan with other expressions in the place of functions whose value is not one of the row alone, and averages of
/// integers that do not depend on the order of rows.
fn of_rows_alone(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        map_keeping_names(node, |expr| {
            expr.transform_up(|part| match &part {
                Expr::ScalarFunction(call) if OF_FIELDS.contains(&call.func.name()) => {
                    Ok(Transformed::yes(Expr::Literal(of_fields(call, &schema, state)?, None)))
                }
                Expr::ScalarFunction(call) if call.func.name() == "array_concat" => concat_of_row(call, &schema),
                _ => of_integers(part, &schema),
            })
        })
    });
    plan.data()
}

/// `array_concat` of lists in lists with lists: where all are NULL in all rows of a batch DataFusion gives NULL, and
/// where another row has a list, lists of NULL. Here it is NULL for each row of NULLs.
fn concat_of_row(call: &ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let whole = Expr::ScalarFunction(call.clone());
    let depths = call.args.iter().map(|arg| Ok(depth(&arg.get_type(schema)?))).collect::<Result<Vec<_>>>()?;
    if depths.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(Transformed::no(whole));
    }
    let data_type = whole.get_type(schema)?;
    let nulls = call.args.iter().map(|arg| arg.clone().is_null()).reduce(Expr::and);
    let null = Expr::Literal(ScalarValue::try_from(&data_type)?, None);
    let cases = nulls.into_iter().map(|nulls| (Box::new(nulls), Box::new(null.clone()))).collect();
    Ok(Transformed::yes(Expr::Case(Case::new(None, cases, Some(Box::new(whole))))))
}

/// How many lists stand in each other.
fn depth(data_type: &DataType) -> usize {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => 1 + depth(field.data_type()),
        _ => 0,
    }
}

/// The value of a call of one of [`OF_FIELDS`], from what the analysed plan says of its arguments. While DataFusion
/// optimises it says other things: a column that file statistics show to be constant becomes a literal, outer joins
/// become inner ones.
fn of_fields(
    ScalarFunction { func, args }: &ScalarFunction,
    schema: &DFSchema,
    state: &SessionState,
) -> Result<ScalarValue> {
    let field = |arg: &Expr| state.create_physical_expr(arg.clone(), schema)?.return_field(schema.as_arrow());
    let Ok(arg_fields) = args.iter().map(field).collect::<Result<Vec<_>>>() else {
        return plan_err!("{}() needs a column or an expression of columns, not a subquery", func.name());
    };
    let constants: Vec<Option<&ScalarValue>> = args.iter().map(Expr::as_literal).collect();
    let return_field =
        func.return_field_from_args(ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &constants })?;
    let value = |(constant, field): (&Option<&ScalarValue>, &Arc<Field>)| match constant {
        Some(value) => Ok(ColumnarValue::Scalar((*value).clone())),
        None => ScalarValue::try_from(field.data_type()).map(ColumnarValue::Scalar),
    };
    let values = constants.iter().zip(&arg_fields).map(value).collect::<Result<Vec<_>>>()?;
    let config_options = Arc::clone(state.config_options());
    let call = ScalarFunctionArgs { args: values, arg_fields, number_rows: 1, return_field, config_options };
    match func.invoke_with_args(call)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0),
    }
}

/// Refuses constants that DataFusion panics over when it prints them, which it does wherever it names a column: the
/// least `DATE64`.
fn check_constants(plan: &LogicalPlan, state: &SessionState) -> Result<()> {
    let panics = |part: &Expr| Ok(matches!(part, Expr::Literal(value, _) if !is_printable(value)));
    let may_be_date64 = |part: &Expr| {
        Ok(match part {
            Expr::Literal(value, _) => !is_printable(value),
            Expr::Cast(cast) => holds_date64(cast.field.data_type()),
            Expr::TryCast(cast) => holds_date64(cast.field.data_type()),
            Expr::ScalarFunction(call) => ["arrow_cast", "arrow_try_cast"].contains(&call.func.name()),
            _ => false,
        })
    };
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            if expr.exists(may_be_date64)? {
                let context = SimplifyContext::builder()
                    .with_schema(Arc::new(schema.clone()))
                    .with_config_options(Arc::clone(state.config_options()))
                    .with_query_execution_start_time(state.execution_props().query_execution_start_time)
                    .build();
                // What can't be simplified fails where it is, with a reason.
                let folded = ExprSimplifier::new(context).simplify(expr.clone()).unwrap_or_else(|_| expr.clone());
                if folded.exists(panics)? {
                    return plan_err!(
                        "the constant DATE64 of {} ms, the least of its type, can't be computed with; write a larger one",
                        i64::MIN
                    );
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(())
}

/// Whether a constant of a type may be a `DATE64`, or hold one that is printed as such.
fn holds_date64(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date64 => true,
        DataType::Dictionary(_, values) => holds_date64(values),
        DataType::RunEndEncoded(_, values) => holds_date64(values.data_type()),
        _ => false,
    }
}

fn is_printable(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Date64(Some(i64::MIN)) => false,
        ScalarValue::Dictionary(_, value) | ScalarValue::RunEndEncoded(_, _, value) => is_printable(value),
        ScalarValue::Union(Some((_, value)), _, _) => is_printable(value),
        _ => true,
    }
}
