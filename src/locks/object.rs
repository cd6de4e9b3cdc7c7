//! What is locked: a key, or a range of keys, in a namespace.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::Text;

/// What can be locked: a key in a namespace, or a range of its keys.
///
/// For a record the namespace is the name of its database and the key is the record's encoded key;
/// anything else an application wants to lock has a namespace and bytes of the application's choice.
/// Equal namespace and equal bytes are the same object. Objects are cheap to clone; keys of up to 22
/// bytes are kept without an allocation.
///
/// A range excludes what overlaps it: a key in it, or another range. Keys are ordered as LMDB orders
/// them by default, byte by byte.
///
/// Objects are ordered by namespace, then by key, a range by its start: taking locks in this order
/// avoids deadlocks.
///
/// ```
/// use lockkeeper::Object;
///
/// let alice = Object::new("accounts", "alice");
/// let a_to_c = Object::range("accounts", "a".."d")?;
/// assert!(a_to_c.overlaps(&alice));
/// assert!(Object::prefix("accounts", "al").overlaps(&alice));
/// assert!(Object::whole("accounts").overlaps(&a_to_c));
/// assert!(!Object::whole("orders").overlaps(&alice));
/// # Ok::<(), lockkeeper::EmptyRange>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Object {
    namespace: Text,
    key: Key,
}

/// No key can be in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range to be locked is empty: its end is not after its start")]
pub struct EmptyRange;

impl Object {
    /// The object `key` of `namespace`.
    pub fn new(namespace: impl Into<Text>, key: impl AsRef<[u8]>) -> Self {
        Self {
            namespace: namespace.into(),
            key: Key::new(key.as_ref()),
        }
    }

    /// All keys of `namespace` within `bounds`, also those that do not exist yet.
    ///
    /// # Errors
    /// [`EmptyRange`] if no key can be within the bounds.
    pub fn range<K: AsRef<[u8]>>(
        namespace: impl Into<Text>,
        bounds: impl RangeBounds<K>,
    ) -> Result<Self, EmptyRange> {
        let start = match bounds.start_bound() {
            Bound::Unbounded => Box::default(),
            Bound::Included(key) => key.as_ref().into(),
            Bound::Excluded(key) => next_key(key.as_ref()),
        };
        let end = match bounds.end_bound() {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(next_key(key.as_ref())),
            Bound::Excluded(key) => Some(key.as_ref().into()),
        };
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Err(EmptyRange);
        }
        Ok(Self {
            namespace: namespace.into(),
            key: Key::Range(Arc::new(KeyRange { start, end })),
        })
    }

    /// All keys of `namespace` that begin with `prefix`; an empty prefix is [`whole`](Self::whole).
    pub fn prefix(namespace: impl Into<Text>, prefix: impl AsRef<[u8]>) -> Self {
        let start: Box<[u8]> = prefix.as_ref().into();
        // The first key after all of them: the prefix without its trailing 0xff, and one more.
        let end = start.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            end.into()
        });
        Self {
            namespace: namespace.into(),
            key: Key::Range(Arc::new(KeyRange { start, end })),
        }
    }

    /// Everything in `namespace`.
    pub fn whole(namespace: impl Into<Text>) -> Self {
        Self::prefix(namespace, [])
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    pub(super) fn namespace_text(&self) -> &Text {
        &self.namespace
    }

    /// The key's bytes; of a range, the first key that can be in it.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match &self.key {
            Key::Range(range) => &range.start,
            key => key.as_slice(),
        }
    }

    /// Whether it is a range of keys.
    #[must_use]
    pub fn is_range(&self) -> bool {
        matches!(self.key, Key::Range(_))
    }

    /// The first key after a range; `None` for a range without an end, and for a key.
    #[must_use]
    pub fn range_end(&self) -> Option<&[u8]> {
        match &self.key {
            Key::Range(range) => range.end.as_deref(),
            _ => None,
        }
    }

    /// Whether the two have a key in common.
    #[must_use]
    pub fn overlaps(&self, other: &Object) -> bool {
        self.namespace == other.namespace && self.reaches(other.key()) && other.reaches(self.key())
    }

    /// The first key of a range, as an object; of a key, itself.
    pub(super) fn first_key(&self) -> Self {
        match &self.key {
            Key::Range(range) => Self::new(self.namespace.clone(), &range.start),
            _ => self.clone(),
        }
    }

    /// Feeds the table's own hash, which takes a short key in whole words.
    #[inline]
    pub(super) fn digest(&self, state: &mut impl Hasher) {
        state.write(self.namespace.as_str().as_bytes());
        match &self.key {
            Key::InPlace { len, bytes } => {
                // They overlap, and between them have all of the bytes.
                if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
                    state.write_u128(u128::from_le_bytes(*low));
                    state.write_u64(u64::from_le_bytes(*high));
                }
                state.write_u8(*len);
            }
            Key::Shared(bytes) => state.write(bytes),
            Key::Range(range) => range.hash(state),
        }
    }

    /// Whether it does not end before `key`.
    pub(super) fn reaches(&self, key: &[u8]) -> bool {
        match &self.key {
            Key::Range(range) => range.end.as_ref().is_none_or(|end| key < &**end),
            own => key <= own.as_slice(),
        }
    }
}

impl PartialOrd for Object {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Object {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of two that begin alike a key comes before a range, and the range that ends first before the other.
        let no_end = |object: &Object| object.is_range() && object.range_end().is_none();
        (self.namespace.cmp(&other.namespace))
            .then_with(|| self.key().cmp(other.key()))
            .then_with(|| self.is_range().cmp(&other.is_range()))
            .then_with(|| no_end(self).cmp(&no_end(other)))
            .then_with(|| self.range_end().cmp(&other.range_end()))
    }
}

/// `namespace[key]`, `namespace[start..end)`; a key that is not plain text is shown in hexadecimal digits.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.namespace)?;
        show_key(f, self.key())?;
        if !self.is_range() {
            return f.write_str("]");
        }
        f.write_str("..")?;
        if let Some(end) = self.range_end() {
            show_key(f, end)?;
        }
        f.write_str(")")
    }
}

fn show_key(f: &mut fmt::Formatter<'_>, key: &[u8]) -> fmt::Result {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
        _ => {
            f.write_str("0x")?;
            key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({self})")
    }
}

impl serde::Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The key that comes right after this one.
fn next_key(key: &[u8]) -> Box<[u8]> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// From `start` on, up to but without `end`; never empty.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyRange {
    start: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

// Record keys are short; keeping them in place saves an allocation for each request.
const IN_PLACE: usize = 22;

#[derive(Clone)]
enum Key {
    InPlace { len: u8, bytes: [u8; IN_PLACE] },
    Shared(Arc<[u8]>),
    Range(Arc<KeyRange>),
}

impl Key {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(key);
                Key::InPlace { len, bytes }
            }
            _ => Key::Shared(key.into()),
        }
    }

    /// The bytes of a key; the start of a range.
    fn as_slice(&self) -> &[u8] {
        match self {
            Key::InPlace { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Key::Shared(bytes) => bytes,
            Key::Range(range) => &range.start,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Key::Range(one), Key::Range(other)) => one == other,
            (Key::Range(_), _) | (_, Key::Range(_)) => false,
            // What is behind the end is zero in both.
            (
                Key::InPlace { len, bytes },
                Key::InPlace {
                    len: other_len,
                    bytes: other_bytes,
                },
            ) => len == other_len && bytes == other_bytes,
            _ => self.as_slice() == other.as_slice(),
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::Range(range) => range.hash(state),
            key => key.as_slice().hash(state),
        }
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
        let shown = |object: Object| object.to_string();
        assert_eq!(shown(Object::new("accounts", "alice")), "accounts[alice]");
        assert_eq!(
            shown(Object::new("ids", 7_u16.to_be_bytes())),
            "ids[0x0007]"
        );
        assert_eq!(shown(Object::range("n", "a".."f").unwrap()), "n[a..f)");
        assert_eq!(shown(Object::range("n", "a"..).unwrap()), "n[a..)");
        assert_eq!(shown(Object::whole("n")), "n[..)");
    }

    #[test]
    fn ranges_overlap_what_they_share_a_key_with() {
        let range =
            |bounds: (Bound<&str>, Bound<&str>)| Object::range::<&str>("n", bounds).unwrap();
        use Bound::{Excluded as Ex, Included as In, Unbounded as Un};
        let key = |key: &str| Object::new("n", key);
        for (one, other, expected) in [
            (range((In("b"), Ex("d"))), key("b"), true),
            (range((In("b"), Ex("d"))), key("czzz"), true),
            (range((In("b"), Ex("d"))), key("d"), false),
            (range((In("b"), In("d"))), key("d"), true),
            (range((In("b"), In("d"))), key("d\0"), false),
            (range((Ex("b"), Un)), key("b"), false),
            (range((Ex("b"), Un)), key("b\0"), true),
            (range((In("b"), Ex("d"))), range((In("d"), Un)), false),
            (range((In("b"), In("d"))), range((In("d"), Un)), true),
            (range((Un, Ex("b"))), range((In("b"), In("b"))), false),
            (range((Un, Un)), range((In("b"), In("b"))), true),
            (range((In("b"), In("b"))), key("b"), true),
            (key("b"), key("b"), true),
            (key("b"), key("c"), false),
            (Object::prefix("n", "ab"), key("ab"), true),
            (Object::prefix("n", "ab"), key("abz"), true),
            (Object::prefix("n", "ab"), key("ac"), false),
            (
                Object::prefix("n", [1, 255]),
                Object::new("n", [1, 255, 255]),
                true,
            ),
            (Object::prefix("n", [1, 255]), Object::new("n", [2]), false),
            (
                Object::prefix("n", [255]),
                Object::new("n", [255, 255]),
                true,
            ),
            (Object::whole("n"), Object::whole("n"), true),
            (Object::whole("n"), Object::whole("m"), false),
        ] {
            assert_eq!(one.overlaps(&other), expected, "{one} and {other}");
            assert_eq!(other.overlaps(&one), expected, "{other} and {one}");
        }
    }

    #[test]
    fn a_range_without_room_for_a_key_is_refused() {
        for bounds in [
            (Bound::Included("b"), Bound::Excluded("b")),
            (Bound::Included("b"), Bound::Included("a")),
            (Bound::Excluded("b"), Bound::Included("b")),
            (Bound::Excluded("b"), Bound::Excluded("b\0")),
        ] {
            assert_eq!(
                Object::range::<&str>("n", bounds),
                Err(EmptyRange),
                "{bounds:?}"
            );
        }
        assert!(Object::range("n", "b"..="b").is_ok());
    }

    #[test]
    fn one_range_written_in_two_ways_is_one_object() {
        assert_eq!(
            Object::range("n", "a"..="b"),
            Object::range("n", "a".."b\0")
        );
        assert_eq!(Object::range::<&str>("n", ..), Ok(Object::whole("n")));
        assert_ne!(Object::range("n", "a"..="a"), Ok(Object::new("n", "a")));
    }

    #[test]
    fn keys_come_before_ranges_and_short_ranges_before_long_ones() {
        let mut all = [
            Object::whole("b"),
            Object::range("a", "k"..).unwrap(),
            Object::range("a", "k".."z").unwrap(),
            Object::range("a", "k".."l").unwrap(),
            Object::new("a", "k"),
            Object::new("a", "j"),
        ];
        all.sort();
        let shown: Vec<String> = all.iter().map(Object::to_string).collect();
        assert_eq!(
            shown,
            ["a[j]", "a[k]", "a[k..l)", "a[k..z)", "a[k..)", "b[..)"]
        );
    }
}
