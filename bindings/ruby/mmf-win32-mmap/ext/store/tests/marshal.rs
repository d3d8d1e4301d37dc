//! The Marshal reader and writer: against another implementation, and against bytes that nobody should have written.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use alox_48::{Instance, RbFields, Symbol, Value};
use proptest::prelude::*;
use win32_mmap_store::marshal::{self, Encoding, Error, MAX_DEPTH, Node, NodeId, Tree};

/// A value that stands for the same as a node, in the words of the other implementation.
fn same(tree: &Tree, id: NodeId, value: &Value) -> bool {
    let string = |id| match tree.node(id) {
        Node::Str(text) => (tree.bytes(text.bytes).to_vec(), text.encoding),
        other => panic!("{other:?}"),
    };
    match (tree.node(id), value) {
        (Node::Nil, Value::Nil) => true,
        (Node::True, Value::Bool(true)) | (Node::False, Value::Bool(false)) => true,
        (Node::Int(ours), Value::Fixnum(theirs)) => ours == i64::from(i32::from(*theirs)),
        (Node::Float(_), Value::Float(theirs)) => {
            let ours = tree.float(id).unwrap();
            ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan())
        }
        (Node::Str(_), Value::String(theirs)) => string(id) == (theirs.data.to_vec(), Encoding::Binary),
        (Node::Str(_), Value::Instance(theirs)) => match &*theirs.value {
            Value::String(theirs) => string(id) == (theirs.data.to_vec(), Encoding::Utf8),
            other => panic!("{other:?}"),
        },
        (Node::Symbol(number), Value::Symbol(theirs)) => {
            tree.bytes(tree.symbol(number).bytes) == theirs.as_str().as_bytes()
        }
        (Node::Array(items), Value::Array(theirs)) => {
            let items = tree.children(items);
            items.len() == theirs.len() && items.iter().zip(theirs).all(|(ours, theirs)| same(tree, *ours, theirs))
        }
        (Node::Hash { items, .. }, Value::Hash(theirs)) => {
            let items = tree.children(items);
            items.len() == theirs.len() * 2
                && items
                    .chunks(2)
                    .zip(theirs)
                    .all(|(ours, (key, value))| same(tree, ours[0], key) && same(tree, ours[1], value))
        }
        _ => false,
    }
}

fn text(text: &str) -> Value {
    let mut fields = RbFields::default();
    fields.insert("E".into(), Value::Bool(true));
    Value::Instance(Instance { value: Box::new(Value::String(text.as_bytes().into())), fields })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        (-(1 << 30)..1 << 30).prop_map(|number: i32| Value::Fixnum(number.try_into().unwrap())),
        (-300..300).prop_map(|number: i32| Value::Fixnum(number.try_into().unwrap())),
        any::<f64>().prop_map(Value::Float),
        "\\PC{0,12}".prop_map(|string| text(&string)),
        "[a-z]{1,5}".prop_map(|name| Value::Symbol(Symbol::from(name))),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec(("[a-z]{1,5}", inner), 0..8)
                .prop_map(|pairs| Value::Hash(pairs.into_iter().map(|(key, value)| (text(&key), value)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_another_implementation_writes_is_read_as_it_was_meant(value in values()) {
        let bytes = alox_48::to_bytes(&value).unwrap();
        let tree = marshal::read(bytes.clone()).unwrap();
        prop_assert_eq!(tree.byte_len(), bytes.len());
        prop_assert!(same(&tree, tree.root(), &value));
        // And back: the other one reads the same of what we write.
        let again: Value = alox_48::from_bytes(&marshal::single(&tree).unwrap()).unwrap();
        prop_assert!(same(&tree, tree.root(), &again));
    }

    #[test]
    fn an_attribute_is_set_and_all_others_stay(
        pairs in prop::collection::btree_map("[a-z]{1,3}", values(), 0..6),
        key in "[a-z]{1,3}",
        value in values(),
    ) {
        let hash = Value::Hash(pairs.iter().map(|(key, value)| (text(key), value.clone())).collect());
        let hash = marshal::read(alox_48::to_bytes(&hash).unwrap()).unwrap();
        let new = marshal::read(alox_48::to_bytes(&value).unwrap()).unwrap();
        let tree = marshal::read(marshal::assign(Some(&hash), key.as_bytes(), &new).unwrap()).unwrap();
        prop_assert!(same(&tree, tree.get(key.as_bytes()).unwrap(), &value));
        for (name, value) in pairs.iter().filter(|(name, _)| **name != key) {
            prop_assert!(same(&tree, tree.get(name.as_bytes()).unwrap(), value));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut document = vec![4, 8];
        document.extend(bytes);
        walk(document);
    }

    #[test]
    fn bytes_with_damage_are_read_or_refused(value in values(), damage in prop::collection::vec(any::<(u16, u8)>(), 1..6)) {
        let mut bytes = alox_48::to_bytes(&value).unwrap();
        for (at, byte) in damage {
            let at = usize::from(at) % bytes.len();
            // The tags themselves now and then, which arbitrary bytes seldom are.
            bytes[at] = if byte % 2 == 0 { byte } else { b"0TFilf\"I:;@[{}oCSuUe"[usize::from(byte) / 2 % 20] };
        }
        walk(bytes);
    }
}

/// Does all that is done with what was read.
fn walk(bytes: Vec<u8>) {
    let len = bytes.len();
    let Ok(tree) = marshal::read(bytes) else { return };
    assert!(tree.byte_len() <= len);
    // What is written is read again, as the same.
    if let Ok(bytes) = marshal::single(&tree) {
        let again = marshal::read(bytes.clone()).unwrap();
        assert_eq!(marshal::single(&again).unwrap(), bytes);
    }
    let _ = marshal::assign(Some(&tree), b"key", &tree);
}

fn read(bytes: &[u8]) -> Result<Tree, Error> {
    marshal::read([&[4, 8], bytes].concat())
}

#[test]
fn lengths_that_nobody_has_bytes_for_cost_no_memory() {
    // Each says that two thousand million children follow.
    for tag in [b"[", b"{", b"}", b"\"", b":", b"f", b"l"] {
        let bytes = [tag.as_slice(), &[4, 0xff, 0xff, 0xff, 0x7f], &[b'0'; 64]].concat();
        assert!(matches!(read(&bytes), Err(Error::Truncated | Error::Malformed { .. })), "{tag:?}");
    }
    // Each array within the other claims all the bytes that are left: only one can have them.
    let mut bytes = Vec::new();
    for left in (0..200).rev() {
        bytes.extend([b'[', 2, u8::try_from(left).unwrap(), 1]);
    }
    bytes.resize(bytes.len() + 300, b'0');
    assert_eq!(read(&bytes).err(), Some(Error::Truncated));
}

#[test]
fn lengths_below_zero_are_refused() {
    for tag in [b"[".as_slice(), b"{", b"\"", b":", b"f", b"l+", b"I\"", b"@", b";"] {
        let bytes = [tag, &[0xfa], &[b'0'; 8]].concat();
        assert!(matches!(read(&bytes), Err(Error::Malformed { .. })), "{tag:?}");
    }
}

#[test]
fn nesting_ends_before_a_stack_does() {
    let nested = |depth: usize| [[b'[', 6].repeat(depth), b"0".to_vec()].concat();
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(&nested(MAX_DEPTH + 1)).err(), Some(Error::TooDeep));
    assert_eq!(read(&nested(1_000_000)).err(), Some(Error::TooDeep));
    // What fits alone does not within the hash, and is not written as what would not be read.
    let value = read(&nested(MAX_DEPTH)).unwrap();
    assert_eq!(marshal::assign(None, b"deep", &value), Err(Error::TooDeep));
    let value = read(&nested(MAX_DEPTH - 1)).unwrap();
    assert!(marshal::read(marshal::assign(None, b"deep", &value).unwrap()).is_ok());
}

#[test]
fn links_lead_to_what_came_before_and_nowhere_else() {
    for bytes in [b"@\x00".as_slice(), b"[\x06@\x06", b";\x00", b"[\x07:\x06a;\x06", b"I\"\x06a\x06;\x00T"] {
        assert!(matches!(read(bytes), Err(Error::Malformed { .. })), "{bytes:?}");
    }
    // An array that holds itself.
    let tree = read(b"[\x06@\x00").unwrap();
    assert_eq!(marshal::single(&tree).unwrap(), b"\x04\x08[\x06@\x00");
    // A range cannot.
    let range = b"o:\nRange\x08:\x09exclF:\nbegin@\x00:\x08end0";
    assert!(matches!(read(range), Err(Error::Malformed { .. })));
}

#[test]
fn objects_of_classes_are_refused_by_name() {
    let refused: [(&[u8], &str); 9] = [
        (b"o:\x0bObject\x00", "Object"),
        (b"u:\x09Time\x0d12345678", "Time"),
        (b"U:\x08Foo0", "Foo"),
        (b"S:\x08Bar\x00", "Bar"),
        (b"C:\x08Sub\"\x06a", "Sub"),
        (b"e:\x08Mod\"\x06a", "Mod"),
        (b"c\x0bString", "class"),
        (b"I/\x06a\x00\x06:\x06EF", "regular expression"),
        (b"I\"\x06a\x06:\x07@bi\x06", "instance variables"),
    ];
    for (bytes, name) in refused {
        match read(bytes) {
            Err(Error::Refused { what }) => assert!(what.contains(name), "{what}"),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}
