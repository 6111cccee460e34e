//! From the tree to the schema: a serde data format whose errors know the path. Values of the file must have the right
//! type; values of the environment are text and are read as whatever is wanted.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::tree::{SENSITIVE, Segment, Tree, Value};

/// Why the tree does not fit the schema.
#[derive(Debug)]
pub(super) struct Fault {
    /// From the innermost segment outwards.
    reversed: Vec<Segment>,
    pub(super) kind: FaultKind,
}

#[derive(Debug)]
pub(super) enum FaultKind {
    /// A table lacks this key.
    Missing(&'static str),
    /// The value at the path is not right.
    Wrong(String),
    /// The key is unknown in a table that takes a secret: its value may be that secret, under a misspelt name.
    WrongBesideSecret(String),
}

impl Fault {
    fn wrong(message: impl Into<String>) -> Self {
        Self { reversed: Vec::new(), kind: FaultKind::Wrong(message.into()) }
    }

    fn within(mut self, segment: Segment) -> Self {
        self.reversed.push(segment);
        self
    }

    pub(super) fn path(&self) -> Vec<Segment> {
        self.reversed.iter().rev().cloned().collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FaultKind::Missing(key) => write!(f, "{key} is missing"),
            FaultKind::Wrong(message) | FaultKind::WrongBesideSecret(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        // The messages of the standard library say what is wrong but not what would be right.
        Self::wrong(match message.to_string().as_str() {
            "invalid socket address syntax" => {
                "must be an IP address and a port, such as \"127.0.0.1:9100\" or \"[::1]:9100\"".to_owned()
            }
            "invalid IP address syntax" => {
                "must be an IP address, such as \"10.77.0.11\" or \"fd77::11\"".to_owned()
            }
            other => other.to_owned(),
        })
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(format!("must be {}", right(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(format!("must be {}", right(expected)))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown key; known here: {}", expected.join(", "));
        if expected.iter().any(|key| SENSITIVE.contains(key)) {
            return Self { reversed: Vec::new(), kind: FaultKind::WrongBesideSecret(message) };
        }
        Self::wrong(message)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::wrong(format!("must be one of \"{}\"", expected.join("\", \"")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { reversed: Vec::new(), kind: FaultKind::Missing(field) }
    }
}

/// What a visitor expects, in words of the file.
fn right(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let words = match expected.as_str() {
        "a duration" => "a duration such as \"100ms\", \"5s\" or \"1m\"",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not negative",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a string in quotes",
        "path string" => "a path in quotes",
        "a sequence" => "a list in brackets",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    words.to_owned()
}

impl Tree {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Text(text) | Value::Given(text) | Value::Datetime(text) => Unexpected::Str(text),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
            Value::Integer(_) | Value::Hole => Unexpected::Other("a value"),
        }
    }

    fn number<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Given(text) = &self.value else { return self.deserialize_any(visitor) };
        if let Ok(number) = text.parse::<i64>() {
            visitor.visit_i64(number)
        } else if let Ok(number) = text.parse::<u64>() {
            visitor.visit_u64(number)
        } else if let Ok(number) = text.parse::<f64>() {
            visitor.visit_f64(number)
        } else {
            Err(de::Error::invalid_type(self.unexpected(), &visitor))
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Tree {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Table(table) => visitor.visit_map(Entries { entries: table.iter(), value: None }),
            Value::List(list) => visitor.visit_seq(Items { items: list.iter().enumerate() }),
            Value::Text(text) | Value::Given(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Datetime(_) | Value::Hole => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Given(text) => match text.as_str() {
                "true" | "1" | "yes" | "on" => visitor.visit_bool(true),
                "false" | "0" | "no" | "off" => visitor.visit_bool(false),
                _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// A list of the environment is parted by commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Given(text) = &self.value else { return self.deserialize_any(visitor) };
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(TextDeserializer);
        visitor.visit_seq(de::value::SeqDeserializer::new(items))
    }

    /// A map of the environment is `key=value,key=value`.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Given(text) = &self.value else { return self.deserialize_any(visitor) };
        let pairs: Option<Vec<_>> = text.split(',').map(|pair| pair.trim().split_once('=')).collect();
        let pairs = pairs.ok_or_else(|| Fault::wrong("must be key=value pairs with commas between them"))?;
        visitor.visit_map(de::value::MapDeserializer::new(pairs.into_iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) | Value::Given(text) => {
                let variant: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            _ => Err(de::Error::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct struct identifier ignored_any
    }
}

/// One item of a list in the environment: text that is read as whatever is wanted.
struct TextDeserializer<'a>(&'a str);

impl<'de> IntoDeserializer<'de, Fault> for TextDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for TextDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.parse::<i64>() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_borrowed_str(self.0),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Tree>,
    value: Option<(&'a String, &'a Tree)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, value));
        let name: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|fault| fault.within(Segment::Key(key.clone())))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.value.take().ok_or_else(|| Fault::wrong("value asked for before its key"))?;
        seed.deserialize(value).map_err(|fault| fault.within(Segment::Key(key.clone())))
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Tree>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let next = self.items.by_ref().find(|(_, tree)| !matches!(tree.value, Value::Hole));
        let Some((index, tree)) = next else { return Ok(None) };
        seed.deserialize(tree).map(Some).map_err(|fault| fault.within(Segment::Index(index)))
    }
}
