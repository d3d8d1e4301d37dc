//! A [`Tree`] to bytes, as Ruby writes it.

use std::collections::HashMap;

use super::{Encoding, Error, MAX_DEPTH, Node, NodeId, Text, Tree};

/// The hash with one attribute set: in its place where it is there already, else at the end, as in Ruby.
///
/// # Errors
///
/// [`Error::TooDeep`].
pub fn assign(hash: Option<&Tree>, key: &[u8], value: &Tree) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    // The hash itself has the first number that a link can name.
    writer.count = 1;
    let Some((tree, Node::Hash { items, with_default })) = hash.map(|tree| (tree, tree.node(tree.root()))) else {
        writer.out.push(b'{');
        writer.long(1);
        writer.attribute(key, value)?;
        return Ok(writer.out);
    };
    writer.seen.insert((BASE, tree.root()), 0);
    let pairs = tree.children(items).chunks_exact(2);
    let at = pairs.clone().rposition(|pair| tree.is_key(pair[0], key));
    let default = pairs.remainder().first().filter(|_| with_default);
    writer.out.push(if with_default { b'}' } else { b'{' });
    writer.long(pairs.len() + usize::from(at.is_none()));
    for (place, pair) in pairs.enumerate() {
        writer.value(tree, BASE, pair[0], 1)?;
        if at == Some(place) {
            writer.value(value, NEW, value.root(), 1)?;
        } else {
            writer.value(tree, BASE, pair[1], 1)?;
        }
    }
    if at.is_none() {
        writer.attribute(key, value)?;
    }
    if let Some(default) = default {
        writer.value(tree, BASE, *default, 1)?;
    }
    Ok(writer.out)
}

/// The value alone.
///
/// # Errors
///
/// [`Error::TooDeep`].
pub fn single(tree: &Tree) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    writer.value(tree, BASE, tree.root(), 0)?;
    Ok(writer.out)
}

/// Which of the two trees a node comes from.
type Origin = u8;
const BASE: Origin = 0;
const NEW: Origin = 1;

/// Its bytes and its [`tag`].
type Symbol<'a> = (&'a [u8], (u8, &'a [u8]));

struct Writer<'a> {
    out: Vec<u8>,
    symbols: HashMap<Symbol<'a>, usize>,
    /// The numbers that links name: of the values that are met more than once, …
    seen: HashMap<(Origin, NodeId), usize>,
    /// … of floats, since Ruby takes equal ones for the same object, …
    floats: HashMap<&'a [u8], usize>,
    /// … and of the names of encodings.
    encodings: HashMap<&'a [u8], usize>,
    /// The next of these numbers.
    count: usize,
}

impl<'a> Writer<'a> {
    fn new() -> Self {
        Writer {
            out: vec![4, 8],
            symbols: HashMap::new(),
            seen: HashMap::new(),
            floats: HashMap::new(),
            encodings: HashMap::new(),
            count: 0,
        }
    }

    fn attribute(&mut self, key: &[u8], value: &'a Tree) -> Result<(), Error> {
        self.out.extend(b"I\"");
        self.count += 1;
        self.chunk(key);
        self.variables(Encoding::Utf8, value);
        self.value(value, NEW, value.root(), 1)
    }

    /// The depth that the caller gives bounds the recursion, whatever links do.
    fn value(&mut self, tree: &'a Tree, origin: Origin, id: NodeId, depth: usize) -> Result<(), Error> {
        let node = tree.node(id);
        let has_number = !matches!(node, Node::Nil | Node::True | Node::False | Node::Int(_) | Node::Symbol(_));
        if has_number {
            if let Some(number) = self.number(tree, origin, id, node) {
                self.out.push(b'@');
                self.long(number);
                return Ok(());
            }
        }
        match node {
            Node::Nil => self.out.push(b'0'),
            Node::True => self.out.push(b'T'),
            Node::False => self.out.push(b'F'),
            Node::Int(number) => {
                self.out.push(b'i');
                self.number_of(number);
            }
            Node::Big { negative, digits } => {
                self.out.extend([b'l', if negative { b'-' } else { b'+' }]);
                let digits = tree.bytes(digits);
                self.long(digits.len() / 2);
                self.out.extend(digits);
            }
            Node::Float(text) => {
                self.out.push(b'f');
                self.chunk(tree.bytes(text));
            }
            Node::Str(text) => {
                if text.encoding != Encoding::Binary {
                    self.out.push(b'I');
                }
                self.out.push(b'"');
                self.chunk(tree.bytes(text.bytes));
                self.variables(text.encoding, tree);
            }
            Node::Symbol(number) => self.symbol(tree, tree.symbol(number)),
            Node::Array(items) => {
                let items = tree.children(items);
                self.out.push(b'[');
                self.long(items.len());
                self.all(tree, origin, items, depth)?;
            }
            Node::Hash { items, with_default } => {
                let items = tree.children(items);
                self.out.push(if with_default { b'}' } else { b'{' });
                self.long(items.len() / 2);
                self.all(tree, origin, items, depth)?;
            }
            Node::Range(fields) => {
                self.out.push(b'o');
                self.name(b"Range");
                self.long(fields.len as usize);
                for (name, field) in [&b"excl"[..], b"begin", b"end"].into_iter().zip(tree.children(fields)) {
                    self.name(name);
                    self.all(tree, origin, std::slice::from_ref(field), depth)?;
                }
            }
        }
        Ok(())
    }

    fn all(&mut self, tree: &'a Tree, origin: Origin, items: &[NodeId], depth: usize) -> Result<(), Error> {
        // The reader counts what is open, which is one less than the depth of what has no children.
        if depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        items.iter().try_for_each(|item| self.value(tree, origin, *item, depth + 1))
    }

    /// The number of what was written before; else gives it the next one.
    fn number(&mut self, tree: &'a Tree, origin: Origin, id: NodeId, node: Node) -> Option<usize> {
        let next = self.count;
        let number = match node {
            Node::Float(text) => *self.floats.entry(tree.bytes(text)).or_insert(next),
            _ if tree.is_linked(id) => *self.seen.entry((origin, id)).or_insert(next),
            _ => next,
        };
        self.count += usize::from(number == next);
        (number != next).then_some(number)
    }

    fn variables(&mut self, encoding: Encoding, tree: &'a Tree) {
        match encoding {
            Encoding::Binary => {}
            Encoding::Utf8 | Encoding::Ascii => {
                self.long(1);
                self.name(b"E");
                self.out.push(if encoding == Encoding::Utf8 { b'T' } else { b'F' });
            }
            Encoding::Named(name) => {
                self.long(1);
                self.name(b"encoding");
                let name = tree.bytes(name);
                let next = self.count;
                let number = *self.encodings.entry(name).or_insert(next);
                if number == next {
                    self.count += 1;
                    self.out.push(b'"');
                    self.chunk(name);
                } else {
                    self.out.push(b'@');
                    self.long(number);
                }
            }
        }
    }

    /// A symbol of Ruby's own, which is ASCII.
    fn name(&mut self, name: &'static [u8]) {
        if !self.known((name, ASCII)) {
            self.out.push(b':');
            self.chunk(name);
        }
    }

    fn symbol(&mut self, tree: &'a Tree, text: Text) {
        let name = tree.bytes(text.bytes);
        if name.is_ascii() {
            if !self.known((name, ASCII)) {
                self.out.push(b':');
                self.chunk(name);
            }
            return;
        }
        if !self.known((name, tag(text.encoding, tree))) {
            if text.encoding != Encoding::Binary {
                self.out.push(b'I');
            }
            self.out.push(b':');
            self.chunk(name);
            self.variables(text.encoding, tree);
        }
    }

    fn known(&mut self, symbol: Symbol<'a>) -> bool {
        let next = self.symbols.len();
        let number = *self.symbols.entry(symbol).or_insert(next);
        if number == next {
            return false;
        }
        self.out.push(b';');
        self.long(number);
        true
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.long(bytes.len());
        self.out.extend(bytes);
    }

    /// A length. None is longer than the input's, whose offsets have 32 bits.
    #[allow(clippy::cast_possible_wrap)]
    fn long(&mut self, number: usize) {
        self.number_of(number as i64);
    }

    fn number_of(&mut self, number: i64) {
        // The lowest byte of a number that was checked to fit one.
        let low = |number: i64| number.to_le_bytes()[0];
        match number {
            0 => self.out.push(0),
            1..=122 => self.out.push(low(number + 5)),
            -123..=-1 => self.out.push(low(number - 5)),
            _ => {
                let all = number.to_le_bytes();
                let rest = if number < 0 { 0xff } else { 0 };
                let count = 4 - all[..4].iter().rev().take_while(|byte| **byte == rest).count().min(3);
                let head = if number < 0 { -1 } else { 1 } * count as i64;
                self.out.push(low(head));
                self.out.extend(&all[..count]);
            }
        }
    }
}

/// What makes symbols of the same bytes the same: their encoding.
fn tag(encoding: Encoding, tree: &Tree) -> (u8, &[u8]) {
    match encoding {
        Encoding::Binary => (0, &[]),
        Encoding::Ascii => ASCII,
        Encoding::Utf8 => (2, &[]),
        Encoding::Named(name) => (3, tree.bytes(name)),
    }
}

const ASCII: (u8, &[u8]) = (1, &[]);
