//! Places in a request from which reading can go on, for another request that begins with the same bytes: a conversation that grows
//! is read from where it grew.

use super::reader::Reader;
use super::scan::Malformed;
use super::{Index, Span};

/// So many bytes are compared at once.
const BLOCK: usize = 4_096;

/// A request that was read.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// Its bytes.
    pub body: &'a [u8],
    /// What was read of them.
    pub index: &'a Index,
    /// Where reading can go on.
    pub marks: &'a Marks,
}

/// Where reading can go on: behind each message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// What was known of the request before its first message.
    pub(super) before: Option<Box<Before>>,
    /// One for each message.
    pub(super) ends: Vec<Mark>,
    /// Where ids of tool calls stand, in order.
    pub(super) calls: Vec<Span>,
    /// Tools that were named elsewhere than in `tools`, in order.
    pub(super) named: Vec<String>,
}

/// What was known of a request before its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// The index so far, without what is a list.
    pub(super) index: Index,
    /// The keys of the request that were seen.
    pub(super) seen: u64,
}

/// Behind a message: how many of everything there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: u32,
    pub(super) texts: usize,
    pub(super) tool_blocks: usize,
    pub(super) tools: usize,
    pub(super) unknown: usize,
    pub(super) calls: usize,
    pub(super) named: usize,
}

/// A request that was read after another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// What was read.
    pub index: Index,
    /// Where reading can go on for the next one.
    pub marks: Marks,
    /// So many bytes at the beginning are those of the earlier request.
    pub common: usize,
    /// So many of them were not read again.
    pub skipped: usize,
}

// === impl Index ===

impl Index {
    /// Reads a request as [`Index::parse`] does, and where reading can go on for a longer one.
    pub fn parse_marked(body: &[u8]) -> Result<(Self, Marks), Malformed> {
        Reader::new(body)?.marking().read()
    }

    /// Reads `body`, from where it differs from an earlier request. What comes of it is what [`Index::parse_marked`] says of it,
    /// also where it is an error.
    pub fn parse_after(body: &[u8], earlier: Earlier<'_>) -> Result<Resumed, Malformed> {
        let common = common(body, earlier.body);
        let ends = &earlier.marks.ends;
        let messages = ends.partition_point(|mark| mark.at as usize <= common);
        let last = messages.checked_sub(1).and_then(|last| ends.get(last));
        let (Some(last), Some(before)) = (last, &earlier.marks.before) else {
            let (index, marks) = Self::parse_marked(body)?;
            return Ok(Resumed { index, marks, common, skipped: 0 });
        };
        let (index, marks) = Reader::resumed(body, earlier, before, last, messages)?.read_on(before.seen)?;
        Ok(Resumed { index, marks, common, skipped: last.at as usize })
    }
}

// === impl Marks ===

impl Marks {
    /// Bytes that they take, roughly.
    pub fn size(&self) -> usize {
        let named: usize = self.named.iter().map(|name| size_of::<String>() + name.len()).sum();
        size_of_val(&*self.ends) + size_of_val(&*self.calls) + named + 2 * size_of::<Index>()
    }
}

// === private helpers ===

/// How many bytes at the beginning are the same.
fn common(one: &[u8], other: &[u8]) -> usize {
    let blocks = one.chunks(BLOCK).zip(other.chunks(BLOCK));
    let alike = blocks.take_while(|(one, other)| one == other).map(|(one, _)| one.len()).sum();
    let [one, other] = [one, other].map(|bytes| bytes.get(alike..).unwrap_or_default());
    alike + one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Result<(Index, Marks), Malformed> {
        Index::parse_marked(body)
    }

    /// Reads `body` after `earlier`, if that is a request, and compares with reading it alone. How much was not read again.
    fn after(body: &[u8], earlier: &[u8]) -> Option<usize> {
        let (index, marks) = read(earlier).ok()?;
        let resumed = Index::parse_after(body, Earlier { body: earlier, index: &index, marks: &marks });
        let skipped = resumed.as_ref().map_or(0, |resumed| resumed.skipped);
        let alone = read(body);
        assert_eq!(Index::parse(body), alone.clone().map(|(index, _)| index));
        let resumed = resumed.map(|resumed| {
            let common = resumed.common;
            assert_eq!(body.get(..common), earlier.get(..common));
            assert!(common == body.len() || common == earlier.len() || body[common] != earlier[common]);
            (resumed.index, resumed.marks)
        });
        assert_eq!(
            resumed,
            alone,
            "{}\nafter\n{}",
            String::from_utf8_lossy(body),
            String::from_utf8_lossy(earlier)
        );
        Some(skipped)
    }

    fn conversation(before: &str, messages: &[&str], behind: &str) -> String {
        format!(r#"{{"model":"m",{before}"messages":[{}]{behind}}}"#, messages.join(","))
    }

    /// Messages of every form that keeps something for later ones: calls and their answers, tools that are named, what is not known.
    const MESSAGES: [&str; 12] = [
        r#"{"role":"user","content":"Hello"}"#,
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"a":[1]}}]}"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"an answer"}]}"#,
        r#"{"content":[{"type":"text","text":"who speaks stands last","cache_control":{"type":"ephemeral"}}],"role":"assistant"}"#,
        r#"{"role":"system","content":[{"type":"tool_result","tool_use_id":"t2","content":[]}]}"#,
        r#"{"role":"user","content":[{"type":"tool_addition","tool":{"name":"late","description":"a tool"}}]}"#,
        r#"{"role":"user","mood":"odd","content":[{"type":"news","shade":1}]}"#,
        r#"{"role":"judge","content":null}"#,
        r#"{"role":"user","content":[{"type":"tool_reference","tool_name":"found"},{"text":"x","type":"text","more":[2]}]}"#,
        r#"{"role":"user","content":"gr\u00fc\u00dfe, gr체체"}"#,
        r#"{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2lnbg=="}]}"#,
        r#"{"role":"user","content":7}"#,
    ];
    const BEFORE: [&str; 4] = [
        "",
        r#""system":"be kind","max_tokens":5,"#,
        r#""tools":[{"name":"Bash"}],"thinking":{"budget_tokens":9},"oddity":1,"#,
        r#""stream":true,"metadata":{"user_id":"u"},"safeguards":{},"#,
    ];
    const BEHIND: [&str; 4] = [
        "",
        r#","max_tokens":7,"stream":true,"system":"be brief""#,
        r#","tools":[{"name":"late"}],"tool_choice":{"type":"tool","name":"Bash"}"#,
        r#","metadata":{"user_id":"u"},"odd":[]"#,
    ];

    #[test]
    fn a_conversation_that_grows_is_read_from_where_it_grew() {
        for count in 1..MESSAGES.len() {
            let short = conversation(BEFORE[1], &MESSAGES[..count], BEHIND[2]);
            let long = conversation(BEFORE[1], &MESSAGES[..=count], BEHIND[2]);
            let skipped = after(long.as_bytes(), short.as_bytes()).unwrap();
            assert_eq!(
                skipped,
                conversation(BEFORE[1], &MESSAGES[..count], "").len() - 2,
                "all but the new one"
            );
            // And one that was cut back.
            assert!(after(short.as_bytes(), long.as_bytes()).is_some());
        }
    }

    #[test]
    fn what_comes_before_the_messages_is_never_skipped_where_it_differs() {
        for (one, other) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            let [one, other] = [one, other].map(|at| conversation(BEFORE[at], &MESSAGES, ""));
            assert_eq!(after(one.as_bytes(), other.as_bytes()), Some(0));
        }
        assert_eq!(after(br#"{"model":"m","messages":[]}"#, br#"{"model":"m","messages":[]}"#), Some(0));
    }

    #[test]
    fn a_request_that_breaks_behind_what_is_known_breaks_in_the_same_place() {
        let whole = conversation(BEFORE[2], &MESSAGES, BEHIND[1]);
        let known = conversation(BEFORE[2], &MESSAGES, "").len() - 2;
        for broken in [
            whole.replace(r#""be brief""#, "\"be \u{1}brief\""),
            whole.replace(r#","max_tokens":7"#, r#","messages":[]"#),
            whole.replace(r#","max_tokens":7"#, r#","Model":"m""#),
            whole.get(..known).unwrap().to_owned(),
            whole.get(..=known).unwrap().to_owned(),
            format!("{whole}x"),
        ] {
            assert!(read(broken.as_bytes()).is_err(), "{broken}");
            assert!(after(broken.as_bytes(), whole.as_bytes()).is_some());
        }
        let mut bytes = whole.clone().into_bytes();
        let at = whole.find("brief").unwrap();
        bytes[at] = 0xff;
        assert_eq!(read(&bytes), Err(Malformed::Utf8));
        assert!(after(&bytes, whole.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn whatever_changes_anywhere_is_read_as_if_nothing_had_been_read_before(
            picked in prop::collection::vec(0..MESSAGES.len(), 0..9),
            more in prop::collection::vec(0..MESSAGES.len(), 0..4),
            (before, behind, other_behind) in (0..BEFORE.len(), 0..BEHIND.len(), 0..BEHIND.len()),
            at in any::<prop::sample::Index>(),
            cut in 0..40_usize,
            put in prop_oneof![
                Just(String::new()), "[ -~]{1,6}", Just("\"".to_owned()), Just("},{".to_owned()), Just("ü".to_owned()),
                Just(r#","messages":[]"#.to_owned()), Just(r#"{"role":"user","content":"x"},"#.to_owned()),
            ],
        ) {
            let of = |picked: &[usize]| picked.iter().map(|at| MESSAGES[*at]).collect::<Vec<_>>();
            let earlier = conversation(BEFORE[before], &of(&picked), BEHIND[behind]);
            let grown = conversation(BEFORE[before], &of(&[&*picked, &*more].concat()), BEHIND[other_behind]);
            after(grown.as_bytes(), earlier.as_bytes());
            // A piece anywhere in it replaced by another one, bytes of letters cut in half included.
            let mut edited = grown.into_bytes();
            let from = at.index(edited.len());
            let to = (from + cut).min(edited.len());
            edited.splice(from..to, put.bytes());
            after(&edited, earlier.as_bytes());
            after(earlier.as_bytes(), &edited);
        }
    }
}
