//! How long the parts of an Arrow file claim to be.
//!
//! Arrow's reader reserves as much memory as a message says that it needs, which in a damaged file may be more than any
//! machine has, and then the process ends. So the messages are looked at first, without their rows: none may reach
//! beyond the file, and no buffer may become longer than its compression can make it.
//!
//! Source: "Encapsulated message format" of Arrow's columnar format.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow_ipc::{Block, BodyCompression, CompressionType, Message, RecordBatch, root_as_footer, root_as_message};

use crate::source::fault::Fault;

/// The length of its footer and the magic end a file.
const END_BYTES: u64 = 10;

/// What stands before the length of a message, but for those of Arrow's first versions.
const CONTINUATION: u32 = u32::MAX;

/// A Zstandard block of four bytes may be one of 128 KiB of one byte, and one byte of LZ4 may stand for 255.
const MOST_ZSTD: u64 = 32 << 10;
const MOST_LZ4: u64 = 255;
/// Blocks have heads.
const LEAST_BYTES: u64 = 1 << 20;

/// Looks at all messages of a file, or of a stream.
///
/// # Errors
/// A part that claims to be longer than it can be. What else is wrong the reader finds.
pub fn check_claims(path: &Path, is_file: bool) -> Result<(), Fault> {
    let found = Messages::open(path).and_then(|mut messages| if is_file { messages.of_file() } else { messages.all() });
    match found {
        Ok(None) | Err(_) => Ok(()),
        Ok(Some(claim)) => Err(Fault::new(path, format!("is damaged or cut off: {claim}; write the file again"))),
    }
}

struct Messages {
    file: BufReader<File>,
    bytes: u64,
}

impl Messages {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), bytes })
    }

    /// The first claim of a file that can't be true: of its footer, or of the messages that it names.
    fn of_file(&mut self) -> io::Result<Option<String>> {
        let Some(end) = self.bytes.checked_sub(END_BYTES) else { return Ok(None) };
        let length = u64::from(self.number(end)?);
        let Some(start) = end.checked_sub(length) else {
            return Ok(Some(format!("its footer claims {length} bytes, of which {end} are there")));
        };
        let footer = self.read(start, length)?;
        let Ok(footer) = root_as_footer(&footer) else { return Ok(None) };
        let is_within = |block: &Block| {
            let parts = [block.offset(), i64::from(block.metaDataLength()), block.bodyLength()];
            let total = parts.iter().try_fold(0, |total: i64, part| total.checked_add(*part).filter(|_| *part >= 0));
            total.and_then(|total| u64::try_from(total).ok()).is_some_and(|total| total <= start)
        };
        for block in footer.recordBatches().iter().flatten().chain(footer.dictionaries().iter().flatten()) {
            let offset = block.offset();
            if !is_within(block) {
                return Ok(Some(format!("its footer claims rows at byte {offset} that end behind the file")));
            }
            if let Found::Claim(claim) = self.message(u64::try_from(offset).unwrap_or_default())? {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// The first claim of a stream that can't be true.
    fn all(&mut self) -> io::Result<Option<String>> {
        let mut at = 0;
        loop {
            match self.message(at)? {
                Found::Claim(claim) => return Ok(Some(claim)),
                Found::Next(next) => at = next,
                Found::End => return Ok(None),
            }
        }
    }

    fn message(&mut self, mut at: u64) -> io::Result<Found> {
        let mut length = self.number(at)?;
        at += 4;
        let is_marked = length == CONTINUATION;
        if is_marked {
            length = self.number(at)?;
            at += 4;
        }
        if length == 0 {
            return Ok(Found::End);
        }
        let (length, left) = (u64::from(length), self.bytes.saturating_sub(at));
        if length > left && !is_marked {
            // It need not be one at all.
            return Ok(Found::End);
        }
        if length > left {
            return Ok(Found::Claim(format!(
                "a message at byte {at} claims {length} bytes, of which {left} are there"
            )));
        }
        let metadata = self.read(at, length)?;
        at += length;
        let Ok(message) = root_as_message(&metadata) else { return Ok(Found::End) };
        let Ok(body) = u64::try_from(message.bodyLength()) else { return Ok(Found::End) };
        let left = self.bytes.saturating_sub(at);
        if body > left {
            return Ok(Found::Claim(format!("rows at byte {at} claim {body} bytes, of which {left} are there")));
        }
        Ok(self.claim_of_buffers(at, body, &message)?.map_or(Found::Next(at + body), Found::Claim))
    }

    /// The first buffer of a message that claims what it can't hold.
    fn claim_of_buffers(&mut self, start: u64, body: u64, message: &Message<'_>) -> io::Result<Option<String>> {
        let Some(batch) = batch_of(message) else { return Ok(None) };
        let (Some(compression), Some(buffers)) = (batch.compression(), batch.buffers()) else { return Ok(None) };
        for buffer in buffers {
            let (Ok(offset), Ok(length)) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) else {
                return Ok(Some(format!("a buffer of the rows at byte {start} has a negative length")));
            };
            if offset.checked_add(length).is_none_or(|end| end > body) {
                return Ok(Some(format!("a buffer of the rows at byte {start} ends behind them")));
            }
            if length < 8 {
                continue;
            }
            let mut claimed = [0; 8];
            claimed.copy_from_slice(&self.read(start + offset, 8)?);
            // -1 says that it is not compressed.
            let claimed = i64::from_le_bytes(claimed);
            let most = most_bytes(&compression, length - 8);
            if claimed < -1 || u64::try_from(claimed).is_ok_and(|claimed| claimed > most) {
                let at = start + offset;
                return Ok(Some(format!("a buffer of {length} bytes at byte {at} claims to be {claimed} bytes long")));
            }
        }
        Ok(None)
    }

    fn number(&mut self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.read(at, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn read(&mut self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What a message is found to be.
enum Found {
    /// It claims what can't be.
    Claim(String),
    /// It is right, as far as is looked at; where the next one begins.
    Next(u64),
    /// It is the last, or one that the reader will not decode.
    End,
}

fn batch_of<'a>(message: &Message<'a>) -> Option<RecordBatch<'a>> {
    message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch()?.data())
}

/// As many bytes as compressed ones can become.
fn most_bytes(compression: &BodyCompression<'_>, compressed: u64) -> u64 {
    let ratio = if compression.codec() == CompressionType::LZ4_FRAME { MOST_LZ4 } else { MOST_ZSTD };
    compressed.saturating_mul(ratio).max(LEAST_BYTES)
}
