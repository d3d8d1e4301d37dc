//! One dict through several handles: each learns of the changes of the others from shared memory
//! alone.

use mmf::{Access, Dict, ErrorKind, Mapping, Name};
use testkit::{TempDir, unique_name};

fn name(what: &str) -> Name {
    Name::local(unique_name(what)).unwrap()
}

#[test]
fn what_another_handle_put_where_this_one_never_was_is_found_and_replaced() {
    let ours = Dict::create_new(name("beyond"), 8 << 20).unwrap();
    let open = || Dict::open(ours.source().unwrap().clone()).unwrap();
    ours.set_bytes("first", &[0; 10]).unwrap();
    let handles: Vec<Dict> = (0..4).map(|_| open()).collect();
    // Few, so that the index stays where everybody has been.
    for n in 0..60 {
        ours.set_bytes(&format!("{n}"), &[7; 7000]).unwrap();
    }
    assert!(handles[0].remove("58").unwrap());
    handles[1].set_bytes("59", &[8; 400]).unwrap();
    assert!(!handles[2].insert_bytes_if_absent("57", &[9; 400]).unwrap());
    // Splits buckets, for which it looks at all keys in them.
    for n in 0..300 {
        handles[3].set_bytes(&format!("more {n}"), &[1; 10]).unwrap();
    }
    assert_eq!(ours.get_bytes("59").unwrap().unwrap(), [8; 400]);
    assert_eq!(ours.get_bytes("58").unwrap(), None);
    assert_eq!(ours.len().unwrap(), 360);
    assert_eq!(ours.entries().unwrap().len(), 360);
}

#[test]
fn a_reader_that_was_there_before_sees_what_came_behind_its_end() {
    let dir = TempDir::new();
    let ours = Dict::create_new(dir.join("grown"), 8 << 20).unwrap();
    let reader = Dict::options().access(Access::ReadOnly).open(dir.join("grown")).unwrap();
    let value = vec![5; 1 << 20];
    ours.set_bytes("large", &value).unwrap();
    for n in 0..3000 {
        ours.set_bytes(&format!("{n}"), &[7; 400]).unwrap();
    }
    assert_eq!(reader.entries().unwrap().len(), 3001);
    assert!(reader.get_bytes("large").unwrap() == Some(value));
}

/// Words of a dict, as the format says.
const COMMIT: usize = 20480;
const LEN: usize = COMMIT + 64;
const PENDING_BYTES: usize = COMMIT + 296;

#[test]
fn wrong_numbers_end_no_call_in_a_panic_or_never() {
    let dir = TempDir::new();
    for (word, number) in [(COMMIT, u64::MAX), (LEN, u64::MAX), (PENDING_BYTES, u64::MAX), (PENDING_BYTES, 8)] {
        let path = dir.join(format!("{word} {number}"));
        let dict = Dict::create_new(&path, 1 << 20).unwrap();
        dict.set_bytes("first", &[1; 100]).unwrap();
        dict.flush().unwrap();
        Mapping::open(&path).unwrap().write_at(word, &number.to_le_bytes()).unwrap();
        let mut error = None;
        for n in 0..3000 {
            if let Err(refused) = dict.set_bytes(&format!("{n}"), &[2; 500]) {
                error = Some(refused);
                break;
            }
        }
        let error = error.expect("no dict of a megabyte has room for more");
        assert!(matches!(error.kind(), ErrorKind::Full | ErrorKind::Damaged { .. }), "{word}: {error}");
        assert_eq!(dict.get_bytes("first").unwrap().unwrap(), [1; 100]);
    }
}
