//! After a power cut, and after damage: the dict is made anew from those records that are whole.
//!
//! See [`durable`](super::durable) for what there is to be found. Whoever opens the dict for writing first in another boot
//! of the machine looks for it, unless nothing had changed since the last flush.

use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64;

use super::durable::CLEAN;
use super::heap::LINK;
use super::plan;
use super::rebuild::{Rebuild, Retired};
use super::report::Report;
use super::shape::{at, number};
use super::survey::Trust;
use super::sync_mark;
use super::write::Writer;
use super::{Dict, DictOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Source;
use crate::spec::Access;
use crate::sys;

/// What tells this boot from others; not 0. The machine is left out, since containers that share one boot, and a file, may each have
/// an id of their own for it.
pub(super) fn this_boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| xxh3_64(&sys::boot().boot).max(1))
}

impl Dict {
    pub(super) fn is_file(&self) -> bool {
        matches!(self.segment.map.source(), Some(Source::File(_)))
    }

    /// Whether what is there can be gone by: it was written in this boot, or nothing had changed since it was flushed.
    pub(super) fn is_trusted(&self) -> Result<bool> {
        let boot = self.segment.map.word(at::BOOT)?;
        if boot == 0 || boot == this_boot() || !self.is_file() {
            return Ok(true);
        }
        Ok(self.segment.map.word(at::DURABLE)? & CLEAN != 0)
    }

    /// Opens a dict that is damaged, and makes it anew from all that is whole: values whose checksums are right. What was
    /// removed stays removed as far as anything left tells so; the report names the keys of which nothing does. A dict
    /// without damage is left as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while other handles for writing have it open;
    /// [`ErrorKind::NotASegment`] where the header is damaged, without which nothing can be made of the rest; otherwise as
    /// [`DictOptions::open`] and [`check`](Dict::check).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::Dict;
    ///
    /// let path = std::env::temp_dir().join(format!("repair-{}", std::process::id()));
    /// let dict = Dict::create_new(path.as_path(), 1 << 20)?;
    /// dict.set("colour", "green")?;
    /// drop(dict);
    ///
    /// let report = Dict::repair(path.as_path())?;
    /// assert!(report.is_whole());
    /// assert_eq!(report.entries, 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn repair(source: impl Into<Source>) -> Result<Report> {
        let source = source.into();
        let repair = || {
            let dict = DictOptions::new().open_as_it_is(&source)?;
            dict.repair_it()
        };
        repair().map_err(|error: Error| error.on(&source))
    }

    pub(super) fn repair_it(&self) -> Result<Report> {
        let mut plan = plan::Plan::new();
        let mut writer = Writer::take(self, &mut plan, self.usual(), "repair")?;
        if self.segment.has_others()? {
            let error = self.segment.name_it(Error::new(ErrorKind::Busy, "repair"));
            return Err(error.with_help("others have it open for writing; close it there, or end them"));
        }
        let map = &self.segment.map;
        let mut report = Report::default();
        if map.len() < self.shape.heap {
            report.add(None, Some(map.len()), "it ends here, before its first span");
            map.grow(self.shape.heap)?;
        }
        let stands = self.is_file() && sync_mark::stands(map)?;
        if stands {
            sync_mark::write_anew(map)?;
        }
        let trusted = self.is_trusted()?;
        let mut retired = Retired::Unknown;
        if trusted {
            if let Err(error) = plan::finish(map, &self.shape) {
                report.add(None, Some(at::JOURNAL), error.kind().to_string());
            }
            self.check_now(&mut report)?;
            if report.is_whole() {
                if stands {
                    writer.begin()?;
                    writer.flush()?;
                }
                return Ok(report);
            }
            retired = self.retired(&mut report);
        }
        // Cut off, it must not be taken for whole: no journal is that long, so whoever takes the lock refuses it until a repair
        // is done.
        self.segment.map.put_word(at::JOURNAL, plan::REPAIR)?;
        if self.is_file() {
            sync_mark::sync_or_mark(map, at::JOURNAL..at::JOURNAL + 8, map.word(at::DURABLE)?)?;
        }
        // What is whole in a span that the end cuts through is kept.
        let spans = map.len().saturating_sub(self.shape.heap).div_ceil(self.shape.span_size()).min(self.shape.spans);
        if map.len() < self.shape.span(spans) {
            map.grow(self.shape.span(spans))?;
        }
        report.entries = Rebuild::new(self, Trust::Nothing)?.run(&retired, &mut report)?;
        writer.has_changed();
        Ok(report)
    }

    /// Records that are kept though something newer has taken their place, by the lists of them.
    fn retired(&self, report: &mut Report) -> Retired {
        let heap = self.heap();
        // More do not fit.
        let most = self.segment.map.len() / 48;
        let mut blocks = Vec::new();
        let mut walk = || {
            let mut block = number(self.segment.map.word(at::PENDING)?);
            while block != 0 {
                heap.block(&plan::Plan::new(), block)?;
                if blocks.len() > most {
                    return Err(heap.damaged("the list of what is pending has no end"));
                }
                blocks.push(block);
                block = number(self.segment.map.word(block + LINK)?);
            }
            Ok(())
        };
        let outcome: Result<()> = walk();
        if let Err(error) = outcome {
            report.add(None, Some(at::PENDING), error.kind().to_string());
        }
        blocks.sort_unstable();
        Retired::Known(blocks)
    }
}

/// Sees to it that a dict that was just opened can be used: after a power cut it is made anew.
pub(super) fn after_power_cut(dict: &Dict) -> Result<()> {
    let map = &dict.segment.map;
    let boot = map.word(at::BOOT)?;
    if boot == 0 || boot == this_boot() {
        return Ok(());
    }
    another_boot(dict)
}

#[cold]
fn another_boot(dict: &Dict) -> Result<()> {
    let map = &dict.segment.map;
    if map.access() != Access::ReadWrite {
        dict.heap().refuse_half_repaired()?;
        if dict.is_trusted()? {
            return Ok(());
        }
        let reason = "the machine stopped before its last changes were on the disk".to_owned();
        let error = map.name_it(Error::new(ErrorKind::Damaged { reason }, "open"));
        return Err(error.with_help("open it once for writing, or run `mmf repair`"));
    }
    let mut plan = plan::Plan::new();
    let _writer = Writer::take(dict, &mut plan, dict.usual(), "recover")?;
    // Somebody else may have come first.
    if map.word(at::BOOT)? == this_boot() {
        return Ok(());
    }
    dict.heap().refuse_half_repaired()?;
    if dict.is_trusted()? {
        return map.put_word(at::BOOT, this_boot());
    }
    Rebuild::new(dict, Trust::Table)?.run(&Retired::Unknown, &mut Report::default()).map(drop)
}
