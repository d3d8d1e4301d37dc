//! What the Marshal reader read, as Ruby's values.

use magnus::encoding::RbEncoding;
use magnus::{Error, RHash, RString, Ruby, Value, prelude::*};
use win32_mmap_store::marshal::{Encoding, Node, NodeId, Text, Tree};

use crate::error;

/// The value of a node. Its depth is what the reader allows, so that this may recurse.
pub(crate) fn build(ruby: &Ruby, tree: &Tree, id: NodeId) -> Result<Value, Error> {
    // In Ruby's memory, where its garbage collector finds what is linked and not yet in its place.
    Builder { ruby, tree, met: ruby.hash_new() }.value(id)
}

struct Builder<'a> {
    ruby: &'a Ruby,
    tree: &'a Tree,
    met: RHash,
}

impl Builder<'_> {
    fn value(&self, id: NodeId) -> Result<Value, Error> {
        let (ruby, tree) = (self.ruby, self.tree);
        if tree.is_linked(id) {
            if let Some(value) = self.met.get(id) {
                return Ok(value);
            }
        }
        Ok(match tree.node(id) {
            Node::Nil => ruby.qnil().as_value(),
            Node::True => ruby.qtrue().as_value(),
            Node::False => ruby.qfalse().as_value(),
            Node::Int(number) => ruby.integer_from_i64(number).as_value(),
            Node::Big { negative, digits } => self.meet(id, self.big(negative, tree.bytes(digits))?)?,
            Node::Float(_) => ruby.float_from_f64(tree.float(id).unwrap_or(f64::NAN)).as_value(),
            Node::Str(text) => self.meet(id, self.string(text)?.as_value())?,
            // Not by way of an id, of which Ruby never frees one.
            Node::Symbol(number) => self.string(tree.symbol(number))?.funcall("to_sym", ())?,
            Node::Array(items) => {
                let array = ruby.ary_new();
                self.meet(id, array.as_value())?;
                for item in tree.children(items) {
                    array.push(self.value(*item)?)?;
                }
                array.as_value()
            }
            Node::Hash { items, with_default } => {
                let hash = ruby.hash_new();
                self.meet(id, hash.as_value())?;
                let pairs = tree.children(items).chunks_exact(2);
                let default = pairs.remainder().first().filter(|_| with_default);
                for pair in pairs {
                    hash.aset(self.value(pair[0])?, self.value(pair[1])?)?;
                }
                if let Some(default) = default {
                    hash.funcall::<_, _, Value>("default=", (self.value(*default)?,))?;
                }
                hash.as_value()
            }
            Node::Range(fields) => {
                let [excluding, begin, end] = *tree.children(fields) else {
                    return Err(error::format(ruby, "a range of other fields"));
                };
                let (begin, end) = (self.value(begin)?, self.value(end)?);
                let range = ruby.range_new(begin, end, tree.node(excluding) == Node::True)?;
                self.meet(id, range.as_value())?
            }
        })
    }

    /// Remembers what a link leads to.
    fn meet(&self, id: NodeId, value: Value) -> Result<Value, Error> {
        if self.tree.is_linked(id) {
            self.met.aset(id, value)?;
        }
        Ok(value)
    }

    fn big(&self, negative: bool, digits: &[u8]) -> Result<Value, Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Vec::with_capacity(digits.len() * 2 + 1);
        text.extend(negative.then_some(b'-'));
        for byte in digits.iter().rev() {
            text.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        // A power of two as the base keeps this linear.
        self.ruby.str_from_slice(&text).funcall("to_i", (16,))
    }

    fn string(&self, text: Text) -> Result<RString, Error> {
        let ruby = self.ruby;
        let encoding = match text.encoding {
            Encoding::Binary => ruby.ascii8bit_encoding(),
            Encoding::Ascii => ruby.usascii_encoding(),
            Encoding::Utf8 => ruby.utf8_encoding(),
            Encoding::Named(name) => self.encoding(self.tree.bytes(name))?,
        };
        Ok(ruby.enc_str_new(self.tree.bytes(text.bytes), encoding))
    }

    fn encoding(&self, name: &[u8]) -> Result<RbEncoding, Error> {
        let name = String::from_utf8_lossy(name);
        // Ruby looks it up by a C string, which a zero would end.
        let found = (!name.contains('\0')).then(|| self.ruby.find_encoding(&name)).flatten();
        found.ok_or_else(|| error::format(self.ruby, &format!("no encoding is called {name:?}")))
    }
}
