//! Large pages in a process that has disabled them, as Ruby does.

use mmf::{ErrorKind, LargePages, Mapping};
use testkit::{Peer, Watchdog, peer};

testkit::peers!(without);

fn without(_: &[&str]) {
    // SAFETY: changes a setting of this process, which ends soon.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }, 0);
    let error = Mapping::options().size(2 << 20).large_pages(LargePages::Require).anonymous().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
    let help = error.help().unwrap();
    assert!(help.contains("PR_SET_THP_DISABLE, 0") && !help.contains("shmem_enabled"), "{error}");
    // Preferred, they are done without.
    drop(Mapping::options().size(2 << 20).large_pages(LargePages::Prefer).anonymous().unwrap());
    peer::say("refused");
}

#[test]
fn a_process_that_has_switched_large_pages_off_is_told_so() {
    let _watchdog = Watchdog::start(testkit::DEADLINE);
    let mut peer = Peer::spawn("without", &[]);
    peer.expect("refused");
    peer.finish();
}
