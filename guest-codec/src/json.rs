//! JSON read in place: strings that borrow where they can, objects whose values stay raw, and texts put together from
//! JSON strings as they stand. A conversation of a megabyte is scanned, never rebuilt.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// JSON as it stands, the client's or ours.
pub type Json<'a> = Cow<'a, RawValue>;

/// A string that borrows from the input unless it holds escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Str<'a>(pub Cow<'a, str>);

/// A field that a reader has no name for.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// Its key.
    pub name: String,
    /// Its value, as it is written.
    pub value: &'a RawValue,
}

/// Declares an object whose known fields are kept and whose others are listed in `unknown`, in order. `null` is absence; a key given
/// twice is an error, since two readers could then disagree on what was asked. A field named `kind` is the JSON key `type`.
///
/// ```
/// use serde_json::value::RawValue;
///
/// sallyport_guest_codec::object! {
///     /// A thing.
///     pub struct Thing {
///         /// Its name, as it is written.
///         name: &'a RawValue,
///         /// Its size.
///         size: u32,
///     }
/// }
///
/// let thing: Thing<'_> = serde_json::from_str(r#"{"name":"a","colour":1}"#).unwrap();
/// assert_eq!(thing.size, None);
/// assert_eq!((thing.unknown[0].name.as_str(), thing.unknown[0].value.get()), ("colour", "1"));
/// ```
#[macro_export]
macro_rules! object {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        $vis struct $name<'a> {
            $($(#[$field_doc])* $vis $field: Option<$kind>,)+
            /// The other fields, in order.
            $vis unknown: Vec<$crate::json::Field<'a>>,
        }

        impl<'de: 'a, 'a> ::serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields<'a>(::std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> ::serde::de::Visitor<'de> for Fields<'a> {
                    type Value = $name<'a>;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: ::serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Self::Value, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<$crate::json::Str<'de>>()? {
                            match &*key.0 {
                                $($crate::json_key!($field) => {
                                    if object.$field.is_some() {
                                        return Err(::serde::de::Error::duplicate_field($crate::json_key!($field)));
                                    }
                                    object.$field = map.next_value()?;
                                })+
                                _ => {
                                    let value = map.next_value::<&'de ::serde_json::value::RawValue>()?;
                                    let name = key.0.into_owned();
                                    object.unknown.push($crate::json::Field { name, value });
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Fields(::std::marker::PhantomData))
            }
        }
    };
}

/// The JSON name of a field: its own, but for `type`, which Rust keeps for itself.
#[doc(hidden)]
#[macro_export]
macro_rules! json_key {
    (kind) => {
        "type"
    };
    ($field:ident) => {
        stringify!($field)
    };
}

/// The inside of a JSON string, escapes and all; `None` if it is something else.
pub fn inside(raw: &RawValue) -> Option<&str> {
    raw.get().strip_prefix('"')?.strip_suffix('"')
}

/// The string that `raw` spells; `None` if it is something else.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Str<'_>>(raw.get()).ok().map(|it| it.0)
}

/// Whether `raw` is an array.
pub fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

/// Whether `raw` is an object.
pub fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// `text` as the inside of a JSON string, without its quotation marks.
pub fn escape(text: &str) -> String {
    let mut quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.pop();
    if !quoted.is_empty() {
        quoted.remove(0);
    }
    quoted
}

/// JSON strings as one, each piece's spelling kept, a blank line between them.
pub fn joined(mut pieces: Vec<Json<'_>>) -> Json<'_> {
    if pieces.len() == 1
        && let Some(piece) = pieces.pop()
    {
        return piece;
    }
    let mut text = String::with_capacity(pieces.iter().map(|it| it.get().len() + 4).sum());
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            text.push_str("\\n\\n");
        }
        text.push_str(inside(piece).unwrap_or_default());
    }
    quoted(&text)
}

/// The JSON string whose inside is `inside`.
pub fn quoted(inside: &str) -> Json<'static> {
    let mut json = String::with_capacity(inside.len() + 2);
    json.push('"');
    json.push_str(inside);
    json.push('"');
    Cow::Owned(RawValue::from_string(json).unwrap_or_default())
}

// === impl Str ===

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Str<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

#[cfg(test)]
mod tests {
    use super::{Json, escape, joined, quoted};
    use serde_json::value::RawValue;

    crate::object! {
        /// Under test.
        struct Thing { name: &'a RawValue, size: u32 }
    }

    #[test]
    fn an_object_keeps_what_it_knows_and_lists_the_rest() {
        let thing: Thing<'_> = serde_json::from_str(r#"{"name":"a\nb","size":null,"x":[1],"y":{}}"#).unwrap();
        assert_eq!(thing.name.map(RawValue::get), Some(r#""a\nb""#));
        assert_eq!(thing.size, None);
        let unknown: Vec<_> = thing.unknown.iter().map(|it| (it.name.as_str(), it.value.get())).collect();
        assert_eq!(unknown, [("x", "[1]"), ("y", "{}")]);
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let error = serde_json::from_str::<Thing<'_>>(r#"{"size":1,"size":2}"#).unwrap_err();
        assert!(error.to_string().starts_with("duplicate field `size`"));
    }

    #[test]
    fn one_piece_of_text_keeps_its_spelling_and_several_are_joined() {
        let a = RawValue::from_string(r#""caf\u00e9 \/""#.to_owned()).unwrap();
        let b = RawValue::from_string(r#""b""#.to_owned()).unwrap();
        let (a, b) = (Json::Borrowed(&*a), Json::Borrowed(&*b));
        assert_eq!(joined(vec![a.clone()]).get(), r#""caf\u00e9 \/""#);
        assert_eq!(joined(vec![a, b]).get(), r#""caf\u00e9 \/\n\nb""#);
        assert_eq!(joined(Vec::new()).get(), r#""""#);
    }

    #[test]
    fn escaping_is_json() {
        assert_eq!(escape("a\"b\n"), r#"a\"b\n"#);
        assert_eq!(quoted("").get(), r#""""#);
    }
}
