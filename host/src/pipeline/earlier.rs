//! The last large body of each conversation: clients send all of it again with each turn, and what did not change is not read,
//! hashed or indexed again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::messages::index::{Earlier, Index, Malformed, Marks, Resumed, Text, Unit};

use super::hooks::UserKey;
use super::memo::TextHash;

/// A body that is smaller is read faster than it is looked up.
const SMALLEST: usize = 32 * 1024;
/// A body that is larger would push out those of too many others.
const LARGEST: usize = 8 * 1024 * 1024;
/// Bytes that all of them together may take.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;
/// A conversation that was silent for so long is forgotten.
const SILENT: Duration = Duration::from_mins(10);
/// What a unit takes besides its texts.
const UNIT: usize = size_of::<Unit>() + size_of::<TextHash>();
/// The hash of a body can go on from every multiple of this.
const STEP: usize = 64 * 1024;

/// Remembered bodies. The one that was silent longest makes room for others.
pub(super) struct BodyMemory {
    bodies: Mutex<RememberedBodies>,
}

#[derive(Default)]
struct RememberedBodies {
    by_conversation: HashMap<UserKey, RememberedBody>,
    bytes: usize,
}

/// What is known of a body.
pub(super) struct KnownBody {
    pub(super) index: Arc<Index>,
    /// The texts that scanners are asked about, with their hashes, where these were asked for.
    pub(super) units: Option<Arc<[(Unit, TextHash)]>>,
    /// Bytes that were not read again.
    pub(super) skipped: usize,
}

/// Which parts of a body are to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedParts {
    /// Its index.
    Index,
    /// The hashes of its texts as well.
    Hashes,
}

/// The body of a conversation. It is taken out while the next one is compared with it, so that nobody waits for anybody.
struct RememberedBody {
    bytes: Vec<u8>,
    index: Arc<Index>,
    marks: Marks,
    /// The hash behind each whole step.
    states: Vec<blake3::Hasher>,
    units: Option<Arc<[(Unit, TextHash)]>>,
    seen: Duration,
}

// === impl BodyMemory ===

impl BodyMemory {
    pub(super) fn new() -> Self {
        Self { bodies: Mutex::default() }
    }

    /// Reads a body of the conversation `whose`, from where it differs from the last one. It does not matter for what comes of it
    /// whether there was one: bytes are compared, and only those that are the same are passed over.
    pub(super) fn read(
        &self,
        whose: UserKey,
        body: &Bytes,
        wanted: WantedParts,
        now: Duration,
    ) -> (blake3::Hash, Result<KnownBody, Malformed>) {
        if !(SMALLEST..=LARGEST).contains(&body.len()) {
            let hash = blake3::hash(body);
            let read = Index::parse(body);
            return (hash, read.map(|index| KnownBody { index: Arc::new(index), units: None, skipped: 0 }));
        }
        let earlier = self.lock().take(&whose);
        let (hash, read) = RememberedBody::next(earlier, body, wanted, now);
        let known = read.map(|(remembered, skipped)| {
            let (index, units) = (Arc::clone(&remembered.index), remembered.units.clone());
            self.lock().keep(whose, remembered);
            KnownBody { index, units, skipped }
        });
        (hash, known)
    }

    /// Forgets what was silent for too long.
    pub(super) fn sweep(&self, now: Duration) {
        let mut bodies = self.lock();
        bodies.by_conversation.retain(|_, body| now.saturating_sub(body.seen) < SILENT);
        bodies.bytes = bodies.by_conversation.values().map(RememberedBody::size).sum();
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.lock() = RememberedBodies::default();
    }

    fn lock(&self) -> MutexGuard<'_, RememberedBodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RememberedBodies ===

impl RememberedBodies {
    fn take(&mut self, whose: &UserKey) -> Option<RememberedBody> {
        let body = self.by_conversation.remove(whose)?;
        self.bytes = self.bytes.saturating_sub(body.size());
        Some(body)
    }

    fn keep(&mut self, whose: UserKey, body: RememberedBody) {
        // Two calls of a conversation at once: the last one stays.
        drop(self.take(&whose));
        self.bytes = self.bytes.saturating_add(body.size());
        self.by_conversation.insert(whose, body);
        while self.bytes > MOST_BYTES {
            let silent = self.by_conversation.iter().min_by_key(|(_, body)| body.seen);
            let Some(silent) = silent.map(|(whose, _)| *whose) else { break };
            drop(self.take(&silent));
        }
    }
}

// === impl RememberedBody ===

impl RememberedBody {
    /// What is remembered of `body`, which may begin as `earlier` does. How many bytes were passed over.
    fn next(
        earlier: Option<Self>,
        body: &Bytes,
        wanted: WantedParts,
        now: Duration,
    ) -> (blake3::Hash, Result<(Self, usize), Malformed>) {
        let Some(earlier) = earlier else {
            let mut states = Vec::with_capacity(body.len() / STEP);
            let hash = hash_on(&mut states, body);
            let read = Index::parse_marked(body).map(|(index, marks)| {
                let units = (wanted == WantedParts::Hashes).then(|| hashed(&index, body, 0, &[]));
                let index = Arc::new(index);
                (Self { bytes: body.to_vec(), index, marks, states, units, seen: now }, 0)
            });
            return (hash, read);
        };
        let Self { mut bytes, index, marks, mut states, units, .. } = earlier;
        let resumed = Index::parse_after(body, Earlier { body: &bytes, index: &index, marks: &marks });
        let Resumed { index, marks, common, skipped } = match resumed {
            Ok(resumed) => resumed,
            Err(malformed) => return (blake3::hash(body), Err(malformed)),
        };
        states.truncate(common / STEP);
        let hash = hash_on(&mut states, body);
        let before = units.as_deref().unwrap_or_default();
        let units = (wanted == WantedParts::Hashes).then(|| hashed(&index, body, common, before));
        bytes.truncate(common);
        bytes.extend_from_slice(body.get(common..).unwrap_or_default());
        // A conversation that was cut back gives back what it held.
        bytes.shrink_to(body.len() + body.len() / 4);
        (hash, Ok((Self { bytes, index: Arc::new(index), marks, states, units, seen: now }, skipped)))
    }

    /// Bytes that it takes, roughly.
    fn size(&self) -> usize {
        let Self { bytes, index, marks, states, units, .. } = self;
        let units = units.iter().flat_map(|units| units.iter());
        let units: usize = units.map(|(unit, _)| UNIT + unit.len() * size_of::<Text>()).sum();
        let lists =
            size_of_val(&*index.texts) + size_of_val(&*index.messages) + size_of_val(&*index.tool_blocks);
        let tools: usize = index.tools.iter().map(|name| size_of::<String>() + name.len()).sum();
        bytes.capacity() + marks.size() + lists + tools + size_of_val(&**states) + units
    }
}

// === private helpers ===

/// The hash of `body`, whose first bytes have the hashes `states`; those of what follows are added.
fn hash_on(states: &mut Vec<blake3::Hasher>, body: &[u8]) -> blake3::Hash {
    let mut hasher = states.last().cloned().unwrap_or_default();
    let rest = body.get(states.len() * STEP..).unwrap_or_default();
    for step in rest.chunks(STEP) {
        hasher.update(step);
        if step.len() == STEP {
            states.push(hasher.clone());
        }
    }
    hasher.finalize()
}

/// What scanners are asked about, with hashes; those of `before` whose texts lie in the first `common` bytes are not made again.
fn hashed(index: &Index, body: &[u8], common: usize, before: &[(Unit, TextHash)]) -> Arc<[(Unit, TextHash)]> {
    let mut before = before.iter();
    let units = index.units().into_iter().map(|unit| {
        let known = before.next().filter(|(known, _)| {
            *known == unit && known.texts().all(|text| text.span.end as usize <= common)
        });
        let hash = known.map_or_else(|| TextHash::of_unit(&unit, body), |(_, hash)| *hash);
        (unit, hash)
    });
    units.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::hooks::testing::principal;

    fn whose(user: &str) -> UserKey {
        UserKey::of(&principal("acme", user), &[b"body"])
    }

    /// A conversation of `turns` messages of about 2 KiB.
    fn conversation(turns: usize, behind: &str) -> String {
        let messages: Vec<String> = (0..turns)
            .map(|turn| {
                let role = if turn % 2 == 0 { "user" } else { "assistant" };
                format!(r#"{{"role":"{role}","content":"turn {turn} {}"}}"#, "words ".repeat(350))
            })
            .collect();
        format!(r#"{{"model":"m","system":"be kind","messages":[{}]{behind}}}"#, messages.join(","))
    }

    fn count(memory: &BodyMemory) -> usize {
        memory.lock().by_conversation.len()
    }

    /// What a body comes to with a memory and without, which has to be the same. How much was passed over.
    fn read(memory: &BodyMemory, user: &str, body: &str) -> Option<usize> {
        let body = Bytes::from(body.to_owned());
        let (hash, known) = memory.read(whose(user), &body, WantedParts::Hashes, Duration::ZERO);
        assert_eq!(hash, blake3::hash(&body));
        let alone = Index::parse(&body);
        assert_eq!(
            known.as_ref().map(|known| &*known.index).map_err(Clone::clone),
            alone.as_ref().map_err(Clone::clone)
        );
        let (known, alone) = (known.ok()?, alone.ok()?);
        if let Some(units) = &known.units {
            let found: Vec<_> = units.iter().map(|(unit, hash)| (unit.clone(), hash.bytes())).collect();
            let fresh = alone.units().into_iter().map(|unit| {
                let hash = TextHash::of_unit(&unit, &body).bytes();
                (unit, hash)
            });
            assert_eq!(found, fresh.collect::<Vec<_>>());
        }
        Some(known.skipped)
    }

    #[test]
    fn a_conversation_that_grows_costs_what_is_new() {
        let memory = BodyMemory::new();
        let tail = r#","max_tokens":9,"metadata":{"user_id":"u"}"#;
        assert_eq!(read(&memory, "u_1", &conversation(100, tail)), Some(0));
        for turns in 101..140 {
            let skipped = read(&memory, "u_1", &conversation(turns, tail)).unwrap();
            assert_eq!(skipped, conversation(turns - 1, "").len() - 2, "{turns}");
        }
        // Another user's conversation is another one, whatever it says.
        assert_eq!(read(&memory, "u_2", &conversation(139, tail)), Some(0));
        assert_eq!(count(&memory), 2);
    }

    #[test]
    fn a_small_body_and_a_broken_one_are_not_kept() {
        let memory = BodyMemory::new();
        assert_eq!(read(&memory, "u_1", &conversation(2, "")), Some(0));
        assert_eq!(count(&memory), 0);
        let whole = conversation(40, "");
        assert_eq!(read(&memory, "u_1", whole.get(..whole.len() - 1).unwrap()), None);
        assert_eq!(count(&memory), 0);
    }

    #[test]
    fn what_was_silent_for_long_is_forgotten_and_what_spoke_is_not() {
        let memory = BodyMemory::new();
        let body = Bytes::from(conversation(40, ""));
        drop(memory.read(whose("u_1"), &body, WantedParts::Index, Duration::ZERO));
        drop(memory.read(whose("u_2"), &body, WantedParts::Index, SILENT / 2));
        memory.sweep(SILENT.saturating_sub(Duration::from_secs(1)));
        assert_eq!(count(&memory), 2);
        memory.sweep(SILENT);
        assert_eq!(count(&memory), 1);
        memory.clear();
        assert_eq!(count(&memory), 0);
    }

    #[test]
    fn all_together_stay_within_their_bytes_and_the_last_ones_stay() {
        let memory = BodyMemory::new();
        let body = Bytes::from(conversation(1_000, ""));
        for user in 0..60 {
            let now = Duration::from_secs(user);
            let (_, known) = memory.read(whose(&format!("u_{user}")), &body, WantedParts::Hashes, now);
            assert!(known.is_ok());
        }
        let held = memory.lock();
        assert_eq!(held.bytes, held.by_conversation.values().map(RememberedBody::size).sum::<usize>());
        assert!(held.bytes <= MOST_BYTES && held.bytes > MOST_BYTES - 2 * body.len(), "{}", held.bytes);
        let kept = held.by_conversation.len() as u64;
        assert!((60 - kept..60).all(|user| held.by_conversation.contains_key(&whose(&format!("u_{user}")))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn whatever_follows_whatever_is_read_as_if_it_were_the_first(
            bodies in prop::collection::vec((16..90_usize, 0..4_usize, any::<prop::sample::Index>(), "[ -~]{0,3}"), 1..6),
        ) {
            let memory = BodyMemory::new();
            for (turns, behind, at, put) in bodies {
                let behind = ["", r#","max_tokens":9"#, r#","stop_sequences":["a"]"#, r#","tools":[{"name":"Bash"}]"#][behind];
                let mut body = conversation(turns, behind);
                let from = at.index(body.len());
                body.replace_range(from..(from + 2).min(body.len()), &put);
                read(&memory, "u_1", &body);
            }
        }
    }
}
