//! Checks that bytes are one complete `MessagePack` value of a bounded depth, without decoding it.
//!
//! The problem: a decoder recurses for each array or map in another one, and takes stack for it.
//! Any process may have written the bytes, so they must not choose the depth.
//!
//! The algorithm keeps a counter for each open array or map, without recursion, and refuses more
//! than [`MAX_DEPTH`] of them:
//!
//! 1. Skip a number, a text, bytes or an extension by its length.
//! 2. An array or a map announces a count of items. Each takes at least a byte, so a count above
//!    the rest of the bytes is refused before any code reserves memory for it.
//! 3. The value ends with the last item of the outermost array or map. Further bytes are an error.
//!
//! Cost: one step for each item.

use crate::dict::format::encoding::MAX_DEPTH;

/// The reason why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) enum Flaw {
    Truncated,
    /// The code that `MessagePack` reserves.
    Reserved,
    TooDeep,
    /// Bytes follow the value.
    Trailing,
}

impl Flaw {
    pub(in crate::dict) fn text(self) -> &'static str {
        match self {
            Flaw::Truncated => "MessagePack that ends too early",
            Flaw::Reserved => "no MessagePack",
            Flaw::TooDeep => "arrays and maps in each other more than 64 deep",
            Flaw::Trailing => "a value and something behind it",
        }
    }
}

const _: () = assert!(MAX_DEPTH == 64, "the texts say so");

/// Checks that `bytes` are exactly one value.
#[inline]
pub(in crate::dict) fn check(bytes: &[u8]) -> Result<(), Flaw> {
    if end_of(bytes)? == bytes.len() { Ok(()) } else { Err(Flaw::Trailing) }
}

/// Returns the position after the value that `bytes` begin with.
#[inline]
fn end_of(bytes: &[u8]) -> Result<usize, Flaw> {
    match item(bytes, 0)? {
        (end, None) => Ok(end),
        (at, Some(items)) => walk_flat(bytes, at, items),
    }
}

/// Walks the items of the outermost array or map.
fn walk_flat(bytes: &[u8], mut at: usize, items: u64) -> Result<usize, Flaw> {
    for _ in 0..items {
        let code = *bytes.get(at).ok_or(Flaw::Truncated)?;
        // A separate branch: the processor predicts it, and does not wait for the load of the
        // code to find the next item.
        if code <= 0x7f {
            at += 1;
            continue;
        }
        // For most items the code determines the length. If an item passes the end, the next
        // `get` or the last comparison finds that.
        at = match FIXED[usize::from(code)] {
            0 => match item(bytes, at)? {
                (next, None) => next,
                (next, Some(items)) => walk_nested(bytes, next, items)?,
            },
            len => at + usize::from(len),
        };
    }
    if at <= bytes.len() { Ok(at) } else { Err(Flaw::Truncated) }
}

/// The length of an item for each code that determines it, and 0 for the other codes.
static FIXED: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut code = 0_u8;
    loop {
        lengths[code as usize] = match code {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
            0xa0..=0xbf => 1 + (code & 0x1f),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            _ => 0,
        };
        if code == 255 {
            break lengths;
        }
        code += 1;
    }
};

/// Walks the items of an array or map in the outermost one, and everything nested in them.
fn walk_nested(bytes: &[u8], mut at: usize, items: u64) -> Result<usize, Flaw> {
    // The number of items left in each array or map around the present one. The outermost has
    // no counter here.
    let mut around = [0_u64; MAX_DEPTH - 2];
    let (mut depth, mut left) = (0, items);
    loop {
        while left == 0 {
            if depth == 0 {
                return Ok(at);
            }
            depth -= 1;
            left = around[depth];
        }
        left -= 1;
        let (next, items) = item(bytes, at)?;
        at = next;
        if let Some(items) = items {
            *around.get_mut(depth).ok_or(Flaw::TooDeep)? = left;
            depth += 1;
            left = items;
        }
    }
}

/// Returns the position after one item, or, for an array or map, after its header. Returns the
/// number of its items then, and `None` for other items.
#[inline]
fn item(bytes: &[u8], at: usize) -> Result<(usize, Option<u64>), Flaw> {
    let code = *bytes.get(at).ok_or(Flaw::Truncated)?;
    let at = at + 1;
    let (skipped, items) = match code {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => return Ok((at, None)),
        0xa0..=0xbf => (u64::from(code & 0x1f), None),
        0xcc | 0xd0 => (1, None),
        0xcd | 0xd1 => (2, None),
        0xca | 0xce | 0xd2 => (4, None),
        0xcb | 0xcf | 0xd3 => (8, None),
        0xc4..=0xc6 => length(bytes, at, 1 << (code - 0xc4)).map(|len| (len + (1 << (code - 0xc4)), None))?,
        0xd9..=0xdb => length(bytes, at, 1 << (code - 0xd9)).map(|len| (len + (1 << (code - 0xd9)), None))?,
        0xd4..=0xd8 => (1 + (1 << (code - 0xd4)), None),
        // An extension also has a byte for its type.
        0xc7..=0xc9 => length(bytes, at, 1 << (code - 0xc7)).map(|len| (len + (1 << (code - 0xc7)) + 1, None))?,
        0x90..=0x9f => (0, Some(u64::from(code & 0x0f))),
        0x80..=0x8f => (0, Some(2 * u64::from(code & 0x0f))),
        0xdc | 0xdd => (2 << (code - 0xdc), Some(length(bytes, at, 2 << (code - 0xdc))?)),
        0xde | 0xdf => (2 << (code - 0xde), Some(2 * length(bytes, at, 2 << (code - 0xde))?)),
        0xc1 => return Err(Flaw::Reserved),
    };
    // A length has 32 bits, so no sum overflows 64 bits.
    let end = at as u64 + skipped;
    if end + items.unwrap_or(0) > bytes.len() as u64 {
        return Err(Flaw::Truncated);
    }
    Ok((usize::try_from(end).map_err(|_| Flaw::Truncated)?, items))
}

/// Reads a length of 1, 2 or 4 bytes.
#[inline]
fn length(bytes: &[u8], at: usize, size: usize) -> Result<u64, Flaw> {
    let bytes = bytes.get(at..at + size).ok_or(Flaw::Truncated)?;
    Ok(bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_their_last_item_does() {
        let long = |code: u8, len: &[u8], rest: usize| [&[code][..], len, &vec![0; rest]].concat();
        for whole in [
            vec![0],
            vec![0xc0],
            vec![0xff],
            vec![0xcd, 0, 0],
            vec![0xcb; 9],
            vec![0xa2, 0, 0],
            long(0xd9, &[200], 200),
            long(0xda, &[1, 0], 256),
            long(0xc6, &[0, 1, 0, 0], 65536),
            long(0xc7, &[3], 4),
            vec![0xd8; 18],
            vec![0x90],
            vec![0x92, 1, 0x91, 2],
            long(0xdc, &[0, 20], 20),
            long(0xdf, &[0, 0, 0, 20], 40),
            vec![0x82, 1, 0x81, 0xa1, 0, 0x93, 1, 2, 3, 4, 0x80],
        ] {
            assert_eq!(check(&whole), Ok(()), "{whole:x?}");
            for end in 0..whole.len() {
                assert_eq!(check(&whole[..end]), Err(Flaw::Truncated), "{:x?}", &whole[..end]);
            }
            let more = [&whole[..], &[0]].concat();
            assert_eq!((check(&more), end_of(&more)), (Err(Flaw::Trailing), Ok(whole.len())), "{whole:x?}");
        }
        assert_eq!(check(&[0x91, 0xc1]), Err(Flaw::Reserved));
        // These values announce more items than there are bytes.
        for code in [0xdd, 0xdf] {
            assert_eq!(check(&[code, 0xff, 0xff, 0xff, 0xff, 0]), Err(Flaw::Truncated));
        }
    }

    #[test]
    fn a_value_is_as_deep_as_the_limit_and_no_deeper() {
        for open in [&[0x91][..], &[0x81, 1], &[0xdc, 0, 1], &[0xdf, 0, 0, 0, 1, 1]] {
            for (levels, end, result) in [
                (1, 0xc0, Ok(())),
                (MAX_DEPTH, 0xc0, Ok(())),
                (MAX_DEPTH - 1, 0x90, Ok(())),
                (MAX_DEPTH, 0x80, Err(Flaw::TooDeep)),
                (MAX_DEPTH + 1, 0xc0, Err(Flaw::TooDeep)),
                (100_000, 0xc0, Err(Flaw::TooDeep)),
            ] {
                let bytes = [&open.repeat(levels)[..], &[end]].concat();
                assert_eq!(check(&bytes), result, "{levels} of {open:x?}");
            }
        }
    }
}
