//! The offsets of a segment's header. `docs/format.md` specifies them.
//!
//! All numbers are little-endian and of fixed width. Words that are written often have cache lines
//! of their own.

use crate::error::{Error, ErrorKind, Result};
use crate::lock;
pub(crate) use crate::wait::PARTICIPANT_SLOTS;

/// The first bytes: not text, and broken by whatever breaks line ends or the eighth bit.
pub(crate) const MAGIC: [u8; 8] = *b"\x8Dmmf\r\n\x1A\n";
/// The format's version; it stands apart from the crate's.
pub(crate) const VERSION: u32 = 1;
/// What follows the header and the slots begins here.
pub(crate) const PAYLOAD: usize = SLOT_TABLE + PARTICIPANT_SLOTS * SLOT_SIZE;
pub(crate) const SLOT_SIZE: usize = 64;
pub(crate) const SLOT_TABLE: usize = 4096;
/// By what Windows sizes memory.
const PAGE: u64 = 4096;
/// The longest name that a header holds, prefix included.
pub(crate) const NAME_MAX: usize = 256;

/// What never changes: its bytes, with the checksum over them behind.
pub(crate) const FIXED: usize = 1016;
const CHECKSUM: usize = FIXED;
/// What is read of a segment to check it.
pub(crate) const CHECKED: usize = CHECKSUM + 8;

/// A read-only compatible feature: the lock is the user's own, whose name is in the header.
pub(crate) const CUSTOM_LOCK: u64 = 1;
/// A read-only compatible feature of a dict's file: a failed sync leaves a mark, which each later
/// flush obeys. A build that does not know the mark would confirm what is not on the disk.
pub(crate) const SYNC_MARK: u64 = 2;
const LOCK_NAME: usize = 352;

/// What changes.
pub(crate) mod at {
    /// `[u8; 16]` machine, `[u8; 16]` boot: where it was created.
    pub(crate) const BOOT: usize = 1024;
    // On one line, since the holder of the lock writes all three.
    /// `u64`: the lock's word, see `lock`.
    pub(crate) const LOCK: usize = 2048;
    /// `u64`: moved by every change, odd while one is under way.
    pub(crate) const VERSION: usize = 2056;
    /// `u64`: bytes of payload that are in use.
    pub(crate) const LEN: usize = 2064;
    /// A queue, see `wait`: the waiters for the lock.
    pub(crate) const LOCK_QUEUE: usize = 2112;
    /// `[u64; 4]`: a bit per slot that may be in use.
    pub(crate) const OCCUPIED: usize = 2176;
    /// A queue: the waiters for a change.
    pub(crate) const CHANGE_QUEUE: usize = 2304;
    /// `[u64; 128]`: the words of a lock of the user's own.
    pub(crate) const LOCK_WORDS: usize = 3072;

    // In a slot:
    /// `u32`: read locks that this participant's threads hold.
    pub(crate) const SLOT_READERS: usize = 4;
    /// `u32`: process id, for people.
    pub(crate) const SLOT_PROCESS: usize = 8;
    /// `u64`: when it attached, in nanoseconds since 1970.
    pub(crate) const SLOT_SINCE: usize = 16;
    /// `u32`: threads that have waited for the lock for 1 ms or longer.
    pub(crate) const SLOT_WAITING: usize = 24;
    /// `u32`: threads that wait for a change.
    pub(crate) const SLOT_WATCHING: usize = 28;
    /// `u64`: the participant's word of a lock of the user's own.
    pub(crate) const SLOT_LOCK_WORD: usize = 32;
}

/// Where a part of a slot is. What is no slot of the table is behind all that can be mapped, and
/// refused as any such place.
pub(crate) fn slot(slot: usize, part: usize) -> usize {
    if slot < PARTICIPANT_SLOTS { SLOT_TABLE + slot * SLOT_SIZE + part } else { usize::MAX }
}

/// Where the lock finds its parts.
pub(crate) const LOCK: lock::LockOffsets = lock::LockOffsets {
    word: at::LOCK,
    queue: at::LOCK_QUEUE,
    occupied: at::OCCUPIED,
    readers: SLOT_TABLE + at::SLOT_READERS,
    stride: SLOT_SIZE,
};

/// Where a lock of the user's own finds its words.
pub(crate) const LOCK_WORDS: lock::LockWordOffsets =
    lock::LockWordOffsets { shared: at::LOCK_WORDS, own: SLOT_TABLE + at::SLOT_LOCK_WORD, stride: SLOT_SIZE };

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentKind(pub(crate) [u8; 8]);

impl SegmentKind {
    pub(crate) const REGION: SegmentKind = SegmentKind(*b"region\0\0");
    pub(crate) const DICT: SegmentKind = SegmentKind(*b"dict\0\0\0\0");

    /// Returns the kind as text for people, escaped: a peer may have stored any bytes there, and a
    /// terminal takes some bytes for commands.
    pub(crate) fn text(self) -> String {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.0[..end].escape_ascii().to_string()
    }
}

/// The part of the header that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) compatible: u64,
    pub(crate) read_compatible: u64,
    pub(crate) incompatible: u64,
    pub(crate) kind: SegmentKind,
    pub(crate) id: [u8; 16],
    /// Nanoseconds since 1970.
    pub(crate) created: u64,
    /// Bytes that the whole segment may grow to.
    pub(crate) capacity: u64,
    pub(crate) name: String,
    /// The name of the lock, empty for the one that this crate has.
    pub(crate) lock: String,
}

impl Header {
    /// As bytes, checksum included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; CHECKED];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.compatible.to_le_bytes());
        put(24, &self.read_compatible.to_le_bytes());
        put(32, &self.incompatible.to_le_bytes());
        put(40, &self.kind.0);
        put(48, &self.id);
        put(64, &self.created.to_le_bytes());
        put(72, &self.capacity.to_le_bytes());
        put(80, &(PAYLOAD as u64).to_le_bytes());
        put(88, &256_u32.to_le_bytes());
        let name = &self.name.as_bytes()[..self.name.len().min(NAME_MAX)];
        #[allow(clippy::cast_possible_truncation)] // at most NAME_MAX
        put(92, &(name.len() as u32).to_le_bytes());
        put(96, name);
        put(LOCK_NAME, self.lock.as_bytes());
        let sum = checksum(&bytes[..FIXED]);
        bytes[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Checks everything once. `writable`: whether features that only readers may ignore matter.
    pub(crate) fn decode(bytes: &[u8], size: u64, writable: bool) -> Result<Header> {
        let refuse = |reason: String| Err(Error::new(ErrorKind::NotASegment { reason }, "open"));
        if bytes.len() < CHECKED {
            return refuse(format!("it has {size} bytes, too few for a header"));
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        if bytes[..8] != MAGIC {
            return refuse("it was not made by mmf, or is a raw mapping".to_owned());
        }
        if u32_at(8) != VERSION {
            return refuse(format!("its format has version {}, this release reads {VERSION}", u32_at(8)));
        }
        if u64_at(CHECKSUM) != checksum(&bytes[..FIXED]) {
            return refuse("its header is damaged: the checksum differs".to_owned());
        }
        let name_len = u32_at(92) as usize;
        let Some(name) = bytes[96..96 + NAME_MAX].get(..name_len) else {
            return refuse("its name is longer than a header holds".to_owned());
        };
        let header = Header {
            compatible: u64_at(16),
            read_compatible: u64_at(24),
            incompatible: u64_at(32),
            kind: SegmentKind(bytes[40..48].try_into().unwrap_or_default()),
            id: bytes[48..64].try_into().unwrap_or_default(),
            created: u64_at(64),
            capacity: u64_at(72),
            name: String::from_utf8_lossy(name).into_owned(),
            lock: if u64_at(24) & CUSTOM_LOCK == 0 { String::new() } else { lock_name(bytes) },
        };
        let (all, write) = (header.incompatible, header.read_compatible & !(CUSTOM_LOCK | SYNC_MARK));
        if all != 0 || (writable && write != 0) {
            return refuse(format!("it needs features {all:#x} to be read and {write:#x} to be written"));
        }
        if u64_at(24) & CUSTOM_LOCK != 0 && header.lock.is_empty() {
            return refuse("its lock has no name".to_owned());
        }
        if u64_at(80) != PAYLOAD as u64 || u32_at(88) as usize != PARTICIPANT_SLOTS {
            return refuse("its parts are not where this version has them".to_owned());
        }
        // Windows sizes memory in whole pages, so memory that has grown to a capacity that is none
        // is longer than that.
        let most = header.capacity.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        if size < PAYLOAD as u64 || header.capacity < PAYLOAD as u64 || most < size {
            return refuse(format!("its size of {size} does not fit its capacity of {}", header.capacity));
        }
        Ok(header)
    }
}

fn lock_name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[LOCK_NAME..LOCK_NAME + lock::NAME_MAX]).trim_end_matches('\0').to_owned()
}

/// FNV-1a with 64 bits. It finds damage; an attacker can compute it as well.
///
/// A zero byte only multiplies the sum by the prime. Most of a header is zeros, so a block of zeros
/// takes one multiplication by a power of the prime instead of one for each byte.
fn checksum(bytes: &[u8]) -> u64 {
    const BLOCK: u32 = 16;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    const BLOCK_OF_ZEROS: u64 = PRIME.wrapping_pow(BLOCK);
    bytes.chunks(BLOCK as usize).fold(0xcbf2_9ce4_8422_2325, |sum, block| {
        match block.try_into().map(u128::from_ne_bytes) {
            Ok(0) => sum.wrapping_mul(BLOCK_OF_ZEROS),
            _ => block.iter().fold(sum, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(PRIME)),
        }
    })
}

const _: () = {
    assert!(at::BOOT >= CHECKED && at::LOCK >= at::BOOT + 32 && at::LEN + 8 <= at::LOCK_QUEUE);
    assert!(at::LOCK % 64 == 0 && at::LOCK_QUEUE % 64 == 0 && at::OCCUPIED % 64 == 0);
    assert!(at::CHANGE_QUEUE % 64 == 0 && at::CHANGE_QUEUE + 64 <= at::LOCK_WORDS);
    assert!(at::LOCK_WORDS + 8 * lock::LockWords::SHARED <= SLOT_TABLE && at::SLOT_LOCK_WORD % 8 == 0);
    assert!(
        PAYLOAD % 4096 == 0
            && PARTICIPANT_SLOTS == 256
            && 96 + NAME_MAX <= LOCK_NAME
            && LOCK_NAME + lock::NAME_MAX <= FIXED
    );
};

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            compatible: 0,
            read_compatible: 0,
            incompatible: 0,
            kind: SegmentKind::REGION,
            id: [7; 16],
            created: 1,
            capacity: 1 << 20,
            name: "name:frames".to_owned(),
            lock: String::new(),
        }
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(Header::decode(&header().encode(), 1 << 16, true).unwrap(), header());
    }

    #[test]
    fn a_kind_is_shown_without_what_a_terminal_takes_for_commands() {
        assert_eq!((SegmentKind::REGION.text(), SegmentKind::DICT.text()), ("region".to_owned(), "dict".to_owned()));
        assert_eq!(SegmentKind(*b"\x1b[2J\xff\0a\0").text(), "\\x1b[2J\\xff\\x00a");
        assert_eq!(SegmentKind([0; 8]).text(), "");
    }

    #[test]
    fn what_is_no_slot_is_nowhere() {
        assert_eq!(slot(255, at::SLOT_PROCESS), PAYLOAD - SLOT_SIZE + at::SLOT_PROCESS);
        for none in [256, 299, 0xffff, usize::MAX] {
            assert_eq!(slot(none, at::SLOT_PROCESS), usize::MAX);
        }
    }

    #[test]
    fn a_size_fits_a_capacity_that_ends_within_its_last_page() {
        let with = |capacity, size| Header::decode(&Header { capacity, ..header() }.encode(), size, true).is_ok();
        for (capacity, size) in
            [(21_480, 20_480), (21_480, 21_480), (21_480, 24_576), (20_480, 20_480), (u64::MAX, 24_576)]
        {
            assert!(with(capacity, size), "{capacity} {size}");
        }
        for (capacity, size) in [(21_480, 24_577), (20_480, 20_481), (20_479, 20_480), (16_385, 20_480), (0, 20_480)] {
            assert!(!with(capacity, size), "{capacity} {size}");
        }
    }

    #[test]
    fn a_checksum_is_fnv_1a_with_zeros_and_without() {
        let plain = |bytes: &[u8]| {
            let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
        };
        let mut bytes = vec![0; FIXED];
        for at in (0..FIXED).step_by(7) {
            for len in [0, 1, 31, 32, 33, at, FIXED] {
                assert_eq!(checksum(&bytes[..len]), plain(&bytes[..len]), "{at} {len}");
            }
            bytes[(at * 97) % FIXED] = at.to_le_bytes()[0];
        }
        // Published for the text "a".
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let good = header().encode();
        for at in 0..FIXED {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(Header::decode(&bad, 1 << 16, true).is_err(), "byte {at}");
        }
    }

    #[test]
    fn features_decide_who_may_open() {
        let with = |compatible, read_compatible: u64, incompatible| {
            Header { compatible, read_compatible, incompatible, ..header() }.encode()
        };
        assert!(Header::decode(&with(1, 0, 0), 1 << 16, true).is_ok());
        assert!(Header::decode(&with(0, SYNC_MARK, 0), 1 << 16, true).is_ok());
        assert!(Header::decode(&with(0, 4, 0), 1 << 16, true).is_err());
        assert!(Header::decode(&with(0, 4, 0), 1 << 16, false).is_ok());
        assert!(Header::decode(&with(0, 0, 1), 1 << 16, false).is_err());
        // A lock that has no name.
        assert!(Header::decode(&with(0, CUSTOM_LOCK, 0), 1 << 16, false).is_err());
        let named = Header { read_compatible: CUSTOM_LOCK, lock: "n".repeat(lock::NAME_MAX), ..header() };
        assert_eq!(Header::decode(&named.encode(), 1 << 16, true).unwrap(), named);
    }
}
