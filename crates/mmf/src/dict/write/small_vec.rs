//! [`SmallVec`]: a list whose first item needs no allocation, since most changes have one key.

/// A vector whose first item needs no allocation.
pub(in crate::dict) struct SmallVec<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<T: Copy> SmallVec<T> {
    #[inline]
    pub(in crate::dict) fn new() -> SmallVec<T> {
        SmallVec { first: None, more: Vec::new() }
    }

    #[inline]
    pub(in crate::dict) fn with_room_for(items: usize) -> SmallVec<T> {
        SmallVec { first: None, more: Vec::with_capacity(items.saturating_sub(1)) }
    }

    #[inline]
    pub(in crate::dict) fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.more.push(item),
        }
    }

    #[inline]
    pub(in crate::dict) fn iter(&self) -> impl Iterator<Item = T> {
        self.first.iter().chain(&self.more).copied()
    }
}
