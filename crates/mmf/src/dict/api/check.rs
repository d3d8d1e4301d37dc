//! [`Dict::check`].

use crate::dict::format::layout::at;
use crate::dict::read::scan::Scanner;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::read_session::ReadSession;
use crate::dict::write::session::WriteSession;
use crate::dict::{Dict, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::retry::Attempts;
use crate::types::Access;

impl Dict {
    /// Verifies every value's checksum, and compares index, records and spans with each other.
    /// Writers wait meanwhile. A read-only handle starts again if a writer changed something.
    ///
    /// It waits for the lock up to the handle's timeout, and then works for the same time again, at
    /// least 50 ms. It reads each byte at most 8 times.
    ///
    /// The report names all damage that it finds. A dict that is too damaged to open is an error of
    /// the call that opens it; [`repair`](Dict::repair) reports its damage.
    ///
    /// # Errors
    ///
    /// Those of [`entries`](Dict::entries), but not [`ErrorKind::Damaged`];
    /// [`ErrorKind::Timeout`] also if the check takes longer than allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("checked-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("colour", "green")?;
    /// let report = dict.check()?;
    /// for problem in &report.problems {
    ///     println!("{problem}");
    /// }
    /// assert!(report.is_whole());
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn check(&self) -> Result<Report> {
        let mut report = Report::default();
        if self.segment.map.access() == Access::ReadWrite {
            return match ReadSession::lock(self, self.lock_deadline()) {
                Ok(_reader) => self.check_now(&mut report, self.work_deadline()).map(|()| report),
                Err(error) if matches!(error.kind(), ErrorKind::Damaged { .. }) => {
                    let mut batch = WriteBatch::new();
                    let _writer = WriteSession::lock_without_recovery(self, &mut batch, self.lock_deadline(), "check")?;
                    report.add(None, Some(at::REDO_LEN), error.kind().to_string());
                    self.check_now(&mut report, self.work_deadline()).map(|()| report)
                }
                Err(error) => Err(error),
            };
        }
        let mut attempts = Attempts::new(self.lock_deadline());
        let until = self.work_deadline().resolve();
        loop {
            let before = Scanner::new(&self.storage()).generation()?;
            report = Report::default();
            let (mut outcome, mut abandoned) = (Ok(()), false);
            if before.is_repair_incomplete() {
                report.add(None, Some(at::REDO_LEN), "a repair is under way, or was cut off");
                return Ok(report);
            }
            if before.is_changing() {
                // The writer's liveness is checked before the generation is compared.
                abandoned = self.has_no_writer()?;
                report.add(None, Some(at::REDO_LEN), "a change was interrupted; the next writer completes it");
            } else {
                outcome = self.check_now(&mut report, until);
            }
            crate::sys::fence(std::sync::atomic::Ordering::Acquire);
            // This comes before an error is reported, too.
            let still = Scanner::new(&self.storage()).generation()? == before;
            if still && (abandoned || !before.is_changing()) {
                return outcome.map(|()| report);
            }
            if !attempts.pause(!still) {
                if still {
                    return Ok(report);
                }
                return Err(self.segment.name_error(Error::new(ErrorKind::Contended, "check")));
            }
        }
    }

    /// Returns whether no living process holds the write lock, so that a half-made change stays
    /// until the next writer.
    fn has_no_writer(&self) -> Result<bool> {
        let writer = self.segment.or_fault(self.segment.lock.writer(), "check")?;
        writer.map_or(Ok(true), |slot| Ok(!self.segment.is_alive(slot)?))
    }
}
