//! Operators as functions: checked ones for queries, and wrapping ones for the predicates that cut inputs.

use std::fmt::{self, Display};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::kernels::numeric::{add, add_wrapping, div, mul, mul_wrapping, sub, sub_wrapping};
use arrow::datatypes::{
    DataType, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef,
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, internal_datafusion_err, internal_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use crate::arithmetic::kernel::{Integer, Overflow, Side, each};
use crate::shown::type_name;

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `a + b`.
    Add,
    /// `a - b`.
    Subtract,
    /// `a * b`.
    Multiply,
    /// `a / b` of decimals.
    Divide,
    /// `-a`.
    Negate,
    /// `a - b` of dates in milliseconds, in days.
    DaysBetween,
}

/// What happens where a result does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum OnOverflow {
    Fail,
    WrapAround,
}

/// An operator as a function.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    operation: Operation,
    on_overflow: OnOverflow,
    /// The type that the plan counts on.
    result: DataType,
    signature: Signature,
}

impl Operation {
    /// What has to be checked in place of a binary operator over two types, and the type of its result; `None` where
    /// DataFusion's own operator can't give a wrong value.
    pub fn of(operator: Operator, left: &DataType, right: &DataType) -> Option<(Self, DataType)> {
        let operation = match operator {
            Operator::Plus => Self::Add,
            Operator::Minus if matches!((left, right), (DataType::Date64, DataType::Date64)) => Self::DaysBetween,
            Operator::Minus => Self::Subtract,
            Operator::Multiply => Self::Multiply,
            Operator::Divide => Self::Divide,
            _ => return None,
        };
        let is_checked = match operation {
            Self::DaysBetween => true,
            // Arrow checks the division of integers.
            Self::Divide => may_exceed_digits(operation, left, right),
            _ => (left.is_integer() && left == right) || may_exceed_digits(operation, left, right),
        };
        let result = is_checked.then(|| BinaryTypeCoercer::new(left, &operator, right).get_result_type().ok());
        Some((operation, result??))
    }

    /// The operator of a plan that it stands for; `None` for unary minus.
    pub fn operator(self) -> Option<Operator> {
        match self {
            Self::Add => Some(Operator::Plus),
            Self::Subtract | Self::DaysBetween => Some(Operator::Minus),
            Self::Multiply => Some(Operator::Multiply),
            Self::Divide => Some(Operator::Divide),
            Self::Negate => None,
        }
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator() {
            Some(operator) => write!(f, "{operator}"),
            None => write!(f, "-"),
        }
    }
}

/// Whether decimals of two types may give more digits than the widest decimal has. Where the type of the result is
/// narrower than that, DataFusion makes it as wide as it has to be.
fn may_exceed_digits(operation: Operation, left: &DataType, right: &DataType) -> bool {
    let (Some((p1, s1, most)), Some((p2, s2, other))) = (digits(left), digits(right)) else { return false };
    let digits = match operation {
        Operation::Add | Operation::Subtract => s1.max(s2) + (p1 - s1).max(p2 - s2) + 1,
        Operation::Multiply => p1 + p2 + 1,
        // Arrow gives the quotient four digits more behind the point.
        Operation::Divide => p1 + s2 + 4,
        Operation::Negate | Operation::DaysBetween => return false,
    };
    most == other && digits > most
}

/// Digits of a decimal type, those behind the point, and the most that its numbers have.
fn digits(data_type: &DataType) -> Option<(i16, i16, i16)> {
    let (digits, scale, most) = match data_type {
        DataType::Decimal32(digits, scale) => (digits, scale, Decimal32Type::MAX_PRECISION),
        DataType::Decimal64(digits, scale) => (digits, scale, Decimal64Type::MAX_PRECISION),
        DataType::Decimal128(digits, scale) => (digits, scale, Decimal128Type::MAX_PRECISION),
        DataType::Decimal256(digits, scale) => (digits, scale, Decimal256Type::MAX_PRECISION),
        _ => return None,
    };
    Some((i16::from(*digits), i16::from(*scale), i16::from(most)))
}

/// The checked form of an operator over `args`, whose value has the type `result`.
pub fn checked(operation: Operation, args: Vec<Expr>, result: DataType) -> Expr {
    call(operation, OnOverflow::Fail, args, result)
}

/// `left` and `right`, integers of one type, put together by an operator that wraps around: for predicates that are
/// evaluated for rows that the query itself never looks at. `None` for an operator that is none of `+`, `-` and `*`.
pub fn wrapping(operator: Operator, left: Expr, right: Expr) -> Option<Expr> {
    let operation = match operator {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        _ => return None,
    };
    // The type is that of the arguments.
    Some(call(operation, OnOverflow::WrapAround, vec![left, right], DataType::Null))
}

fn call(operation: Operation, on_overflow: OnOverflow, args: Vec<Expr>, result: DataType) -> Expr {
    let signature = Signature::any(args.len(), Volatility::Immutable);
    let function = Arithmetic { operation, on_overflow, result, signature };
    Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(function)), args })
}

/// The operation and the type of a checked expression, if it is one.
pub fn as_checked(expr: &Expr) -> Option<(Operation, &DataType)> {
    let Expr::ScalarFunction(function) = expr else { return None };
    let Arithmetic { operation, on_overflow, result, signature: _ } = function.func.inner().downcast_ref()?;
    (*on_overflow == OnOverflow::Fail).then_some((*operation, result))
}

impl fmt::Debug for Arithmetic {
    /// Short: DataFusion shows it in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match (self.on_overflow, self.operation) {
            (OnOverflow::Fail, Operation::Add) => "checked_add",
            (OnOverflow::Fail, Operation::Subtract) => "checked_subtract",
            (OnOverflow::Fail, Operation::Multiply) => "checked_multiply",
            (OnOverflow::Fail, Operation::Divide) => "checked_divide",
            (OnOverflow::Fail, Operation::Negate) => "checked_negate",
            (OnOverflow::Fail, Operation::DaysBetween) => "checked_days_between",
            (OnOverflow::WrapAround, Operation::Add) => "wrapping_add",
            (OnOverflow::WrapAround, Operation::Subtract) => "wrapping_subtract",
            (OnOverflow::WrapAround, _) => "wrapping_multiply",
        }
    }

    /// What the operator's column would be named.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [value] => Ok(format!("(- {})", value.schema_name())),
            [left, right] => Ok(format!("{} {} {}", left.schema_name(), self.operation, right.schema_name())),
            _ => internal_err!("{} has {} arguments", self.name(), args.len()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match (self.on_overflow, arg_types) {
            (OnOverflow::Fail, _) => Ok(self.result.clone()),
            (OnOverflow::WrapAround, [left, right]) if left == right && left.is_integer() => Ok(left.clone()),
            (OnOverflow::WrapAround, other) => exec_err!("{} is of two integers, not of {other:?}", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let texts: Vec<_> = texts_of(&args).collect();
        let text = match texts.as_slice() {
            [left, right] => format!("{left} {} {right}", self.operation),
            others => format!("-({})", others.concat()),
        };
        Ok(Arc::new(Field::new(shortened(text), self.return_type(&types)?, is_nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let is_null = |arg: &Expr| matches!(arg, Expr::Literal(value, _) if value.is_null());
        let is_one = |arg: &Expr| match arg {
            Expr::Literal(value, _) => Ok::<_, DataFusionError>(*value == ScalarValue::new_one(&value.data_type())?),
            _ => Ok(false),
        };
        if self.on_overflow == OnOverflow::Fail && args.iter().any(is_null) {
            let null = Expr::Literal(ScalarValue::try_from(&self.result)?, None);
            return Ok(ExprSimplifyResult::Simplified(null));
        }
        if self.operation == Operation::Multiply
            && self.result.is_integer()
            && let [left, right] = args.as_slice()
        {
            if is_one(right)? {
                return Ok(ExprSimplifyResult::Simplified(left.clone()));
            }
            if is_one(left)? {
                return Ok(ExprSimplifyResult::Simplified(right.clone()));
            }
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.on_overflow, args.args.as_slice()) {
            (OnOverflow::Fail, operands) => compute_checked(self.operation, operands, &args.return_field),
            (OnOverflow::WrapAround, [left, right]) if !is_null(left) && !is_null(right) => {
                wrapped(self.operation, left, right)
            }
            (OnOverflow::WrapAround, _) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?))
            }
        }
    }
}

/// The value of `operation` over `operands`, in the type of `result`, which is named by the expression.
///
/// # Errors
/// When a value does not fit.
pub fn compute_checked(operation: Operation, operands: &[ColumnarValue], result: &FieldRef) -> Result<ColumnarValue> {
    if operands.iter().any(is_null) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from(result.data_type())?));
    }
    let (left, right) = match operands {
        [value] => (&ColumnarValue::Scalar(ScalarValue::new_zero(&value.data_type())?), value),
        [left, right] => (left, right),
        _ => return internal_err!("{operation} has {} operands", operands.len()),
    };
    match operation {
        Operation::DaysBetween => days_between(left, right),
        _ if result.data_type().is_integer() => integers(operation, left, right, result),
        _ => decimals(operation, left, right, result),
    }
}

fn is_null(value: &ColumnarValue) -> bool {
    matches!(value, ColumnarValue::Scalar(value) if value.is_null())
}

fn wrapped(operation: Operation, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    match operation {
        Operation::Add => apply(left, right, add_wrapping),
        Operation::Subtract => apply(left, right, sub_wrapping),
        _ => apply(left, right, mul_wrapping),
    }
}

fn integers(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: &FieldRef,
) -> Result<ColumnarValue> {
    match result.data_type() {
        DataType::Int8 => integers_of::<Int8Type>(operation, left, right, result),
        DataType::Int16 => integers_of::<Int16Type>(operation, left, right, result),
        DataType::Int32 => integers_of::<Int32Type>(operation, left, right, result),
        DataType::Int64 => integers_of::<Int64Type>(operation, left, right, result),
        DataType::UInt8 => integers_of::<UInt8Type>(operation, left, right, result),
        DataType::UInt16 => integers_of::<UInt16Type>(operation, left, right, result),
        DataType::UInt32 => integers_of::<UInt32Type>(operation, left, right, result),
        DataType::UInt64 => integers_of::<UInt64Type>(operation, left, right, result),
        other => internal_err!("{other} is no type of integers"),
    }
}

fn integers_of<T>(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: &FieldRef,
) -> Result<ColumnarValue>
where
    T: ArrowPrimitiveType,
    T::Native: Integer + Display,
{
    let is_value = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let (l, r) = (side::<T>(left)?, side::<T>(right)?);
    let computed = match operation {
        Operation::Add => each(l, r, Integer::add)?,
        Operation::Subtract | Operation::Negate => each(l, r, Integer::sub)?,
        Operation::Multiply => each(l, r, Integer::mul)?,
        Operation::Divide | Operation::DaysBetween => return internal_err!("{operation} is not checked over integers"),
    };
    match computed {
        Ok(values) if is_value => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)),
        Ok(values) => Ok(ColumnarValue::Array(Arc::new(values))),
        Err(Overflow(_, value)) if operation == Operation::Negate => Err(overflow(&format!("-({value})"), result)),
        Err(Overflow(left, right)) => Err(overflow(&format!("{left} {operation} {right}"), result)),
    }
}

fn side<T: ArrowPrimitiveType>(value: &ColumnarValue) -> Result<Side<'_, T>> {
    let side = match value {
        ColumnarValue::Array(array) => array.as_primitive_opt::<T>().map(Side::Array),
        ColumnarValue::Scalar(value) => value.to_array()?.as_primitive_opt::<T>().map(|one| Side::Value(one.value(0))),
    };
    let planned = || internal_datafusion_err!("planned over {} and called over {}", T::DATA_TYPE, value.data_type());
    side.ok_or_else(planned)
}

/// Days between dates in milliseconds, which are always in range, though their difference may not be.
fn days_between(left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    const MILLISECONDS_OF_DAY: i128 = 86_400_000;
    apply(left, right, |left, right| {
        let ((left, is_value), (right, _)) = (left.get(), right.get());
        let (left, right) = (left.as_primitive::<Date64Type>(), right.as_primitive::<Date64Type>());
        let days = |left: i64, right: i64| ((i128::from(left) - i128::from(right)) / MILLISECONDS_OF_DAY) as i64;
        let days: PrimitiveArray<Int64Type> = match (is_value, right.len() == left.len()) {
            (_, true) => arrow::compute::binary(left, right, days)?,
            (true, false) => right.unary(|right| days(left.value(0), right)),
            (false, false) => left.unary(|left| days(left, right.value(0))),
        };
        Ok(Arc::new(days) as ArrayRef)
    })
}

fn decimals(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: &FieldRef,
) -> Result<ColumnarValue> {
    // Arrow checks that numbers stay in the range of their type, which is larger than that of the digits.
    let computed = match operation {
        Operation::Add => apply(left, right, add),
        Operation::Subtract => apply(left, right, sub),
        Operation::Multiply => apply(left, right, mul),
        _ => apply(left, right, div),
    };
    let computed = computed.map_err(|error| match &error {
        DataFusionError::ArrowError(cause, _) => match cause.as_ref() {
            ArrowError::ArithmeticOverflow(_) => overflow("a value", result),
            _ => error,
        },
        _ => error,
    })?;
    let array = match &computed {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(value) => value.to_array()?,
    };
    if array.data_type() != result.data_type() {
        let (planned, given) = (result.data_type(), array.data_type());
        return internal_err!("{operation} of decimals was planned as {planned} and gives {given}");
    }
    match array.data_type() {
        DataType::Decimal32(digits, _) => check_digits::<Decimal32Type>(&array, *digits, result)?,
        DataType::Decimal64(digits, _) => check_digits::<Decimal64Type>(&array, *digits, result)?,
        DataType::Decimal128(digits, _) => check_digits::<Decimal128Type>(&array, *digits, result)?,
        DataType::Decimal256(digits, _) => check_digits::<Decimal256Type>(&array, *digits, result)?,
        other => return internal_err!("{other} is no type of decimals"),
    }
    Ok(computed)
}

fn check_digits<T: DecimalType>(array: &ArrayRef, digits: u8, result: &FieldRef) -> Result<()> {
    let values = array.as_primitive::<T>();
    match first_too_long(values, digits) {
        Some(row) => {
            let (_, scale, most) = self::digits(array.data_type()).unwrap_or_default();
            // With all of its digits, of which there are too many.
            Err(overflow(&T::format_decimal(values.value(row), 2 * most as u8, scale as i8), result))
        }
        None => Ok(()),
    }
}

/// The first row that is not NULL and has more than `digits` digits.
pub fn first_too_long<T: DecimalType>(values: &PrimitiveArray<T>, digits: u8) -> Option<usize> {
    let index = usize::from(digits);
    let max = T::MAX_FOR_EACH_PRECISION[index];
    let min = max.neg_wrapping();
    let is_too_long = |value: &T::Native| value.is_gt(max) | value.is_lt(min);
    // Most often there is none: one loop without branches.
    let any = values.values().iter().fold(false, |any, value| any | is_too_long(value));
    any.then(|| (0..values.len()).find(|row| values.is_valid(*row) && is_too_long(&values.value(*row)))).flatten()
}

/// The error for a value that does not fit the type of `result`, whose name is the expression.
fn overflow(value: &str, result: &FieldRef) -> DataFusionError {
    let data_type = result.data_type();
    let remedy = match data_type {
        DataType::Int64 | DataType::UInt64 => "CAST one side to DECIMAL(38, 0)",
        data_type if data_type.is_integer() => "CAST one side to BIGINT",
        _ => "CAST its sides to types with fewer digits, or to DOUBLE",
    };
    let place = match result.name() {
        // Of constants.
        expression if expression == value => String::new(),
        expression => format!("`{expression}`: "),
    };
    out_of_range(&format!("{place}{value} does not fit {}; {remedy}", type_name(data_type)))
}

/// The error for a result that is out of its type's range.
pub fn out_of_range(what: &str) -> DataFusionError {
    DataFusionError::from(ArrowError::ArithmeticOverflow(what.to_string()))
}

/// What the arguments of a function are, for errors: constants by their values, all else by its name.
pub fn texts_of<'a>(args: &'a ReturnFieldArgs<'a>) -> impl Iterator<Item = String> + 'a {
    args.arg_fields.iter().zip(args.scalar_arguments).map(|(field, constant)| match constant {
        Some(value) => value.to_string(),
        None => field.name().clone(),
    })
}

/// Text of at most as many characters as an error should show of an expression.
pub fn shortened(text: String) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
