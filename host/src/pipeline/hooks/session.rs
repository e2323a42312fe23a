//! What the gateway remembers between calls: which sessions there are, what hooks said about a prompt or a tool's answer, and
//! which trace a tool call belongs to. All of it is bounded, none of it is durable: what is forgotten is asked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sallyport_protocol::id::TraceId;

use crate::auth::Principal;
use crate::pipeline::lineage::Lineage;

/// Sessions that are known at once.
const MOST_SESSIONS: usize = 16_384;
/// What is forgotten when there are more: the sixteenth part that was silent longest.
const FORGOTTEN: usize = MOST_SESSIONS / 16;
/// Bytes of what hooks said.
const KEPT_BYTES: u64 = 32 * 1024 * 1024;
/// What an entry without texts weighs.
const ENTRY_BYTES: u64 = 128;
/// Tool calls whose trace is known.
const ISSUED: usize = 65_536;

/// What is remembered.
pub(in crate::pipeline) struct Sessions {
    known: Mutex<HashMap<UserKey, Session>>,
    kept: Cache<UserKey, Arc<Judgement>, ByTexts>,
    issued: Cache<UserKey, SeenToolCall>,
}

/// A name for something of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::pipeline) struct UserKey([u8; 32]);

/// A session that was seen.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) principal: Arc<Principal>,
    /// The client's name of it.
    pub(super) name: String,
    /// Its last call, and the prompt that caused it.
    pub(super) trace: TraceId,
    prompt: Option<String>,
    seen: Duration,
    /// Hooks were told that it began, and let it.
    started: bool,
    /// How often in a row hooks kept it from ending its turn.
    resumed: u32,
}

/// What hooks said about a prompt or a tool's answer that went on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// What stands in its place: JSON.
    pub(super) content: Option<String>,
    /// A text for the model.
    pub(super) context: Option<String>,
}

/// A tool call that the gateway saw pass.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct SeenToolCall {
    pub(in crate::pipeline) trace: TraceId,
    /// The tool's name, as the model said it.
    pub(in crate::pipeline) tool: String,
}

#[derive(Clone)]
struct ByTexts;

// === impl UserKey ===

impl UserKey {
    /// Two users never share a key, whatever they call their things.
    pub(in crate::pipeline) fn of(principal: &Principal, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let own = [principal.tenant.as_str().as_bytes(), principal.user.as_str().as_bytes()];
        for part in own.iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub(super) fn session(principal: &Principal, name: &str) -> Self {
        Self::of(principal, &[b"session", name.as_bytes()])
    }

    pub(in crate::pipeline) fn tool(principal: &Principal, id: &str) -> Self {
        Self::of(principal, &[b"tool", id.as_bytes()])
    }
}

// === impl Sessions ===

impl Sessions {
    pub(in crate::pipeline) fn new() -> Self {
        Self {
            known: Mutex::default(),
            kept: Cache::with_weighter(4_096, KEPT_BYTES, ByTexts),
            issued: Cache::new(ISSUED),
        }
    }

    /// A session spoke; whether hooks know that it began.
    pub(super) fn touch(
        &self,
        key: UserKey,
        principal: &Arc<Principal>,
        lineage: &Lineage,
        trace: &TraceId,
        now: Duration,
    ) -> bool {
        let mut known = self.lock();
        if let Some(session) = known.get_mut(&key) {
            session.trace = trace.clone();
            session.prompt.clone_from(&lineage.prompt);
            session.seen = now;
            return session.started;
        }
        if known.len() >= MOST_SESSIONS {
            forget(&mut known);
        }
        let session = Session {
            principal: Arc::clone(principal),
            name: lineage.session_name().to_owned(),
            trace: trace.clone(),
            prompt: lineage.prompt.clone(),
            seen: now,
            started: false,
            resumed: 0,
        };
        known.insert(key, session);
        false
    }

    /// Hooks let the session begin, or there were none.
    pub(super) fn start(&self, key: UserKey) {
        if let Some(session) = self.lock().get_mut(&key) {
            session.started = true;
        }
    }

    /// The session's last call, unless another prompt caused it than `prompt`.
    pub(super) fn trace(&self, key: UserKey, prompt: Option<&str>) -> Option<TraceId> {
        let known = self.lock();
        let session = known.get(&key)?;
        let same = match (prompt, session.prompt.as_deref()) {
            (Some(wanted), Some(last)) => wanted == last,
            _ => true,
        };
        same.then(|| session.trace.clone())
    }

    /// The session is over.
    pub(super) fn end(&self, key: UserKey) {
        self.lock().remove(&key);
    }

    /// A turn wants to end. `again`: it went on only because hooks would not let it; how often so far.
    pub(super) fn resumed(&self, key: UserKey, again: bool) -> u32 {
        let mut known = self.lock();
        let Some(session) = known.get_mut(&key) else { return 0 };
        if !again {
            session.resumed = 0;
        }
        session.resumed
    }

    /// Hooks would not let the turn end.
    pub(super) fn resume(&self, key: UserKey) {
        if let Some(session) = self.lock().get_mut(&key) {
            session.resumed += 1;
        }
    }

    /// Takes the sessions that were last seen before `moment`.
    pub(super) fn expire(&self, moment: Duration) -> Vec<Session> {
        self.lock().extract_if(|_, session| session.seen < moment).map(|(_, session)| session).collect()
    }

    pub(super) fn kept(&self, key: UserKey) -> Option<Arc<Judgement>> {
        self.kept.get(&key)
    }

    pub(super) fn keep(&self, key: UserKey, kept: Arc<Judgement>) {
        self.kept.insert(key, kept);
    }

    pub(in crate::pipeline) fn issue(&self, key: UserKey, issued: SeenToolCall) {
        self.issued.insert(key, issued);
    }

    pub(super) fn issued(&self, key: UserKey) -> Option<SeenToolCall> {
        self.issued.get(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserKey, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ByTexts ===

impl Weighter<UserKey, Arc<Judgement>> for ByTexts {
    fn weight(&self, _: &UserKey, kept: &Arc<Judgement>) -> u64 {
        let texts = [&kept.content, &kept.context].into_iter().flatten().map(String::len).sum::<usize>();
        ENTRY_BYTES.saturating_add(texts as u64)
    }
}

// === private helpers ===

fn forget(known: &mut HashMap<UserKey, Session>) {
    let mut moments: Vec<Duration> = known.values().map(|session| session.seen).collect();
    let (_, last, _) = moments.select_nth_unstable(FORGOTTEN.min(known.len().saturating_sub(1)));
    let last = *last;
    let mut left = FORGOTTEN;
    known.retain(|_, session| {
        let stays = session.seen > last || left == 0;
        left = left.saturating_sub(usize::from(!stays));
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::principal;
    use super::*;

    fn named(session: &str) -> Lineage {
        Lineage::of_session(session, &principal("acme", "u_alice"))
    }

    fn trace(number: u8) -> TraceId {
        TraceId::from_bytes([number; 16])
    }

    #[test]
    fn a_session_is_its_users_alone() {
        let sessions = Sessions::new();
        let (alice, bob, mallory) =
            (principal("acme", "u_alice"), principal("acme", "u_bob"), principal("other", "u_alice"));
        let key = UserKey::session(&alice, "s");
        assert!(!sessions.touch(key, &alice, &named("s"), &trace(1), Duration::ZERO));
        sessions.start(key);
        assert!(sessions.touch(key, &alice, &named("s"), &trace(2), Duration::ZERO));
        assert_eq!(sessions.trace(key, None), Some(trace(2)));
        for stranger in [bob, mallory] {
            assert_eq!(sessions.trace(UserKey::session(&stranger, "s"), None), None);
        }
    }

    #[test]
    fn a_report_of_another_prompt_is_no_part_of_the_last_call() {
        let sessions = Sessions::new();
        let alice = principal("acme", "u_alice");
        let key = UserKey::session(&alice, "s");
        let lineage = Lineage { prompt: Some("p1".to_owned()), ..named("s") };
        sessions.touch(key, &alice, &lineage, &trace(1), Duration::ZERO);
        assert_eq!(sessions.trace(key, Some("p1")), Some(trace(1)));
        assert_eq!(sessions.trace(key, Some("p2")), None);
        assert_eq!(sessions.trace(key, None), Some(trace(1)));
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let alice = principal("acme", "u_alice");
        assert_ne!(UserKey::of(&alice, &[b"ab", b"c"]), UserKey::of(&alice, &[b"a", b"bc"]));
    }

    #[test]
    fn a_silent_session_expires_once() {
        let sessions = Sessions::new();
        let alice = principal("acme", "u_alice");
        for (name, seen) in [("old", 10), ("new", 20)] {
            sessions.touch(
                UserKey::session(&alice, name),
                &alice,
                &named(name),
                &trace(1),
                Duration::from_secs(seen),
            );
        }
        let ended = sessions.expire(Duration::from_secs(15));
        assert_eq!(ended.iter().map(|session| session.name.as_str()).collect::<Vec<_>>(), ["old"]);
        assert!(sessions.expire(Duration::from_secs(15)).is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_longest_silent_go_first() {
        let sessions = Sessions::new();
        let alice = principal("acme", "u_alice");
        let key = |number: usize| UserKey::session(&alice, &number.to_string());
        for number in 0..=MOST_SESSIONS {
            let now = Duration::from_secs(number as u64);
            sessions.touch(key(number), &alice, &named("s"), &trace(1), now);
        }
        assert!(sessions.lock().len() <= MOST_SESSIONS);
        assert_eq!(sessions.trace(key(0), None), None);
        assert!(sessions.trace(key(MOST_SESSIONS), None).is_some());
        // Sessions that were all seen in the same moment are bounded as well.
        let crowd = Sessions::new();
        for number in 0..=MOST_SESSIONS {
            crowd.touch(key(number), &alice, &named("s"), &trace(1), Duration::ZERO);
        }
        assert!(crowd.lock().len() <= MOST_SESSIONS);
        assert!(crowd.lock().len() > MOST_SESSIONS / 2);
    }

    #[test]
    fn a_turn_that_ends_by_itself_starts_the_count_anew() {
        let sessions = Sessions::new();
        let alice = principal("acme", "u_alice");
        let key = UserKey::session(&alice, "s");
        sessions.touch(key, &alice, &named("s"), &trace(1), Duration::ZERO);
        sessions.resume(key);
        sessions.resume(key);
        assert_eq!(sessions.resumed(key, true), 2);
        assert_eq!(sessions.resumed(key, false), 0);
        assert_eq!(sessions.resumed(key, true), 0);
    }
}
