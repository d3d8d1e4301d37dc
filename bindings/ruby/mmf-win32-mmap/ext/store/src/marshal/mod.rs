//! Ruby's Marshal format, version 4.8, as far as it is plain data: nil, booleans, integers, floats, strings with their
//! encodings, symbols, arrays, hashes and ranges.
//!
//! What is read was written by another process, which may be hostile. So nothing here calls a constructor of a class,
//! recurses as deep as the bytes say, or allocates more than a fixed multiple of the bytes that are really there.
//!
//! The format is told in Ruby's documentation: <https://docs.ruby-lang.org/en/master/marshal_rdoc.html>. What it leaves
//! open (which values take a number that a link can name) was tried with Ruby itself, and is tested against it.

mod read;
mod write;

pub use read::read;
pub use write::{assign, single};

use std::fmt;

/// The deepest nesting that is read: far more than people write, far less than Ruby's own stack bears.
pub const MAX_DEPTH: usize = 500;

/// A value that was read. Nodes are in the order in which their bytes begin, so a node's number is the higher the later it
/// came; links make it a graph, which may have cycles.
pub struct Tree {
    pub(crate) bytes: Vec<u8>,
    nodes: Vec<Node>,
    children: Vec<NodeId>,
    symbols: Vec<Text>,
    /// Those that a link leads to, sorted.
    linked: Vec<NodeId>,
    root: NodeId,
    /// How many of the bytes the value took.
    len: usize,
}

/// The number of a node in its tree.
pub type NodeId = u32;

/// A run of the tree's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// A run of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Children {
    first: u32,
    len: u32,
}

/// A string's or symbol's bytes and what they are to be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The bytes.
    pub bytes: Span,
    /// Their encoding.
    pub encoding: Encoding,
}

/// What a string's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `ASCII-8BIT`.
    Binary,
    /// `US-ASCII`.
    Ascii,
    /// `UTF-8`.
    Utf8,
    /// The one of that name.
    Named(Span),
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// `nil`
    Nil,
    /// `true`
    True,
    /// `false`
    False,
    /// A small integer.
    Int(i64),
    /// Any integer: its magnitude's bytes, the lowest first.
    Big {
        /// Below zero.
        negative: bool,
        /// The magnitude.
        digits: Span,
    },
    /// A float as text, checked to be one.
    Float(Span),
    /// A string.
    Str(Text),
    /// A symbol, by its number among [`Tree::symbol`].
    Symbol(u32),
    /// An array.
    Array(Children),
    /// A hash: keys and values in turn, and at last its default value if it has one.
    Hash {
        /// Keys, values, default.
        items: Children,
        /// Whether there is a default value.
        with_default: bool,
    },
    /// A range: whether it excludes its end, its begin, its end.
    Range(Children),
}

/// Why bytes were not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes end before the value does.
    Truncated,
    /// No Ruby writes this.
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It is no plain data.
    Refused {
        /// What it is instead.
        what: String,
    },
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("the Marshal data ends too soon"),
            Error::Malformed { at, what } => write!(f, "no Marshal data: {what} at byte {at}"),
            Error::Refused { what } => write!(f, "{what} is no plain data"),
            Error::TooDeep => write!(f, "the Marshal data is nested deeper than {MAX_DEPTH}"),
        }
    }
}

impl std::error::Error for Error {}

impl Tree {
    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The value of that number; they all come from this tree.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Node {
        self.nodes.get(id as usize).copied().unwrap_or(Node::Nil)
    }

    /// The value of a float.
    #[must_use]
    pub fn float(&self, id: NodeId) -> Option<f64> {
        match self.node(id) {
            Node::Float(text) => read::float(self.bytes(text)),
            _ => None,
        }
    }

    /// The bytes of a run.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.len as usize).unwrap_or(&[])
    }

    /// The numbers of a run of children.
    #[must_use]
    pub fn children(&self, children: Children) -> &[NodeId] {
        let first = children.first as usize;
        self.children.get(first..first + children.len as usize).unwrap_or(&[])
    }

    /// The symbol of that number.
    #[must_use]
    pub fn symbol(&self, number: u32) -> Text {
        const NONE: Text = Text { bytes: Span { start: 0, len: 0 }, encoding: Encoding::Ascii };
        self.symbols.get(number as usize).copied().unwrap_or(NONE)
    }

    /// Whether a link leads to this value, so that it is met more than once.
    #[must_use]
    pub fn is_linked(&self, id: NodeId) -> bool {
        !self.linked.is_empty() && self.linked.binary_search(&id).is_ok()
    }

    /// The value of a string key of the outermost hash.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<NodeId> {
        self.pairs()?.rfind(|(name, _)| self.is_key(*name, key)).map(|(_, value)| value)
    }

    /// Whether the outermost value is a hash.
    #[must_use]
    pub fn is_hash(&self) -> bool {
        matches!(self.node(self.root), Node::Hash { .. })
    }

    /// How many bytes the value took.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.len
    }

    fn pairs(&self) -> Option<impl DoubleEndedIterator<Item = (NodeId, NodeId)>> {
        let Node::Hash { items, .. } = self.node(self.root) else { return None };
        Some(self.children(items).chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }

    fn is_key(&self, id: NodeId, key: &[u8]) -> bool {
        matches!(self.node(id), Node::Str(text) if self.bytes(text.bytes) == key)
    }
}
