//! How a closed list of words is written down: once, each word with what it means. The type, its spelling in rows and the page are made
//! from that.

/// Makes an enum of a list: variant, word, what it means.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident, $word:literal, $means:literal;)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(
                #[doc = $means]
                $variant,
            )+
        }

        impl $name {
            /// Every word of the list.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in rows.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What it means.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $means,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;
