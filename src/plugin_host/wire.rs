//! The frames between the server and a plugin in a process of its own: length (u32), kind (u8), number
//! (u64), body; numbers little-endian. Both sides are the same program, so the form may change with it.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::instance::{MANIFEST_LIMIT_BYTES, TEXT_LIMIT_BYTES};
use super::services::printable;

/// More than any answer, request or configuration needs.
const BODY_LIMIT_BYTES: usize = 4 << 20;
const HEAD_BYTES: usize = 13;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Server: a [`Start`].
    Start = 1,
    /// Server: hook (u8), milliseconds left (u32), input.
    Call = 2,
    /// Server: status (i32), value; the answer to a `Service`.
    Served = 3,
    /// Server: finish and end.
    Stop = 4,
    /// Plugin: a [`Started`].
    Started = 10,
    /// Plugin: a text that tells why it cannot start.
    Refused = 11,
    /// Plugin: status (i32), overflowed (u8), output.
    Reply = 12,
    /// Plugin: service (u8), milliseconds left (u32), input.
    Service = 13,
    /// Plugin: level (u32), a JSON pair of message and fields.
    Log = 14,
    /// Plugin: a JSON triple of metric, value and labels.
    Count = 15,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Start,
        Self::Call,
        Self::Served,
        Self::Stop,
        Self::Started,
        Self::Refused,
        Self::Reply,
        Self::Service,
        Self::Log,
        Self::Count,
    ];
}

/// What the process is told first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Start {
    /// The checked copy.
    pub(super) copy: String,
    /// What the library must say of itself; absent: whatever it says.
    pub(super) identity: Option<(String, String)>,
    /// Opens the library and tells what it is; makes no instance.
    pub(super) describe_only: bool,
    pub(super) config_json: String,
    pub(super) hooks: Vec<String>,
    pub(super) threads: usize,
    pub(super) memory_bytes: u64,
    pub(super) offers_fetch: bool,
    pub(super) offers_kv: bool,
}

/// What the process tells first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) vendor: String,
    pub(super) manifest: Option<String>,
    pub(super) is_thread_safe: bool,
    pub(super) may_block: bool,
    /// Whether the process has no network.
    pub(super) has_no_network: bool,
}

impl Started {
    /// What a process says of itself, made fit for lists and terminals: it may be another program by now.
    pub(super) fn read(body: &[u8]) -> serde_json::Result<Self> {
        let told: Self = serde_json::from_slice(body)?;
        let word = |text: &str| printable(text.as_bytes(), TEXT_LIMIT_BYTES);
        let manifest = told.manifest.filter(|text| text.len() <= MANIFEST_LIMIT_BYTES);
        Ok(Self { id: word(&told.id), version: word(&told.version), vendor: word(&told.vendor), manifest, ..told })
    }
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
}

/// Writes one frame whole, in one piece.
pub(super) fn write(to: &Mutex<impl Write>, kind: Kind, number: u64, body: &[&[u8]]) -> io::Result<()> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let announced = u32::try_from(length).ok().filter(|_| length <= BODY_LIMIT_BYTES);
    let announced = announced.ok_or(io::ErrorKind::InvalidInput)?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + length);
    frame.extend_from_slice(&announced.to_le_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(&number.to_le_bytes());
    body.iter().for_each(|part| frame.extend_from_slice(part));
    to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
}

/// The next frame; `None` at the end.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    if let Err(error) = from.read_exact(&mut head) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let [l0, l1, l2, l3, kind, number @ ..] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let kind = Kind::ALL.into_iter().find(|k| *k as u8 == kind);
    let (Some(kind), true) = (kind, length <= BODY_LIMIT_BYTES) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let number = u64::from_le_bytes(number);
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(Frame { kind, number, body }))
}

/// A number of four bytes at the start of a body, and the rest.
pub(super) fn split_u32(body: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = body.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_and_a_wrong_one_is_an_error() {
        let wire = Mutex::new(Vec::new());
        write(&wire, Kind::Call, 7, &[b"ab", b"", b"c"]).unwrap();
        let bytes = wire.into_inner().unwrap();
        let frame = read(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!((frame.kind, frame.number, frame.body.as_slice()), (Kind::Call, 7, &b"abc"[..]));
        assert!(read(&mut &bytes[..0]).unwrap().is_none());
        assert!(read(&mut &bytes[..bytes.len() - 1]).is_err());
        for (at, value) in [(4, 99), (3, 0xff)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert!(read(&mut &wrong[..]).is_err());
        }
    }
}
