//! Requests: what the index says of a body is what its receiver reads there.

use sallyport_protocol::messages::index::Index;

use crate::tree::Tree;

/// Panics where the index of these bytes, if there is one, is not what another reader has.
pub fn check(body: &[u8]) {
    let Ok(index) = Index::parse(body) else { return };
    // Numbers and halves of characters beyond what this reader takes are no disagreement: it refuses.
    let Some(tree) = Tree::parse(body) else { return };

    assert_eq!(tree.last("model").and_then(Tree::text), Some(index.model.as_str()), "model");
    if let Some(Tree::Bool(stream)) = tree.last("stream") {
        assert_eq!(*stream, index.stream, "stream");
    }
    if let Some(Tree::Whole(count)) = tree.last("max_tokens") {
        let read = index.max_tokens.map(u64::from);
        assert!(read == Some(*count) || u32::try_from(*count).is_err(), "max_tokens: {count}, {read:?}");
    }

    let messages = tree.last("messages").map(Tree::elements).unwrap_or_default();
    assert_eq!(messages.len(), index.message_count as usize, "messages");
    let offered: Vec<&str> = index.tools.iter().map(String::as_str).collect();
    for tool in tree.last("tools").map(Tree::elements).unwrap_or_default() {
        if let Some(name) = tool.last("name").and_then(Tree::text) {
            assert!(offered.contains(&name), "the tool {name:?} is not among {offered:?}");
        }
    }

    let texts: Vec<_> = index.texts.iter().map(|text| text.read(body)).collect();
    let shown = |said: &str| texts.iter().any(|text| text == said);
    let contents = messages.iter().filter_map(|message| message.last("content"));
    for content in contents.chain(tree.last("system")) {
        if let Some(said) = content.text() {
            assert!(shown(said), "a text that nobody is shown: {said:?}");
        }
        for block in content.elements() {
            if block.last("type").and_then(Tree::text) == Some("text")
                && let Some(said) = block.last("text").and_then(Tree::text)
            {
                assert!(shown(said), "a text that nobody is shown: {said:?}");
            }
        }
    }
}
