//! What shapes the answer: thinking (<https://docs.claude.com/en/docs/build-with-claude/extended-thinking>), effort
//! (<https://docs.claude.com/en/docs/build-with-claude/effort>) and structured outputs
//! (<https://docs.claude.com/en/docs/build-with-claude/structured-outputs>).

use serde_json::value::RawValue;

use super::{Invalid, Path, required_text};
use crate::json::{is_object, string};
use crate::losses::Losses;
use crate::object;

object! {
    /// `thinking`
    pub struct Thinking {
        /// Whether the model thinks: see [`Thinking::mode`].
        kind: &'a RawValue,
        /// How many tokens it may think for.
        budget_tokens: u64,
    }
}

object! {
    /// `output_config`, of the request or of one message.
    pub struct OutputConfig {
        /// `low`, `medium`, `high`, `xhigh` or `max`.
        effort: &'a RawValue,
        /// The form of the output: see [`OutputSchema::read`].
        format: &'a RawValue,
    }
}

object! {
    /// `output_config.format`
    struct Format {
        /// `json_schema`
        kind: &'a RawValue,
        /// The schema.
        schema: &'a RawValue,
    }
}

/// Whether the model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkingMode {
    /// It does not.
    Disabled,
    /// It does, or decides by itself.
    Enabled,
}

/// The schema that the output is to have.
#[derive(Debug, Clone, Copy)]
pub struct OutputSchema<'a> {
    /// The schema, an object.
    pub schema: &'a RawValue,
    /// Where the client said so, for what is lost of it.
    pub path: &'static str,
}

// === impl OutputSchema ===

impl<'a> OutputSchema<'a> {
    /// The form of the output, in either of its places: `output_config.format`, or `output_format`, which is older. Fields of it that
    /// nobody knows, and forms without a schema, are lost.
    pub fn read(
        config: Option<&OutputConfig<'a>>,
        older: Option<&'a RawValue>,
        losses: &mut Losses,
    ) -> Result<Option<Self>, Invalid> {
        if let Some(config) = config {
            losses.dropped("output_config", &config.unknown);
        }
        let newer = config.and_then(|it| it.format).map(|it| ("output_config.format", it));
        let Some((path, format)) = newer.or_else(|| older.map(|it| ("output_format", it))) else {
            return Ok(None);
        };
        let format = Format::read(format, path)?;
        losses.dropped(path, &format.unknown);
        let schema = format.json_schema();
        if schema.is_none() {
            losses.add(path, "dropped: not a form the upstream knows");
        }
        Ok(schema.map(|schema| Self { schema, path }))
    }
}

// === impl Thinking ===

impl Thinking<'_> {
    /// Whether the model thinks: all types but `disabled` say so.
    pub fn mode(&self) -> Result<ThinkingMode, Invalid> {
        let thinking = Path::root("thinking");
        let kind = required_text(self.kind, thinking.field("type"))?;
        Ok(if kind == "disabled" { ThinkingMode::Disabled } else { ThinkingMode::Enabled })
    }
}

// === impl Format ===

impl<'a> Format<'a> {
    /// Reads a form, which stands at `path`.
    fn read(raw: &'a RawValue, path: &str) -> Result<Self, Invalid> {
        serde_json::from_str(raw.get()).map_err(|error| Invalid(format!("{path}: {error}")))
    }

    /// The schema, if it is a form with one.
    fn json_schema(&self) -> Option<&'a RawValue> {
        let is_schema = self.kind.and_then(string).is_some_and(|it| it == "json_schema");
        self.schema.filter(|it| is_schema && is_object(it))
    }
}
