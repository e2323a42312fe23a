//! Changes to the bytes of a request or a reply: ranges that are replaced. Every other byte stays as it came, and what is replaced within a
//! string stays within it, whatever the new text holds.

use std::ops::Range;

use super::index::{Span, Text};
use super::json;

/// A byte range and what stands there instead. An empty range is an insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Which bytes.
    pub span: Span,
    /// What stands there instead.
    pub with: Vec<u8>,
}

/// The changes to one body, in the order of its bytes, none of which touches another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Splices(Vec<Splice>);

/// Why a body cannot be changed this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// A range ends before it begins, or beyond the body.
    #[error("a change lies outside the body")]
    Outside,
    /// Two ranges share a byte, or do not ascend.
    #[error("two changes overlap")]
    Overlap,
    /// The range is not within one string of the body, cuts a character, or is signed by the upstream.
    #[error("a change is not within a text that may be changed")]
    Text,
}

/// `body` with `splices`, which ascend. Errors: see [`Misplaced`].
pub fn apply(body: &[u8], splices: &[Splice]) -> Result<Vec<u8>, Misplaced> {
    let grown: usize = splices.iter().map(|splice| splice.with.len()).sum();
    let mut out = Vec::with_capacity(body.len().saturating_add(grown));
    let mut at = 0;
    for Splice { span, with } in splices {
        let (start, end) = (span.start as usize, span.end as usize);
        if start > end || end > body.len() {
            return Err(Misplaced::Outside);
        }
        out.extend_from_slice(body.get(at..start).ok_or(Misplaced::Overlap)?);
        out.extend_from_slice(with);
        at = end;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    Ok(out)
}

/// `text` as it stands between the quotes of a JSON string.
pub fn in_quotes(text: &str) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    json::string(&mut quoted, text);
    quoted.pop();
    quoted.drain(..1);
    quoted
}

/// A text as a block of a message's content.
pub fn text_block(text: &str) -> Vec<u8> {
    let mut block = br#"{"type":"text","text":"#.to_vec();
    json::string(&mut block, text);
    block.push(b'}');
    block
}

// === impl Splices ===

impl Splices {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes that came in any order. Insertions at one place keep theirs. Errors: [`Misplaced::Overlap`], [`Misplaced::Outside`].
    pub fn from_unsorted(mut splices: Vec<Splice>) -> Result<Self, Misplaced> {
        if splices.iter().any(|splice| splice.span.start > splice.span.end) {
            return Err(Misplaced::Outside);
        }
        splices.sort_by_key(|splice| (splice.span.start, splice.span.end));
        let mut pairs = splices.iter().zip(splices.iter().skip(1));
        if pairs.any(|(earlier, later)| earlier.span.end > later.span.start) {
            return Err(Misplaced::Overlap);
        }
        Ok(Self(splices))
    }

    /// Adds one in its place: behind those that begin where it does. Error: [`Misplaced::Overlap`].
    pub fn push(&mut self, splice: Splice) -> Result<(), Misplaced> {
        if splice.span.start > splice.span.end {
            return Err(Misplaced::Outside);
        }
        let place = self.0.partition_point(|earlier| earlier.span.end <= splice.span.start);
        if self.0.get(place).is_some_and(|later| later.span.start < splice.span.end) {
            return Err(Misplaced::Overlap);
        }
        self.0.insert(place, splice);
        Ok(())
    }

    /// Replaces byte ranges of `text`, as [`Text::read`] gives it, by other texts. The ranges ascend and do not overlap. Nothing
    /// is added where one of them cannot be replaced. Errors: [`Misplaced::Text`], [`Misplaced::Overlap`].
    pub fn replace<'t>(
        &mut self,
        body: &[u8],
        text: Text,
        ranges: impl IntoIterator<Item = (Range<usize>, &'t str)>,
    ) -> Result<(), Misplaced> {
        let (ranges, texts): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
        let spans = text.locate(body, &ranges).ok_or(Misplaced::Text)?;
        // All or nothing, and without a copy: a body may have a hundred thousand texts to change.
        if spans.iter().any(|span| !self.is_free(*span)) {
            return Err(Misplaced::Overlap);
        }
        for (span, with) in spans.into_iter().zip(texts) {
            self.push(Splice { span, with: in_quotes(with) })?;
        }
        Ok(())
    }

    fn is_free(&self, span: Span) -> bool {
        let place = self.0.partition_point(|earlier| earlier.span.end <= span.start);
        self.0.get(place).is_none_or(|later| later.span.start >= span.end)
    }

    /// The changed body. Error: [`Misplaced::Outside`].
    pub fn apply(&self, body: &[u8]) -> Result<Vec<u8>, Misplaced> {
        apply(body, &self.0)
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges change.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests;
