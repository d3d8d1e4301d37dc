//! What a tortured region holds: bytes that tell by themselves whether they are whole.
//!
//! ```text
//! 0   canary   the process that is writing, or 0
//! 8   counter  moved up by every write
//! 16  length   of all this
//! 24  bytes that follow from the counter
//! ```

pub(super) const HEAD: usize = 24;

/// The contents of this counter.
pub(super) fn make(canary: u64, counter: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    for word in [canary, counter, len as u64] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let mut word = counter;
    while bytes.len() < len {
        word = next(word);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Returns the counter of contents that no writer is changing, or the fault in them.
pub(super) fn check(bytes: &[u8]) -> Result<u64, String> {
    check_of(0, bytes)
}

/// The counter of whole contents with this canary, or what is wrong with them.
pub(super) fn check_of(wanted: u64, bytes: &[u8]) -> Result<u64, String> {
    let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let (Some(canary), Some(counter), Some(len)) = (word(0), word(8), word(16)) else {
        return Err(format!("{} bytes are too few", bytes.len()));
    };
    if canary != wanted {
        return Err(format!("it bears {canary}, not {wanted}"));
    }
    if len != bytes.len() as u64 {
        return Err(format!("there are {} bytes of {len}", bytes.len()));
    }
    let mut expected = counter;
    for (n, chunk) in bytes[HEAD..].chunks(8).enumerate() {
        expected = next(expected);
        if *chunk != expected.to_le_bytes()[..chunk.len()] {
            return Err(format!("counter {counter} is torn at byte {} of {len}", HEAD + n * 8));
        }
    }
    Ok(counter)
}

fn next(word: u64) -> u64 {
    word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_passes_and_every_changed_byte_is_noticed() {
        let good = make(0, 7, 61);
        assert_eq!(check(&good), Ok(7));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(check(&bad).is_err(), "byte {at}");
        }
        assert!(check(&good[..60]).is_err());
    }
}
