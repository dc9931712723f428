//! Between instants and wall times.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, internal_datafusion_err, internal_err, plan_err};
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// `at_time_zone(x, zone)`: of an instant the zone's wall time, of a wall time the instant.
///
/// A wall time that is there twice, as clocks are put back, is the later one; one that is left out, as they are put forward, is
/// counted by the time before: as in PostgreSQL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AtTimeZone {
    signature: Signature,
}

impl AtTimeZone {
    /// Its name.
    pub const NAME: &'static str = "at_time_zone";
}

impl Default for AtTimeZone {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        Self::NAME
    }

    /// As DataFusion names AT TIME ZONE.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        of_first(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("the type depends on the zone")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let ([value, _], [_, zone]) = (args.arg_fields, args.scalar_arguments) else {
            return internal_err!("AT TIME ZONE has {} arguments", args.arg_fields.len());
        };
        let Some(Some(zone)) = zone.map(|zone| zone.try_as_str().flatten()) else {
            return plan_err!("the zone after AT TIME ZONE must be a text, such as 'Europe/Berlin'");
        };
        if zone.parse::<Tz>().is_err() {
            return plan_err!(
                "there is no time zone '{zone}'; names are those of the IANA database, such as 'Europe/Berlin'"
            );
        }
        let data_type = match value.data_type() {
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, None),
            DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some(zone.into())),
            DataType::Null | DataType::Date32 | DataType::Date64 => {
                DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.into()))
            }
            text if text.is_string() => DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.into())),
            other => return plan_err!("AT TIME ZONE is of a timestamp, not of {other}"),
        };
        Ok(Arc::new(Field::new(Self::NAME, data_type, value.is_nullable())))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, zone] = args.args.as_slice() else {
            return internal_err!("AT TIME ZONE has {} arguments", args.args.len());
        };
        on_arrays(value, |array| match (array.data_type(), args.return_field.data_type()) {
            (DataType::Timestamp(_, Some(_)), DataType::Timestamp(unit, None)) => {
                let ColumnarValue::Scalar(zone) = zone else { return internal_err!("a time zone is a constant") };
                let zone =
                    zone.try_as_str().flatten().ok_or_else(|| internal_datafusion_err!("a time zone is a text"))?;
                local(&cast(array, &DataType::Timestamp(*unit, Some(zone.into())))?)
            }
            (DataType::Timestamp(..), to @ DataType::Timestamp(..)) => instants(array, to),
            // Dates begin at midnight in the zone, and texts are read in it.
            (_, to) => Ok(cast_with_options(array, to, &CastOptions { safe: false, ..Default::default() })?),
        })
    }
}

/// `local_time(x)`: of an instant the wall time of its own zone, all else as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LocalTime {
    signature: Signature,
}

impl LocalTime {
    /// Its name.
    pub const NAME: &'static str = "local_time";
}

impl Default for LocalTime {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        Self::NAME
    }

    /// As DataFusion names a cast.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        of_first(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Timestamp(unit, _)] => Ok(DataType::Timestamp(*unit, None)),
            [other] => Ok(other.clone()),
            others => internal_err!("{} has {} arguments", Self::NAME, others.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let data_type = self.return_type(&types)?;
        Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_data_type(data_type)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn simplify(&self, mut args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(value) = args.pop() else { return internal_err!("{} has no argument", Self::NAME) };
        let is_instant = matches!(info.get_data_type(&value)?, DataType::Timestamp(_, Some(_)));
        Ok(ExprSimplifyResult::Simplified(if is_instant { to_local_time().call(vec![value]) } else { value }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("{} has one argument", Self::NAME) };
        match value.data_type() {
            DataType::Timestamp(_, Some(_)) => on_arrays(value, local),
            _ => Ok(value.clone()),
        }
    }
}

fn of_first(args: &[Expr]) -> Result<String> {
    Ok(args.first().map(|value| value.schema_name().to_string()).unwrap_or_default())
}

/// `function` of an array, or of a scalar as an array of one row.
fn on_arrays(value: &ColumnarValue, function: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(function(array)?)),
        ColumnarValue::Scalar(scalar) => {
            let one = function(&scalar.to_array()?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?))
        }
    }
}

/// The wall times of instants.
fn local(instants: &ArrayRef) -> Result<ArrayRef> {
    let function = to_local_time();
    let field = Arc::new(Field::new("", instants.data_type().clone(), true));
    let to = function.inner().return_type(&[instants.data_type().clone()])?;
    let args = ScalarFunctionArgs {
        args: vec![ColumnarValue::Array(Arc::clone(instants))],
        arg_fields: vec![field],
        number_rows: instants.len(),
        return_field: Arc::new(Field::new("", to, true)),
        config_options: Arc::default(),
    };
    function.invoke_with_args(args)?.into_array(instants.len())
}

/// The instants of wall times, of type `to`.
fn instants(wall: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    // Arrow knows those that are there once.
    let once = cast(wall, to)?;
    if once.null_count() == wall.null_count() {
        return Ok(once);
    }
    let numbers = cast(wall, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let odd: Vec<usize> = (0..wall.len()).filter(|row| once.is_null(*row) && numbers.is_valid(*row)).collect();
    let walls: Vec<i64> = odd.iter().map(|row| numbers.value(*row)).collect();
    let odd: HashMap<usize, i64> = odd.into_iter().zip(odd_instants(&walls, to)?).collect();
    let found = cast(&once, &DataType::Int64)?;
    let found = found.as_primitive::<Int64Type>();
    let all: Int64Array = (0..wall.len())
        .map(|row| odd.get(&row).copied().or_else(|| found.is_valid(row).then(|| found.value(row))))
        .collect();
    Ok(cast(&(Arc::new(all) as ArrayRef), to)?)
}

/// The instants of wall times that are there twice or not at all.
fn odd_instants(walls: &[i64], to: &DataType) -> Result<Vec<i64>> {
    let DataType::Timestamp(unit, Some(zone)) = to else { return internal_err!("{to} has no zone") };
    let day = match unit {
        TimeUnit::Second => 86_400,
        TimeUnit::Millisecond => 86_400_000,
        TimeUnit::Microsecond => 86_400_000_000,
        TimeUnit::Nanosecond => 86_400_000_000_000i64,
    };
    let out_of_range = |wall: i64| exec_datafusion_err!("the wall time {wall} in {zone} is out of range for {to}");
    let local_of = |instants: Vec<i64>| -> Result<Vec<i64>> {
        let instants = cast(&(Arc::new(Int64Array::from(instants)) as ArrayRef), to)?;
        let walls = cast(&local(&instants)?, &DataType::Int64)?;
        Ok(walls.as_primitive::<Int64Type>().values().to_vec())
    };
    // What the instant would be by the zone's offset a day before, and by that a day after.
    let by_offset_of = |shift: i64| -> Result<Vec<i64>> {
        let shifted = walls.iter().map(|wall| wall.checked_add(shift).ok_or_else(|| out_of_range(*wall)));
        let shifted: Vec<i64> = shifted.collect::<Result<_>>()?;
        let locals = local_of(shifted.clone())?;
        let instant = |((wall, shifted), local): ((&i64, &i64), &i64)| {
            local.checked_sub(*shifted).and_then(|offset| wall.checked_sub(offset)).ok_or_else(|| out_of_range(*wall))
        };
        walls.iter().zip(&shifted).zip(&locals).map(instant).collect()
    };
    let (before, after) = (by_offset_of(-day)?, by_offset_of(day)?);
    let (of_before, of_after) = (local_of(before.clone())?, local_of(after.clone())?);
    let chosen = (0..walls.len()).map(|at| match (of_before[at] == walls[at], of_after[at] == walls[at]) {
        (true, true) => before[at].max(after[at]),
        (false, true) => after[at],
        (true, false) | (false, false) => before[at],
    });
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, TimeUnit};

    use super::{instants, local};

    fn times(texts: &[Option<&str>], data_type: &DataType) -> ArrayRef {
        cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), data_type).unwrap()
    }

    /// Against PostgreSQL 16.
    #[test]
    fn wall_times_that_are_there_twice_or_not_at_all_are_instants() {
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            for (zone, wall, instant) in [
                ("Europe/Berlin", "2024-06-01T12:00:00", "2024-06-01T10:00:00Z"),
                ("Europe/Berlin", "2024-10-27T02:30:00", "2024-10-27T01:30:00Z"),
                ("Europe/Berlin", "2024-03-31T02:30:00", "2024-03-31T01:30:00Z"),
                ("America/New_York", "2024-11-03T01:30:00", "2024-11-03T06:30:00Z"),
                ("America/New_York", "2024-03-10T02:30:00", "2024-03-10T07:30:00Z"),
                ("Australia/Lord_Howe", "2024-04-07T01:45:00", "2024-04-06T15:15:00Z"),
                ("+05:30", "2024-06-01T12:00:00", "2024-06-01T06:30:00Z"),
            ] {
                let (naive, zoned) = (DataType::Timestamp(unit, None), DataType::Timestamp(unit, Some(zone.into())));
                let walls = times(&[Some(wall), None, Some("2024-06-01T00:00:00")], &naive);
                let found = instants(&walls, &zoned).unwrap();
                assert_eq!(found.slice(0, 1).as_ref(), times(&[Some(instant)], &zoned).as_ref(), "{zone} {wall}");
                assert!(found.is_null(1) && found.is_valid(2));
                assert_eq!(local(&found.slice(1, 2)).unwrap().as_ref(), walls.slice(1, 2).as_ref());
            }
        }
    }
}
