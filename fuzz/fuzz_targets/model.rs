//! What a mapping must do, on a vector of bytes.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use mmf::{Access, Atom, Error, ErrorKind, FaultPolicy, Mapping};

/// Mostly what lies in a small object, and now and then anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Number {
    Small(u8),
    Middle(u16),
    Any(u64),
}

impl Number {
    const MOST: u64 = 256 << 10;

    /// What is neither small nor more than any disk has would be allocated, and only take time.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Number::Small(n) => n.into(),
            Number::Middle(n) => n.into(),
            Number::Any(n) if n < 1 << 50 => n % Number::MOST,
            Number::Any(n) => n,
        }
    }

    fn at(self) -> usize {
        match self {
            Number::Any(n) => usize::try_from(n).unwrap_or(usize::MAX),
            small => usize::try_from(small.bytes()).unwrap_or(usize::MAX),
        }
    }
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Operation {
    Read(Number, u16),
    ReadToVec(Number, Number),
    Write(Number, Vec<u8>),
    Fill(Number, Number, u8),
    CopyWithin(Number, u8, Number),
    FetchAdd(u8, Number, u64),
    Swap(u8, Number, u64),
    Exchange(u8, Number, u64, u64),
    Grow(Number),
    Refresh,
    Flush(Number, Number),
    Sync(Number, Number),
    Stream(i64, u8, Vec<u8>),
}

/// Bytes that differ from their neighbours.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// What happened, with whatever the system said.
fn told<T>(result: Result<T, Error>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind().clone())
}

pub(crate) struct Model {
    bytes: Vec<u8>,
    /// Where the mapping begins in its object.
    from: usize,
    is_part: bool,
}

impl Model {
    pub(crate) fn of(map: &Mapping, from: usize, object: Option<&[u8]>, is_part: bool) -> Model {
        let bytes = match object {
            Some(object) => object[from..from + map.len()].to_vec(),
            None => vec![0; map.len()],
        };
        assert_eq!(told(map.read_to_vec(0, map.len())), Ok(bytes.clone()));
        Model { bytes, from, is_part }
    }

    fn has(&self, at: usize, len: usize) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.bytes.len())
    }

    fn may_write(map: &Mapping) -> bool {
        map.access() != Access::ReadOnly
    }

    pub(crate) fn apply(&mut self, map: &Mapping, operation: &Operation) {
        match operation {
            Operation::Read(at, len) => {
                let (at, mut buffer) = (at.at(), vec![0x5a; usize::from(*len)]);
                let done = map.read_at(at, &mut buffer).is_ok();
                assert_eq!(done, self.has(at, buffer.len()), "{operation:?}");
                assert!(if done {
                    buffer == self.bytes[at..][..buffer.len()]
                } else {
                    buffer.iter().all(|b| *b == 0x5a)
                });
            }
            Operation::ReadToVec(at, len) => {
                let (at, len) = (at.at(), len.at());
                let wanted = self.has(at, len).then(|| self.bytes[at..at + len].to_vec());
                assert_eq!(map.read_to_vec(at, len).ok(), wanted, "{operation:?}");
            }
            Operation::Write(at, data) => {
                let at = at.at();
                let can = Self::may_write(map) && self.has(at, data.len());
                assert_eq!(map.write_at(at, data).is_ok(), can, "{operation:?}");
                if can {
                    self.bytes[at..at + data.len()].copy_from_slice(data);
                }
            }
            Operation::Fill(from, to, byte) => {
                let (from, to) = (from.at(), to.at());
                let can = Self::may_write(map) && from <= to && to <= self.bytes.len();
                assert_eq!(map.fill(from..to, *byte).is_ok(), can, "{operation:?}");
                if can {
                    self.bytes[from..to].fill(*byte);
                }
            }
            Operation::CopyWithin(from, len, to) => {
                let (from, to, len) = (from.at(), to.at(), usize::from(*len));
                let Some(end) = from.checked_add(len) else { return };
                // What overlaps becomes any mixture, which no model has.
                if to.checked_add(len).is_some_and(|to_end| to < end && from < to_end) {
                    return;
                }
                let can = Self::may_write(map) && self.has(from, len) && self.has(to, len);
                assert_eq!(map.copy_to(from..end, map, to).is_ok(), can, "{operation:?}");
                if can {
                    self.bytes.copy_within(from..end, to);
                }
            }
            Operation::FetchAdd(width, at, by) => {
                self.word(map, *width, at.at(), |word| word.wrapping_add(*by), &Change::Add(*by));
            }
            Operation::Swap(width, at, new) => self.word(map, *width, at.at(), |_| *new, &Change::Swap(*new)),
            Operation::Exchange(width, at, was, new) => {
                let change = Change::Exchange(*was, *new);
                let mask = u64::MAX >> (64 - 8 * (1 << (width % 4)));
                self.word(map, *width, at.at(), |word| if word == was & mask { *new } else { word }, &change);
            }
            Operation::Grow(len) => self.grow(map, usize::try_from(len.bytes()).unwrap_or(usize::MAX)),
            Operation::Refresh => assert_eq!(told(map.refresh()), Ok(self.bytes.len())),
            Operation::Flush(from, to) | Operation::Sync(from, to) => {
                let (from, to) = (from.at(), to.at());
                let can = from <= to && to <= self.bytes.len();
                let done = match operation {
                    Operation::Flush(..) => map.flush(from..to),
                    _ => map.sync(from..to),
                };
                assert_eq!(done.is_ok(), can, "{operation:?}");
            }
            Operation::Stream(to, len, data) => self.stream(map, *to, usize::from(*len), data),
        }
        assert_eq!(map.len(), self.bytes.len(), "{operation:?}");
    }

    /// One atomic operation; `change` is what it makes of the word, as 64 bits.
    fn word(&mut self, map: &Mapping, width: u8, at: usize, change: impl Fn(u64) -> u64, asked: &Change) {
        let size = 1 << (width % 4);
        let aligned = self.from.wrapping_add(at) % size == 0;
        let can =
            Self::may_write(map) && map.fault_policy() != FaultPolicy::SystemCalls && aligned && self.has(at, size);
        let given = match size {
            1 => asked.run(map, at, |n| n as u8),
            2 => asked.run(map, at, |n| n as u16),
            4 => asked.run(map, at, |n| n as u32),
            _ => asked.run(map, at, |n| n),
        };
        assert_eq!(given.is_ok(), can, "{asked:?} of {size} at {at}: {given:?}");
        if let Ok(given) = given {
            let mut was = [0; 8];
            was[..size].copy_from_slice(&self.bytes[at..at + size]);
            // The bytes of a small word stand at the beginning on the little-endian machines that this runs on.
            assert_eq!(given, u64::from_le_bytes(was), "{asked:?} of {size} at {at}");
            self.bytes[at..at + size].copy_from_slice(&change(given).to_le_bytes()[..size]);
        }
    }

    fn grow(&mut self, map: &Mapping, len: usize) {
        match told(map.grow(len)) {
            Ok(()) => {
                assert!(map.access() == Access::ReadWrite && !self.is_part);
                // Where the system rounds up, it rounds up to pages.
                assert!(
                    map.len() >= len && (map.len() <= self.bytes.len().max(len.next_multiple_of(mmf::page_size())))
                );
                self.bytes.resize(map.len(), 0);
            }
            Err(ErrorKind::ReadOnly) => assert_eq!(map.access(), Access::ReadOnly),
            Err(ErrorKind::Unsupported { .. }) => assert!(map.access() == Access::CopyOnWrite || self.is_part),
            Err(ErrorKind::InvalidInput { .. }) => assert!(len > self.bytes.len()),
            Err(ErrorKind::NoSpace) => assert!(len > 1 << 40, "{len} is not much"),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn stream(&mut self, map: &Mapping, to: i64, len: usize, data: &[u8]) {
        let mut cursor = map.cursor();
        let end = self.bytes.len() as i64;
        let Some(position) = end.checked_add(to).and_then(|position| usize::try_from(position).ok()) else {
            assert!(to > 0 || cursor.seek(SeekFrom::End(to)).is_err());
            return;
        };
        assert_eq!(cursor.seek(SeekFrom::End(to)).ok(), Some(position as u64));
        let room = self.bytes.len().saturating_sub(position);
        let written = cursor.write(data);
        let n = room.min(data.len());
        if Self::may_write(map) {
            assert_eq!(written.ok(), Some(n));
            if n > 0 {
                self.bytes[position..position + n].copy_from_slice(&data[..n]);
            }
        } else {
            assert!(written.is_err());
        }
        let _ = cursor.seek(SeekFrom::Start(position as u64));
        let mut buffer = vec![0; len];
        let n = room.min(len);
        assert_eq!(cursor.read(&mut buffer).ok(), Some(n));
        assert!(n == 0 || buffer[..n] == self.bytes[position..position + n]);
    }

    /// At the end all bytes are as the model has them, and the file as its mapping may have changed it.
    pub(crate) fn compare(&self, map: &Mapping, file: Option<&Path>, before: Option<&[u8]>) {
        assert_eq!(told(map.read_to_vec(0, self.bytes.len())).as_ref(), Ok(&self.bytes));
        let Some(file) = file else { return };
        let mut object = before.map_or_else(|| vec![0; self.from + self.bytes.len()], <[u8]>::to_vec);
        if map.access() == Access::ReadWrite {
            object.resize(object.len().max(self.from + self.bytes.len()), 0);
            object[self.from..self.from + self.bytes.len()].copy_from_slice(&self.bytes);
        }
        let mut now = fs::read(file).unwrap_or_else(|error| panic!("{error}"));
        if before.is_none() {
            // What was created is as long as was asked, which a part does not show.
            assert!(now.len() >= object.len() && now[object.len()..].iter().all(|byte| *byte == 0));
            now.truncate(object.len());
        }
        assert!(now == object, "the file differs");
    }
}

#[derive(Debug)]
enum Change {
    Add(u64),
    Swap(u64),
    Exchange(u64, u64),
}

impl Change {
    fn run<T: Atom + Into<u64>>(&self, map: &Mapping, at: usize, cut: impl Fn(u64) -> T) -> Result<u64, ErrorKind> {
        let given = match *self {
            Change::Add(by) => map.fetch_add(at, cut(by), SeqCst),
            Change::Swap(new) => map.swap(at, cut(new), SeqCst),
            Change::Exchange(was, new) => map
                .compare_exchange(at, cut(was), cut(new), SeqCst, SeqCst)
                .map(|kept| kept.unwrap_or_else(|other| other)),
        };
        told(given).map(Into::into)
    }
}
