//! [`Encoding`]: converts values to bytes and back.

#[cfg(feature = "serde")]
mod checked_serializer;
#[cfg(feature = "serde")]
mod msgpack;

use crate::dict::format::record::RecordKind;

/// The greatest nesting depth of arrays and maps in a value, see
/// [`Dict::MAX_DEPTH`](crate::Dict::MAX_DEPTH).
pub(in crate::dict) const MAX_DEPTH: usize = 64;

/// The encoding of a value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Raw bytes.
    Bytes,
    /// `MessagePack`. Structures are maps with the names of their fields.
    MessagePack,
}

impl Encoding {
    #[inline]
    pub(in crate::dict) fn of(kind: RecordKind) -> Encoding {
        match kind {
            RecordKind::Bytes | RecordKind::Removal => Encoding::Bytes,
            RecordKind::Encoded => Encoding::MessagePack,
        }
    }

    #[inline]
    pub(in crate::dict) fn kind(self) -> RecordKind {
        match self {
            Encoding::Bytes => RecordKind::Bytes,
            Encoding::MessagePack => RecordKind::Encoded,
        }
    }
}

#[cfg(feature = "serde")]
pub(in crate::dict) use self::encoded::{decode, encode};

#[cfg(feature = "serde")]
mod encoded {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde::de::value::BytesDeserializer;

    use crate::dict::Encoding;
    use crate::dict::format::encoding::checked_serializer::CheckedSerializer;
    use crate::dict::format::encoding::{MAX_DEPTH, msgpack};
    use crate::error::{Error, ErrorKind, Result};

    /// Replaces the contents of `bytes` with a value as `MessagePack`.
    pub(in crate::dict) fn encode(value: &(impl Serialize + ?Sized), bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        let mut serializer = rmp_serde::Serializer::new(bytes).with_struct_map();
        value
            .serialize(CheckedSerializer::new(&mut serializer))
            .map_err(|error| Error::invalid("encode", error.to_string()))
    }

    /// Decodes a value.
    pub(in crate::dict) fn decode<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T> {
        match encoding {
            Encoding::MessagePack => {
                // The check comes before any code recurses, or reserves memory for the number of
                // items that the bytes announce.
                msgpack::check(bytes).map_err(|flaw| wrong::<T>(flaw.text().to_owned()))?;
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
                // The decoder also counts extensions, and refuses the last level that it is given.
                deserializer.set_max_depth(MAX_DEPTH + 2);
                T::deserialize(&mut deserializer).map_err(|error| wrong::<T>(is(&error)))
            }
            Encoding::Bytes => {
                let bytes = BytesDeserializer::<serde::de::value::Error>::new(bytes);
                T::deserialize(bytes).map_err(|error| wrong::<T>(other(&error)))
            }
        }
    }

    /// Describes the type of a value, from the decoder's error.
    #[cold]
    fn is(error: &rmp_serde::decode::Error) -> String {
        let rmp_serde::decode::Error::TypeMismatch(marker) = error else { return other(error) };
        // The marker's type is private, but its debug output names the variant.
        let marker = format!("{marker:?}");
        let types = [
            ("Str", "a text"),
            ("Bin", "binary"),
            ("Array", "a list"),
            ("Map", "a map"),
            ("Ext", "an extension type"),
            ("Null", "nil"),
            ("True", "true"),
            ("False", "false"),
            ("F32", "a number of 32 bits"),
            ("F64", "a number of 64 bits"),
            ("Reserved", "no MessagePack"),
        ];
        let found = types.into_iter().find(|(part, _)| marker.contains(part));
        found.map_or("a whole number", |(_, words)| words).to_owned()
    }

    fn other(error: &impl ToString) -> String {
        format!("something else ({})", error.to_string())
    }

    #[cold]
    fn wrong<T>(found: String) -> Error {
        let wanted = std::any::type_name::<T>().to_owned();
        Error::new(ErrorKind::Mismatch { what: "the value", wanted, found }, "decode")
    }
}
