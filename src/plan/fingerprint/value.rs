//! Types and values as hashes: by their bits, never by how they print. Texts of values lose digits (`Date64`, far
//! dates), take two values for one (`NaN` and `-NaN`), or can't be made at all.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, SchemaRef, TimeUnit, UnionFields, UnionMode};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Result, ScalarValue};

use crate::plan::fingerprint::Canon;

impl Canon {
    /// Visits columns: their names, types, nullability and metadata.
    pub fn schema(&mut self, schema: &SchemaRef) {
        self.fields(schema.fields());
    }

    /// Visits a scalar, by type and value.
    ///
    /// # Errors
    /// When a value inside it can't be taken out.
    pub fn literal(&mut self, value: &ScalarValue, metadata: Option<&FieldMetadata>) -> Result<()> {
        self.hash.text("literal");
        self.data_type(&value.data_type());
        self.metadata(metadata);
        self.value(value)
    }

    pub(super) fn metadata(&mut self, metadata: Option<&FieldMetadata>) {
        let entries = metadata.map(|metadata| metadata.inner().iter()).into_iter().flatten();
        self.pairs(entries.map(|(key, value)| (key.as_str(), value.as_str())).collect());
    }

    pub(super) fn field(&mut self, field: &Field) {
        self.hash.text(field.name());
        self.data_type(field.data_type());
        self.hash.number(field.is_nullable().into());
        self.pairs(field.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
    }

    fn fields(&mut self, fields: &Fields) {
        self.hash.number(fields.len());
        fields.iter().for_each(|field| self.field(field));
    }

    fn pairs(&mut self, pairs: BTreeMap<&str, &str>) {
        self.hash.number(pairs.len());
        for (key, value) in pairs {
            self.hash.text(key);
            self.hash.text(value);
        }
    }

    pub(super) fn data_type(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Null => self.hash.text("null"),
            DataType::Boolean => self.hash.text("boolean"),
            DataType::Int8 => self.hash.text("int8"),
            DataType::Int16 => self.hash.text("int16"),
            DataType::Int32 => self.hash.text("int32"),
            DataType::Int64 => self.hash.text("int64"),
            DataType::UInt8 => self.hash.text("uint8"),
            DataType::UInt16 => self.hash.text("uint16"),
            DataType::UInt32 => self.hash.text("uint32"),
            DataType::UInt64 => self.hash.text("uint64"),
            DataType::Float16 => self.hash.text("float16"),
            DataType::Float32 => self.hash.text("float32"),
            DataType::Float64 => self.hash.text("float64"),
            DataType::Timestamp(unit, zone) => {
                self.in_unit("timestamp", *unit);
                self.hash.number(zone.is_some().into());
                self.hash.text(zone.as_deref().unwrap_or_default());
            }
            DataType::Date32 => self.hash.text("date32"),
            DataType::Date64 => self.hash.text("date64"),
            DataType::Time32(unit) => self.in_unit("time32", *unit),
            DataType::Time64(unit) => self.in_unit("time64", *unit),
            DataType::Duration(unit) => self.in_unit("duration", *unit),
            DataType::Interval(unit) => self.hash.text(match unit {
                IntervalUnit::YearMonth => "interval of months",
                IntervalUnit::DayTime => "interval of days",
                IntervalUnit::MonthDayNano => "interval of months and days",
            }),
            DataType::Binary => self.hash.text("binary"),
            DataType::FixedSizeBinary(width) => self.sized("fixed size binary", i64::from(*width)),
            DataType::LargeBinary => self.hash.text("large binary"),
            DataType::BinaryView => self.hash.text("binary view"),
            DataType::Utf8 => self.hash.text("utf8"),
            DataType::LargeUtf8 => self.hash.text("large utf8"),
            DataType::Utf8View => self.hash.text("utf8 view"),
            DataType::List(field) => self.of_field("list", field),
            DataType::ListView(field) => self.of_field("list view", field),
            DataType::FixedSizeList(field, size) => {
                self.sized("fixed size list", i64::from(*size));
                self.field(field);
            }
            DataType::LargeList(field) => self.of_field("large list", field),
            DataType::LargeListView(field) => self.of_field("large list view", field),
            DataType::Struct(fields) => {
                self.hash.text("struct");
                self.fields(fields);
            }
            DataType::Union(fields, mode) => {
                self.hash.text("union");
                self.union(fields, *mode);
            }
            DataType::Dictionary(keys, values) => {
                self.hash.text("dictionary");
                self.data_type(keys);
                self.data_type(values);
            }
            DataType::Decimal32(precision, scale) => self.decimal("decimal32", *precision, *scale),
            DataType::Decimal64(precision, scale) => self.decimal("decimal64", *precision, *scale),
            DataType::Decimal128(precision, scale) => self.decimal("decimal128", *precision, *scale),
            DataType::Decimal256(precision, scale) => self.decimal("decimal256", *precision, *scale),
            DataType::Map(entries, is_sorted) => {
                self.of_field("map", entries);
                self.hash.number((*is_sorted).into());
            }
            DataType::RunEndEncoded(ends, values) => {
                self.of_field("run end encoded", ends);
                self.field(values);
            }
        }
    }

    fn union(&mut self, fields: &UnionFields, mode: UnionMode) {
        self.hash.text(match mode {
            UnionMode::Sparse => "sparse",
            UnionMode::Dense => "dense",
        });
        self.hash.number(fields.len());
        for (number, field) in fields.iter() {
            self.hash.bytes(&number.to_le_bytes());
            self.field(field);
        }
    }

    fn in_unit(&mut self, name: &str, unit: TimeUnit) {
        self.hash.text(name);
        self.hash.text(match unit {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "us",
            TimeUnit::Nanosecond => "ns",
        });
    }

    fn of_field(&mut self, name: &str, field: &Field) {
        self.hash.text(name);
        self.field(field);
    }

    fn sized(&mut self, name: &str, size: i64) {
        self.hash.text(name);
        self.hash.bytes(&size.to_le_bytes());
    }

    fn decimal(&mut self, name: &str, precision: u8, scale: i8) {
        self.hash.text(name);
        self.hash.bytes(&[precision, scale.to_le_bytes()[0]]);
    }

    /// A value, whose type was visited before.
    fn value(&mut self, value: &ScalarValue) -> Result<()> {
        match value {
            ScalarValue::Null => self.bits::<0>(None),
            ScalarValue::Boolean(value) => self.bits(value.map(|value| [u8::from(value)])),
            ScalarValue::Float16(value) => self.bits(value.map(|value| value.to_bits().to_le_bytes())),
            ScalarValue::Float32(value) => self.bits(value.map(|value| value.to_bits().to_le_bytes())),
            ScalarValue::Float64(value) => self.bits(value.map(|value| value.to_bits().to_le_bytes())),
            ScalarValue::Int8(value) => self.bits(value.map(i8::to_le_bytes)),
            ScalarValue::Int16(value) => self.bits(value.map(i16::to_le_bytes)),
            ScalarValue::UInt8(value) => self.bits(value.map(u8::to_le_bytes)),
            ScalarValue::UInt16(value) => self.bits(value.map(u16::to_le_bytes)),
            ScalarValue::UInt32(value) => self.bits(value.map(u32::to_le_bytes)),
            ScalarValue::UInt64(value) => self.bits(value.map(u64::to_le_bytes)),
            ScalarValue::Int32(value)
            | ScalarValue::Decimal32(value, _, _)
            | ScalarValue::Date32(value)
            | ScalarValue::Time32Second(value)
            | ScalarValue::Time32Millisecond(value)
            | ScalarValue::IntervalYearMonth(value) => self.bits(value.map(i32::to_le_bytes)),
            ScalarValue::Int64(value)
            | ScalarValue::Decimal64(value, _, _)
            | ScalarValue::Date64(value)
            | ScalarValue::Time64Microsecond(value)
            | ScalarValue::Time64Nanosecond(value)
            | ScalarValue::TimestampSecond(value, _)
            | ScalarValue::TimestampMillisecond(value, _)
            | ScalarValue::TimestampMicrosecond(value, _)
            | ScalarValue::TimestampNanosecond(value, _)
            | ScalarValue::DurationSecond(value)
            | ScalarValue::DurationMillisecond(value)
            | ScalarValue::DurationMicrosecond(value)
            | ScalarValue::DurationNanosecond(value) => self.bits(value.map(i64::to_le_bytes)),
            ScalarValue::Decimal128(value, _, _) => self.bits(value.map(i128::to_le_bytes)),
            ScalarValue::Decimal256(value, _, _) => self.bits(value.map(|value| value.to_le_bytes())),
            ScalarValue::IntervalDayTime(value) => {
                self.bits(value.map(|value| value.days.to_le_bytes()));
                self.bits(value.map(|value| value.milliseconds.to_le_bytes()));
            }
            ScalarValue::IntervalMonthDayNano(value) => {
                self.bits(value.map(|value| value.months.to_le_bytes()));
                self.bits(value.map(|value| value.days.to_le_bytes()));
                self.bits(value.map(|value| value.nanoseconds.to_le_bytes()));
            }
            ScalarValue::Utf8(value) | ScalarValue::Utf8View(value) | ScalarValue::LargeUtf8(value) => {
                self.some(value.as_ref().map(String::as_bytes));
            }
            ScalarValue::Binary(value)
            | ScalarValue::BinaryView(value)
            | ScalarValue::FixedSizeBinary(_, value)
            | ScalarValue::LargeBinary(value) => self.some(value.as_deref()),
            ScalarValue::FixedSizeList(list) => self.list(list.as_ref(), |at| list.value(at))?,
            ScalarValue::List(list) => self.list(list.as_ref(), |at| list.value(at))?,
            ScalarValue::LargeList(list) => self.list(list.as_ref(), |at| list.value(at))?,
            ScalarValue::ListView(list) => self.list(list.as_ref(), |at| list.value(at))?,
            ScalarValue::LargeListView(list) => self.list(list.as_ref(), |at| list.value(at))?,
            ScalarValue::Map(map) => self.list(map.as_ref(), |at| std::sync::Arc::new(map.value(at)))?,
            ScalarValue::Struct(row) => {
                let is_there = !row.is_empty() && row.is_valid(0);
                self.hash.number(is_there.into());
                for column in row.columns().iter().filter(|_| is_there) {
                    self.value(&ScalarValue::try_from_array(column, 0)?)?;
                }
            }
            ScalarValue::Union(value, _, _) => {
                self.hash.number(value.is_some().into());
                if let Some((number, value)) = value {
                    self.hash.bytes(&number.to_le_bytes());
                    self.value(value)?;
                }
            }
            ScalarValue::Dictionary(_, value) | ScalarValue::RunEndEncoded(_, _, value) => self.value(value)?,
        }
        Ok(())
    }

    /// An array of one list, whose values `values` gives.
    fn list(&mut self, list: &dyn Array, values: impl Fn(usize) -> ArrayRef) -> Result<()> {
        let is_there = !list.is_empty() && list.is_valid(0);
        self.hash.number(is_there.into());
        if is_there {
            let values = values(0);
            self.hash.number(values.len());
            for at in 0..values.len() {
                self.value(&ScalarValue::try_from_array(&values, at)?)?;
            }
        }
        Ok(())
    }

    fn bits<const N: usize>(&mut self, value: Option<[u8; N]>) {
        self.some(value.as_ref().map(<[u8; N]>::as_slice));
    }

    fn some(&mut self, value: Option<&[u8]>) {
        self.hash.number(value.is_some().into());
        self.hash.bytes(value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StructArray};
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, Field, Fields, IntervalDayTime, IntervalMonthDayNano, Schema, TimeUnit, i256};
    use datafusion::common::ScalarValue;

    use crate::plan::fingerprint::{Canon, Fingerprint};

    fn of(value: &ScalarValue) -> Fingerprint {
        let mut canon = Canon::default();
        canon.literal(value, None).unwrap();
        canon.hash.finish()
    }

    fn list_of(values: Vec<Option<i32>>, to: DataType) -> ScalarValue {
        let values: ArrayRef = Arc::new(Int32Array::from(values));
        let values: Vec<_> = (0..values.len()).map(|at| ScalarValue::try_from_array(&values, at).unwrap()).collect();
        let list = ScalarValue::List(ScalarValue::new_list(&values, &DataType::Int32, true));
        let list = cast(&list.to_array().unwrap(), &to).unwrap();
        ScalarValue::try_from_array(&list, 0).unwrap()
    }

    fn row(a: Option<f64>, name: &str) -> ScalarValue {
        let fields = Fields::from(vec![Field::new(name, DataType::Float64, true)]);
        let column = ScalarValue::Float64(a).to_array().unwrap();
        ScalarValue::Struct(Arc::new(StructArray::new(fields, vec![column], None)))
    }

    /// Values that are all another, some of which print alike and some of which don't print.
    fn values() -> Vec<ScalarValue> {
        let zone = || Some(Arc::from("+00:00"));
        let item = || Arc::new(Field::new_list_field(DataType::Int32, true));
        let mut values = vec![ScalarValue::Null];
        values.extend(
            [f64::NAN, -f64::NAN, f64::from_bits(f64::NAN.to_bits() + 1), 0.0, -0.0, 1.0].map(ScalarValue::from),
        );
        values.extend([f32::NAN, -f32::NAN, 0.0, -0.0, 1.0, f32::MIN_POSITIVE].map(ScalarValue::from));
        values.push(ScalarValue::Float64(None));
        for number in [i64::MIN, -1, 0, 1, 2, 86_400_000, i64::MAX - 1, i64::MAX] {
            let value = Some(number);
            values.extend([
                ScalarValue::Int64(value),
                ScalarValue::Date64(value),
                ScalarValue::Time64Microsecond(value),
                ScalarValue::Time64Nanosecond(value),
                ScalarValue::TimestampSecond(value, None),
                ScalarValue::TimestampSecond(value, zone()),
                ScalarValue::TimestampSecond(value, Some(Arc::from("UTC"))),
                ScalarValue::TimestampMillisecond(value, None),
                ScalarValue::TimestampMicrosecond(value, None),
                ScalarValue::TimestampNanosecond(value, None),
                ScalarValue::TimestampNanosecond(value, zone()),
                ScalarValue::DurationSecond(value),
                ScalarValue::DurationNanosecond(value),
                ScalarValue::Decimal64(value, 18, 0),
                ScalarValue::Decimal128(value.map(i128::from), 38, 0),
                ScalarValue::Decimal128(value.map(i128::from), 38, 1),
                ScalarValue::Decimal128(value.map(i128::from), 37, 0),
                ScalarValue::Decimal256(value.map(i256::from), 40, 0),
                ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, 2, number))),
            ]);
        }
        for number in [i32::MIN, -1, 0, 1, 30, i32::MAX - 1, i32::MAX] {
            let value = Some(number);
            values.extend([
                ScalarValue::Int32(value),
                ScalarValue::Date32(value),
                ScalarValue::Time32Second(value),
                ScalarValue::Time32Millisecond(value),
                ScalarValue::IntervalYearMonth(value),
                ScalarValue::IntervalDayTime(Some(IntervalDayTime::new(number, 7))),
                ScalarValue::IntervalDayTime(Some(IntervalDayTime::new(7, number))),
                ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(number, 4, 3))),
                ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(5, number, 3))),
            ]);
        }
        for text in ["", "a", "a\n", "NULL"] {
            values.extend([ScalarValue::from(text), ScalarValue::Utf8View(Some(text.into()))]);
            values.extend([
                ScalarValue::LargeUtf8(Some(text.into())),
                ScalarValue::Binary(Some(text.into())),
                ScalarValue::BinaryView(Some(text.into())),
            ]);
        }
        values.extend([ScalarValue::Utf8(None), ScalarValue::Binary(None), ScalarValue::FixedSizeBinary(1, None)]);
        values.extend([
            ScalarValue::FixedSizeBinary(1, Some(vec![0])),
            ScalarValue::FixedSizeBinary(2, Some(vec![0, 0])),
        ]);
        for list in [vec![], vec![None], vec![Some(1)], vec![Some(1), None], vec![Some(11)], vec![Some(1), Some(1)]] {
            values.push(list_of(list.clone(), DataType::List(item())));
            values.push(list_of(list.clone(), DataType::LargeList(item())));
            values.push(list_of(list.clone(), DataType::FixedSizeList(item(), list.len() as i32)));
        }
        values.extend([row(Some(0.0), "a"), row(Some(-0.0), "a"), row(None, "a"), row(None, "b")]);
        values.push(ScalarValue::try_from(&DataType::Struct(Fields::from(vec![item()]))).unwrap());
        let texts = |value| ScalarValue::Dictionary(Box::new(DataType::Int8), Box::new(value));
        values.extend([texts(ScalarValue::from("a")), texts(ScalarValue::from("b")), texts(ScalarValue::Utf8(None))]);
        values
    }

    #[test]
    fn values_have_one_fingerprint_exactly_where_their_types_and_bits_are_equal() {
        let mut seen: HashMap<Fingerprint, ScalarValue> = HashMap::new();
        let values = values();
        for value in &values {
            let fingerprint = of(value);
            assert_eq!(fingerprint, of(&value.clone()));
            if let Some(other) = seen.insert(fingerprint, value.clone()) {
                panic!("one fingerprint for two values of {} and {}", value.data_type(), other.data_type());
            }
        }
        assert_eq!(seen.len(), values.len());
    }

    #[test]
    fn columns_have_one_fingerprint_exactly_where_all_that_is_said_of_them_is_equal() {
        let metadata = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let plain = || Field::new("a", DataType::Int32, true);
        let nested = |field: Field| Field::new("a", DataType::List(Arc::new(field)), true);
        let fields = [
            plain(),
            Field::new("b", DataType::Int32, true),
            Field::new("a", DataType::Int32, false),
            Field::new("a", DataType::Int64, true),
            plain().with_metadata(metadata(&[("x", "1")])),
            plain().with_metadata(metadata(&[("x", "2")])),
            plain().with_metadata(metadata(&[("x", "1"), ("y", "")])),
            plain().with_metadata(metadata(&[("y", "1"), ("x", "")])),
            plain().with_metadata(metadata(&[("ARROW:extension:name", "arrow.uuid")])),
            nested(plain()),
            nested(Field::new("b", DataType::Int32, true)),
            nested(Field::new("a", DataType::Int32, false)),
            nested(plain().with_metadata(metadata(&[("x", "1")]))),
            Field::new("a", DataType::Timestamp(TimeUnit::Second, None), true),
            Field::new("a", DataType::Timestamp(TimeUnit::Second, Some("".into())), true),
            Field::new("a", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ];
        let of = |fields: &[Field]| {
            let mut canon = Canon::default();
            canon.schema(&Arc::new(Schema::new(fields.to_vec())));
            canon.hash.finish()
        };
        let all: std::collections::BTreeSet<Fingerprint> = fields.iter().map(|f| of(std::slice::from_ref(f))).collect();
        assert_eq!(all.len(), fields.len());
        assert_ne!(of(&[]), of(&[plain()]));
        assert_ne!(of(&[plain()]), of(&[plain(), plain()]));
    }
}
