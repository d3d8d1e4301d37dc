//! The bytes that are shared, and the checksum over them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// How much is moved at a time: it stays in a core's cache, and is large enough that calls do not
/// count.
pub(super) const CHUNK: usize = 256 << 10;

/// Where the bytes come from. They end with zeros up to a whole page, since memory of Windows comes
/// in pages.
pub(super) enum Data {
    File { file: File, left: u64 },
    Made { state: u64 },
}

impl Data {
    /// The file's bytes, or made ones.
    pub(super) fn open(file: Option<&Path>, size: u64) -> io::Result<Data> {
        match file {
            Some(path) => Ok(Data::File { file: File::open(path)?, left: size }),
            None => Ok(Data::Made { state: 0x5EED }),
        }
    }

    /// Fills the next `room`; behind the end of a file with zeros.
    pub(super) fn fill(&mut self, room: &mut [u8]) -> io::Result<()> {
        match self {
            Data::File { file, left } => {
                let mut source = file.take(*left);
                let read = read_full(&mut source, room)?;
                *left = source.limit();
                room[read..].fill(0);
            }
            Data::Made { state } => {
                for word in room.chunks_mut(8) {
                    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                    let mixed = (*state ^ (*state >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
                    word.copy_from_slice(&(mixed ^ (mixed >> 32)).to_le_bytes()[..word.len()]);
                }
            }
        }
        Ok(())
    }
}

/// Reads until `room` is full or the stream ends; gives how many bytes there were.
pub(super) fn read_full(source: &mut (impl Read + ?Sized), room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() {
        match source.read(&mut room[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

const LANES: usize = 8;

/// A checksum of bytes and their places: eight lanes, so that the multiplications of one do not
/// wait for those of the others, which makes it several times as fast as the bytes come.
pub(super) struct Checksum {
    lanes: [u64; LANES],
    len: u64,
}

impl Checksum {
    pub(super) fn new() -> Checksum {
        Checksum { lanes: [1, 2, 3, 4, 5, 6, 7, 8], len: 0 }
    }

    /// Takes in the next bytes. Every call but the last has a multiple of 64.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let mut lanes = self.lanes;
        let mut blocks = bytes.chunks_exact(LANES * 8);
        for block in &mut blocks {
            mix(&mut lanes, block);
        }
        let rest = blocks.remainder();
        if !rest.is_empty() {
            let mut block = [0; LANES * 8];
            block[..rest.len()].copy_from_slice(rest);
            mix(&mut lanes, &block);
        }
        self.lanes = lanes;
    }

    pub(super) fn finish(&self) -> u64 {
        self.lanes.iter().fold(self.len, |sum, lane| (sum.rotate_left(23) ^ lane).wrapping_mul(MULTIPLIER))
    }
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
fn mix(lanes: &mut [u64; LANES], block: &[u8]) {
    for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        // The rotation brings the high bits down, which a multiplication alone never does.
        *lane = (*lane ^ u64::from_le_bytes(bytes)).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        let mut sum = Checksum::new();
        sum.add(bytes);
        sum.finish()
    }

    #[test]
    fn a_checksum_sees_every_bit_every_place_and_the_length() {
        let mut bytes = vec![0; 1000];
        let mut data = Data::Made { state: 1 };
        data.fill(&mut bytes).expect("made bytes");
        let whole = sum(&bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&bytes), whole, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes.swap(3, 67);
        assert_ne!(sum(&bytes), whole);
        bytes.swap(3, 67);
        assert_ne!(sum(&bytes[..999]), whole);
        assert_ne!(sum(&[0; 64]), sum(&[0; 128]));
        let mut pieces = Checksum::new();
        pieces.add(&bytes[..640]);
        pieces.add(&bytes[640..]);
        assert_eq!(pieces.finish(), whole);
    }
}
