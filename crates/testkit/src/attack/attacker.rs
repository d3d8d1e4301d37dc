//! The hostile peer: writes through a descriptor of the object, as any program may that can open
//! it.
//!
//! It runs in a thread of the coordinator, which maps nothing and calls no function of the library:
//! a truncation or a hostile byte cannot hurt it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::layout::{self, PAYLOAD, Shape, header};
use super::random::Random;
use super::script::{Manner, Script, Step};
use super::{dict_mutations, mutations};

/// Rounds of a loop between two looks at the state that mutations are derived from.
const LOOKS: u64 = 64;

/// The attacked object, with what the attacker knows of it.
#[derive(Debug)]
pub(super) struct Object {
    file: File,
    /// Bytes that the whole segment may have, by its options.
    pub(super) total: usize,
    /// Where things are in a dict.
    pub(super) shape: Shape,
    /// Its first KiB and its length before the attack.
    whole: Vec<u8>,
    whole_len: u64,
    /// What is written from now on is noted here, to be undone.
    undo: Option<Vec<(u64, Vec<u8>)>>,
    /// Places of slots of the index, each with the block that it leads to, as of the last look.
    pub(super) records: Vec<(usize, usize)>,
    pub(super) is_dict: bool,
}

impl Object {
    /// Opens it.
    pub(super) fn open(path: &Path, script: &Script) -> io::Result<Object> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut whole = vec![0; header::END];
        file.read_exact_at(&mut whole, 0)?;
        let total = u64::from_le_bytes(whole[header::CAPACITY..header::CAPACITY + 8].try_into().expect("8 bytes"));
        let total = usize::try_from(total).unwrap_or(PAYLOAD);
        let whole_len = file.metadata()?.len();
        let is_dict = script.kind.is_dict();
        let shape = Shape::of(total);
        let mut object = Object { file, total, shape, whole, whole_len, undo: None, records: Vec::new(), is_dict };
        object.look();
        Ok(object)
    }

    /// Reads the index anew.
    pub(super) fn look(&mut self) {
        if self.is_dict {
            self.records = dict_mutations::records(self);
        }
    }

    /// Returns the word at an offset; 0 where nothing is.
    pub(super) fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, at as u64) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }

    pub(super) fn half_word(&self, at: usize) -> u32 {
        u32::try_from(self.word(at) & u64::from(u32::MAX)).unwrap_or(0)
    }

    pub(super) fn put(&mut self, at: usize, word: u64) {
        self.put_bytes(at, &word.to_le_bytes());
    }

    pub(super) fn put_half(&mut self, at: usize, word: u32) {
        self.put_bytes(at, &word.to_le_bytes());
    }

    /// Writes bytes. Past the end this makes the object longer, up to a bound that keeps the disk
    /// free.
    pub(super) fn put_bytes(&mut self, at: usize, bytes: &[u8]) {
        if at as u64 > 16 << 30 {
            return;
        }
        if self.undo.is_some() {
            let before = self.bytes(at, bytes.len());
            if let Some(undo) = &mut self.undo {
                undo.push((at as u64, before));
            }
        }
        // A write that the system refuses changes nothing, which is one more thing that a peer may
        // do.
        let _ = self.file.write_at(bytes, at as u64);
    }

    pub(super) fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.file.read_at(&mut bytes, at as u64).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    pub(super) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    pub(super) fn set_len(&self, len: u64) {
        let _ = self.file.set_len(len);
    }

    /// Computes the header's checksum anew, so that the header is believed.
    pub(super) fn seal(&mut self) {
        let sum = layout::checksum(&self.bytes(0, header::CHECKSUM));
        self.put(header::CHECKSUM, sum);
    }

    /// Ends a truncation: the length is at least that before the attack, and at most the capacity
    /// in whole pages.
    fn restore_len(&self) {
        let most = (self.total as u64).next_multiple_of(4096).max(self.whole_len);
        let len = self.len();
        if len != len.clamp(self.whole_len, most) {
            self.set_len(len.clamp(self.whole_len, most));
        }
    }

    /// Restores what no handle can open an object without: the header's first KiB, and the length.
    /// All other bytes stay as the attacker left them, the lock's word, the slots and the queues
    /// among them.
    pub(super) fn restore(&mut self) {
        self.undo = None;
        self.restore_len();
        let _ = self.file.write_at(&self.whole, 0);
    }
}

/// Makes one mutation.
fn mutate(object: &mut Object, step: &Step, random: &mut Random) {
    if !mutations::apply(object, step, random) {
        dict_mutations::apply(object, step, random);
    }
}

/// Attacks until told to stop; returns how many mutations were made.
pub(super) fn attack(object: &mut Object, script: &Script, begin: Duration, stop: &AtomicBool, made: &AtomicU64) {
    let mut randoms: Vec<Random> = script.steps.iter().map(|step| Random::new(u64::from(step.seed))).collect();
    sleep(begin, stop);
    let mut round: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        if round % LOOKS == 0 || script.manner != Manner::Loop {
            object.look();
        }
        for (step, random) in script.steps.iter().zip(&mut randoms) {
            if script.manner == Manner::Flicker {
                object.undo = Some(Vec::new());
            }
            mutate(object, step, random);
            made.fetch_add(1, Ordering::Relaxed);
            if let Some(undo) = object.undo.take() {
                sleep(Duration::from_micros(random.below(2000)), stop);
                for (at, bytes) in undo.into_iter().rev() {
                    let _ = object.file.write_at(&bytes, at);
                }
                object.restore_len();
            }
        }
        match script.manner {
            Manner::Once => return,
            Manner::Loop => {}
            Manner::Pulse => sleep(Duration::from_millis(1), stop),
            Manner::Flicker => sleep(Duration::from_micros(500), stop),
        }
        round += 1;
    }
}

fn sleep(time: Duration, stop: &AtomicBool) {
    if !stop.load(Ordering::Relaxed) && !time.is_zero() {
        thread::sleep(time);
    }
}
