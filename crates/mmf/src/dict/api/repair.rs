//! [`Dict::repair`].

use crate::dict::format::layout::{at, number};
use crate::dict::format::marks::{NO_BOOT, RECOVERING, REPAIRING};
use crate::dict::format::span::NEXT_FREE;
use crate::dict::recovery::rebuild::{Rebuild, Superseded};
use crate::dict::recovery::record_scan::ScanScope;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::store::{redo_log, sync_mark};
use crate::dict::write::flush::Flush;
use crate::dict::write::session::WriteSession;
use crate::dict::{Dict, DictOptions, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Source;
use crate::segment::Deadline;

impl Dict {
    /// Opens a dict that is damaged, and makes it anew from all that is whole: values whose checksums are right. What was
    /// removed stays removed as far as anything left tells so; the report names the keys of which nothing does. A dict
    /// without damage is left as it is.
    ///
    /// It waits for its lock up to 10 seconds, and takes as long as it takes to read the file a few
    /// times and to write it: it has no deadline.
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
        DictOptions::new().repair(source)
    }

    pub(in crate::dict) fn repair_in_place(&self) -> Result<Report> {
        let mut batch = WriteBatch::new();
        let mut writer = WriteSession::lock_without_recovery(self, &mut batch, self.lock_deadline(), "repair")?;
        if self.segment.has_other_participants()? {
            let error = self.segment.name_error(Error::new(ErrorKind::Busy, "repair"));
            return Err(error.with_help("others have it open for writing; close it there, or end them"));
        }
        let map = &self.segment.map;
        let mut report = Report::default();
        if map.len() < self.layout.first_span {
            report.add(None, Some(map.len()), "it ends here, before its first span");
            map.grow(self.layout.first_span)?;
        }
        let stands = self.is_file() && sync_mark::stands(map)?;
        if stands {
            sync_mark::write_anew(map)?;
        }
        let trusted = self.is_trusted()?;
        let mut retired = Superseded::Unknown;
        if trusted {
            if let Err(error) = redo_log::replay(map, &self.layout) {
                report.add(None, Some(at::REDO_LEN), error.kind().to_string());
            }
            // However long it takes: others have it not open.
            self.check_now(&mut report, Deadline::Never)?;
            if report.is_whole() {
                if stands {
                    writer.recover()?;
                    Flush::new(&mut writer).flush_until(Deadline::Never)?;
                }
                return Ok(report);
            }
            retired = self.retired(&mut report);
        }
        if self.segment.map.word(at::BOOT)? == RECOVERING {
            // A repair that is cut off must not be taken for a rebuild that was. No boot has this
            // number.
            self.segment.map.put_word(at::BOOT, NO_BOOT)?;
        }
        // If the repair is cut off, the dict must not be taken for whole. No redo log has this
        // length, so the next holder of the lock refuses the dict until a repair has finished.
        self.segment.map.put_word(at::REDO_LEN, REPAIRING)?;
        if self.is_file() {
            sync_mark::sync_or_mark(map, at::REDO_LEN..at::REDO_LEN + 8, map.word(at::DURABLE)?)?;
        }
        // What is whole in a span that the end cuts through is kept.
        let spans =
            map.len().saturating_sub(self.layout.first_span).div_ceil(self.layout.span_size()).min(self.layout.spans);
        if map.len() < self.layout.span(spans) {
            map.grow(self.layout.span(spans))?;
        }
        report.entries = Rebuild::new(self, ScanScope::AllBlocks)?.run(&retired, &mut report)?;
        writer.set_changed();
        Ok(report)
    }

    /// Records that are kept though something newer has taken their place, by the lists of them.
    fn retired(&self, report: &mut Report) -> Superseded {
        let storage = self.storage();
        // More do not fit.
        let most = self.segment.map.len() / 48;
        let mut blocks = Vec::new();
        let mut walk = || {
            let mut block = number(self.segment.map.word(at::PENDING)?);
            while block != 0 {
                storage.blocks().block(&WriteBatch::new(), block)?;
                if blocks.len() > most {
                    return Err(storage.damaged("the list of what is pending has no end"));
                }
                blocks.push(block);
                block = number(self.segment.map.word(block + NEXT_FREE)?);
            }
            Ok(())
        };
        let outcome: Result<()> = walk();
        if let Err(error) = outcome {
            report.add(None, Some(at::PENDING), error.kind().to_string());
        }
        blocks.sort_unstable();
        Superseded::Known(blocks)
    }
}
