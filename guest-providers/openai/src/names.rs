//! Names and ids on both sides: Chat Completions takes shorter tool names and ids than Messages allows, and compatible
//! servers send ids that Messages clients would refuse.

use std::borrow::Cow;

use sallyport_guest_sdk::Call;

/// The longest tool name and the longest call id that the upstream takes.
const LONGEST_NAME: usize = 64;
const LONGEST_ID: usize = 40;
/// What an id begins with that carries one of the upstream's.
const CARRIED: &str = "toolu_x_";

/// What a reply needs to know of the request it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// The model asked for, where the upstream does not name the one that answered.
    pub(crate) model: String,
    /// Unique among calls; ids that the upstream does not give are made of it.
    pub(crate) seed: String,
    /// Stop sequences, as the upstream may name the one it met.
    pub(crate) stops: Vec<String>,
    /// Tools whose name was changed: the name sent and the client's.
    pub(crate) renamed: Vec<(String, String)>,
    /// About how many tokens the request has, where the upstream tells only at the end.
    pub(crate) estimate: Option<u32>,
}

/// The name under which the upstream knows a tool: the same, unless it is too long or holds other characters; then it
/// is cut and ends in a hash of the whole, so that every turn of a conversation gets the same.
pub(crate) fn tool_name(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= LONGEST_NAME && !name.is_empty() && name.bytes().all(is_plain) {
        return name;
    }
    let plain = |it: char| if it.is_ascii() && is_plain(it as u8) { it } else { '_' };
    let head: String = name.chars().take(LONGEST_NAME - 9).map(plain).collect();
    Cow::Owned(format!("{head}_{:08x}", hash(&name)))
}

/// The id under which the upstream knows a tool call: its own, where the client's carries it.
pub(crate) fn call_id(id: Cow<'_, str>) -> Cow<'_, str> {
    if let Some(own) = id.strip_prefix(CARRIED).and_then(uncarried) {
        return Cow::Owned(own);
    }
    if id.len() <= LONGEST_ID {
        return id;
    }
    let head: String =
        id.chars().filter(|it| it.is_ascii() && is_plain(*it as u8)).take(LONGEST_ID - 9).collect();
    Cow::Owned(format!("{head}_{:08x}", hash(&id)))
}

// === impl Asked ===

impl Asked {
    /// What is known before the body is read.
    pub(crate) fn new(call: &Call, upstream_model: &str) -> Self {
        let plain: Vec<char> = call.trace.chars().filter(char::is_ascii_alphanumeric).collect();
        let seed = plain.iter().skip(plain.len().saturating_sub(24)).collect();
        Self { model: upstream_model.to_owned(), seed, ..Self::default() }
    }

    /// The client's name of the tool that the upstream calls `name`.
    pub(crate) fn tool(&self, name: String) -> String {
        match self.renamed.iter().find(|(sent, _)| *sent == name) {
            Some((_, original)) => original.clone(),
            None => name,
        }
    }

    /// The id of a tool call: the upstream's where a Messages client would take it.
    pub(crate) fn tool_use_id(&self, id: &str, nth: usize) -> String {
        if !id.is_empty() && id.len() <= 128 && id.bytes().all(is_plain) && !id.starts_with(CARRIED) {
            id.to_owned()
        } else if let Some(carried) = carried(id) {
            carried
        } else {
            format!("toolu_{}_{nth}", self.seed)
        }
    }

    /// The id of the reply, `msg_...`.
    pub(crate) fn message_id(&self, id: Option<&str>) -> String {
        let id = id.unwrap_or_default();
        let id = id.strip_prefix("chatcmpl-").unwrap_or(id);
        let plain: String = id.chars().filter(|it| it.is_ascii() && is_plain(*it as u8)).take(128).collect();
        if plain.is_empty() { format!("msg_{}", self.seed) } else { format!("msg_{plain}") }
    }

    /// The stop sequence that the upstream says it met, if it is one of those asked for.
    pub(crate) fn stop(&self, met: Option<&str>) -> Option<String> {
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
    (!id.is_empty() && text.len() <= 128).then_some(text)
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
    use super::{Asked, call_id, tool_name};

    #[test]
    fn a_tool_name_that_fits_is_left_alone() {
        assert_eq!(tool_name("mcp__github__create-issue".into()), "mcp__github__create-issue");
    }

    #[test]
    fn long_tool_names_that_share_a_beginning_stay_apart() {
        let (a, b) = (format!("{}a", "x".repeat(80)), format!("{}b", "x".repeat(80)));
        assert_eq!(tool_name(a.as_str().into()).len(), 64);
        assert_ne!(tool_name(a.into()), tool_name(b.into()));
        assert_eq!(tool_name("résumé.read".into()), "r_sum__read_f8f180ee");
    }

    #[test]
    fn a_long_call_id_is_cut_the_same_way_each_time() {
        let id = "call_".to_owned() + &"z".repeat(90);
        assert_eq!(call_id(id.as_str().into()).len(), 40);
        assert_eq!(call_id(id.as_str().into()), call_id(id.as_str().into()));
    }

    #[test]
    fn an_id_that_no_client_takes_travels_inside_one_that_they_do() {
        let asked = Asked::default();
        for id in ["functions.look:3", "functions.Bash_run:0", "call|1 é", "toolu_x_", "toolu_x_a_5fb"] {
            let carried = asked.tool_use_id(id, 0);
            assert!(carried.starts_with("toolu_x_") && carried.len() <= 128, "{carried}");
            assert!(carried.bytes().all(super::is_plain), "{carried}");
            assert_eq!(call_id(carried.into()), id);
        }
        assert_eq!(asked.tool_use_id("functions.look:3", 0), "toolu_x_functions_2elook_3a3");
        for other in ["toolu_x_zz_", "toolu_x__5", "toolu_x__zz", "toolu_x_", "toolu_x__41"] {
            assert_eq!(call_id(other.into()), other, "nothing that was carried");
        }
    }

    #[test]
    fn ids_that_a_client_would_refuse_are_replaced() {
        let asked = Asked { seed: "0a1b".into(), ..Asked::default() };
        assert_eq!(asked.tool_use_id("call_1", 0), "call_1");
        assert_eq!(asked.tool_use_id("", 2), "toolu_0a1b_2");
        assert_eq!(asked.tool_use_id(&".".repeat(60), 2), "toolu_0a1b_2", "too long to be carried");
        assert_eq!(asked.message_id(Some("chatcmpl-AbC")), "msg_AbC");
        assert_eq!(asked.message_id(None), "msg_0a1b");
    }
}
