//! [`CheckedSerializer`]: wraps a serializer, and refuses integers of 128 bits and values that are
//! nested too deep to be decoded.
//!
//! `MessagePack` has no integers of 128 bits. The encoder would write them as bytes, and other
//! languages would read bytes.
//!
//! The decoder refuses arrays and maps that are nested more than [`MAX_DEPTH`] deep, so the encoder
//! refuses them, too. The serializer for the items of an array or map has one level less than that
//! of the array or map.

use crate::dict::format::encoding::MAX_DEPTH;
use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// A serializer, or its state for a value with parts, that refuses such values.
pub(in crate::dict) struct CheckedSerializer<S> {
    inner: S,
    /// The number of nested arrays and maps that may follow.
    levels: usize,
}

impl<S> CheckedSerializer<S> {
    pub(in crate::dict) fn new(inner: S) -> CheckedSerializer<S> {
        CheckedSerializer { inner, levels: MAX_DEPTH }
    }
}

/// A part of a value, which is serialized through a [`CheckedSerializer`] as well.
struct CheckedItem<'a, T: ?Sized> {
    value: &'a T,
    levels: usize,
}

impl<T: Serialize + ?Sized> Serialize for CheckedItem<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(CheckedSerializer { inner: serializer, levels: self.levels })
    }
}

#[cold]
fn too_wide<T, E: Error>() -> Result<T, E> {
    Err(E::custom("it has an integer type of 128 bits, which no other language would read as one"))
}

/// Returns the levels that are left within `taken` more arrays or maps.
#[inline]
fn levels_left<E: Error>(levels: usize, taken: usize) -> Result<usize, E> {
    levels.checked_sub(taken).ok_or_else(too_deep)
}

#[cold]
fn too_deep<E: Error>() -> E {
    E::custom("its arrays and maps are in each other more than 64 deep")
}

/// Defines methods that pass their value to the inner serializer.
macro_rules! forward {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $name(self, value: $type) -> Result<S::Ok, S::Error> {
                self.inner.$name(value)
            }
        )*
    };
}

impl<S: Serializer> Serializer for CheckedSerializer<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = CheckedSerializer<S::SerializeSeq>;
    type SerializeTuple = CheckedSerializer<S::SerializeTuple>;
    type SerializeTupleStruct = CheckedSerializer<S::SerializeTupleStruct>;
    type SerializeTupleVariant = CheckedSerializer<S::SerializeTupleVariant>;
    type SerializeMap = CheckedSerializer<S::SerializeMap>;
    type SerializeStruct = CheckedSerializer<S::SerializeStruct>;
    type SerializeStructVariant = CheckedSerializer<S::SerializeStructVariant>;

    forward! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64,
    }

    fn serialize_i128(self, _: i128) -> Result<S::Ok, S::Error> {
        too_wide()
    }

    fn serialize_u128(self, _: u128) -> Result<S::Ok, S::Error> {
        too_wide()
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&CheckedItem { value, levels: self.levels })
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    /// Serializes it as an empty array.
    #[inline]
    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        levels_left::<S::Error>(self.levels, 1)?;
        self.inner.serialize_unit_struct(name)
    }

    #[inline]
    fn serialize_unit_variant(self, name: &'static str, nth: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, nth, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &CheckedItem { value, levels: self.levels })
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // The variant is a map of the name to the value.
        let levels = levels_left(self.levels, 1)?;
        self.inner.serialize_newtype_variant(name, nth, variant, &CheckedItem { value, levels })
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let levels = levels_left(self.levels, 1)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_seq(len)?, levels })
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let levels = levels_left(self.levels, 1)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_tuple(len)?, levels })
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        let levels = levels_left(self.levels, 1)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_tuple_struct(name, len)?, levels })
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let levels = levels_left(self.levels, 2)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_tuple_variant(name, nth, variant, len)?, levels })
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let levels = levels_left(self.levels, 1)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_map(len)?, levels })
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let levels = levels_left(self.levels, 1)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_struct(name, len)?, levels })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let levels = levels_left(self.levels, 2)?;
        Ok(CheckedSerializer { inner: self.inner.serialize_struct_variant(name, nth, variant, len)?, levels })
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Implements the traits for values whose parts have no names.
macro_rules! sequence_serializer {
    ($($of:ident: $name:ident),* $(,)?) => {
        $(
            impl<S: $of> $of for CheckedSerializer<S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                    self.inner.$name(&CheckedItem { value, levels: self.levels })
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.inner.end()
                }
            }
        )*
    };
}

sequence_serializer! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

/// Implements the traits for values whose parts have names.
macro_rules! fields {
    ($($of:ident),*) => {
        $(
            impl<S: $of> $of for CheckedSerializer<S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    key: &'static str,
                    value: &T,
                ) -> Result<(), S::Error> {
                    self.inner.serialize_field(key, &CheckedItem { value, levels: self.levels })
                }

                #[inline]
                fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                    self.inner.skip_field(key)
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.inner.end()
                }
            }
        )*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<S: SerializeMap> SerializeMap for CheckedSerializer<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.inner.serialize_key(&CheckedItem { value: key, levels: self.levels })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&CheckedItem { value, levels: self.levels })
    }

    #[inline]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        let levels = self.levels;
        self.inner.serialize_entry(&CheckedItem { value: key, levels }, &CheckedItem { value, levels })
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
