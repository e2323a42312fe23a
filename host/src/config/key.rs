//! What a key of the configuration is: its name, the form of its value, what holds without it, and what it means. The reader, the
//! JSON Schema and the reference page use this one description, so that they cannot disagree.

use std::ops::RangeInclusive;

/// A mapping of the configuration file: the keys that may stand in it.
pub(super) struct ConfigBlock {
    /// What the block is for, in Markdown; stands above its table in the reference.
    pub(super) about: &'static str,
    /// The keys, in the order of the reference.
    pub(super) keys: &'static [ConfigKey],
    /// More for the reference, below the table: rules that concern several keys, an example.
    pub(super) notes: &'static str,
}

/// A key of the configuration file.
#[derive(Clone, Copy)]
pub(super) struct ConfigKey {
    /// As written in the file.
    pub(super) name: &'static str,
    /// The form of its value.
    pub(super) form: Form,
    /// What holds where the key is absent.
    pub(super) absent: Absent,
    /// What it means, in Markdown, without a full stop at the end.
    pub(super) about: &'static str,
}

/// The form of a value.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Text that is not empty.
    Text,
    /// A secret: text, or where to find it.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number in this range, both ends included.
    Number(u64, u64),
    /// One of these words. A word that looks like a number may stand without quotes.
    Choice(fn() -> Vec<&'static str>),
    /// A list of such values.
    List(&'static Self),
    /// A mapping with these keys.
    Mapping(&'static ConfigBlock),
    /// A mapping that somebody else reads: a component.
    Free,
    /// Any of these forms.
    Either(&'static [Self]),
}

/// What holds where a key is absent.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    /// The key has to be there.
    Required,
    /// Nothing: no such thing is set.
    Nothing,
    /// This flag.
    Flag(bool),
    /// This number.
    Number(u64),
    /// This word of a choice.
    Word(fn() -> &'static str),
    /// This text.
    Text(&'static str),
    /// What follows from something else, in Markdown.
    Derived(&'static str),
}

/// A closed set of words, each of which is a value.
pub(super) trait Word: Copy + 'static {
    /// Every value, in the order of the reference.
    const ALL: &'static [Self];

    /// As written in the file.
    fn word(self) -> &'static str;
}

// === impl ConfigKey ===

impl ConfigKey {
    const fn new(name: &'static str, form: Form, absent: Absent, about: &'static str) -> Self {
        Self { name, form, absent, about }
    }

    /// A key whose value is text; absent unless [`Self::or`] says what holds then.
    pub(super) const fn text(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Form::Text, Absent::Nothing, about)
    }

    /// A key that is `true` or `false`, and `false` if it is absent.
    pub(super) const fn flag(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Form::Flag, Absent::Flag(false), about)
    }

    /// A key that is a whole number.
    pub(super) const fn number(
        name: &'static str,
        range: &RangeInclusive<u64>,
        usual: u64,
        about: &'static str,
    ) -> Self {
        Self::new(name, Form::Number(*range.start(), *range.end()), Absent::Number(usual), about)
    }

    /// A key that is one of the words of `T`; absent unless [`Self::or_default`] says that one of them holds then.
    pub(super) const fn choice<T: Word>(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Form::Choice(words::<T>), Absent::Nothing, about)
    }

    /// A key that is a list; absent, the list is empty.
    pub(super) const fn list(name: &'static str, item: &'static Form, about: &'static str) -> Self {
        Self::new(name, Form::List(item), Absent::Nothing, about)
    }

    /// A key that is a mapping; absent, every key in it is.
    pub(super) const fn mapping(
        name: &'static str,
        block: &'static ConfigBlock,
        about: &'static str,
    ) -> Self {
        Self::new(name, Form::Mapping(block), Absent::Nothing, about)
    }

    /// A key of another form.
    pub(super) const fn of(name: &'static str, form: Form, about: &'static str) -> Self {
        Self::new(name, form, Absent::Nothing, about)
    }

    /// The same, which has to be there.
    pub(super) const fn required(self) -> Self {
        Self { absent: Absent::Required, ..self }
    }

    /// The same, with what holds where it is absent.
    pub(super) const fn or(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }

    /// The same, with the usual word of a choice where it is absent.
    pub(super) const fn or_default<T: Word + Default>(self) -> Self {
        Self { absent: Absent::Word(usual::<T>), ..self }
    }
}

fn words<T: Word>() -> Vec<&'static str> {
    T::ALL.iter().map(|value| value.word()).collect()
}

fn usual<T: Word + Default>() -> &'static str {
    T::default().word()
}
