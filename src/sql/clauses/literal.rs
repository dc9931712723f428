//! Literals and types.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, ExactNumberInfo, Expr, Interval, StructField, TimezoneInfo, Value, ValueWithSpan,
};

use crate::error::Result;
use crate::sql::clauses::Clauses;

impl Clauses<'_> {
    pub(super) fn value(&mut self, value: &ValueWithSpan) -> Result<()> {
        let ValueWithSpan { value, span } = value;
        self.at(*span);
        let message = match value {
            Value::Number(..)
            | Value::SingleQuotedString(_)
            | Value::DoubleQuotedString(_)
            | Value::DollarQuotedString(_)
            | Value::EscapedStringLiteral(_)
            | Value::HexStringLiteral(_)
            | Value::Boolean(_)
            | Value::Null => return Ok(()),
            // Whether it has a value is known when the query is planned.
            Value::Placeholder(name) if name.starts_with('$') => return Ok(()),
            Value::Placeholder(name) => format!(
                "`{name}` stands for a value that nobody gives; write the value, or $name in a query of Rust and \
                 Task::parameter(name, value)"
            ),
            Value::TripleSingleQuotedString(_) | Value::TripleDoubleQuotedString(_) => {
                "text in triple quotes is not supported; write it in single quotes, or between $$ and $$".to_string()
            }
            Value::UnicodeStringLiteral(_) => {
                "U&'…' is not supported; write the letters themselves, or E'\\u00e4'".to_string()
            }
            Value::SingleQuotedByteStringLiteral(_)
            | Value::DoubleQuotedByteStringLiteral(_)
            | Value::TripleSingleQuotedByteStringLiteral(_)
            | Value::TripleDoubleQuotedByteStringLiteral(_) => {
                "B'…' is not supported; write bytes as X'0aff'".to_string()
            }
            Value::SingleQuotedRawStringLiteral(_)
            | Value::DoubleQuotedRawStringLiteral(_)
            | Value::TripleSingleQuotedRawStringLiteral(_)
            | Value::TripleDoubleQuotedRawStringLiteral(_) => {
                "R'…' is not supported; write single quotes, in which \\ is a letter like others".to_string()
            }
            Value::NationalStringLiteral(_) => "N'…' is not supported; remove the N, all text is UTF-8".to_string(),
            Value::QuoteDelimitedStringLiteral(_) | Value::NationalQuoteDelimitedStringLiteral(_) => {
                "Q'…' is not supported; write single quotes, or text between $$ and $$".to_string()
            }
        };
        Err(self.error(message))
    }

    pub(super) fn interval(&mut self, interval: &Interval) -> Result<()> {
        let Interval { value, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
        self.expr(value)?;
        for (is_set, message) in [
            (
                last_field.is_some(),
                "INTERVAL … TO … is not supported; write all parts with their units: INTERVAL '1 year 2 months'",
            ),
            (
                leading_precision.is_some() || fractional_seconds_precision.is_some(),
                "the precision of an INTERVAL is not supported; remove it",
            ),
            (
                !is_interval(value),
                "INTERVAL takes a text or a number; write CAST(concat(value, ' days') AS INTERVAL) for an expression",
            ),
        ] {
            if is_set {
                return Err(self.error(message));
            }
        }
        match leading_field {
            // The unit, which a number needs.
            Some(_) => Ok(()),
            None if matches!(value.as_ref(), Expr::Value(ValueWithSpan { value: Value::Number(..), span: _ })) => {
                Err(self.error("a number alone is not an INTERVAL; write the unit: INTERVAL '1' DAY"))
            }
            None => Ok(()),
        }
    }

    /// What DataFusion takes for the type, else what to write for it.
    pub(super) fn data_type(&mut self, data_type: &DataType) -> Result<()> {
        let instead = match data_type {
            DataType::Bool
            | DataType::Boolean
            | DataType::TinyInt(_)
            | DataType::SmallInt(_)
            | DataType::Int2(_)
            | DataType::Int(_)
            | DataType::Integer(_)
            | DataType::Int4(_)
            | DataType::BigInt(_)
            | DataType::Int8(_)
            | DataType::TinyIntUnsigned(_)
            | DataType::SmallIntUnsigned(_)
            | DataType::Int2Unsigned(_)
            | DataType::IntUnsigned(_)
            | DataType::IntegerUnsigned(_)
            | DataType::Int4Unsigned(_)
            | DataType::BigIntUnsigned(_)
            | DataType::Int8Unsigned(_)
            | DataType::Real
            | DataType::Float4
            | DataType::Float8
            | DataType::DoublePrecision
            | DataType::Double(ExactNumberInfo::None)
            | DataType::Numeric(_)
            | DataType::Decimal(_)
            // The length of text is no limit, as in DuckDB.
            | DataType::Varchar(_)
            | DataType::Char(_)
            | DataType::Text
            | DataType::String(_)
            | DataType::Bytea
            | DataType::Date
            | DataType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
            | DataType::Timestamp(None | Some(0 | 3 | 6 | 9), _)
            | DataType::Interval { fields: None, precision: None } => return Ok(()),
            // DataFusion reads 32 bits whatever the precision is: mended.
            DataType::Float(ExactNumberInfo::None | ExactNumberInfo::Precision(1..=53)) => return Ok(()),
            DataType::Float(_) => "DOUBLE",
            DataType::Struct(fields, _) => {
                for StructField { field_name: _, field_type, options } in fields {
                    self.data_type(field_type)?;
                    self.refuse(options.is_some(), "OPTIONS", "OPTIONS of a field have no meaning here; remove them")?;
                }
                return Ok(());
            }
            DataType::Array(ArrayElemTypeDef::AngleBracket(of) | ArrayElemTypeDef::SquareBracket(of, _)) => {
                return self.data_type(of);
            }
            DataType::Array(ArrayElemTypeDef::None | ArrayElemTypeDef::Parenthesis(_)) => "type[]",
            DataType::Character(_)
            | DataType::CharacterVarying(_)
            | DataType::CharVarying(_)
            | DataType::Nvarchar(_)
            | DataType::CharacterLargeObject(_)
            | DataType::CharLargeObject(_)
            | DataType::Clob(_)
            | DataType::TinyText
            | DataType::MediumText
            | DataType::LongText
            | DataType::FixedString(_)
            | DataType::Uuid
            | DataType::JSON
            | DataType::JSONB
            | DataType::Enum(..)
            | DataType::Set(_)
            | DataType::Regclass => "VARCHAR",
            DataType::Binary(_)
            | DataType::Varbinary(_)
            | DataType::Blob(_)
            | DataType::TinyBlob
            | DataType::MediumBlob
            | DataType::LongBlob
            | DataType::Bytes(_)
            | DataType::Bit(_)
            | DataType::BitVarying(_)
            | DataType::VarBit(_) => "BYTEA",
            DataType::Int16 => "SMALLINT",
            DataType::Int32 | DataType::MediumInt(_) => "INT",
            DataType::Int64 | DataType::Signed | DataType::SignedInteger => "BIGINT",
            DataType::UInt8 | DataType::UTinyInt => "TINYINT UNSIGNED",
            DataType::UInt16 | DataType::USmallInt => "SMALLINT UNSIGNED",
            DataType::UInt32 | DataType::MediumIntUnsigned(_) => "INT UNSIGNED",
            DataType::UInt64 | DataType::UBigInt | DataType::Unsigned | DataType::UnsignedInteger => "BIGINT UNSIGNED",
            DataType::Int128
            | DataType::Int256
            | DataType::UInt128
            | DataType::UInt256
            | DataType::HugeInt
            | DataType::UHugeInt => "DECIMAL(38, 0)",
            DataType::Dec(_)
            | DataType::BigNumeric(_)
            | DataType::BigDecimal(_)
            | DataType::DecimalUnsigned(_)
            | DataType::DecUnsigned(_) => "DECIMAL(precision, scale)",
            DataType::Float32 | DataType::FloatUnsigned(_) | DataType::RealUnsigned => "REAL",
            DataType::Float64
            | DataType::Double(ExactNumberInfo::Precision(_) | ExactNumberInfo::PrecisionAndScale(..))
            | DataType::DoubleUnsigned(_)
            | DataType::DoublePrecisionUnsigned => "DOUBLE",
            DataType::Date32 => "DATE",
            DataType::Datetime(_) | DataType::Datetime64(..) | DataType::TimestampNtz(_) | DataType::Timestamp(..) => {
                "TIMESTAMP, or TIMESTAMP(0), (3), (6) or (9) for seconds to nanoseconds"
            }
            DataType::Time(..) => "TIME",
            DataType::Interval { fields: _, precision: _ } => "INTERVAL",
            DataType::Tuple(_) | DataType::Nested(_) | DataType::Union(_) => "STRUCT<name type, …>",
            DataType::Nullable(of) | DataType::LowCardinality(of) => {
                self.data_type(of)?;
                "the type inside"
            }
            DataType::Map(..) => "the type of the keys and of the values by themselves, and map(keys, values)",
            DataType::Custom(..)
            | DataType::Table(_)
            | DataType::NamedTable { name: _, columns: _ }
            | DataType::Unspecified
            | DataType::Trigger
            | DataType::AnyType
            | DataType::GeometricType(_)
            | DataType::TsVector
            | DataType::TsQuery => "BIGINT, DOUBLE, DECIMAL(precision, scale), VARCHAR, DATE, TIMESTAMP or BOOLEAN",
        };
        Err(self.error(format!("the type {data_type} is not supported; write {instead}")))
    }
}

/// What DataFusion reads behind INTERVAL.
fn is_interval(value: &Expr) -> bool {
    match value {
        Expr::Value(ValueWithSpan { value, span: _ }) => {
            matches!(value, Value::SingleQuotedString(_) | Value::DoubleQuotedString(_) | Value::Number(_, false))
        }
        Expr::UnaryOp { op: _, expr } => is_interval(expr),
        Expr::BinaryOp { left, op: _, right } => is_interval(left) && is_interval(right),
        _ => false,
    }
}

/// Of more than 24 bits a FLOAT is a DOUBLE.
pub(crate) fn widen_floats(data_type: &mut DataType) {
    match data_type {
        DataType::Float(ExactNumberInfo::Precision(bits)) if *bits > 24 => *data_type = DataType::DoublePrecision,
        DataType::Array(ArrayElemTypeDef::AngleBracket(of) | ArrayElemTypeDef::SquareBracket(of, _)) => {
            widen_floats(of);
        }
        DataType::Struct(fields, _) => fields.iter_mut().for_each(|field| widen_floats(&mut field.field_type)),
        _ => {}
    }
}
