//! Where an instruction may store: most reach nothing that is shared, and all of the shared bytes
//! are too many to be compared after each.
//!
//! Of an instruction only its operand in memory is worked out, as in chapter 2 of the second volume
//! of Intel's manual. What has none is taken for one that has: that costs a look. What is not known
//! may store anywhere. The caller compares everything from time to time, so that no missed store
//! goes unnoticed.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use libc::user_regs_struct;

use super::traced::Child;

/// What the next instruction may change of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreTarget {
    Nothing,
    Bytes(Range<usize>),
    Anything,
    /// It is a system call.
    Call,
}

impl StoreTarget {
    /// Whether all that differs afterwards may be its doing.
    pub(super) fn covers(&self, before: &[u8], after: &[u8]) -> bool {
        let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
        let common = before.len().min(after.len());
        let first = before.iter().zip(after).take_while(same).count();
        let last = common - before[..common].iter().rev().zip(after[..common].iter().rev()).take_while(same).count();
        match self {
            StoreTarget::Call => true,
            _ if before.len() != after.len() => false,
            StoreTarget::Nothing => first == common,
            StoreTarget::Bytes(range) => first == common || (range.start <= first && last <= range.end),
            StoreTarget::Anything => first == common || last - first <= WIDEST_OF_ALL,
        }
    }
}

/// What the address of an operand is the sum of. Registers by their numbers in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    None,
    Sum { base: Option<u8>, index: Option<(u8, u32)>, more: i64, of_thread: bool },
    Unknown,
    Call,
}

/// What is decoded here stores no more than the first, anything else no more than the second.
const WIDEST: usize = 32;
const WIDEST_OF_ALL: usize = 64;
const RDI: u8 = 7;

/// Where a traced process has a file, and what it does.
pub(super) struct Stores<'a> {
    child: &'a Child,
    path: &'a Path,
    /// Its addresses, and the offset of the first.
    views: Vec<(Range<u64>, u64)>,
    known: HashMap<u64, Operand>,
}

impl<'a> Stores<'a> {
    pub(super) fn new(child: &'a Child, path: &'a Path) -> Stores<'a> {
        let mut stores = Stores { child, path, views: Vec::new(), known: HashMap::new() };
        stores.find_views();
        stores
    }

    /// To be called after each system call, which may have mapped the file elsewhere.
    pub(super) fn find_views(&mut self) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("the process's mappings");
        let ours = maps.lines().filter(|line| line.ends_with(&*self.path.to_string_lossy()));
        let view = |line: &str| {
            let mut words = line.split_whitespace();
            let (from, to) = words.next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(from)?..number(to)?, number(words.nth(1)?)?))
        };
        self.views = ours.map(|line| view(line).expect("a line of proc(5)")).collect();
    }

    pub(super) fn next(&mut self) -> StoreTarget {
        let registers = self.child.registers();
        let operand = *self.known.entry(registers.rip).or_insert_with(|| decode(&self.child.code(registers.rip)));
        let (base, index, more, of_thread) = match operand {
            Operand::None => return StoreTarget::Nothing,
            Operand::Unknown => return StoreTarget::Anything,
            Operand::Call => return StoreTarget::Call,
            Operand::Sum { base, index, more, of_thread } => (base, index, more, of_thread),
        };
        let address = base
            .map_or(0, |base| register(&registers, base))
            .wrapping_add(index.map_or(0, |(index, shift)| register(&registers, index) << shift))
            .wrapping_add_signed(more)
            .wrapping_add(if of_thread { registers.fs_base } else { 0 });
        match self.views.iter().find(|(view, _)| view.contains(&address)) {
            Some((view, offset)) => {
                let at = usize::try_from(address - view.start + offset).expect("an offset in memory");
                StoreTarget::Bytes(at..at + WIDEST)
            }
            None => StoreTarget::Nothing,
        }
    }
}

fn register(registers: &user_regs_struct, number: u8) -> u64 {
    let r = registers;
    let all =
        [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
    all[usize::from(number)]
}

fn decode(code: &[u8; 16]) -> Operand {
    let prefixes =
        code.iter().take_while(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3));
    let mut at = prefixes.count();
    if at > 4 || code[..at].iter().any(|prefix| matches!(prefix, 0x65 | 0x67)) {
        return Operand::Unknown;
    }
    let of_thread = code[..at].contains(&0x64);
    // The fourth bits of the registers' numbers.
    let (mut index_high, mut base_high) = (0, 0);
    if code[at] & 0xf0 == 0x40 {
        (index_high, base_high) = ((code[at] & 2) << 2, (code[at] & 1) << 3);
        at += 1;
    }
    at += match code[at] {
        0x0f => match code[at + 1] {
            0x05 => return Operand::Call,
            0x38 | 0x3a => 3,
            _ => 2,
        },
        // The moves and stores of strings.
        0xa4 | 0xa5 | 0xaa | 0xab => return Operand::Sum { base: Some(RDI), index: None, more: 0, of_thread: false },
        0x62 | 0xa2 | 0xa3 => return Operand::Unknown,
        0xc4 => {
            (index_high, base_high) = ((!code[at + 1] & 0x40) >> 3, (!code[at + 1] & 0x20) >> 2);
            4
        }
        0xc5 => 3,
        _ => 1,
    };
    let (mode, mut base) = (code[at] >> 6, code[at] & 7);
    at += 1;
    let mut index = None;
    if mode == 3 {
        return Operand::None;
    }
    if base == 4 {
        let number = (code[at] >> 3 & 7) | index_high;
        // The stack's pointer is no index.
        index = (number != 4).then_some((number, u32::from(code[at] >> 6)));
        base = code[at] & 7;
        at += 1;
    } else if mode == 0 && base == 5 {
        // Beside the instruction.
        return Operand::None;
    }
    let byte = i64::from(i8::from_le_bytes([code[at]]));
    let word = i64::from(i32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]));
    let (base, more) = match mode {
        0 if base == 5 => (None, word),
        0 => (Some(base | base_high), 0),
        1 => (Some(base | base_high), byte),
        _ => (Some(base | base_high), word),
    };
    Operand::Sum { base, index, more, of_thread }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(base: u8, index: Option<(u8, u32)>, more: i64) -> Operand {
        Operand::Sum { base: Some(base), index, more, of_thread: false }
    }

    /// As an assembler writes them.
    #[test]
    fn operands_are_what_the_manual_says() {
        let known: [(&[u8], Operand); 15] = [
            // mov %rax,(%rdi); mov %r9,8(%r12); mov %eax,0x100(%rbp)
            (&[0x48, 0x89, 0x07], sum(7, None, 0)),
            (&[0x4d, 0x89, 0x4c, 0x24, 0x08], sum(12, None, 8)),
            (&[0x89, 0x85, 0x00, 0x01, 0x00, 0x00], sum(5, None, 0x100)),
            // mov %rcx,-8(%rax,%r10,8); lock cmpxchg %rcx,(%rdx); xchg %eax,(%r13,%rsi)
            (&[0x4a, 0x89, 0x4c, 0xd0, 0xf8], sum(0, Some((10, 3)), -8)),
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x0a], sum(2, None, 0)),
            (&[0x41, 0x87, 0x44, 0x35, 0x00], sum(13, Some((6, 0)), 0)),
            // movups %xmm0,(%rdi); vmovdqu %ymm1,-32(%rdi,%rdx); vmovdqu %ymm0,(%r8); vmovdqu
            // %ymm8,(%r8,%r9,2)
            (&[0x0f, 0x11, 0x07], sum(7, None, 0)),
            (&[0xc5, 0xfe, 0x7f, 0x4c, 0x17, 0xe0], sum(7, Some((2, 0)), -32)),
            (&[0xc4, 0xc1, 0x7e, 0x7f, 0x00], sum(8, None, 0)),
            (&[0xc4, 0x01, 0x7e, 0x7f, 0x04, 0x48], sum(8, Some((9, 1)), 0)),
            // rep movsb; mov %rax,%rdi; mov %rax,0x10(%rip); syscall; vmovdqu64 %ymm16,(%rdi)
            (&[0xf3, 0xa4], sum(7, None, 0)),
            (&[0x48, 0x89, 0xc7], Operand::None),
            (&[0x48, 0x89, 0x05, 0x10, 0x00, 0x00, 0x00], Operand::None),
            (&[0x0f, 0x05], Operand::Call),
            (&[0x62, 0xe1, 0xfe, 0x28, 0x7f, 0x07], Operand::Unknown),
        ];
        for (code, operand) in known {
            let mut bytes = [0; 16];
            bytes[..code.len()].copy_from_slice(code);
            assert_eq!(decode(&bytes), operand, "{code:02x?}");
        }
        let of_thread = Operand::Sum { base: None, index: None, more: 0x28, of_thread: true };
        let code = [0x64, 0x48, 0x89, 0x04, 0x25, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(&code), of_thread);
    }
}
