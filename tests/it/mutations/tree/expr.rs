//! Expressions and literals.

use std::mem::swap;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastFormat, CastKind, DataType, DateTimeField, ExactNumberInfo, Expr, TimezoneInfo,
    TrimWhereField, UnaryOperator, Value,
};

use super::Walk;
use super::parts::{first_letter, number, one, truth};

impl Walk {
    pub(super) fn expr(&mut self, expr: &mut Expr) {
        let inner = match expr {
            Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => Some(inner.clone()),
            _ => None,
        };
        if let Some(inner) = inner {
            let kinds =
                [Expr::IsTrue, Expr::IsNotTrue, Expr::IsFalse, Expr::IsNotFalse, Expr::IsUnknown, Expr::IsNotUnknown];
            self.set("another test of a truth value", expr, kinds.map(|kind| kind(inner.clone())));
            return;
        }
        let whole = expr.clone();
        match expr {
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(names) => names.last_mut().into_iter().for_each(|name| self.column(name)),
            Expr::CompoundFieldAccess { root: _, access_chain } => {
                self.drop_each("an access dropped", access_chain);
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(name)) = access {
                        self.column(name);
                    }
                }
            }
            Expr::IsNull(inner) => {
                let other = Expr::IsNotNull(inner.clone());
                self.edit("IS NOT NULL", || *expr = other);
            }
            Expr::IsNotNull(inner) => {
                let other = Expr::IsNull(inner.clone());
                self.edit("IS NULL", || *expr = other);
            }
            Expr::IsDistinctFrom(left, right) => {
                let other = Expr::IsNotDistinctFrom(left.clone(), right.clone());
                self.edit("IS NOT DISTINCT FROM", || *expr = other);
            }
            Expr::InList { negated, list, .. } => {
                self.set("NOT", negated, [true, false]);
                self.drop_each("a value dropped", list);
            }
            Expr::InSubquery { negated, .. } | Expr::Exists { negated, .. } => self.set("NOT", negated, [true, false]),
            Expr::Between { negated, low, high, .. } => {
                self.set("NOT", negated, [true, false]);
                self.edit("bounds swapped", || swap(low, high));
            }
            Expr::Like { negated, any, expr: text, pattern, escape_char } => {
                let other = Expr::ILike {
                    negated: *negated,
                    any: *any,
                    expr: text.clone(),
                    pattern: pattern.clone(),
                    escape_char: escape_char.clone(),
                };
                self.set("NOT", negated, [true, false]);
                self.take("ESCAPE dropped", escape_char);
                self.add("ESCAPE added", escape_char, || Value::SingleQuotedString(first_letter(pattern)).into());
                self.set_flag("ANY added", any);
                self.edit("ILIKE", || *expr = other);
            }
            Expr::ILike { negated, any, expr: text, pattern, escape_char } => {
                let other = Expr::Like {
                    negated: *negated,
                    any: *any,
                    expr: text.clone(),
                    pattern: pattern.clone(),
                    escape_char: escape_char.clone(),
                };
                self.set("NOT", negated, [true, false]);
                self.take("ESCAPE dropped", escape_char);
                self.add("ESCAPE added", escape_char, || Value::SingleQuotedString(first_letter(pattern)).into());
                self.set_flag("ANY added", any);
                self.edit("LIKE", || *expr = other);
            }
            Expr::SimilarTo { negated, escape_char, .. } => {
                self.set("NOT", negated, [true, false]);
                let letter = || Value::SingleQuotedString("a".into()).into();
                self.add("ESCAPE added", escape_char, letter);
            }
            Expr::AnyOp { left, compare_op, right, is_some: _ } => {
                let other = Expr::AllOp { left: left.clone(), compare_op: compare_op.clone(), right: right.clone() };
                self.operator(compare_op);
                self.edit("ALL", || *expr = other);
            }
            Expr::AllOp { left, compare_op, right } => {
                let (left, right) = (left.clone(), right.clone());
                let other = Expr::AnyOp { left, compare_op: compare_op.clone(), right, is_some: false };
                self.operator(compare_op);
                self.edit("ANY", || *expr = other);
            }
            Expr::BinaryOp { left, op, right } => {
                self.operator(op);
                let sides = [left.as_ref().clone(), right.as_ref().clone()];
                use BinaryOperator::*;
                if ![Eq, NotEq, And, Or, Plus, Multiply, BitwiseAnd, BitwiseOr, BitwiseXor, Spaceship].contains(op) {
                    self.edit("operands swapped", || swap(left, right));
                }
                self.set("an operand alone", expr, sides);
            }
            Expr::UnaryOp { op, expr: inner } => {
                let inner = inner.as_ref().clone();
                self.set("sign", op, [UnaryOperator::Minus, UnaryOperator::Not]);
                self.edit("the sign dropped", || *expr = inner);
            }
            Expr::Cast { kind, expr: inner, data_type, array, format } => {
                self.set_flag("ARRAY added", array);
                let text = || CastFormat::Value(Value::SingleQuotedString("%Y".into()).into());
                self.add("FORMAT added", format, text);
                let inner = inner.as_ref().clone();
                let other = if *kind == CastKind::TryCast { CastKind::Cast } else { CastKind::TryCast };
                self.set("TRY_CAST", kind, [other]);
                self.data_type(data_type);
                self.edit("the cast dropped", || *expr = inner);
            }
            Expr::Extract { field, .. } => {
                self.set(
                    "another field",
                    field,
                    [DateTimeField::Month, DateTimeField::Day, DateTimeField::Dow, DateTimeField::Epoch],
                );
            }
            Expr::Ceil { expr: inner, field } => {
                let other = Expr::Floor { expr: inner.clone(), field: field.clone() };
                self.edit("FLOOR", || *expr = other);
            }
            Expr::Floor { expr: inner, field } => {
                let other = Expr::Ceil { expr: inner.clone(), field: field.clone() };
                self.edit("CEIL", || *expr = other);
            }
            Expr::Position { expr: part, r#in } => self.edit("arguments swapped", || swap(part, r#in)),
            Expr::Substring { substring_from, substring_for, .. } => {
                self.take("FOR dropped", substring_for);
                self.take("FROM dropped", substring_from);
                self.add("FOR added", substring_for, || Box::new(one()));
            }
            Expr::Trim { trim_where, trim_what, .. } => {
                let sides = [TrimWhereField::Both, TrimWhereField::Leading, TrimWhereField::Trailing];
                self.set("side of TRIM", trim_where, sides.map(Some));
                self.take("letters of TRIM dropped", trim_what);
                self.add("letters of TRIM added", trim_what, || {
                    Box::new(Expr::value(Value::SingleQuotedString("a".into())))
                });
            }
            Expr::Overlay { overlay_for, .. } => self.take("FOR dropped", overlay_for),
            Expr::TypedString(typed) => self.data_type(&mut typed.data_type),
            Expr::Function(function) => self.function(function),
            Expr::Case { operand, conditions, else_result, .. } => {
                self.take("operand of CASE dropped", operand);
                self.drop_each("a WHEN dropped", conditions);
                self.swap_first("WHENs swapped", conditions);
                self.take("ELSE dropped", else_result);
                self.add("ELSE added", else_result, || Box::new(Expr::value(number("7"))));
                self.add("operand of CASE added", operand, || Box::new(truth()));
                if let [first, second, ..] = conditions.as_mut_slice() {
                    self.edit("results swapped", || swap(&mut first.result, &mut second.result));
                }
            }
            Expr::Tuple(values) => self.drop_each("a value dropped", values),
            Expr::Dictionary(fields) => {
                self.drop_each("a field dropped", fields);
                fields.iter_mut().for_each(|field| self.rename("a field renamed", &mut field.key));
            }
            Expr::Map(map) => self.drop_each("an entry dropped", &mut map.entries),
            Expr::Array(array) => {
                self.drop_each("an element dropped", &mut array.elem);
                self.swap_first("elements swapped", &mut array.elem);
            }
            Expr::Interval(interval) => {
                let units = [DateTimeField::Hour, DateTimeField::Month, DateTimeField::Year].map(Some);
                self.set("unit of an INTERVAL", &mut interval.leading_field, units);
                self.add("TO added", &mut interval.last_field, || DateTimeField::Second);
                self.add("precision added", &mut interval.fractional_seconds_precision, || 2);
            }
            Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
                self.drop_each("a set dropped", sets);
                let sets = sets.clone();
                let kinds = [Expr::Rollup, Expr::Cube, Expr::GroupingSets];
                self.set("kind of grouping sets", expr, kinds.map(|kind| kind(sets.clone())));
            }
            _ => {}
        }
        let is_truth = |expr: &Expr| {
            matches!(
                expr,
                Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. }
                    | Expr::InList { .. }
                    | Expr::InSubquery { .. }
            )
        };
        if is_truth(&whole) {
            let negated = Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(whole))) };
            self.edit("NOT of all", || *expr = negated);
        }
    }

    pub(super) fn value(&mut self, value: &mut Value) {
        match value.clone() {
            Value::Number(digits, _) => {
                let last = digits.chars().last().and_then(|digit| digit.to_digit(10)).unwrap_or(0);
                let other = format!("{}{}", &digits[..digits.len() - 1], if last == 0 { 1 } else { last - 1 });
                self.set("number", value, [number(&other), number(&format!("1{digits}")), Value::Null]);
            }
            Value::SingleQuotedString(text) => {
                let mut others = vec![format!("{text}x"), format!("x{text}"), String::new()];
                if let Some(at) = text.rfind(|c: char| c.is_ascii_digit()) {
                    let digit = text.as_bytes()[at];
                    let other = if digit == b'0' { '1' } else { char::from(digit - 1) };
                    others.push(format!("{}{other}{}", &text[..at], &text[at + 1..]));
                }
                if let Some(at) = text.find(|c: char| c.is_ascii_alphabetic()) {
                    let other = if text.as_bytes()[at] == b'z' { 'y' } else { 'z' };
                    others.push(format!("{}{other}{}", &text[..at], &text[at + 1..]));
                }
                let texts = others.into_iter().map(Value::SingleQuotedString);
                self.set("text", value, texts.chain([Value::Null]));
            }
            Value::Boolean(is_true) => self.set("truth value", value, [Value::Boolean(!is_true), Value::Null]),
            Value::Null => self.set("NULL", value, [number("1")]),
            Value::HexStringLiteral(digits) => {
                self.set("bytes", value, [Value::HexStringLiteral(format!("{digits}00"))]);
            }
            Value::EscapedStringLiteral(text) => {
                self.set("text", value, [Value::EscapedStringLiteral(format!("{text}\t"))]);
            }
            _ => {}
        }
    }

    fn data_type(&mut self, data_type: &mut DataType) {
        let no = ExactNumberInfo::None;
        let exact = |precision, scale| DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale));
        let mut others = vec![
            DataType::BigInt(None),
            DataType::Int(None),
            DataType::Double(no),
            DataType::Varchar(None),
            DataType::Date,
            DataType::Timestamp(None, TimezoneInfo::None),
            DataType::Boolean,
            exact(38, 1),
        ];
        if let DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale)) = data_type {
            others.extend([exact(*precision + 1, *scale), exact(*precision, *scale + 1)]);
        }
        self.set("another type", data_type, others);
    }

    fn operator(&mut self, operator: &mut BinaryOperator) {
        use BinaryOperator::*;
        let kinds: [&[BinaryOperator]; 6] = [
            &[Plus, Minus, Multiply, Divide, Modulo],
            &[Eq, NotEq, Lt, LtEq, Gt, GtEq, Spaceship],
            &[And, Or],
            &[BitwiseAnd, BitwiseOr, PGBitwiseShiftLeft, PGBitwiseShiftRight, PGBitwiseXor, PGExp],
            &[PGRegexMatch, PGRegexIMatch, PGRegexNotMatch, PGRegexNotIMatch],
            &[StringConcat, Plus],
        ];
        let now = operator.clone();
        for kind in kinds.into_iter().filter(|kind| kind.contains(&now)) {
            self.set("another operator", operator, kind.to_vec());
        }
    }
}
