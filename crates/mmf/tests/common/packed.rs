//! Golden files as they are kept, without their zeros: the length of the whole (u64, little-endian), and then runs of other
//! bytes, each as its offset (u64), its length (u64) and itself.

/// The whole file.
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
