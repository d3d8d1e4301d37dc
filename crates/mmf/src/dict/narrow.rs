//! [`Narrow`]: any serializer, without integers of 128 bits.
//!
//! `MessagePack` has none. The encoder would write them as bytes, and every other language would take them for bytes.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// A serializer, or what it makes of a value with parts, that refuses such integers at any depth.
pub(super) struct Narrow<S>(pub(super) S);

/// A part of a value, which is serialized in the same way.
struct Part<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Part<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Narrow(serializer))
    }
}

#[cold]
fn too_wide<T, E: Error>() -> Result<T, E> {
    Err(E::custom("it has an integer type of 128 bits, which no other language would read as one"))
}

/// What is passed on as it is.
macro_rules! as_it_is {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $name(self, value: $type) -> Result<S::Ok, S::Error> {
                self.0.$name(value)
            }
        )*
    };
}

impl<S: Serializer> Serializer for Narrow<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Narrow<S::SerializeSeq>;
    type SerializeTuple = Narrow<S::SerializeTuple>;
    type SerializeTupleStruct = Narrow<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Narrow<S::SerializeTupleVariant>;
    type SerializeMap = Narrow<S::SerializeMap>;
    type SerializeStruct = Narrow<S::SerializeStruct>;
    type SerializeStructVariant = Narrow<S::SerializeStructVariant>;

    as_it_is! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64, serialize_unit_struct: &'static str,
    }

    fn serialize_i128(self, _: i128) -> Result<S::Ok, S::Error> {
        too_wide()
    }

    fn serialize_u128(self, _: u128) -> Result<S::Ok, S::Error> {
        too_wide()
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Part(value))
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(self, name: &'static str, nth: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, nth, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Part(value))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, nth, variant, &Part(value))
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(len).map(Narrow)
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(len).map(Narrow)
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(Narrow)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, nth, variant, len).map(Narrow)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(len).map(Narrow)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, len).map(Narrow)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        nth: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, nth, variant, len).map(Narrow)
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// The parts of values whose parts have no names.
macro_rules! parts {
    ($($of:ident: $name:ident),* $(,)?) => {
        $(
            impl<S: $of> $of for Narrow<S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                    self.0.$name(&Part(value))
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.0.end()
                }
            }
        )*
    };
}

parts! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

/// And of those whose parts have.
macro_rules! fields {
    ($($of:ident),*) => {
        $(
            impl<S: $of> $of for Narrow<S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    key: &'static str,
                    value: &T,
                ) -> Result<(), S::Error> {
                    self.0.serialize_field(key, &Part(value))
                }

                #[inline]
                fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                    self.0.skip_field(key)
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.0.end()
                }
            }
        )*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<S: SerializeMap> SerializeMap for Narrow<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(&Part(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&Part(value))
    }

    #[inline]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        self.0.serialize_entry(&Part(key), &Part(value))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}
