//! Bytes to a [`Tree`].

use super::{Children, Encoding, Error, MAX_DEPTH, Node, NodeId, Span, Text, Tree};

/// A place among the children that nothing came to yet.
const EMPTY: NodeId = NodeId::MAX;
/// The fields of a range in the order of its children.
const RANGE: [&[u8]; 3] = [b"excl", b"begin", b"end"];

/// Reads the value that the bytes begin with; what comes behind it is left alone.
///
/// # Errors
///
/// [`Error::Truncated`] where the bytes end first, so that more of them may help; the others as they say.
pub fn read(bytes: Vec<u8>) -> Result<Tree, Error> {
    let mut reader = Reader {
        // Offsets are 32 bits wide; Ruby's own lengths have 31.
        input: &bytes[..bytes.len().min(u32::MAX as usize)],
        at: 0,
        owed: 0,
        nodes: Vec::new(),
        children: Vec::new(),
        symbols: Vec::new(),
        objects: Vec::new(),
        linked: Vec::new(),
    };
    let root = reader.document()?;
    let Reader { at: len, nodes, children, symbols, mut linked, .. } = reader;
    linked.sort_unstable();
    linked.dedup();
    Ok(Tree { bytes, nodes, children, symbols, linked, root, len })
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// Values that were announced and not yet read. Each takes a byte at least, so whoever announces more than there are
    /// bytes is refused before memory is taken for them.
    owed: usize,
    nodes: Vec<Node>,
    children: Vec<NodeId>,
    symbols: Vec<Text>,
    /// What a link's number means.
    objects: Vec<NodeId>,
    linked: Vec<NodeId>,
}

/// A value whose children are being read.
struct Open {
    node: NodeId,
    first: usize,
    next: usize,
    end: usize,
    /// Each child has its name before it, and comes in any order.
    named: bool,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<NodeId, Error> {
        if self.byte()? != 4 || self.byte()? > 8 {
            return Err(Error::Malformed { at: 0, what: "another version" });
        }
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let slot = match stack.last_mut() {
                Some(open) if open.named => Some(self.range_field(open)?),
                Some(open) => Some(open.next),
                None => None,
            };
            let (mut done, opened) = self.value()?;
            if let Some(slot) = slot {
                self.children[slot] = done;
            }
            if let Some(open) = opened {
                if stack.len() == MAX_DEPTH {
                    return Err(Error::TooDeep);
                }
                stack.push(open);
            } else if let Some(open) = stack.last_mut() {
                open.next += 1;
            }
            while let Some(open) = stack.last().filter(|open| open.next == open.end) {
                done = open.node;
                if open.named && !matches!(self.nodes[self.children[open.first] as usize], Node::True | Node::False) {
                    return Err(self.malformed("a range that is neither open nor closed"));
                }
                stack.pop();
                if let Some(outer) = stack.last_mut() {
                    outer.next += 1;
                }
            }
            if stack.is_empty() {
                return Ok(done);
            }
        }
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed { at: self.at, what }
    }

    fn left(&self) -> usize {
        self.input.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.input.get(self.at).ok_or(Error::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A number of one to five bytes.
    fn long(&mut self) -> Result<i64, Error> {
        let head = i64::from(i8::from_le_bytes([self.byte()?]));
        let (count, mut number) = match head {
            0 => return Ok(0),
            5.. => return Ok(head - 5),
            ..=-5 => return Ok(head + 5),
            1..=4 => (head, 0),
            -4..=-1 => (-head, -1),
        };
        for place in 0..count {
            let shift = place * 8;
            number = (number & !(0xff << shift)) | (i64::from(self.byte()?) << shift);
        }
        Ok(number)
    }

    fn length(&mut self) -> Result<usize, Error> {
        let number = self.long()?;
        usize::try_from(number).map_err(|_| self.malformed("a length below zero"))
    }

    fn span(&mut self, len: usize) -> Result<Span, Error> {
        if len > self.left() {
            return Err(Error::Truncated);
        }
        let span = Span { start: short(self.at), len: short(len) };
        self.at += len;
        Ok(span)
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.input[span.start as usize..][..span.len as usize]
    }

    fn node(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        short(self.nodes.len() - 1)
    }

    /// A node that later links may name.
    fn object(&mut self, node: Node) -> NodeId {
        let id = self.node(node);
        self.objects.push(id);
        id
    }

    /// One value, or the head of one whose children come next.
    fn value(&mut self) -> Result<(NodeId, Option<Open>), Error> {
        let tag = self.byte()?;
        self.owed = self.owed.saturating_sub(1);
        let id = match tag {
            b'0' => self.node(Node::Nil),
            b'T' => self.node(Node::True),
            b'F' => self.node(Node::False),
            b'i' => {
                let number = self.long()?;
                self.node(Node::Int(number))
            }
            b'l' => self.big()?,
            b'f' => self.float()?,
            b'"' => self.string(false)?,
            b'I' => match self.byte()? {
                b'"' => self.string(true)?,
                b':' => {
                    let number = self.new_symbol(true)?;
                    self.node(Node::Symbol(number))
                }
                b'/' => return Err(refused("a regular expression")),
                b'[' | b'{' | b'}' | b'f' | b'l' | b'@' => return Err(refused("a value with instance variables")),
                other => return Err(self.refuse(other)),
            },
            b':' => {
                let number = self.new_symbol(false)?;
                self.node(Node::Symbol(number))
            }
            b';' => {
                let number = self.old_symbol()?;
                self.node(Node::Symbol(number))
            }
            b'@' => self.link()?,
            b'[' => {
                let len = self.length()?;
                return self.open(len, false, Node::Array);
            }
            b'{' | b'}' => {
                let pairs = self.length()?;
                let with_default = tag == b'}';
                let len = pairs.saturating_mul(2).saturating_add(usize::from(with_default));
                return self.open(len, false, |items| Node::Hash { items, with_default });
            }
            b'o' => {
                let class = self.symbol()?;
                if self.slice(self.symbols[class as usize].bytes) != b"Range" {
                    return Err(self.refuse_class(class));
                }
                let (id, open) = self.open(RANGE.len(), true, Node::Range)?;
                if self.length()? != RANGE.len() {
                    return Err(self.malformed("a range of other fields"));
                }
                return Ok((id, open));
            }
            other => return Err(self.refuse(other)),
        };
        Ok((id, None))
    }

    fn open(
        &mut self,
        len: usize,
        named: bool,
        node: impl FnOnce(Children) -> Node,
    ) -> Result<(NodeId, Option<Open>), Error> {
        self.owed = self.owed.saturating_add(len);
        if self.owed > self.left() {
            return Err(Error::Truncated);
        }
        let first = self.children.len();
        self.children.resize(first + len, EMPTY);
        let id = self.object(node(Children { first: short(first), len: short(len) }));
        Ok((id, (len > 0).then_some(Open { node: id, first, next: first, end: first + len, named })))
    }

    /// The place of the range's field whose name comes next.
    fn range_field(&mut self, open: &Open) -> Result<usize, Error> {
        let name = self.symbol()?;
        let name = self.slice(self.symbols[name as usize].bytes);
        let field = RANGE.iter().position(|field| *field == name);
        match field.map(|field| open.first + field) {
            Some(slot) if self.children[slot] == EMPTY => Ok(slot),
            _ => Err(self.malformed("a range of other fields")),
        }
    }

    fn big(&mut self) -> Result<NodeId, Error> {
        let negative = match self.byte()? {
            b'+' => false,
            b'-' => true,
            _ => return Err(self.malformed("an integer without a sign")),
        };
        let len = self.length()?.checked_mul(2).ok_or(Error::Truncated)?;
        let digits = self.span(len)?;
        Ok(self.object(Node::Big { negative, digits }))
    }

    fn float(&mut self) -> Result<NodeId, Error> {
        let len = self.length()?;
        let text = self.span(len)?;
        if float(self.slice(text)).is_none() {
            return Err(self.malformed("a float that is no number"));
        }
        Ok(self.object(Node::Float(text)))
    }

    fn string(&mut self, with_variables: bool) -> Result<NodeId, Error> {
        let len = self.length()?;
        let bytes = self.span(len)?;
        let id = self.object(Node::Str(Text { bytes, encoding: Encoding::Binary }));
        if with_variables {
            let encoding = self.encoding()?;
            self.nodes[id as usize] = Node::Str(Text { bytes, encoding });
        }
        Ok(id)
    }

    fn symbol(&mut self) -> Result<u32, Error> {
        match self.byte()? {
            b':' => self.new_symbol(false),
            b';' => self.old_symbol(),
            b'I' if self.byte()? == b':' => self.new_symbol(true),
            _ => Err(self.malformed("no symbol")),
        }
    }

    fn new_symbol(&mut self, with_variables: bool) -> Result<u32, Error> {
        let len = self.length()?;
        let bytes = self.span(len)?;
        let number = self.symbols.len();
        let ascii = self.slice(bytes).is_ascii();
        let encoding = if ascii { Encoding::Ascii } else { Encoding::Binary };
        // It has its number before the symbol that names its encoding.
        self.symbols.push(Text { bytes, encoding });
        if with_variables {
            self.symbols[number].encoding = self.encoding()?;
        }
        Ok(short(number))
    }

    fn old_symbol(&mut self) -> Result<u32, Error> {
        let number = self.length()?;
        if number >= self.symbols.len() {
            return Err(self.malformed("a symbol that never came"));
        }
        Ok(short(number))
    }

    fn link(&mut self) -> Result<NodeId, Error> {
        let number = self.length()?;
        let id = *self.objects.get(number).ok_or_else(|| self.malformed("a link to what never came"))?;
        if let Node::Range(fields) = self.nodes[id as usize] {
            // Arrays and hashes can hold themselves. A range is made of its ends, so these come first.
            if self.children[fields.first as usize..][..fields.len as usize].contains(&EMPTY) {
                return Err(self.malformed("a range within itself"));
            }
        }
        self.linked.push(id);
        Ok(id)
    }

    /// The instance variables of a string or symbol, of which plain ones have the encoding alone.
    fn encoding(&mut self) -> Result<Encoding, Error> {
        let mut encoding = Encoding::Binary;
        for _ in 0..self.length()? {
            let name = self.symbol()?;
            let value = self.byte()?;
            let name = self.slice(self.symbols[name as usize].bytes);
            encoding = match (name, value) {
                (b"E", b'T') => Encoding::Utf8,
                (b"E", b'F') => Encoding::Ascii,
                (b"encoding", b'"') => {
                    let id = self.string(false)?;
                    self.named(id)?
                }
                (b"encoding", b'@') => {
                    let id = self.link()?;
                    self.named(id)?
                }
                _ => return Err(refused("a string with instance variables")),
            };
        }
        Ok(encoding)
    }

    fn named(&self, id: NodeId) -> Result<Encoding, Error> {
        match self.nodes[id as usize] {
            Node::Str(Text { bytes, .. }) if self.slice(bytes).is_ascii() => Ok(Encoding::Named(bytes)),
            _ => Err(self.malformed("an encoding without a name")),
        }
    }

    fn refuse(&mut self, tag: u8) -> Error {
        match tag {
            b'o' | b'u' | b'U' | b'S' | b'C' | b'e' | b'd' => match self.symbol() {
                Ok(class) => self.refuse_class(class),
                Err(error) => error,
            },
            b'c' | b'm' | b'M' => refused("a class or module"),
            b'/' => refused("a regular expression"),
            _ => Error::Malformed { at: self.at - 1, what: "an unknown type" },
        }
    }

    fn refuse_class(&self, class: u32) -> Error {
        let name = self.slice(self.symbols[class as usize].bytes);
        // Enough of it to tell what it is.
        let name = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
        refused(format!("an object of {name}"))
    }
}

fn refused(what: impl Into<String>) -> Error {
    Error::Refused { what: what.into() }
}

/// The value of a float's text.
#[must_use]
pub(super) fn float(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        b"nan" => Some(f64::NAN),
        // Rust also reads words, which Ruby does not write.
        _ if !text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e')) => None,
        _ => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// Numbers that count the input's bytes at most, which `read` limits to 32 bits.
#[allow(clippy::cast_possible_truncation)]
fn short(number: usize) -> u32 {
    number as u32
}
