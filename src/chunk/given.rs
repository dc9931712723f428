//! Chunks that a user or a hook gives: ranges, values or predicates of the keys, or predicates of each input.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility, lit};

use crate::chunk::cases::Cases;
use crate::chunk::key::{KeyFamily, key_family};
use crate::chunk::only::only_chunk;
use crate::chunk::range::{Bounds, KeyValue, compare_alike, has_ranges};
use crate::chunk::{ChunkFunction, MAX_CHUNKS};

/// Chunks before the types of their keys are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Given {
    /// Ranges of the only key that begin at these values, and one for what is below.
    Ranges(Vec<ScalarValue>),
    /// For each group of values of the only key a chunk, and one for all others and NULL.
    Values(Vec<Vec<ScalarValue>>),
    /// For each predicate over the keys, by name, a chunk of the rows for which it is the first that holds, and one for
    /// all others.
    Predicates(Vec<Expr>),
    /// For each of these inputs as many predicates over its columns, by name; chunk k has the rows for which predicate k holds.
    PerInput(Vec<(String, Vec<Expr>)>),
}

impl Given {
    /// Number of chunks; ranges may be fewer where bounds are equal.
    pub fn chunks(&self) -> u32 {
        let chunks = match self {
            Self::Ranges(bounds) => bounds.len() + 1,
            Self::Values(groups) => groups.len() + 1,
            Self::Predicates(predicates) => predicates.len() + 1,
            Self::PerInput(inputs) => inputs.first().map_or(0, |(_, predicates)| predicates.len()),
        };
        u32::try_from(chunks).unwrap_or(u32::MAX)
    }

    /// The function of keys that have these names and, in each input that is cut, these types.
    ///
    /// # Errors
    /// With what to change, when there are too many chunks, a value is none of the key's type, or equal keys of two
    /// inputs could fall into different chunks.
    pub fn function(&self, names: &[String], inputs: &[Vec<&DataType>]) -> Result<ChunkFunction> {
        if self.chunks() > MAX_CHUNKS {
            return plan_err!("{} chunks are given; the most are {MAX_CHUNKS}", self.chunks());
        }
        let Some(types) = inputs.first() else { return plan_err!("no input is cut") };
        let is_one_type = inputs.iter().all(|other| other == types);
        let is_float = types.iter().find(|data_type| key_family(data_type) == Some(KeyFamily::Float));
        match (self, types.as_slice(), names) {
            // The key is the chunk.
            (Self::PerInput(_), ..) => Ok(ChunkFunction::PerInput(self.chunks())),
            (Self::Ranges(bounds), [data_type], [name]) => {
                if !has_ranges(data_type) {
                    return plan_err!(
                        "keys of type {data_type} have no ranges; cut by hash, or by an integer, date or text"
                    );
                }
                if let Some(other) = inputs.iter().flatten().find(|other| !compare_alike(data_type, other)) {
                    return plan_err!(
                        "the key has types {data_type} and {other}, which have no ranges in common; CAST one"
                    );
                }
                let values = bounds.iter().map(|bound| key_value(bound, data_type)).collect::<Result<_>>()?;
                match Bounds::new(values, data_type, name) {
                    Some(bounds) => Ok(ChunkFunction::Range(bounds)),
                    None => Ok(ChunkFunction::Hash(1)),
                }
            }
            (Self::Ranges(_) | Self::Values(_), ..) if types.len() != 1 => {
                plan_err!("ranges and values are of one key, not of {}", types.len())
            }
            _ if !is_one_type => plan_err!(
                "the keys have other types in one input than in another: {inputs:?}; CAST them to one, so that equal keys \
                 share a chunk"
            ),
            (_, _, _) if is_float.is_some() => {
                plan_err!(
                    "floats that are equal may differ, as 0.0 and -0.0 do; cut by hash, or CAST the key to a DECIMAL"
                )
            }
            (Self::Values(groups), ..) => {
                let keys: Vec<_> = names.iter().cloned().zip(types.iter().map(|t| (*t).clone())).collect();
                let (name, data_type) = &keys[0];
                let key = Expr::Column(Column::new_unqualified(name));
                let mut seen: Vec<ScalarValue> = Vec::new();
                let mut predicates = Vec::with_capacity(groups.len());
                for group in groups {
                    let mut literals = Vec::with_capacity(group.len());
                    for value in group {
                        let value = of_type(value, data_type)?;
                        if value.is_null() {
                            return plan_err!("NULL is given as a value; rows with it are in chunk 0");
                        }
                        if seen.contains(&value) {
                            return plan_err!("the value {value} is given twice; each is in one chunk");
                        }
                        seen.push(value.clone());
                        literals.push(lit(value));
                    }
                    predicates.push(key.clone().in_list(literals, false));
                }
                Ok(ChunkFunction::Cases(Cases::new(keys, predicates, true)))
            }
            (Self::Predicates(predicates), ..) => {
                for predicate in predicates {
                    let strange =
                        predicate.column_refs().into_iter().find(|c| c.relation.is_some() || !names.contains(&c.name));
                    if let Some(column) = strange {
                        return plan_err!(
                            "the predicate {predicate} reads {column}, which is not a key; the keys are {names:?}"
                        );
                    }
                    if let Some(part) = not_of_keys(predicate)? {
                        return plan_err!(
                            "the predicate {predicate} is not a function of the keys alone: `{part}` may give another value \
                             another time"
                        );
                    }
                }
                let keys = names.iter().cloned().zip(types.iter().map(|t| (*t).clone())).collect();
                Ok(ChunkFunction::Cases(Cases::new(keys, predicates.clone(), false)))
            }
            (Self::Ranges(_), ..) => plan_err!("ranges are of one key"),
        }
    }
}

/// Predicates over the columns of `schema`, by name, as a key of the rows: the number of the only one that holds, over columns
/// that `position` names.
///
/// # Errors
/// With what to change, when one reads another column, is no condition, or no function of the row alone.
pub fn number_of(input: &str, predicates: &[Expr], schema: &Schema, position: impl Fn(usize) -> Expr) -> Result<Expr> {
    let columns = DFSchema::try_from(schema.clone())?;
    let number = |predicate: &Expr| {
        let is_strange = |c: &&Column| c.relation.is_some() || schema.index_of(&c.name).is_err();
        if let Some(column) = predicate.column_refs().into_iter().find(is_strange) {
            let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return plan_err!(
                "the predicate {predicate} of input `{input}` reads {column}, which is not one of its columns; name one of {}",
                known.join(", ")
            );
        }
        if let Some(part) = not_of_keys(predicate)? {
            return plan_err!(
                "the predicate {predicate} of input `{input}` is not a function of the row alone: `{part}` may give another \
                 value another time"
            );
        }
        let data_type = predicate.get_type(&columns)?;
        if data_type != DataType::Boolean {
            return plan_err!("the predicate {predicate} of input `{input}` has type {data_type}; write a condition");
        }
        let moved = predicate.clone().transform(|part| match &part {
            Expr::Column(column) => Ok(Transformed::yes(position(schema.index_of(&column.name)?))),
            _ => Ok(Transformed::no(part)),
        });
        Ok(moved?.data)
    };
    Ok(only_chunk(predicates.iter().map(number).collect::<Result<_>>()?))
}

/// The first part of a predicate that is no function of its columns alone, always the same.
fn not_of_keys(predicate: &Expr) -> Result<Option<Expr>> {
    let own = SessionStateDefaults::default_scalar_functions();
    let mut found = None;
    predicate.apply(|part| {
        let is_function_of_keys = match part {
            // Another of its name may do anything, and nobody would know when that changes.
            Expr::ScalarFunction(f) => f.func.signature().volatility == Volatility::Immutable && own.contains(&f.func),
            Expr::Alias(_)
            | Expr::Column(_)
            | Expr::Literal(..)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_) => true,
            _ => false,
        };
        if !is_function_of_keys {
            found = Some(part.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A value as one of the key's type, if it is one.
fn of_type(value: &ScalarValue, data_type: &DataType) -> Result<ScalarValue> {
    let foreign =
        |_: DataFusionError| DataFusionError::Plan(format!("{value} is no value of a key of type {data_type}"));
    let cast = value.cast_to(data_type).map_err(foreign)?;
    let back = cast.cast_to(&value.data_type()).map_err(foreign)?;
    if cast.is_null() != value.is_null() || back != *value {
        return Err(foreign(DataFusionError::Plan(String::new())));
    }
    Ok(cast)
}

fn key_value(bound: &ScalarValue, data_type: &DataType) -> Result<KeyValue> {
    let array = of_type(bound, data_type)?.to_array()?;
    match KeyValue::of(&array).and_then(|values| values.into_iter().next()).flatten() {
        Some(value) => Ok(value),
        None => plan_err!("NULL is given as a bound; rows with it are in chunk 0"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::{Expr, col, ident, lit};
    use datafusion::prelude::{current_date, random};

    use super::{Given, number_of};
    use crate::chunk::ChunkFunction;
    use crate::chunk::only::predicates_of;

    fn function(given: &Given, inputs: &[Vec<&DataType>]) -> Result<ChunkFunction, String> {
        given.function(&["k".into()], inputs).map_err(|e| e.strip_backtrace())
    }

    #[test]
    fn values_become_the_keys_type_or_are_refused() {
        let (int, text, float) = (DataType::Int32, DataType::Utf8View, DataType::Float64);
        let values = |values: Vec<ScalarValue>| Given::Values(vec![values]);
        let ranges = |values: Vec<ScalarValue>| Given::Ranges(values);
        assert!(matches!(function(&values(vec![7i64.into(), 8u8.into()]), &[vec![&int]]), Ok(ChunkFunction::Cases(_))));
        assert!(matches!(
            function(&ranges(vec![7i64.into()]), &[vec![&int], vec![&DataType::Int64]]),
            Ok(ChunkFunction::Range(_))
        ));
        let refused = [
            (values(vec![i64::MAX.into()]), vec![vec![&int]], "is no value of a key of type Int32"),
            (values(vec!["a".into()]), vec![vec![&int]], "is no value of a key of type Int32"),
            (values(vec![1i64.into(), 1i32.into()]), vec![vec![&int]], "given twice"),
            (values(vec![ScalarValue::Int32(None)]), vec![vec![&int]], "NULL"),
            (values(vec![1i64.into()]), vec![vec![&int], vec![&DataType::Int64]], "other types"),
            (values(vec![1.5f64.into()]), vec![vec![&float]], "0.0 and -0.0"),
            (ranges(vec![1.5f64.into()]), vec![vec![&int]], "is no value"),
            (ranges(vec![1.5f64.into()]), vec![vec![&float]], "no ranges"),
            (ranges(vec!["a".into()]), vec![vec![&text], vec![&int]], "no ranges in common"),
            (Given::Predicates(vec![col("other").eq(lit(1))]), vec![vec![&int]], "is not a key"),
            (Given::Predicates(vec![random().lt(lit(0.5))]), vec![vec![&int]], "not a function of the keys"),
            (Given::Predicates(vec![col("k").lt(current_date())]), vec![vec![&DataType::Date32]], "current_date"),
        ];
        for (given, inputs, words) in refused {
            let message = function(&given, &inputs).unwrap_err();
            assert!(message.contains(words), "{given:?}: {message}");
        }
    }

    #[test]
    fn predicates_of_an_input_become_its_chunks_by_position_or_are_refused() {
        let schema =
            Schema::new(vec![Field::new("1", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)]);
        let number = |predicates: &[Expr]| {
            number_of("t", predicates, &schema, |at| ident(at.to_string())).map_err(|e| e.strip_backtrace())
        };
        let found = number(&[ident("1").lt(lit(5)), col("b").eq(lit("x"))]).unwrap();
        assert_eq!(predicates_of(&found), Some([ident("0").lt(lit(5)), ident("1").eq(lit("x"))].as_slice()));
        let refused = [
            (ident("0").lt(lit(5)), "of input `t` reads 0, which is not one of its columns; name one of 1, b"),
            (col("t.b").is_null(), "reads t.b, which is not one of its columns"),
            (random().lt(lit(0.5)), "is not a function of the row alone: `random()`"),
            (col("b"), "has type Utf8View; write a condition"),
        ];
        for (predicate, words) in refused {
            let message = number(&[lit(true), predicate]).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        let given = Given::PerInput(vec![("t".into(), vec![lit(true); 3]), ("u".into(), vec![lit(true); 3])]);
        assert_eq!(function(&given, &[vec![&DataType::Int32]]), Ok(ChunkFunction::PerInput(3)));
        assert_eq!(ChunkFunction::PerInput(3).overlap(0, &ChunkFunction::PerInput(3)), None);
    }
}
