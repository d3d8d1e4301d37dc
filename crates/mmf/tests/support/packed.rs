//! Golden files as they are stored, without their zeros: the length of the file (u64,
//! little-endian), and then each run of other bytes as its offset (u64), its length (u64) and the
//! bytes.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::Path;

/// Restores the whole file.
pub(crate) fn unpack(packed: &[u8]) -> Vec<u8> {
    let number =
        |bytes: &[u8], at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    let mut bytes = vec![0; number(packed, 0)];
    let mut left = &packed[8..];
    while !left.is_empty() {
        let (from, len) = (number(left, 0), number(left, 8));
        bytes[from..from + len].copy_from_slice(&left[16..16 + len]);
        left = &left[16 + len..];
    }
    bytes
}

/// Whether the tests write golden files anew.
pub(crate) fn is_written() -> bool {
    std::env::var("MMF_GOLDEN").is_ok_and(|what| what == "write")
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    let mut at = 0;
    while let Some(from) = bytes[at..].iter().position(|byte| *byte != 0).map(|skipped| at + skipped) {
        // A shorter run of zeros takes no more space than the header of a new run.
        let end = bytes[from..].windows(32).position(|run| run.iter().all(|byte| *byte == 0));
        at = end.map_or(bytes.len(), |len| from + len);
        packed.extend((from as u64).to_le_bytes());
        packed.extend(((at - from) as u64).to_le_bytes());
        packed.extend(&bytes[from..at]);
    }
    packed
}

/// Stores a golden file under this name.
pub(crate) fn keep(name: &str, bytes: &[u8]) {
    let packed = pack(bytes);
    assert!(unpack(&packed) == bytes);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name), packed).unwrap();
}
