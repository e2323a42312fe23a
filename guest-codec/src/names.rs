//! Names and ids on both sides: upstreams take shorter tool names and ids than Messages allows, and send ids that Messages clients
//! would refuse.

use std::borrow::Cow;

use sallyport_guest_sdk::Call;

/// What an upstream takes at most. Both are made of letters, digits, `_` and `-`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NameLimits {
    /// The shortest name of a tool, in bytes.
    pub shortest: usize,
    /// The longest name of a tool, in bytes.
    pub tool_name: usize,
    /// The longest id of a tool call, in bytes.
    pub call_id: usize,
    /// Whether a tool's name has to begin with a letter or `_`.
    pub letter_first: bool,
}

/// What an id begins with that carries one of the upstream's.
const CARRIED: &str = "toolu_x_";
/// The longest id that is handed to a client.
const LONGEST_ID: usize = 128;
/// Bytes of a shortened name that hold its hash: an underscore and eight digits.
const HASH: usize = 9;

/// What a reply needs to know of the request it answers.
#[derive(Debug, Clone, Default)]
pub struct ReplyContext {
    /// The model asked for, where the upstream does not name the one that answered.
    pub model: String,
    /// Unique among calls; ids that the upstream does not give are made of it.
    pub seed: String,
    /// Stop sequences, as the upstream may name the one it met.
    pub stops: Vec<String>,
    /// Tools whose name was changed: the name sent and the client's.
    pub renamed: Vec<(String, String)>,
    /// About how many tokens the request has, where the upstream tells only at the end.
    pub estimate: Option<u32>,
}

// === impl NameLimits ===

impl NameLimits {
    /// The name under which the upstream knows a tool: the same, unless it is too long or holds other characters; then it is cut and
    /// ends in a hash of the whole, so that every turn of a conversation gets the same.
    pub fn tool_name<'a>(&self, name: Cow<'a, str>) -> Cow<'a, str> {
        let begins = |it: char| it.is_ascii_alphabetic() || it == '_' || !self.letter_first;
        if (self.shortest..=self.tool_name).contains(&name.len())
            && name.starts_with(begins)
            && name.bytes().all(is_plain)
        {
            return name;
        }
        let plain = |it: char| if it.is_ascii() && is_plain(it as u8) { it } else { '_' };
        let first = if name.starts_with(begins) { "" } else { "_" };
        let head = first.chars().chain(name.chars().map(plain)).take(self.tool_name.saturating_sub(HASH));
        Cow::Owned(format!("{}_{:08x}", head.collect::<String>(), hash(&name)))
    }

    /// The id under which the upstream knows a tool call: its own, where the client's carries it.
    pub fn call_id<'a>(&self, id: Cow<'a, str>) -> Cow<'a, str> {
        if let Some(own) = id.strip_prefix(CARRIED).and_then(uncarried) {
            return Cow::Owned(own);
        }
        if id.len() <= self.call_id {
            return id;
        }
        let plain = id.chars().filter(|it| it.is_ascii() && is_plain(*it as u8));
        let head: String = plain.take(self.call_id.saturating_sub(HASH)).collect();
        Cow::Owned(format!("{head}_{:08x}", hash(&id)))
    }
}

// === impl ReplyContext ===

impl ReplyContext {
    /// What is known before the body is read.
    pub fn new(call: &Call, upstream_model: &str) -> Self {
        let plain: Vec<char> = call.trace.chars().filter(char::is_ascii_alphanumeric).collect();
        let seed = plain.iter().skip(plain.len().saturating_sub(24)).collect();
        Self { model: upstream_model.to_owned(), seed, ..Self::default() }
    }

    /// The client's name of the tool that the upstream calls `name`.
    pub fn tool(&self, name: String) -> String {
        match self.renamed.iter().find(|(sent, _)| *sent == name) {
            Some((_, original)) => original.clone(),
            None => name,
        }
    }

    /// The id of the tool call at this place of the reply: the upstream's where a Messages client would take it.
    pub fn tool_use_id(&self, id: &str, nth: usize) -> String {
        if !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(is_plain) && !id.starts_with(CARRIED) {
            id.to_owned()
        } else if let Some(carried) = carried(id) {
            carried
        } else {
            format!("toolu_{}_{nth}", self.seed)
        }
    }

    /// The id of the reply, `msg_...`, made of the upstream's.
    pub fn message_id(&self, id: Option<&str>) -> String {
        let id = id.unwrap_or_default();
        let plain = id.chars().filter(|it| it.is_ascii() && is_plain(*it as u8));
        let plain: String = plain.take(LONGEST_ID).collect();
        if plain.is_empty() { format!("msg_{}", self.seed) } else { format!("msg_{plain}") }
    }

    /// The stop sequence that the upstream says it met, if it is one of those asked for.
    pub fn stop(&self, met: Option<&str>) -> Option<String> {
        let met = met?;
        self.stops.iter().find(|it| *it == met).cloned()
    }
}

/// An id of the upstream's that no Messages client takes, as one that carries it: the characters that clients take stay as they
/// are, `_` and the others are `_` and two hexadecimal digits for each byte. None if it is empty or too long.
fn carried(id: &str) -> Option<String> {
    let mut text = CARRIED.to_owned();
    for byte in id.bytes() {
        if is_plain(byte) && byte != b'_' {
            text.push(char::from(byte));
        } else {
            text.push('_');
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
    }
    (!id.is_empty() && text.len() <= LONGEST_ID).then_some(text)
}

/// The upstream's id that follows [`CARRIED`]; none if it is nothing that [`carried`] writes.
fn uncarried(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let mut half = || char::from(rest.next()?).to_digit(16).and_then(|it| u8::try_from(it).ok());
            bytes.push(half()? << 4 | half()?);
        } else {
            bytes.push(byte);
        }
    }
    let id = String::from_utf8(bytes).ok()?;
    (carried(&id)?.strip_prefix(CARRIED)? == text).then_some(id)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// FNV-1a: stable across versions, which `std`'s hashers do not promise.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{NameLimits, ReplyContext};

    const LIMITS: NameLimits = NameLimits { shortest: 0, tool_name: 64, call_id: 40, letter_first: false };

    #[test]
    fn a_tool_name_that_fits_is_left_alone() {
        assert_eq!(LIMITS.tool_name("mcp__github__create-issue".into()), "mcp__github__create-issue");
    }

    #[test]
    fn long_tool_names_that_share_a_beginning_stay_apart() {
        let (a, b) = (format!("{}a", "x".repeat(80)), format!("{}b", "x".repeat(80)));
        assert_eq!(LIMITS.tool_name(a.as_str().into()).len(), 64);
        assert_ne!(LIMITS.tool_name(a.into()), LIMITS.tool_name(b.into()));
        assert_eq!(LIMITS.tool_name("résumé.read".into()), "r_sum__read_f8f180ee");
    }

    #[test]
    fn a_name_begins_with_a_letter_and_is_long_enough_where_it_has_to() {
        let strict = NameLimits { letter_first: true, ..LIMITS };
        assert_eq!(strict.tool_name("_look".into()), "_look");
        let name = strict.tool_name("3d-look".into());
        assert!(name.starts_with("_3d-look_"), "{name}");
        assert_eq!(LIMITS.tool_name("3d-look".into()), "3d-look");
        let longer = NameLimits { shortest: 3, ..LIMITS };
        assert_eq!(longer.tool_name("now".into()), "now");
        assert!(longer.tool_name("LS".into()).starts_with("LS_"));
    }

    #[test]
    fn a_long_call_id_is_cut_the_same_way_each_time() {
        let id = "call_".to_owned() + &"z".repeat(90);
        assert_eq!(LIMITS.call_id(id.as_str().into()).len(), 40);
        assert_eq!(LIMITS.call_id(id.as_str().into()), LIMITS.call_id(id.as_str().into()));
    }

    #[test]
    fn an_id_that_no_client_takes_travels_inside_one_that_they_do() {
        let context = ReplyContext::default();
        for id in ["functions.look:3", "functions.Bash_run:0", "call|1 é", "toolu_x_", "toolu_x_a_5fb"] {
            let carried = context.tool_use_id(id, 0);
            assert!(carried.starts_with("toolu_x_") && carried.len() <= 128, "{carried}");
            assert!(carried.bytes().all(super::is_plain), "{carried}");
            assert_eq!(LIMITS.call_id(carried.into()), id);
        }
        assert_eq!(context.tool_use_id("functions.look:3", 0), "toolu_x_functions_2elook_3a3");
        for other in ["toolu_x_zz_", "toolu_x__5", "toolu_x__zz", "toolu_x_", "toolu_x__41"] {
            assert_eq!(LIMITS.call_id(other.into()), other, "nothing that was carried");
        }
    }

    #[test]
    fn ids_that_a_client_would_refuse_are_replaced() {
        let context = ReplyContext { seed: "0a1b".into(), ..ReplyContext::default() };
        assert_eq!(context.tool_use_id("call_1", 0), "call_1");
        assert_eq!(context.tool_use_id("", 2), "toolu_0a1b_2");
        assert_eq!(context.tool_use_id(&".".repeat(60), 2), "toolu_0a1b_2", "too long to be carried");
        assert_eq!(context.message_id(Some("A.béC")), "msg_AbC");
        assert_eq!(context.message_id(None), "msg_0a1b");
    }
}
