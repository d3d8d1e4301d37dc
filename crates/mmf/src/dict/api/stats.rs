//! [`Dict::stats`]: the figures of a dict.

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::slot::bucket_count;
use crate::dict::format::span::SpanState;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::{Dict, Stats};
use crate::error::Result;

impl Dict {
    /// Returns the number of keys, the use of space, and the number of participants.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("figures-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("colour", "green")?;
    /// let stats = dict.stats()?;
    /// assert_eq!((stats.entries, stats.participants), (1, 1));
    /// assert!(stats.free < stats.capacity);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        let (map, layout) = (&self.segment.map, &self.layout);
        let storage = self.storage();
        let size = layout.span_size() as u64;
        // Peer processes may have grown the object.
        map.refresh()?;
        let taken = number(map.word(at::USED)?).min(storage.spans().mapped_spans());
        let (mut records, mut in_records, mut parts, mut index) = (0_u64, 0_u64, 0_u64, 0_u64);
        for span in 0..taken {
            let SpanState { class, live, .. } = storage.spans().state(&WriteBatch::new(), span)?;
            match class::size(class) {
                Some(block) if class <= class::LAST => {
                    records += 1;
                    in_records += live.min(size) * block as u64;
                }
                _ if class == class::PART => parts += 1,
                _ if class != class::FREE => index += 1,
                _ => {}
            }
        }
        // A freed part keeps its class; the parts in the list of free spans are free.
        let free_parts = storage.spans().free_parts()?.min(parts);
        let spans_taken = records + index + parts - free_parts;
        let durable = map.word(at::DURABLE)?;
        let idle = (records * size).saturating_sub(in_records);
        Ok(Stats {
            entries: map.word(at::LEN)?,
            capacity: self.capacity(),
            used: in_records.min(records * size) + (parts - free_parts) * size,
            free: (layout.spans as u64).saturating_sub(spans_taken) * size,
            pending: map.word(at::PENDING_BYTES)?,
            idle,
            #[allow(clippy::cast_precision_loss, reason = "a share for people")]
            fragmentation: idle as f64 / (layout.spans as u64 * size).max(1) as f64,
            span_size: size,
            spans: layout.spans as u64,
            spans_taken,
            buckets: bucket_count(map.word(at::BUCKETS)?),
            version: map.word(at::COMMIT)?,
            flushed: map.word(at::FLUSHED)?,
            unflushed: durable & crate::dict::format::marks::CLEAN == 0,
            participants: self.participants()?,
        })
    }

    /// Returns the number of living participants. A dead one keeps its slot until a waiter clears
    /// it.
    fn participants(&self) -> Result<u64> {
        let segment = &self.segment;
        let mut living = 0;
        for slot in segment.or_fault(segment.lock.readers().occupied(), "examine")? {
            living += u64::from(segment.is_alive(slot)?);
        }
        Ok(living)
    }
}
