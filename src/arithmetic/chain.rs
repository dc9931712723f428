//! Long chains of arithmetic operators as one function of their operands.
//!
//! `a + b + c + …` is a tree that is as deep as the text is long. DataFusion finds the type of each operator by
//! walking all that is before it, each time it looks at one, and names it by all of that text: planning takes time
//! that grows with the square or the cube. As one function of its operands a chain is flat. It gives what the operators
//! would give one after the other, and fails where they would.

use std::fmt;
use std::sync::Arc;

use arrow::compute::kernels::numeric::{add_wrapping, div, mul_wrapping, rem, sub_wrapping};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use sqlparser::ast::BinaryOperator;

use crate::arithmetic::operator::{Operation, compute_checked, shortened, texts_of};

/// A chain of fewer operators stays a tree of DataFusion's own, which its optimizer knows. A longer chain has
/// too many parts to be a key.
const MIN_OPERATORS: usize = 64;

/// Plans long chains of arithmetic over numbers as functions.
#[derive(Debug)]
pub struct LongChains;

impl ExprPlanner for LongChains {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_number = |operand: &Expr| operand.get_type(schema).is_ok_and(|data_type| data_type.is_numeric());
        let is_longer = is_chain(&expr.left) || depth(&expr.left) == MIN_OPERATORS;
        if !is_longer || !is_number(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let (mut operators, mut operands) = match taken_apart(left.clone()) {
            (operators, operands) if is_chain(&left) || operands.iter().all(is_number) => (operators, operands),
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        operators.push(operator);
        operands.push(right);
        let function = ScalarUDF::new_from_impl(Chain::new(operators));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func: Arc::new(function), args: operands })))
    }
}

/// Whether an expression is a call of such a function.
pub fn is_chain(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().is::<Chain>())
}

/// How many operators stand one behind the other, counted no further than just beyond [`MIN_OPERATORS`].
fn depth(mut expr: &Expr) -> usize {
    let mut depth = 0;
    while let Expr::BinaryExpr(BinaryExpr { left, op, right: _ }) = expr
        && is_arithmetic(*op)
        && depth <= MIN_OPERATORS
    {
        depth += 1;
        expr = left;
    }
    depth
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Operators that stand one behind the other, and their operands.
fn taken_apart(mut expr: Expr) -> (Vec<Operator>, Vec<Expr>) {
    let (mut operators, mut operands) = (Vec::new(), Vec::new());
    loop {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(op) => {
                operators.push(op);
                operands.push(*right);
                expr = *left;
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.inner().is::<Chain>() => {
                let before = func.inner().downcast_ref::<Chain>().map(|chain| chain.operators.clone());
                operators.extend(before.unwrap_or_default().into_iter().rev());
                operands.extend(args.into_iter().rev());
                break;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operators.reverse();
    operands.reverse();
    (operators, operands)
}

/// Operators between its arguments, computed from the first to the last.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Chain {
    /// One less than arguments.
    operators: Vec<Operator>,
    /// Says the operators: fingerprints tell functions apart by their names.
    name: String,
    signature: Signature,
}

impl Chain {
    fn new(operators: Vec<Operator>) -> Self {
        let name = std::iter::once("chain_".to_string()).chain(operators.iter().map(ToString::to_string)).collect();
        let signature = Signature::any(operators.len() + 1, Volatility::Immutable);
        Self { operators, name, signature }
    }

    /// Folds the arguments, from the first to the last.
    fn fold<T>(&self, args: Vec<T>, step: impl Fn(T, Operator, T) -> Result<T>) -> Result<T> {
        let mut args = args.into_iter();
        let Some(first) = args.next() else { return internal_err!("a chain has no arguments") };
        self.operators.iter().zip(args).try_fold(first, |left, (operator, right)| step(left, *operator, right))
    }

    /// What its column would be named.
    fn text(&self, operands: impl IntoIterator<Item = String>) -> String {
        let operators = std::iter::once(String::new()).chain(self.operators.iter().map(|op| format!(" {op} ")));
        operators.zip(operands).flat_map(|(operator, operand)| [operator, operand]).collect()
    }
}

impl fmt::Debug for Chain {
    /// Short: DataFusion shows it in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chain")
    }
}

impl ScalarUDFImpl for Chain {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.text(args.iter().map(|arg| arg.schema_name().to_string())))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.fold(arg_types.to_vec(), |left, operator, right| {
            BinaryTypeCoercer::new(&left, &operator, &right).get_result_type()
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(shortened(self.text(texts_of(&args))), self.return_type(&types)?, is_nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = args.return_field.name();
        let value = self.fold(args.args, |left, operator, right| computed(left, operator, right, name))?;
        value.cast_to(args.return_field.data_type(), None)
    }
}

/// The result of DataFusion's operator, or of the checked operator that replaces it; `name` is the whole chain's.
fn computed(left: ColumnarValue, operator: Operator, right: ColumnarValue, name: &str) -> Result<ColumnarValue> {
    let types = (left.data_type(), right.data_type());
    let (to_left, to_right) = BinaryTypeCoercer::new(&types.0, &operator, &types.1).get_input_types()?;
    let (left, right) = (left.cast_to(&to_left, None)?, right.cast_to(&to_right, None)?);
    if let Some((operation, result)) = Operation::of(operator, &to_left, &to_right) {
        return compute_checked(operation, &[left, right], &Arc::new(Field::new(name, result, true)));
    }
    match operator {
        Operator::Plus => apply(&left, &right, add_wrapping),
        Operator::Minus => apply(&left, &right, sub_wrapping),
        Operator::Multiply => apply(&left, &right, mul_wrapping),
        Operator::Divide => apply(&left, &right, div),
        Operator::Modulo => apply(&left, &right, rem),
        other => internal_err!("{other} is no operator of a chain"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
    use arrow::compute::cast;
    use arrow::datatypes::DataType;
    use datafusion::common::tree_node::TreeNode;
    use datafusion::common::{DFSchema, Result};
    use datafusion::execution::context::ExecutionProps;
    use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
    use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
    use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, col, lit};
    use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
    use datafusion::physical_expr::create_physical_expr;
    use sqlparser::ast::BinaryOperator;
    use std::sync::Arc;

    use super::{LongChains, is_chain};
    use crate::arithmetic::checked::with_checked_operators;

    fn batch() -> RecordBatch {
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(-7), Some(i64::MAX - 70)]));
        let small = cast(&integers.slice(0, 3), &DataType::Int8).unwrap();
        let decimals = cast(&small, &DataType::Decimal128(10, 2)).unwrap();
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 1e300, -0.0]));
        let columns = [("i", integers.slice(0, 3)), ("s", small), ("d", decimals), ("x", floats)];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn value(expr: &Expr, batch: &RecordBatch) -> Result<ArrayRef> {
        let schema = DFSchema::try_from(batch.schema()).unwrap();
        let context = PhysicalPlanningContext::default();
        let expr = create_physical_expr(expr, &schema, &ExecutionProps::new(), &context)?;
        expr.evaluate(batch)?.into_array(batch.num_rows())
    }

    /// The operands put together by the operators in turn, as planned here and as planned by DataFusion.
    fn both(operators: &[BinaryOperator], operands: &[Expr], length: usize, schema: &DFSchema) -> (Expr, Expr) {
        let (mut chain, mut tree) = (operands[0].clone(), operands[0].clone());
        for at in 1..=length {
            let (op, right) = (&operators[at % operators.len()], operands[at % operands.len()].clone());
            let raw = RawBinaryExpr { op: op.clone(), left: chain, right: right.clone() };
            let operator = match op {
                BinaryOperator::Plus => Operator::Plus,
                BinaryOperator::Minus => Operator::Minus,
                BinaryOperator::Multiply => Operator::Multiply,
                BinaryOperator::Divide => Operator::Divide,
                _ => Operator::Modulo,
            };
            chain = match LongChains.plan_binary_op(raw, schema).unwrap() {
                PlannerResult::Planned(expr) => expr,
                PlannerResult::Original(raw) => binary_expr(raw.left, operator, raw.right),
            };
            tree = binary_expr(tree, operator, right);
        }
        (chain, tree)
    }

    #[test]
    fn a_long_chain_is_one_function_of_the_same_value_type_and_name() {
        let (batch, plus, minus) = (batch(), BinaryOperator::Plus, BinaryOperator::Minus);
        let schema = DFSchema::try_from(batch.schema()).unwrap();
        let (times, by, modulo) = (BinaryOperator::Multiply, BinaryOperator::Divide, BinaryOperator::Modulo);
        for (operators, operands) in [
            (vec![plus.clone()], vec![col("i")]),
            (vec![plus.clone(), minus.clone()], vec![col("i"), lit(2i64), col("s")]),
            (vec![plus.clone(), minus.clone()], vec![col("d"), col("i"), lit(2i64)]),
            (vec![times.clone(), by, plus.clone()], vec![col("x"), lit(2.5), col("i")]),
            (vec![modulo, plus.clone(), times], vec![col("i"), lit(5i64), lit(3i32), col("s")]),
            (vec![plus], vec![lit(1i64)]),
        ] {
            for length in [3, 64, 65, 130] {
                let (chain, tree) = both(&operators, &operands, length, &schema);
                assert_eq!(is_chain(&chain), length > 64, "{length} of {operands:?}");
                assert_eq!(chain.schema_name().to_string(), tree.schema_name().to_string());
                let tree = tree.rewrite(&mut TypeCoercionRewriter::new(&schema)).unwrap().data;
                let tree = with_checked_operators(tree, &schema).unwrap().data;
                let chain = chain.rewrite(&mut TypeCoercionRewriter::new(&schema)).unwrap().data;
                let chain = with_checked_operators(chain, &schema).unwrap().data;
                assert_eq!(chain.get_type(&schema).unwrap(), tree.get_type(&schema).unwrap());
                assert_eq!(chain.nullable(&schema).unwrap(), tree.nullable(&schema).unwrap());
                match (value(&chain, &batch), value(&tree, &batch)) {
                    (Ok(chain), Ok(tree)) => assert_eq!(chain.as_ref(), tree.as_ref(), "{length} of {operands:?}"),
                    (Err(_), Err(_)) => {}
                    (chain, tree) => panic!("{chain:?} and {tree:?} for {length} of {operands:?}"),
                }
            }
        }
        let near: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX - 70]));
        let near = RecordBatch::try_from_iter([("i", near)]).unwrap();
        let schema = DFSchema::try_from(near.schema()).unwrap();
        let (chain, _) = both(&[BinaryOperator::Plus], &[col("i"), lit(1i64)], 199, &schema);
        let error = value(&chain, &near).unwrap_err().to_string();
        assert!(error.contains("does not fit BIGINT; CAST one side"), "{error}");
    }
}
