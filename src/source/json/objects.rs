//! The objects in a JSON file, one at a time.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::source::fault::Fault;
use crate::source::open::open;
use crate::source::read::MOST_RECORD_BYTES;
use crate::task::format::JsonOptions;

/// At least so many bytes are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// An object: its keys and the text of their values, in order.
pub struct Object<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, {\"column\": value, …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A key that is borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_string())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// The objects of a file, one at a time.
pub struct Objects {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// Where what was not read yet begins in the buffer.
    start: usize,
    /// The line of that, from 1.
    line: u64,
    is_at_end: bool,
    /// Whether the objects stand in an array; not known before the first.
    is_array: Option<bool>,
    /// Whether the array has begun, and whether it has ended.
    is_within: bool,
    is_over: bool,
    /// Whether a comma or the end of the array comes next.
    is_after_object: bool,
}

impl Objects {
    /// Opens a file.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path, options: &JsonOptions) -> Result<Self, Fault> {
        let JsonOptions { is_array, infer_rows: _, compression } = options;
        let text = open(path, *compression)?;
        let (path, buffer, is_array) = (path.to_path_buf(), Vec::new(), *is_array);
        Ok(Self {
            path,
            text,
            buffer,
            start: 0,
            line: 1,
            is_at_end: false,
            is_array,
            is_within: false,
            is_over: false,
            is_after_object: false,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `take` with the next object and its line; `None` when there is none.
    ///
    /// # Errors
    /// What is not JSON or not an object, with its line, and those of `take`.
    pub fn next<T>(&mut self, take: impl FnOnce(Object<'_>, u64) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        if !self.at_object()? {
            return Ok(None);
        }
        loop {
            let rest = &self.buffer[self.start..];
            let mut objects = serde_json::Deserializer::from_slice(rest).into_iter::<Object<'_>>();
            match objects.next() {
                Some(Ok(object)) => {
                    let (end, line) = (objects.byte_offset(), self.line);
                    let taken = take(object, line)?;
                    self.skip(end);
                    self.is_after_object = true;
                    return Ok(Some(taken));
                }
                Some(Err(error)) if error.is_eof() && !self.is_at_end => self.fill()?,
                Some(Err(error)) => return Err(self.fault(&error)),
                None => return Ok(None),
            }
        }
    }

    /// Moves to the next object.
    fn at_object(&mut self) -> Result<bool, Fault> {
        let mut is_after_comma = false;
        loop {
            let Some(byte) = self.peek()? else {
                let message = "ends before the array does, at ]; the file is cut off";
                return if self.is_within && !self.is_over { Err(self.here(message)) } else { Ok(false) };
            };
            match (byte, self.is_array) {
                (b'[', None | Some(true)) if !self.is_within => {
                    (self.is_array, self.is_within) = (Some(true), true);
                    self.skip(1);
                }
                (_, Some(true)) if !self.is_within => {
                    return Err(
                        self.here("is not an array; write format.newline_delimited 'true' for one object a line")
                    );
                }
                _ if self.is_over => return Err(self.here("goes on after the end of its array")),
                (b']', Some(true)) if !is_after_comma => {
                    self.is_over = true;
                    self.skip(1);
                }
                (b',', Some(true)) if self.is_after_object => {
                    (self.is_after_object, is_after_comma) = (false, true);
                    self.skip(1);
                }
                (_, Some(true)) if self.is_after_object => return Err(self.here("has no comma before this object")),
                (b'[', Some(false)) => {
                    return Err(
                        self.here("is an array; write format.newline_delimited 'false', or leave the option out")
                    );
                }
                (_, None) => self.is_array = Some(false),
                (_, Some(_)) => return Ok(true),
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            while let Some(byte) = self.buffer.get(self.start) {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.skip(1),
                    byte => return Ok(Some(*byte)),
                }
            }
            if self.is_at_end {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn skip(&mut self, bytes: usize) {
        let skipped = &self.buffer[self.start..self.start + bytes];
        self.line += skipped.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.start += bytes;
    }

    /// Reads at least as much as is there, so that an object is parsed again few times, however long it is.
    fn fill(&mut self) -> Result<(), Fault> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() as u64 > MOST_RECORD_BYTES {
            let message = format!("the object that begins here has more than {} MiB", MOST_RECORD_BYTES >> 20);
            return Err(self.here(&message));
        }
        let wanted = self.buffer.len() + self.buffer.len().max(PIECE_BYTES);
        while self.buffer.len() < wanted {
            let piece = self.text.fill_buf();
            let piece = piece.map_err(|cause: io::Error| Fault::unreadable(&self.path, cause))?;
            if piece.is_empty() {
                self.is_at_end = true;
                break;
            }
            let read = piece.len();
            self.buffer.extend_from_slice(piece);
            self.text.consume(read);
        }
        Ok(())
    }

    fn here(&self, message: &str) -> Fault {
        Fault::new(&self.path, message).at(self.line)
    }

    fn fault(&self, error: &serde_json::Error) -> Fault {
        let line = self.line + (error.line() as u64).saturating_sub(1);
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let message = match error.classify() {
            serde_json::error::Category::Eof => format!("the object that begins here has no end ({what})"),
            serde_json::error::Category::Data => format!("has a value that is not an object ({what})"),
            _ => format!("is not JSON: {what}; the object begins in line {}", self.line),
        };
        let line = if error.is_eof() { self.line } else { line };
        Fault::new(&self.path, message).at(line)
    }
}
