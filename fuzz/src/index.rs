//! Requests: what the index says of a body is what its receiver reads there, whichever of two rules the receiver has for keys that
//! stand twice, and nothing that a model could read is shown to nobody.

use sallyport_protocol::messages::index::Index;

use crate::tree::Tree;

/// How a reader finds a member.
type Find = fn(&Tree, &str) -> Option<Tree>;

/// The last of two keys wins; with Go's `encoding/json` also where they differ in case.
const READERS: [(&str, Find); 2] = [
    ("the last key", |tree, key| tree.last(key).cloned()),
    ("the last key in any case", |tree, key| tree.folded(key).cloned()),
];

/// What a text has to hold for the fuzzer to look for it among those that are shown.
const MARK: &str = "hidden";

/// Panics where the index of these bytes, if there is one, is not what another reader has.
pub fn check(body: &[u8]) {
    let Ok(index) = Index::parse(body) else { return };
    // Numbers and halves of characters beyond what this reader takes are no disagreement: it refuses.
    let Some(tree) = Tree::parse(body) else { return };
    let texts: Vec<_> = index.texts.iter().map(|text| text.read(body)).collect();
    for (rule, find) in READERS {
        agrees(&index, &texts, &tree, rule, find);
    }
    let mut all = String::new();
    for text in &texts {
        all.push_str(text);
        all.push('\n');
    }
    shown(&tree, "", &all);
}

fn agrees(index: &Index, texts: &[std::borrow::Cow<'_, str>], tree: &Tree, rule: &str, find: Find) {
    let model = find(tree, "model");
    assert_eq!(model.as_ref().and_then(Tree::text), Some(index.model.as_str()), "{rule}: model");
    if let Some(Tree::Bool(stream)) = find(tree, "stream") {
        assert_eq!(stream, index.stream, "{rule}: stream");
    }
    match find(tree, "max_tokens") {
        Some(Tree::Whole(count)) => at_least(index, count, rule),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "such counts are far below"
        )]
        Some(Tree::Number(count)) => {
            assert!(count >= 0.0 && count.fract() == 0.0, "{rule}: a count of {count}");
            at_least(index, count as u64, rule);
        }
        _ => {}
    }

    let messages = find(tree, "messages").unwrap_or(Tree::Null);
    let messages = messages.elements();
    assert_eq!(messages.len(), index.message_count as usize, "{rule}: messages");
    let offered: Vec<&str> = index.tools.iter().map(String::as_str).collect();
    for tool in find(tree, "tools").unwrap_or(Tree::Null).elements() {
        let name = find(tool, "name");
        if let Some(name) = name.as_ref().and_then(Tree::text) {
            assert!(offered.contains(&name), "{rule}: the tool {name:?} is not among {offered:?}");
        }
    }

    let is_shown = |said: &str| texts.iter().any(|text| text.contains(said));
    let contents = messages.iter().filter_map(|message| find(message, "content"));
    for content in contents.chain(find(tree, "system")) {
        if let Some(said) = content.text() {
            assert!(is_shown(said), "{rule}: a text that nobody is shown: {said:?}");
        }
        for block in content.elements() {
            let (kind, said) = (find(block, "type"), find(block, "text"));
            if let (Some("text"), Some(said)) =
                (kind.as_ref().and_then(Tree::text), said.as_ref().and_then(Tree::text))
            {
                assert!(is_shown(said), "{rule}: a text that nobody is shown: {said:?}");
            }
        }
    }
}

/// The index counts no less than a reader does.
fn at_least(index: &Index, count: u64, rule: &str) {
    let read = index.max_tokens.map(u64::from);
    let most = count.min(u64::from(u32::MAX));
    assert!(read.is_some_and(|read| read >= most), "{rule}: max_tokens {count}, read as {read:?}");
}

/// Every string with the mark, wherever it stands, is part of what is shown: but for pictures, signatures and the like, which are long
/// and have no characters but those of base64, and for the model's name, which policies have by itself.
fn shown(tree: &Tree, key: &str, all: &str) {
    if let Some(text) = tree.text() {
        let elsewhere = key == "model" || matches!(key, "data" | "signature") && is_base64(text);
        assert!(elsewhere || !text.contains(MARK) || all.contains(text), "nobody is shown {key}: {text:?}");
    }
    tree.elements().iter().for_each(|element| shown(element, key, all));
    tree.members().iter().for_each(|(name, value)| shown(value, name, all));
}

/// 64 characters or more, all of them of base64 (RFC 4648, section 4) or line breaks.
fn is_base64(text: &str) -> bool {
    let of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    text.len() >= 64 && text.bytes().all(of_base64)
}
