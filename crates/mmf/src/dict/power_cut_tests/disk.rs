//! A simulated disk with the memory in front of it, to which a list of stores and syncs is applied.

use std::collections::BTreeMap;

use crate::dict::power_cut_tests::Numbers;
use crate::mapping::trace::{RevertedPage, TraceEvent};

pub(super) const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The bytes of one store within one sector.
struct Store {
    when: usize,
    offset: usize,
    bytes: Vec<u8>,
}

/// The bytes that the disk has, and those that it may have.
pub(super) struct Disk {
    bytes: Vec<u8>,
    pub(super) memory: Vec<u8>,
    /// For each page, the stores since it was clean.
    dirty: BTreeMap<usize, Vec<Store>>,
    /// For each page, the stores whose write failed. They are in memory, and reach the disk with
    /// the next store to their page.
    lost: BTreeMap<usize, Vec<Store>>,
    /// The number of events that were applied.
    moment: usize,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>) -> Disk {
        Disk { memory: bytes.clone(), bytes, dirty: BTreeMap::new(), lost: BTreeMap::new(), moment: 0 }
    }

    /// Extends the file to at least this length.
    pub(super) fn extend(&mut self, len: usize) {
        let len = len.next_multiple_of(PAGE).max(self.bytes.len());
        self.bytes.resize(len, 0);
        self.memory.resize(len, 0);
    }

    /// Applies those events that were not applied before.
    pub(super) fn apply(&mut self, events: &[TraceEvent]) {
        for event in events.get(self.moment..).unwrap_or_default() {
            match event {
                TraceEvent::Stored { offset, bytes } => self.store(*offset, bytes),
                TraceEvent::Synced(range) => {
                    for page in range.start / PAGE..range.end.div_ceil(PAGE) {
                        for Store { offset, bytes, .. } in self.dirty.remove(&page).unwrap_or_default() {
                            self.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                }
                TraceEvent::Failed(pages) => pages.iter().for_each(|lost| self.lose(lost)),
            }
            self.moment += 1;
        }
    }

    fn store(&mut self, mut offset: usize, mut bytes: &[u8]) {
        self.extend(offset + bytes.len());
        self.memory[offset..offset + bytes.len()].copy_from_slice(bytes);
        while !bytes.is_empty() {
            let (here, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
            let page = self.dirty.entry(offset / PAGE).or_default();
            for mut lost in self.lost.remove(&(offset / PAGE)).unwrap_or_default() {
                lost.when = self.moment;
                page.push(lost);
            }
            page.push(Store { when: self.moment, offset, bytes: here.to_vec() });
            offset += here.len();
            bytes = rest;
        }
    }

    fn lose(&mut self, lost: &RevertedPage) {
        let page = lost.offset / PAGE;
        self.bytes[lost.offset..lost.offset + PAGE].copy_from_slice(&lost.on_disk);
        let stores = self.dirty.remove(&page).unwrap_or_default();
        if lost.was_read_again {
            self.memory[lost.offset..lost.offset + PAGE].copy_from_slice(&lost.on_disk);
            self.lost.remove(&page);
        } else {
            self.lost.entry(page).or_default().extend(stores);
        }
    }

    /// Returns a page as the disk may have it: each of its sectors in a state of any moment since
    /// the page was clean.
    fn any_state(&self, stores: &[Store], page: usize, eager: usize, numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = self.bytes[page * PAGE..(page + 1) * PAGE].to_vec();
        let mut until = [0; PAGE / SECTOR];
        let any = |numbers: &mut Numbers| match numbers.below(3 + eager) {
            0 => 0,
            1 => stores[numbers.below(stores.len())].when,
            _ => usize::MAX,
        };
        let whole = any(numbers);
        let torn = numbers.one_in(4);
        until.fill_with(|| if torn { any(numbers) } else { whole });
        for Store { when, offset, bytes: stored } in stores {
            if *when < until[offset % PAGE / SECTOR] {
                bytes[offset % PAGE..offset % PAGE + stored.len()].copy_from_slice(stored);
            }
        }
        bytes
    }

    /// Returns the file as a power cut now may leave it.
    pub(super) fn cut(mut self, numbers: &mut Numbers) -> Vec<u8> {
        let eager = numbers.below(4);
        for (page, stores) in std::mem::take(&mut self.dirty) {
            let bytes = self.any_state(&stores, page, eager, numbers);
            self.bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes);
        }
        self.bytes
    }

    /// Returns the state that a failed sync leaves of each dirty page from `from` on. One in
    /// `again` of them is read again from the disk.
    pub(super) fn fail(&self, from: usize, again: usize, numbers: &mut Numbers) -> Vec<RevertedPage> {
        let eager = numbers.below(4);
        let pages = self.dirty.iter().filter(|(page, _)| **page * PAGE >= from);
        let lost = pages.map(|(page, stores)| RevertedPage {
            offset: page * PAGE,
            on_disk: self.any_state(stores, *page, eager, numbers),
            was_read_again: again != 0 && numbers.one_in(again),
        });
        lost.collect()
    }
}
