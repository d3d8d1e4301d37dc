//! Ruby's Marshal data as a hostile peer may write it: read or refused, and what was read is written as something that is
//! read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use win32_mmap_store::marshal;

fuzz_target!(|bytes: &[u8]| {
    // With its head, so that the fuzzer need not find it.
    let Ok(tree) = marshal::read([&[4, 8], bytes].concat()) else { return };
    assert!(tree.byte_len() <= bytes.len() + 2);
    let _ = tree.get(b"key");
    if let Ok(written) = marshal::single(&tree) {
        let again = marshal::read(written.clone()).expect("it was written here");
        assert_eq!(marshal::single(&again).expect("it is no deeper"), written);
    }
    if let Ok(written) = marshal::assign(Some(&tree), b"key", &tree) {
        let hash = marshal::read(written).expect("it was written here");
        assert!(hash.get(b"key").is_some());
    }
});
