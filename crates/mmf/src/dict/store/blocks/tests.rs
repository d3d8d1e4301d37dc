use super::*;
use crate::dict::Dict;
use crate::dict::format::span::{SPAN_LINKS, encode_span};
use crate::error::ErrorKind;
use crate::name::Name;

/// The size of a span of the smallest dict, in bytes.
const SPAN: usize = 4096;

/// Returns a dict whose list of free spans has `count` spans, with these spans in the list's order.
fn with_free_spans(name: &str, count: usize) -> (Dict, Vec<usize>) {
    let name = Name::local(format!("heap {name} {}", std::process::id())).unwrap();
    let dict = Dict::create_new(name, 1 << 20).unwrap();
    dict.set_bytes("stays", b"value").unwrap();
    dict.set_bytes("large", &vec![7; count * SPAN]).unwrap();
    dict.remove("large").unwrap();
    let storage = dict.storage();
    assert_eq!(storage.layout.span_size(), SPAN);
    let first = number(storage.map.word(at::FREE).unwrap()).checked_sub(1);
    let next = |span: &usize| storage.spans().links(&WriteBatch::new(), *span).unwrap().0;
    let spans: Vec<usize> = std::iter::successors(first, next).collect();
    assert!(spans.len() >= count, "{spans:?}");
    (dict, spans)
}

/// Stores a forged link.
fn link(dict: &Dict, from: usize, to: usize) {
    let storage = dict.storage();
    storage.map.put_word(storage.layout.entry(from) + SPAN_LINKS, encode_span(Some(to))).unwrap();
}

#[track_caller]
fn assert_damaged<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
}

#[test]
fn a_cycle_in_the_list_of_free_spans_is_damage_and_no_value_takes_a_span_twice() {
    // More spans than `named_twice` compares in pairs, and fewer.
    for count in [5, 40] {
        // The position at which the cycle begins, and its length.
        for (begin, length) in [(0, 1), (0, 2), (2, 1), (1, 3), (0, count)] {
            let (dict, spans) = with_free_spans(&format!("cycle {count} {begin} {length}"), count);
            link(&dict, spans[begin + length - 1], spans[begin]);
            let used = dict.storage().map.word(at::USED).unwrap();
            // Two counts that the list would satisfy without the cycle, and one above all spans.
            for parts in [begin + length + 1, spans.len() + 1, dict.storage().layout.spans / 4] {
                assert_damaged(dict.set_bytes("new", &vec![9; parts * SPAN]));
                assert_eq!(dict.get_bytes("new").unwrap(), None);
            }
            assert_eq!(dict.storage().map.word(at::USED).unwrap(), used);
            assert_eq!(dict.get_bytes("stays").unwrap().unwrap(), b"value");
        }
    }
}

#[test]
fn a_list_of_free_spans_that_leads_to_what_was_never_taken_is_damage() {
    let (dict, spans) = with_free_spans("unused", 3);
    let used = number(dict.storage().map.word(at::USED).unwrap());
    link(&dict, spans[1], used + 1);
    for parts in [3, spans.len() + 1] {
        assert_damaged(dict.set_bytes("new", &vec![9; parts * SPAN]));
    }
    dict.storage().map.put_word(at::FREE, encode_span(Some(used))).unwrap();
    assert_damaged(dict.set_bytes("new", &[9; SPAN]));
    assert_damaged(dict.set_bytes("of another class", &[9; 300]));
    assert_eq!(dict.get_bytes("stays").unwrap().unwrap(), b"value");
}
