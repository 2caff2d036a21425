//! This module is `VFIO_USER_VERSION`, with which both sides say what they can do (vfio-user,
//! "VFIO_USER_VERSION").

use serde_json::{Map, Value};

use super::payload::{Cursor, Malformed, Put};

/// Payload of the first message, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Number of the major version.
    pub major: u16,
    /// Number of the minor version.
    pub minor: u16,
    /// Capabilities, a JSON text that ends with a zero byte. All are optional, and so is the text.
    pub capabilities: Capabilities,
}

/// Capabilities that this server knows; others are skipped when read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Number of descriptors the sender takes in one message.
    pub max_msg_fds: Option<u64>,
    /// Largest `count` of a data transfer the sender takes, in bytes.
    pub max_data_xfer_size: Option<u64>,
    /// Number of mappings that can exist at one time.
    pub max_dma_maps: Option<u64>,
    /// Page sizes of mappings, or'ed together.
    pub pgsizes: Option<u64>,
    /// True if `VFIO_USER_REGION_WRITE_MULTI` can be used.
    pub write_multiple: Option<bool>,
}

const WRAPPER: &str = "capabilities";
const MAX_MSG_FDS: &str = "max_msg_fds";
const MAX_DATA_XFER_SIZE: &str = "max_data_xfer_size";
const MAX_DMA_MAPS: &str = "max_dma_maps";
const PGSIZES: &str = "pgsizes";
const WRITE_MULTIPLE: &str = "write_multiple";

impl Version {
    /// Reads the payload of a version message.
    ///
    /// # Errors
    /// Fewer than 4 bytes, no zero byte at the end, or a text of the wrong shape.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("version", payload);
        let (major, minor) = (cursor.u16()?, cursor.u16()?);
        let capabilities = match cursor.rest.split_last() {
            None => Capabilities::default(),
            // The text is a C string: what follows the first zero byte is padding.
            Some((0, text)) => {
                Capabilities::decode(text.split(|&byte| byte == 0).next().unwrap_or_default())?
            }
            Some(_) => return Err(Malformed::Capabilities("not terminated by a zero byte")),
        };
        Ok(Self { major, minor, capabilities })
    }

    /// Appends the payload to what is there.
    pub fn encode(&self, payload: &mut Vec<u8>) {
        payload.put_u16(self.major);
        payload.put_u16(self.minor);
        payload.extend_from_slice(self.capabilities.encode().as_bytes());
        payload.push(0);
    }
}

impl Capabilities {
    fn decode(text: &[u8]) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(top)) = serde_json::from_slice(text) else {
            return Err(Malformed::Capabilities("not a JSON object"));
        };
        let list = match top.get(WRAPPER) {
            None => return Ok(Self::default()),
            Some(Value::Object(list)) => list,
            Some(_) => return Err(Malformed::Capabilities("\"capabilities\" is not an object")),
        };
        Ok(Self {
            max_msg_fds: number(list, MAX_MSG_FDS)?,
            max_data_xfer_size: number(list, MAX_DATA_XFER_SIZE)?,
            max_dma_maps: number(list, MAX_DMA_MAPS)?,
            pgsizes: number(list, PGSIZES)?,
            write_multiple: match list.get(WRITE_MULTIPLE) {
                None => None,
                Some(Value::Bool(value)) => Some(*value),
                Some(_) => return Err(Malformed::Capabilities("write_multiple is not a boolean")),
            },
        })
    }

    fn encode(&self) -> String {
        let mut list = Map::new();
        let numbers = [
            (MAX_MSG_FDS, self.max_msg_fds),
            (MAX_DATA_XFER_SIZE, self.max_data_xfer_size),
            (MAX_DMA_MAPS, self.max_dma_maps),
            (PGSIZES, self.pgsizes),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                list.insert(name.to_owned(), Value::from(value));
            }
        }
        if let Some(value) = self.write_multiple {
            list.insert(WRITE_MULTIPLE.to_owned(), Value::from(value));
        }
        let mut top = Map::new();
        top.insert(WRAPPER.to_owned(), Value::Object(list));
        Value::Object(top).to_string()
    }
}

fn number(list: &Map<String, Value>, name: &str) -> Result<Option<u64>, Malformed> {
    match list.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or(Malformed::Capabilities("a number is negative, fractional or no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Version, Malformed> {
        let mut payload = vec![0; 4];
        payload.extend_from_slice(text.as_bytes());
        Version::decode(&payload)
    }

    #[test]
    fn reads_what_qemu_11_sends() {
        let text = concat!(
            r#"{"capabilities": {"pgsizes": 4096, "max_data_xfer_size": 1048576, "#,
            r#""max_dma_maps": 65535, "max_msg_fds": 16, "migration": {"pgsize": 4096, "#,
            r#""max_bitmap_size": 268435456}, "write_multiple": true}}"#,
            "\0"
        );
        assert_eq!(
            decode(text).unwrap().capabilities,
            Capabilities {
                max_msg_fds: Some(16),
                max_data_xfer_size: Some(1 << 20),
                max_dma_maps: Some(65_535),
                pgsizes: Some(4096),
                write_multiple: Some(true),
            }
        );
    }

    #[test]
    fn everything_is_optional() {
        for text in ["", "\0", "{}\0", "{\"capabilities\":{}}\0", "{}\0trailing\0", "{\"x\":1}\0"] {
            assert_eq!(decode(text).unwrap(), Version::default(), "{text:?}");
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for text in [
            "{}",
            "[]\0",
            "1\0",
            "{\0",
            "{\"capabilities\":[1,2,3]}\0",
            "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            "{\"capabilities\":{\"max_msg_fds\":1.5}}\0",
            "{\"capabilities\":{\"max_msg_fds\":\"8\"}}\0",
            "{\"capabilities\":{\"write_multiple\":1}}\0",
            "\u{1}{}\0",
        ] {
            assert!(decode(text).is_err(), "{text:?}");
        }
        assert!(matches!(Version::decode(&[0; 3]), Err(Malformed::Short { .. })));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let text = format!("{}\0", "[".repeat(50_000));
        assert!(decode(&text).is_err());
    }
}
