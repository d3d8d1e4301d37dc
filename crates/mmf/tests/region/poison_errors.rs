//! The error of a poisoned region names the region and the remedy.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mmf::{Access, Error, ErrorKind, LockError, Name, Region, Source};
use testkit::{TempDir, unique_name};

fn poison(region: &Region) {
    let panics = || {
        let mut guard = region.write().unwrap();
        guard.write_at(0, b"half").unwrap();
        panic!("in the middle of a change");
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
}

#[test]
fn a_poison_error_names_the_region_and_says_what_to_do() {
    let dir = TempDir::new();
    let named = Name::local(unique_name("poisoned")).unwrap();
    for source in [Source::from(named), Source::from(dir.join("poisoned"))] {
        let region = Region::create_new(source.clone(), 4096).unwrap();
        let reader = Region::options().access(Access::ReadOnly).open(source.clone()).unwrap();
        poison(&region);
        let check = |error: Error| {
            assert_eq!(*error.kind(), ErrorKind::Poisoned);
            let text = error.to_string();
            assert!(text.contains(&source.to_string()), "{text}");
            assert!(text.contains("clear the poison"), "{text}");
        };
        let failed = region.read().err().unwrap();
        assert!(failed.to_string().contains(&source.to_string()), "{failed}");
        check(failed.into());
        let failed = region.write().err().unwrap();
        assert!(matches!(failed, LockError::Poisoned(_)));
        check(failed.into());
        check(reader.to_vec().unwrap_err());
    }
}
