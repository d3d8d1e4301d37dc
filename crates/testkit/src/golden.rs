//! Makes the golden segments: small files of every sort that a reader of segments meets, kept in
//! the library's tests.
//!
//! What the library makes is given an id, a time and a machine of its own, so that a file says
//! nothing of where it was made and is the same whenever it is made. The offsets are those of
//! `docs/format.md`.

use std::fs;
use std::io;
use std::path::Path;

use mmf::Region;

use crate::TempDir;

/// What the contents of most of them are.
const CONTENTS: &[u8] = b"golden";

/// Writes each of them to a file of this directory.
///
/// # Errors
///
/// What the system reports.
pub fn make(dir: &Path) -> io::Result<()> {
    let plain = segment(|region| region.write().unwrap().set(CONTENTS).unwrap());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = plain.clone();
        change(&mut bytes);
        seal(&mut bytes);
        bytes
    };
    // The highest bit of each set, which no release gives a meaning.
    let feature = |at: usize| with(&|bytes| bytes[at + 7] = 0x80);
    let own_lock = with(&|bytes| {
        bytes[24] = 1;
        bytes[352..362].copy_from_slice(b"own/golden");
    });
    let mut damaged = plain.clone();
    damaged[60] ^= 1;
    let all = [
        ("plain", plain.clone()),
        ("poisoned", segment(poison)),
        ("dead", interrupted()),
        ("compatible", feature(16)),
        ("read-compatible", feature(24)),
        ("incompatible", feature(32)),
        ("own-lock", own_lock),
        ("future", with(&|bytes| bytes[8] = 2)),
        ("kind", with(&|bytes| bytes[40..48].copy_from_slice(b"foreign\0"))),
        ("checksum", damaged),
        ("torn", plain[..12 << 10].to_vec()),
    ];
    all.iter().try_for_each(|(name, bytes)| fs::write(dir.join(format!("{name}.segment")), bytes))
}

/// The bytes of a region after `story`, when its last handle is gone.
fn segment(story: impl FnOnce(&Region)) -> Vec<u8> {
    let dir = TempDir::new();
    let path = dir.join("segment");
    let region = Region::create_new(&*path, 64).unwrap();
    story(&region);
    drop(region);
    anonymous(fs::read(&path).unwrap())
}

/// A writer panics with a change half made.
fn poison(region: &Region) {
    region.write().unwrap().set(CONTENTS).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut guard = region.write().unwrap();
            guard.write_at(0, b"half").unwrap();
            // Without a message: it is meant.
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(writer.join().is_err());
    });
}

/// The bytes as a machine leaves them that stops while a writer is inside.
fn interrupted() -> Vec<u8> {
    let dir = TempDir::new();
    let path = dir.join("segment");
    let region = Region::create_new(&*path, 64).unwrap();
    region.write().unwrap().set(CONTENTS).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    let bytes = fs::read(&path).unwrap();
    drop(guard);
    anonymous(bytes)
}

/// Takes out what tells when, where and by which process they were made.
fn anonymous(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[48..64].copy_from_slice(b"golden segment's");
    bytes[64..72].copy_from_slice(&1_700_000_000_000_000_000_u64.to_le_bytes());
    bytes[1024..1040].copy_from_slice(&[0x11; 16]);
    bytes[1040..1056].copy_from_slice(&[0x22; 16]);
    for slot in 0..256 {
        let used = bytes[2176 + slot / 8] >> (slot % 8) & 1 == 1;
        let (process, since) = if used { (4321_u32, 1_700_000_001_000_000_000_u64) } else { (0, 0) };
        let at = 4096 + 64 * slot;
        bytes[at + 8..at + 12].copy_from_slice(&process.to_le_bytes());
        bytes[at + 16..at + 24].copy_from_slice(&since.to_le_bytes());
    }
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let sum = bytes[..1016].iter().fold(0xcbf2_9ce4_8422_2325, step);
    bytes[1016..1024].copy_from_slice(&sum.to_le_bytes());
}
