//! JSON for things that are signed or that decide: what two parsers could read differently is refused rather
//! than read.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// The size accepted unless told otherwise, in bytes: 64 KiB.
pub const DEFAULT_LIMIT: usize = 64 * 1024;
/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 32;
/// The largest integer that every JSON implementation reads the same (RFC 7493, section 2.2): 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why JSON is refused.
#[derive(Debug, thiserror::Error)]
pub enum StrictError {
    /// More bytes than allowed.
    #[error("the json is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not JSON, bytes after the value, a name twice in one object, nested deeper than [`MAX_DEPTH`], or a
    /// number beyond [`MAX_INTEGER`].
    #[error("the json is refused")]
    Json(#[source] serde_json::Error),
    /// JSON of another shape: a member is missing, unknown or of another type.
    #[error("the json has another shape")]
    Shape(#[source] serde_json::Error),
}

/// The methods of a visitor that takes values of these types, keeps nothing of them, and answers the same for each.
macro_rules! pass_over {
    ($answer:expr => $($what:ident),+) => {
        $(pass_over! { @ $what $answer })+
    };
    (@ unit $answer:expr) => {
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok($answer)
        }
    };
    (@ bool $answer:expr) => {
        fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($answer)
        }
    };
    (@ str $answer:expr) => {
        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok($answer)
        }
    };
    (@ number $answer:expr) => {
        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($answer)
        }
    };
}

pub(crate) use pass_over;

/// Reads `bytes`, at most `limit` of them, as one JSON value of type `T`. Refuses a byte order mark, invalid
/// UTF-8, bytes after the value, a name that stands twice in one object (at any depth, also where `T` ignores
/// it), nesting beyond [`MAX_DEPTH`] and numbers beyond [`MAX_INTEGER`]. Unknown members are refused if `T`
/// says `deny_unknown_fields`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, StrictError> {
    if bytes.len() > limit {
        return Err(StrictError::TooLarge { limit });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    StrictCheck { depth: 0 }.deserialize(&mut deserializer).map_err(StrictError::Json)?;
    deserializer.end().map_err(StrictError::Json)?;
    serde_json::from_slice(bytes).map_err(StrictError::Shape)
}

#[derive(Clone, Copy)]
struct StrictCheck {
    depth: usize,
}

impl StrictCheck {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            Ok(Self { depth: self.depth + 1 })
        } else {
            Err(E::custom("nested too deeply"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for StrictCheck {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictCheck {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    pass_over! { () => unit, bool, str }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        if number <= MAX_INTEGER { Ok(()) } else { Err(E::custom("a number is too large")) }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_u64(number.unsigned_abs())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if number.abs() <= 9_007_199_254_740_991.0 { Ok(()) } else { Err(E::custom("a number is too large")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !seen.insert(name) {
                return Err(de::Error::custom("a name stands twice in one object"));
            }
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Closed {
        #[expect(dead_code, reason = "read by the deserialiser alone")]
        a: u32,
    }

    fn read(json: &str) -> Result<Value, StrictError> {
        parse(json.as_bytes(), DEFAULT_LIMIT)
    }

    #[test]
    fn plain_json_is_read_as_it_is() {
        let value = read(r#" {"a":[1,-2,0.5,null,true,"x"],"b":{"a":{}}} "#).unwrap();
        assert_eq!(value["a"][2], 0.5);
        assert_eq!(read("9007199254740991").unwrap(), 9_007_199_254_740_991_u64);
        assert_eq!(read("-9007199254740991").unwrap(), -9_007_199_254_740_991_i64);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"b":{"c":[{"x":1,"x":2}]}}]"#,
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            "1e300",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            r#"{"a":1,}"#,
            "[1,]",
            "{'a':1}",
            "// a\n{}",
            "NaN",
            "01",
            "+1",
            r#""\ud800""#,
            "\"a\nb\"",
            "",
        ] {
            assert!(matches!(read(json), Err(StrictError::Json(_))), "{json}");
        }
        let invalid: Result<Value, _> = parse(b"\"\xc3\x28\"", DEFAULT_LIMIT);
        assert!(matches!(invalid, Err(StrictError::Json(_))));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        read(&nested(MAX_DEPTH)).unwrap();
        assert!(matches!(read(&nested(MAX_DEPTH + 1)), Err(StrictError::Json(_))));
        assert!(matches!(read(&"[".repeat(60_000)), Err(StrictError::Json(_))));
        assert!(matches!(read(&r#"{"a":"#.repeat(10_000)), Err(StrictError::Json(_))));
    }

    #[test]
    fn size_is_bounded_before_anything_is_read() {
        let json = format!("\"{}\"", "x".repeat(DEFAULT_LIMIT));
        assert!(matches!(read(&json), Err(StrictError::TooLarge { limit: DEFAULT_LIMIT })));
        let fits = format!("\"{}\"", "x".repeat(DEFAULT_LIMIT - 2));
        read(&fits).unwrap();
    }

    #[test]
    fn an_unknown_member_is_another_shape() {
        let closed = |json: &str| parse::<Closed>(json.as_bytes(), DEFAULT_LIMIT);
        closed(r#"{"a":1}"#).unwrap();
        for json in [r#"{"a":1,"b":2}"#, "{}", r#"{"a":"1"}"#, r#"{"a":-1}"#, "[]"] {
            assert!(matches!(closed(json), Err(StrictError::Shape(_))), "{json}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_also_where_it_is_ignored() {
        #[derive(Deserialize)]
        struct Open {}
        assert!(parse::<Open>(br#"{"x":{"y":1,"y":2}}"#, DEFAULT_LIMIT).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _parsed: Result<Value, _> = parse(&bytes, DEFAULT_LIMIT);
        }

        #[test]
        fn what_is_accepted_is_what_serde_json_reads(json in r#"[{}\[\]",:a1e.\- ]{0,30}"#) {
            if let Ok(strict) = read(&json) {
                prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), strict);
            }
        }
    }
}
