//! Where something stands in a request, for errors and losses: written only when one of them is.

use std::fmt;

/// A path such as `messages[3].content[0].source`.
#[derive(Debug, Clone, Copy)]
pub struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: PathStep<'p>,
}

#[derive(Debug, Clone, Copy)]
enum PathStep<'p> {
    Field(&'p str),
    Index(usize),
}

// === impl Path ===

impl<'p> Path<'p> {
    /// A field of the body.
    pub const fn root(name: &'p str) -> Self {
        Self { parent: None, step: PathStep::Field(name) }
    }

    /// A field of the object at this path.
    #[must_use]
    pub const fn field(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), step: PathStep::Field(name) }
    }

    /// An element of the list at this path.
    #[must_use]
    pub const fn index(&'p self, at: usize) -> Self {
        Self { parent: Some(self), step: PathStep::Index(at) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.parent, self.step) {
            (None, PathStep::Field(name)) => f.write_str(name),
            (Some(_), PathStep::Field(name)) => write!(f, ".{name}"),
            (_, PathStep::Index(at)) => write!(f, "[{at}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn a_path_is_written_as_the_messages_api_writes_it() {
        let messages = Path::root("messages");
        let message = messages.index(3);
        let content = message.field("content");
        assert_eq!(content.index(0).field("source").to_string(), "messages[3].content[0].source");
    }
}
