//! The keys of JSON objects and the types of their values, from a sample.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::value::RawValue;

use crate::source::fault::{Fault, quoted};
use crate::source::json::objects::{Object, Objects};
use crate::source::storable::MOST_NESTED;
use crate::task::format::JsonOptions;

/// Which values a key has, as far as they were seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seen {
    /// NULLs only.
    #[default]
    Nothing,
    /// `true` and `false`.
    Boolean,
    /// Whole numbers: whether one is negative, and the most digits.
    Integer { is_negative: bool, digits: usize, is_beyond_signed: bool },
    /// Numbers with a fraction or exponent, and maybe whole ones.
    Float,
    /// Texts.
    Text,
    /// Lists of these.
    List(Box<Seen>),
    /// Objects with these keys, in the order in which they came.
    Object(Vec<(String, Seen)>),
    /// Lists or objects that stand too deep in others.
    TooDeep,
    /// An object that has a key twice.
    Twice(String),
    /// Values of two kinds.
    Mixed(&'static str, &'static str),
}

impl Seen {
    fn of(value: &RawValue) -> Self {
        Self::at_depth(value, 0)
    }

    fn at_depth(value: &RawValue, depth: usize) -> Self {
        let of = |value| Self::at_depth(value, depth + 1);
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'n') | None => Self::Nothing,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[' | b'{') if depth == MOST_NESTED => Self::TooDeep,
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                Self::List(Box::new(items.into_iter().map(of).fold(Self::Nothing, Self::and)))
            }
            Some(b'{') => {
                let Object(entries) = serde_json::from_str(text).unwrap_or(Object(Vec::new()));
                let mut keys = BTreeSet::new();
                if let Some((key, _)) = entries.iter().find(|(key, _)| !keys.insert(key)) {
                    return Self::Twice(key.to_string());
                }
                Self::Object(entries.into_iter().map(|(key, value)| (key.into_owned(), of(value))).collect())
            }
            _ if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Self::Integer {
                is_negative: text.starts_with('-'),
                digits: text.trim_start_matches('-').len(),
                is_beyond_signed: text.parse::<i64>().is_err(),
            },
            _ => Self::Float,
        }
    }

    /// What both have.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::TooDeep, _) | (_, Self::TooDeep) => Self::TooDeep,
            (mixed @ (Self::Twice(_) | Self::Mixed(..)), _) | (_, mixed @ (Self::Twice(_) | Self::Mixed(..))) => mixed,
            (Self::Boolean, Self::Boolean) => Self::Boolean,
            (Self::Text, Self::Text) => Self::Text,
            (Self::Float, Self::Float | Self::Integer { .. }) | (Self::Integer { .. }, Self::Float) => Self::Float,
            (
                Self::Integer { is_negative: a, digits: a_digits, is_beyond_signed: a_beyond },
                Self::Integer { is_negative: b, digits: b_digits, is_beyond_signed: b_beyond },
            ) => Self::Integer {
                is_negative: a || b,
                digits: a_digits.max(b_digits),
                is_beyond_signed: a_beyond || b_beyond,
            },
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.and(*b))),
            (Self::Object(a), Self::Object(b)) => Self::Object(keys_and(a, b)),
            (a, b) => Self::Mixed(a.kind(), b.kind()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "NULL",
            Self::Boolean => "a boolean",
            Self::Integer { .. } | Self::Float => "a number",
            Self::Text => "a text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
            Self::TooDeep | Self::Twice(_) | Self::Mixed(..) => "a value of another kind",
        }
    }

    /// The type of a column with these values.
    ///
    /// # Errors
    /// What is wrong, when they have no common type.
    pub fn data_type(&self) -> Result<DataType, String> {
        Ok(match self {
            Self::Nothing => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Integer { is_beyond_signed: false, .. } => DataType::Int64,
            Self::Integer { is_negative: false, digits, .. } if *digits <= 19 => DataType::UInt64,
            Self::Integer { digits, .. } if *digits <= 38 => DataType::Decimal128(38, 0),
            Self::Integer { .. } => return Err("is a number of more than 38 digits".into()),
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8View,
            Self::List(items) => DataType::List(Arc::new(Field::new_list_field(items.data_type()?, true))),
            Self::Object(keys) => {
                let field = |(key, seen): &(String, Self)| Ok(Field::new(key, seen.data_type()?, true));
                DataType::Struct(keys.iter().map(field).collect::<Result<Fields, String>>()?)
            }
            Self::TooDeep => return Err(format!("has values in more than {MOST_NESTED} others")),
            Self::Twice(key) => return Err(format!("has key {} twice in an object", quoted(key))),
            Self::Mixed(a, b) => return Err(format!("is {a} in one object and {b} in another")),
        })
    }
}

/// The first file in which a key has values that have no type together with those before, and words that name another
/// file where they have one by themselves.
pub fn without_type<'a>(sampled: &'a [(PathBuf, Vec<(String, Seen)>)], name: &str) -> (&'a Path, String) {
    let of_key = sampled.iter().flat_map(|(path, keys)| keys.iter().map(move |(key, seen)| (path, key, seen)));
    let mut before: Option<(&Path, Seen)> = None;
    for (path, _, seen) in of_key.filter(|(_, key, _)| *key == name) {
        let all = before.as_ref().map_or_else(|| seen.clone(), |(_, before)| before.clone().and(seen.clone()));
        match (all.data_type(), &before) {
            (Ok(_), _) => before = Some((before.map_or(path, |(first, _)| first), all)),
            (Err(_), Some((first, _))) if seen.data_type().is_ok() => {
                return (path, format!(", beside {}", first.display()));
            }
            (Err(_), _) => return (path, String::new()),
        }
    }
    (Path::new(""), String::new())
}

/// All keys of both, those of the first objects first.
pub fn keys_and(mut all: Vec<(String, Seen)>, other: Vec<(String, Seen)>) -> Vec<(String, Seen)> {
    for (at, (key, seen)) in other.into_iter().enumerate() {
        // Most objects have the same keys in the same order.
        let is_there = all.get(at).is_some_and(|(known, _)| *known == key);
        let place = if is_there { Some(at) } else { all.iter().position(|(known, _)| *known == key) };
        match place {
            Some(place) => all[place].1 = std::mem::take(&mut all[place].1).and(seen),
            None => all.push((key, seen)),
        }
    }
    all
}

/// The keys of the first `rows` objects of a file.
///
/// # Errors
/// What is not JSON, or no object.
pub fn sample(path: &Path, options: &JsonOptions, rows: usize) -> Result<Vec<(String, Seen)>, Fault> {
    let mut objects = Objects::open(path, options)?;
    let (mut all, mut seen) = (Vec::new(), 0);
    while seen < rows {
        let keys = objects.next(|Object(entries), _| {
            Ok(entries.into_iter().map(|(key, value)| (key.into_owned(), Seen::of(value))).collect())
        })?;
        let Some(keys) = keys else { break };
        all = keys_and(all, keys);
        seen += 1;
    }
    Ok(all)
}
