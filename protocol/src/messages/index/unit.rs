//! What scanners are asked about: texts, each by itself as long as there are few, small ones of a kind together where there are
//! many. To ask has a price, so that a request of a hundred thousand words in as many texts would cost a hundred thousand of them.
//!
//! Which texts are together depends on the request alone, and those of earlier turns stay together when a conversation grows: so
//! that findings can be remembered, and what was recorded can be asked again.

use std::borrow::Cow;
use std::ops::Range;

use super::{Origin, Text};
use crate::messages::splice::{Misplaced, Splices};

/// Up to here every text is a unit of its own.
const FEW: usize = 256;
/// A text that is not longer in the body is small.
const SMALL: u32 = 2_048;
/// How many small texts are together at most, and how many of their bytes.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: u32 = 32_768;

/// One or more texts of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    first: Text,
    more: Vec<Text>,
}

/// The units of a request's texts.
pub(super) fn units(texts: &[Text]) -> Vec<Unit> {
    let many = texts.len() > FEW;
    let mut units: Vec<Unit> = Vec::with_capacity(texts.len().min(2 * FEW));
    // The unit that takes the next small text of a kind, and its bytes so far.
    let mut open: [Option<(usize, u32)>; Origin::COUNT] = [None; Origin::COUNT];
    for text in texts {
        // Parameters are few and seldom change.
        let joins = text.span.len() <= SMALL
            && (many || (text.origin == Origin::Parameter && text.message.is_none()));
        let place = open.get_mut(text.origin as usize).filter(|_| joins);
        let Some(place) = place else {
            units.push(Unit { first: *text, more: Vec::new() });
            continue;
        };
        if let Some((at, bytes)) = place
            && let Some(unit) = units.get_mut(*at)
            && unit.more.len() + 1 < TOGETHER
            && bytes.saturating_add(text.span.len()) <= TOGETHER_BYTES
        {
            unit.more.push(*text);
            *bytes += text.span.len();
        } else {
            *place = Some((units.len(), text.span.len()));
            units.push(Unit { first: *text, more: Vec::new() });
        }
    }
    units
}

// === impl Origin ===

impl Origin {
    /// How many there are.
    const COUNT: usize = Self::Other as usize + 1;
}

// === impl Unit ===

impl Unit {
    /// Where its texts come from.
    pub fn origin(&self) -> Origin {
        self.first.origin
    }

    /// Its texts, in order.
    pub fn texts(&self) -> impl Iterator<Item = Text> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    /// How many texts it has.
    #[expect(clippy::len_without_is_empty, reason = "it always has one")]
    pub fn len(&self) -> usize {
        1 + self.more.len()
    }

    /// What a scanner reads: its texts, one a line.
    pub fn read<'b>(&self, body: &'b [u8]) -> Cow<'b, str> {
        if self.more.is_empty() {
            return self.first.read(body);
        }
        let mut all = String::new();
        for text in self.texts() {
            all.push_str(&text.read(body));
            all.push('\n');
        }
        Cow::Owned(all)
    }

    /// Where in the body the text begins in which the byte `byte` of what [`Unit::read`] gives stands.
    pub fn at(&self, body: &[u8], byte: usize) -> usize {
        let mut end = 0;
        let holds = |text: &Text| {
            end += text.read(body).len() + 1;
            byte < end
        };
        let text = if self.more.is_empty() { None } else { self.texts().find(holds) };
        text.unwrap_or(self.first).span.start as usize
    }

    /// Replaces byte ranges of what [`Unit::read`] gives. The ranges ascend and do not overlap. Nothing is added where one of them
    /// cannot be replaced, such as one over the end of a text. Errors: see [`Splices::replace`].
    pub fn replace<'t>(
        &self,
        splices: &mut Splices,
        body: &[u8],
        ranges: impl IntoIterator<Item = (Range<usize>, &'t str)>,
    ) -> Result<(), Misplaced> {
        if self.more.is_empty() {
            return splices.replace(body, self.first, ranges);
        }
        let mut ranges = ranges.into_iter().peekable();
        let mut begin = 0;
        for text in self.texts() {
            let end = begin + text.read(body).len();
            let mut inside = Vec::new();
            while let Some((range, with)) = ranges.next_if(|(range, _)| range.start < end) {
                if range.start < begin || range.end > end {
                    return Err(Misplaced::Text);
                }
                inside.push((range.start - begin..range.end - begin, with));
            }
            if !inside.is_empty() {
                splices.replace(body, text, inside)?;
            }
            begin = end + 1;
        }
        if ranges.next().is_some() { Err(Misplaced::Text) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Index;
    use super::*;

    fn request(texts: usize) -> String {
        let messages: Vec<String> = (0..texts)
            .map(|number| {
                let role = if number % 2 == 0 { "user" } else { "assistant" };
                format!(r#"{{"role":"{role}","content":"w\u006frd {number}"}}"#)
            })
            .collect();
        format!(r#"{{"model":"m","stop_sequences":["a b"],"messages":[{}]}}"#, messages.join(","))
    }

    #[test]
    fn few_texts_stand_alone_and_parameters_together() {
        let body = request(3);
        let units = Index::parse(body.as_bytes()).unwrap().units();
        let read: Vec<_> = units.iter().map(|unit| unit.read(body.as_bytes()).into_owned()).collect();
        assert_eq!(read, ["\"model\":\"m\"\n\"stop_sequences\":[\"a b\"]\n", "word 0", "word 1", "word 2"]);
    }

    #[test]
    fn many_small_texts_of_a_kind_stand_together_and_stay_so_when_more_follow() {
        let (body, longer) = (request(1_000), request(1_001));
        let units = |body: &str| Index::parse(body.as_bytes()).unwrap().units();
        let (now, then) = (units(&body), units(&longer));
        assert!(now.len() < 20, "{}", now.len());
        assert_eq!(now.iter().map(Unit::len).sum::<usize>(), 1_002);
        let read = |units: &[Unit], body: &str| -> Vec<String> {
            units.iter().map(|unit| unit.read(body.as_bytes()).into_owned()).collect()
        };
        let (now, then) = (read(&now, &body), read(&then, &longer));
        assert!(then.iter().filter(|unit| !now.contains(unit)).count() <= 1);
    }

    #[test]
    fn a_range_is_cut_out_of_its_text_and_one_over_two_texts_is_not() {
        let body = request(1_000);
        let index = Index::parse(body.as_bytes()).unwrap();
        let unit = index.units().into_iter().find(|unit| unit.origin() == Origin::User).unwrap();
        let all = unit.read(body.as_bytes());
        let at = all.find("word 4").unwrap();
        let mut splices = Splices::new();
        unit.replace(&mut splices, body.as_bytes(), [(0..4, "A"), (at..at + 4, "B")]).unwrap();
        let changed = String::from_utf8(splices.apply(body.as_bytes()).unwrap()).unwrap();
        let expected = body.replacen(r"w\u006frd 0", "A 0", 1).replacen(r#""w\u006frd 4""#, r#""B 4""#, 1);
        assert_eq!(changed, expected);
        for range in [at - 2..at + 2, at + 4..at + 9, all.len() - 2..all.len(), all.len()..all.len() + 4] {
            let mut splices = Splices::new();
            assert!(
                unit.replace(&mut splices, body.as_bytes(), [(range.clone(), "x")]).is_err(),
                "{range:?}"
            );
            assert!(splices.is_empty());
        }
    }
}
