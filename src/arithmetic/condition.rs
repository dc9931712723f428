//! AND and OR as functions that evaluate each of their parts only for the rows that the others leave open.
//!
//! DataFusion evaluates the arguments of a function for all rows, so the parts are not passed as arguments: the
//! function stores them, and its arguments are what they read: columns, and values of scalar subqueries. A condition is
//! one function however many parts it has and however deep they are nested, and each part is there once.
//!
//! A part that fails is asked again when others have decided more rows. Where nothing else decides, the rows are halved
//! until it is known which of them fail. So it does not depend on the order of the parts whether a query fails, nor on
//! what else is in a batch, and a row fails if and only if its value needs a part that fails.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{FilterBuilder, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::arithmetic::checked::is_given;

/// What is asked of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Only whether it is true: NULL is as good as false.
    Truth,
    /// Whether it is true, false or NULL.
    Value,
}

/// How parts are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Junction {
    /// By AND.
    And,
    /// By OR.
    Or,
}

/// `parts` over `schema`, put together: a call of a function.
///
/// # Errors
/// DataFusion's, where a part has no type.
pub fn condition(
    junction: Junction,
    asked: Asked,
    parts: Vec<Expr>,
    schema: &DFSchema,
    props: &ExecutionProps,
) -> Result<Expr> {
    let mut arguments = Arguments { schema, found: Vec::new(), fields: Vec::new(), places: HashMap::new() };
    let parts = parts.into_iter().map(|part| Ok(part.rewrite(&mut arguments)?.data)).collect::<Result<Vec<_>>>()?;
    let Arguments { found: args, fields, .. } = arguments;
    let qualified = fields.into_iter().enumerate().map(|(at, field)| (Some(qualifier(at)), field)).collect();
    let over = DFSchema::new_with_metadata(qualified, HashMap::new())?;
    let planning = PhysicalPlanningContext::default();
    let compiled = parts.iter().map(|part| create_physical_expr(part, &over, props, &planning));
    let compiled = compiled.collect::<Result<Vec<_>>>()?;
    let mut is_nullable = false;
    if asked == Asked::Value {
        for part in &compiled {
            is_nullable = is_nullable || part.nullable(over.as_arrow())?;
        }
    }
    let signature = match args.len() {
        0 => Signature::nullary(Volatility::Immutable),
        count => Signature::any(count, Volatility::Immutable),
    };
    let function = Condition { junction, asked, parts, compiled, is_nullable, signature };
    Ok(Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(function)), args }))
}

/// Whether an expression is a call of such a function.
pub fn is_condition(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().is::<Condition>())
}

/// The qualifier under which the parts refer to argument number `at`.
fn qualifier(at: usize) -> TableReference {
    TableReference::bare(at.to_string())
}

/// Puts columns of the arguments in the place of what parts read.
struct Arguments<'a> {
    schema: &'a DFSchema,
    found: Vec<Expr>,
    fields: Vec<FieldRef>,
    places: HashMap<Expr, usize>,
}

impl TreeNodeRewriter for Arguments<'_> {
    type Node = Expr;

    fn f_down(&mut self, part: Expr) -> Result<Transformed<Expr>> {
        // Lambda variables are not columns of the batch, so that all of a function with them is computed before.
        let is_read = is_given(&part) || matches!(part, Expr::HigherOrderFunction(_));
        if !is_read {
            return Ok(Transformed::no(part));
        }
        let at = match self.places.get(&part) {
            Some(at) => *at,
            None => {
                self.fields.push(part.to_field(self.schema)?.1);
                self.found.push(part.clone());
                self.places.insert(part, self.found.len() - 1);
                self.found.len() - 1
            }
        };
        let column = Expr::Column(Column::new(Some(qualifier(at)), self.fields[at].name()));
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    }
}

/// AND or OR of parts over its arguments.
struct Condition {
    junction: Junction,
    asked: Asked,
    parts: Vec<Expr>,
    /// The same parts.
    compiled: Vec<Arc<dyn PhysicalExpr>>,
    is_nullable: bool,
    signature: Signature,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        let Self { junction, asked, parts, compiled: _, is_nullable: _, signature: _ } = self;
        (junction, asked, parts) == (&other.junction, &other.asked, &other.parts)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { junction, asked, parts, compiled: _, is_nullable: _, signature: _ } = self;
        (junction, asked, parts).hash(state);
    }
}

impl fmt::Debug for Condition {
    /// Short: DataFusion shows it in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ScalarUDFImpl for Condition {
    fn name(&self) -> &str {
        match self.junction {
            Junction::And => "all_of",
            Junction::Or => "any_of",
        }
    }

    fn schema_name(&self, _args: &[Expr]) -> Result<String> {
        let parts: Vec<_> = self.parts.iter().map(|part| part.schema_name().to_string()).collect();
        Ok(format!("{}({})", self.name(), parts.join(", ")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::Boolean, self.is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        // What plans say of NULLs is not always so, and nothing here counts on it.
        let fields = args.arg_fields.iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let mut found = Found { decided: vec![false; rows], null: vec![false; rows] };
        let pending = self.compiled.iter().collect();
        self.decide(pending, Open { batch, rows: (0..rows).collect() }, &mut found)?;
        Ok(ColumnarValue::Array(self.values(found)))
    }
}

/// Rows that no part has decided so far.
struct Open {
    batch: RecordBatch,
    /// Where they are in the batch that was given.
    rows: Vec<usize>,
}

impl Open {
    fn without(self, decided: &BooleanBuffer) -> Result<Self> {
        let kept = BooleanArray::from(!decided);
        let batch = FilterBuilder::new(&kept).optimize().build().filter_record_batch(&self.batch)?;
        let rows = kept.values().set_indices().map(|at| self.rows[at]).collect();
        Ok(Self { batch, rows })
    }

    fn halves(self) -> [Self; 2] {
        let (middle, end) = (self.rows.len() / 2, self.rows.len());
        [(0, middle), (middle, end)].map(|(start, end)| Self {
            batch: self.batch.slice(start, end - start),
            rows: self.rows[start..end].to_vec(),
        })
    }
}

/// What is known of the rows that were given.
struct Found {
    /// A part is false, of an AND, or true, of an OR.
    decided: Vec<bool>,
    /// A part is NULL.
    null: Vec<bool>,
}

impl Condition {
    /// Evaluates `pending` parts for the rows that are open.
    ///
    /// # Errors
    /// The first part's for the first row that no part decides and for which some part fails.
    fn decide(&self, mut pending: Vec<&Arc<dyn PhysicalExpr>>, mut open: Open, found: &mut Found) -> Result<()> {
        loop {
            let (before, mut failed, mut first_error) = (open.rows.len(), Vec::new(), None);
            for part in pending {
                if open.rows.is_empty() {
                    return Ok(());
                }
                match part.evaluate(&open.batch).and_then(|values| values.into_array(open.rows.len())) {
                    Ok(values) => open = self.noted(&values, open, found)?,
                    Err(error) => {
                        failed.push(part);
                        first_error.get_or_insert(error);
                    }
                }
            }
            let Some(error) = first_error.filter(|_| !open.rows.is_empty()) else { return Ok(()) };
            if open.rows.len() == 1 && before == 1 {
                return Err(error);
            }
            pending = failed;
            if open.rows.len() == before {
                for half in open.halves() {
                    self.decide(pending.clone(), half, found)?;
                }
                return Ok(());
            }
        }
    }

    /// The rows that are open still, after a part has these values for those that were.
    fn noted(&self, values: &ArrayRef, open: Open, found: &mut Found) -> Result<Open> {
        let values = match values.data_type() {
            DataType::Boolean => Arc::clone(values),
            _ => cast(values, &DataType::Boolean)?,
        };
        let (values, nulls) = (values.as_boolean().values(), values.logical_nulls());
        let valid = |values: BooleanBuffer| match &nulls {
            Some(nulls) => &values & nulls.inner(),
            None => values,
        };
        let decided = match (self.junction, self.asked) {
            (Junction::And, Asked::Truth) => !&valid(values.clone()),
            (Junction::And, Asked::Value) => valid(!values),
            (Junction::Or, _) => valid(values.clone()),
        };
        if let (Asked::Value, Some(nulls)) = (self.asked, &nulls) {
            (!nulls.inner()).set_indices().for_each(|at| found.null[open.rows[at]] = true);
        }
        decided.set_indices().for_each(|at| found.decided[open.rows[at]] = true);
        match decided.has_true() {
            true => open.without(&decided),
            false => Ok(open),
        }
    }

    fn values(&self, Found { decided, null }: Found) -> ArrayRef {
        let decided = BooleanBuffer::from(decided);
        let nulls = &BooleanBuffer::from(null) & &!&decided;
        let nulls = nulls.has_true().then(|| NullBuffer::new(!&nulls));
        let values = match self.junction {
            Junction::And => !&decided,
            Junction::Or => decided,
        };
        Arc::new(BooleanArray::new(values, nulls))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::execution::context::ExecutionProps;
    use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::physical_expr::create_physical_expr;

    use super::{Asked, Junction, condition};
    use crate::arithmetic::checked::with_checked_operators;

    const MAX: Option<i64> = Some(i64::MAX);

    /// What a condition gives for rows of `a` and `b`.
    fn values(
        junction: Junction,
        asked: Asked,
        parts: &[Expr],
        rows: &[(Option<i64>, Option<i64>)],
    ) -> Result<Vec<Option<bool>>, String> {
        let schema = Arc::new(Schema::new(["a", "b"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        let over = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let columns: [ArrayRef; 2] = [
            Arc::new(rows.iter().map(|(a, _)| *a).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|(_, b)| *b).collect::<Int64Array>()),
        ];
        let batch = RecordBatch::try_new(schema, columns.to_vec()).unwrap();
        let parts = parts.iter().map(|part| with_checked_operators(part.clone(), &over).unwrap().data).collect();
        let props = ExecutionProps::new();
        let expr = condition(junction, asked, parts, &over, &props).unwrap();
        let physical = create_physical_expr(&expr, &over, &props, &PhysicalPlanningContext::default()).unwrap();
        let values = physical.evaluate(&batch).map_err(|e| e.to_string())?.into_array(rows.len()).unwrap();
        let values: &BooleanArray = values.as_boolean();
        Ok(values.iter().collect())
    }

    #[test]
    fn a_part_that_fails_counts_only_where_no_other_decides() {
        let square = |name: &str| (col(name) * col(name)).lt(lit(50i64));
        let (small, large) = (|| col("a").lt(lit(9i64)), || col("a").gt(lit(99i64)));
        let (t, f) = (Some(true), Some(false));
        let rows = [(MAX, None), (Some(1), None), (None, None), (Some(8), None)];
        for parts in [[small(), square("a")], [square("a"), small()]] {
            let given = |asked| values(Junction::And, asked, &parts, &rows);
            assert_eq!(given(Asked::Value), Ok(vec![f, t, None, f]));
            assert_eq!(given(Asked::Truth), Ok(vec![f, t, f, f]));
        }
        for parts in [[large(), square("a")], [square("a"), large()]] {
            let given = |asked| values(Junction::Or, asked, &parts, &rows);
            assert_eq!(given(Asked::Value), Ok(vec![t, t, None, f]));
            assert_eq!(given(Asked::Truth), Ok(vec![t, t, f, f]));
        }
        // Both parts fail, for rows that the other one decides.
        let both = [square("a"), square("b")];
        let rows = [(MAX, Some(100)), (Some(100), MAX), (Some(1), Some(1)), (None, Some(9))];
        assert_eq!(values(Junction::And, Asked::Value, &both, &rows), Ok(vec![f, f, t, f]));
        // NULL decides nothing, but where it is as good as false.
        let open = [(Some(1), Some(1)), (None, MAX)];
        let error = values(Junction::And, Asked::Value, &both, &open).unwrap_err();
        assert!(error.contains("`b * b`: 9223372036854775807 * 9223372036854775807 does not fit BIGINT"), "{error}");
        assert_eq!(values(Junction::And, Asked::Truth, &both, &open), Ok(vec![t, f]));
        let many: Vec<_> = (0..1000).map(|row| (if row == 777 { MAX } else { Some(row) }, Some(1))).collect();
        assert!(values(Junction::Or, Asked::Truth, &[square("a"), col("b").gt(lit(1i64))], &many).is_err());
        assert!(values(Junction::Or, Asked::Truth, &[square("a"), col("b").gt(lit(0i64))], &many).is_ok());
        assert_eq!(values(Junction::Or, Asked::Value, &both, &[]), Ok(Vec::new()));
    }
}
