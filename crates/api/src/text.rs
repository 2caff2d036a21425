//! This module has Serde helpers for values that JSON carries as text.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};

fn parse<T: FromStr<Err: Display>, E: de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(|error| E::custom(format_args!("\"{text}\": {error}")))
}

/// Writes a value with its `Display` and reads it with its `FromStr`.
pub(crate) mod display {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        parse(&<std::borrow::Cow<'_, str>>::deserialize(from)?)
    }
}

/// Writes a list of values with their `Display` and reads it with their `FromStr`.
pub(crate) mod display_list {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        Vec::<String>::deserialize(from)?.iter().map(|text| parse(text)).collect()
    }
}

/// Writes the 4096 bytes of a configuration space as 8192 hexadecimal digits, and reads them.
pub(crate) mod hex {
    use std::fmt::Write;

    use manifold_pci::CONFIG_SIZE;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; CONFIG_SIZE],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            // Writing to a string never fails.
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Box<[u8; CONFIG_SIZE]>, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        if text.len() != 2 * CONFIG_SIZE {
            return Err(de::Error::invalid_length(text.len(), &"8192 hexadecimal digits"));
        }
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for &digit in pair {
                let nibble = char::from(digit)
                    .to_digit(16)
                    .and_then(|value| u8::try_from(value).ok())
                    .ok_or_else(|| de::Error::custom("not a hexadecimal digit"))?;
                *byte = *byte << 4 | nibble;
            }
        }
        Ok(bytes)
    }
}
