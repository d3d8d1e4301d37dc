//! How values become bytes.

#[cfg(feature = "serde")]
mod checked_serializer;
#[cfg(feature = "serde")]
mod msgpack;

use crate::dict::format::record::RecordKind;

/// Arrays and maps in each other that a value may have; see [`Dict::MAX_DEPTH`](crate::Dict::MAX_DEPTH).
pub(in crate::dict) const MAX_DEPTH: usize = 64;

/// How a value's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Bytes,
    /// `MessagePack`, structures as maps with the names of their fields.
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

    /// A value as `MessagePack`, in place of what is in `bytes`.
    pub(in crate::dict) fn encode(value: &(impl Serialize + ?Sized), bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        let mut serializer = rmp_serde::Serializer::new(bytes).with_struct_map();
        value
            .serialize(CheckedSerializer::new(&mut serializer))
            .map_err(|error| Error::invalid("encode", error.to_string()))
    }

    pub(in crate::dict) fn decode<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T> {
        match encoding {
            Encoding::MessagePack => {
                // Before anything recurses, or reserves memory for as many items as the bytes
                // announce.
                msgpack::check(bytes).map_err(|flaw| wrong::<T>(flaw.text().to_owned()))?;
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
                // It counts extensions, too, and refuses the last level that it is told.
                deserializer.set_max_depth(MAX_DEPTH + 2);
                T::deserialize(&mut deserializer).map_err(|error| wrong::<T>(is(&error)))
            }
            Encoding::Bytes => {
                let bytes = BytesDeserializer::<serde::de::value::Error>::new(bytes);
                T::deserialize(bytes).map_err(|error| wrong::<T>(other(&error)))
            }
        }
    }

    /// What a value is, by the decoder's reason not to take it.
    #[cold]
    fn is(error: &rmp_serde::decode::Error) -> String {
        let rmp_serde::decode::Error::TypeMismatch(marker) = error else { return other(error) };
        // The type of the marker has no name here, but its variants tell all.
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
