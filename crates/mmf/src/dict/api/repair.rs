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
    /// Opens a damaged dict, and rebuilds it from all values whose checksums are right. Removed
    /// keys stay removed if a record shows that they were; the report names the keys for which none
    /// does. A dict without damage is not changed.
    ///
    /// It waits up to 10 seconds for its lock. The repair itself has no deadline; its time is
    /// proportional to the length of the file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while other handles for writing have it open; [`ErrorKind::NotASegment`]
    /// if the header is damaged, which a repair cannot rebuild; otherwise those of
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

    /// Repairs the dict of this handle.
    pub(in crate::dict) fn repair_in_place(&self) -> Result<Report> {
        let mut batch = WriteBatch::new();
        let mut writer = WriteSession::lock_without_recovery(self, &mut batch, self.lock_deadline(), "repair")?;
        if self.segment.has_other_participants()? {
            let error = self.segment.name_error(Error::new(ErrorKind::Busy, "repair"));
            return Err(error.with_help("other handles have it open for writing: close them, or end their processes"));
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
            // No deadline: no other handle for writing has the dict open.
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
            // An interrupted repair must not be taken for an interrupted rebuild. No boot's hash
            // has this value.
            self.segment.map.put_word(at::BOOT, NO_BOOT)?;
        }
        // No redo log has this length. So if the repair is interrupted, the next holder of the lock
        // refuses the dict until a repair has finished.
        self.segment.map.put_word(at::REDO_LEN, REPAIRING)?;
        if self.is_file() {
            sync_mark::sync_or_mark(map, at::REDO_LEN..at::REDO_LEN + 8, map.word(at::DURABLE)?)?;
        }
        // If the file ends within a span, the valid records of that span are kept.
        let spans =
            map.len().saturating_sub(self.layout.first_span).div_ceil(self.layout.span_size()).min(self.layout.spans);
        if map.len() < self.layout.span(spans) {
            map.grow(self.layout.span(spans))?;
        }
        report.entries = Rebuild::new(self, ScanScope::AllBlocks)?.run(&retired, &mut report)?;
        writer.set_changed();
        Ok(report)
    }

    /// Returns the pending records: a newer change has replaced them, but they are still valid.
    fn retired(&self, report: &mut Report) -> Superseded {
        let storage = self.storage();
        // The smallest block has 48 bytes.
        let most = self.segment.map.len() / 48;
        let mut blocks = Vec::new();
        let mut walk = || {
            let mut block = number(self.segment.map.word(at::PENDING)?);
            while block != 0 {
                storage.blocks().block(&WriteBatch::new(), block)?;
                if blocks.len() > most {
                    return Err(storage.damaged("the list of pending records has no end"));
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
