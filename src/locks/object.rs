//! What is locked: a namespace and bytes.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A short text that is cheap to clone: static, or shared.
#[derive(Clone)]
pub enum Text {
    /// A literal of the program.
    Static(&'static str),
    /// A text made at run time.
    Shared(Arc<str>),
}

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Text::Static(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text::Shared(text.into())
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Text::Shared(text)
    }
}

impl From<Cow<'static, str>> for Text {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Text::Static(text),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can be locked: a key in a namespace.
///
/// For a record the namespace is the name of its database and the key is the record's encoded key;
/// anything else an application wants to lock has a namespace and bytes of the application's choice.
/// Equal namespace and equal bytes are the same object. Objects are cheap to clone; keys of up to 22
/// bytes are kept without an allocation.
///
/// Objects are ordered by namespace, then by key: taking locks in this order avoids deadlocks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    namespace: Text,
    key: KeyBytes,
}

impl Object {
    /// The object `key` of `namespace`.
    pub fn new(namespace: impl Into<Text>, key: impl AsRef<[u8]>) -> Self {
        Self {
            namespace: namespace.into(),
            key: KeyBytes::new(key.as_ref()),
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// The key's bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.as_slice()
    }
}

/// `namespace[key]`; a key that is not plain text is shown in hexadecimal digits.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        write!(f, "{}[", self.namespace)?;
        match std::str::from_utf8(key) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text)?,
            _ => {
                f.write_str("0x")?;
                for byte in key {
                    write!(f, "{byte:02x}")?;
                }
            }
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({self})")
    }
}

// Record keys are short; keeping them in place saves an allocation for each request.
const IN_PLACE: usize = 22;

#[derive(Clone)]
enum KeyBytes {
    InPlace { len: u8, bytes: [u8; IN_PLACE] },
    Shared(Arc<[u8]>),
}

impl KeyBytes {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(key);
                KeyBytes::InPlace { len, bytes }
            }
            _ => KeyBytes::Shared(key.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            KeyBytes::InPlace { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            KeyBytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for KeyBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_its_namespace_and_bytes() {
        let made = Object::new(String::from("accounts"), b"alice");
        assert_eq!(made, Object::new("accounts", "alice"));
        assert_ne!(made, Object::new("account", "salice"));
        for len in [0, 1, 21, 22, 23, 511] {
            let key = vec![7; len];
            assert_eq!(Object::new("n", &key).key(), key, "{len} bytes");
        }
    }

    #[test]
    fn text_keys_read_as_text_and_others_in_hex() {
        assert_eq!(
            Object::new("accounts", "alice").to_string(),
            "accounts[alice]"
        );
        assert_eq!(
            Object::new("ids", 7_u16.to_be_bytes()).to_string(),
            "ids[0x0007]"
        );
    }
}
