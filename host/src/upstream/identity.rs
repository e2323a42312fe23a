//! Tokens and keys that clouds give out for a while. Each identity has one at a time: fetched when it is first needed, again ahead of its
//! end while the old one still serves, and once for all calls that wait. An identity server that fails is not asked again at once.

mod aws;
mod azure;
mod fetch;
mod gcp;
mod provider;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::Upstream;
use crate::clock::Clock;
use crate::config::{AwsKeys, CloudCredential, CloudIdentity, SecretString};

pub use self::fetch::IdentityError;
pub(super) use self::fetch::{MAX_ANSWER_BYTES, TIMEOUT};

/// A token is fetched anew so long before its end, or in the last quarter of a shorter life.
const AHEAD: Duration = Duration::from_mins(5);
/// It is not used any more so long before its end, or in the last tenth of a shorter life: what is sent has yet to arrive.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest that one is believed to live, whatever the identity server says.
const LONGEST: Duration = Duration::from_hours(12);
/// Shortest life: of a shorter one the next would have to be fetched before this one arrives.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long an identity server is left alone that failed.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// How old a token has to be that an upstream refuses, so that another one is fetched: one that was just given out is refused for
/// another reason.
const DOUBTFUL: Duration = Duration::from_mins(1);
/// Identities whose tokens are kept. A configuration has fewer; those of earlier ones are forgotten.
pub(super) const MOST: usize = 256;

/// Every identity that a call needed.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// By fingerprint: an identity that changes has nothing of the one before.
    slots: Mutex<HashMap<[u8; 32], Arc<IdentitySlot>>>,
}

/// What a cloud gave out.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// Keys that sign.
    Keys(AwsKeys),
    /// A token that is sent as bearer.
    Token(SecretString),
}

/// The same, and for how long.
#[derive(Debug)]
pub(super) struct FreshIdentity {
    given: Given,
    lifetime: Duration,
}

/// The place of one identity.
#[derive(Debug)]
struct IdentitySlot {
    state: Mutex<SlotState>,
    /// Counts fetches that ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct SlotState {
    held: Option<HeldIdentity>,
    /// When the last fetch failed, on the monotonic clock, and how.
    failed: Option<(Duration, IdentityError)>,
    fetching: bool,
    /// When it was last asked for, on the monotonic clock.
    used: Duration,
}

#[derive(Debug)]
struct HeldIdentity {
    given: Given,
    since: OffsetDateTime,
    /// From here on another one is fetched.
    due: OffsetDateTime,
    /// From here on it is not used.
    end: OffsetDateTime,
}

/// What a look at a slot comes to.
enum SlotLook {
    /// There is one, and whether the next one is to be fetched.
    Have(Given, bool),
    /// The fetch failed a moment ago.
    Failed(IdentityError),
    /// Somebody has to fetch: this caller, or one before.
    Wait(bool),
}

/// Ends a fetch, also one that panicked.
struct Fetching {
    slot: Arc<IdentitySlot>,
    result: Option<Result<HeldIdentity, (Duration, IdentityError)>>,
}

// === impl Identities ===

impl Identities {
    /// What this identity has to show now.
    pub(super) async fn get(
        &self,
        upstream: &Upstream,
        credential: &Arc<CloudCredential>,
    ) -> Result<Given, IdentityError> {
        let clock = &upstream.clock;
        let slot = self.slot(credential, clock.monotonic());
        // Before the look, so that no end of a fetch is missed after it.
        let mut ended = slot.ended.subscribe();
        loop {
            match slot.look(clock.as_ref()) {
                SlotLook::Have(given, fetch) => {
                    if fetch {
                        slot.fetch(upstream, credential);
                    }
                    return Ok(given);
                }
                SlotLook::Failed(error) => return Err(error),
                SlotLook::Wait(fetch) => {
                    if fetch {
                        slot.fetch(upstream, credential);
                    }
                    // The sender lives as long as the slot, which is held here.
                    drop(ended.changed().await);
                }
            }
        }
    }

    /// An upstream refused what this identity showed: unless that is new, it is not shown again.
    pub(super) fn doubt(&self, credential: &CloudCredential, now: OffsetDateTime) {
        let slot = self.locked().get(credential.fingerprint()).cloned();
        if let Some(slot) = slot {
            slot.locked().held.take_if(|held| now - held.since >= DOUBTFUL);
        }
    }

    fn slot(&self, credential: &CloudCredential, now: Duration) -> Arc<IdentitySlot> {
        let mut slots = self.locked();
        if let Some(slot) = slots.get(credential.fingerprint()) {
            slot.locked().used = now;
            return Arc::clone(slot);
        }
        if slots.len() >= MOST {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.locked().used).map(|(key, _)| *key);
            if let Some(key) = oldest {
                slots.remove(&key);
            }
        }
        let state = Mutex::new(SlotState { used: now, ..SlotState::default() });
        let slot = Arc::new(IdentitySlot { state, ended: watch::Sender::new(0) });
        slots.insert(*credential.fingerprint(), Arc::clone(&slot));
        slot
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<IdentitySlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl IdentitySlot ===

impl IdentitySlot {
    /// Looks, and takes on the fetch that nobody has taken on yet.
    fn look(&self, clock: &dyn Clock) -> SlotLook {
        let mut state = self.locked();
        let paused = state.failed.clone().filter(|(at, _)| clock.monotonic().saturating_sub(*at) < PAUSE);
        let free = !state.fetching && paused.is_none();
        let now = clock.now();
        let look = match (&state.held, paused) {
            (Some(held), _) if now < held.end => SlotLook::Have(held.given.clone(), free && now >= held.due),
            (_, Some((_, error))) => SlotLook::Failed(error),
            (_, None) => SlotLook::Wait(free),
        };
        state.fetching |= matches!(look, SlotLook::Have(_, true) | SlotLook::Wait(true));
        look
    }

    /// Fetches in a task of its own: a caller who leaves takes nothing from those who wait with it.
    fn fetch(self: &Arc<Self>, upstream: &Upstream, credential: &Arc<CloudCredential>) {
        let (upstream, credential) = (upstream.clone(), Arc::clone(credential));
        let slot = Arc::clone(self);
        TokioExecutor::new().execute(async move {
            let mut fetching = Fetching { slot, result: None };
            let minted = match &credential.identity {
                CloudIdentity::Aws(aws) => aws::mint(&upstream, aws).await,
                CloudIdentity::Gcp(gcp) => gcp::mint(&upstream, gcp).await,
                CloudIdentity::Azure(azure) => azure::mint(&upstream, azure).await,
            };
            let short = IdentityError::Unusable("what it gives out is over as it comes");
            let minted =
                minted.and_then(|minted| if minted.lifetime < SHORTEST { Err(short) } else { Ok(minted) });
            let clock = &upstream.clock;
            if let Err(error) = &minted {
                let name = credential.name.as_str();
                tracing::warn!(credential = name, "no identity of the cloud {}: {error}", credential.cloud());
            }
            fetching.result = Some(
                minted
                    .map(|minted| HeldIdentity::new(minted, clock.now()))
                    .map_err(|error| (clock.monotonic(), error)),
            );
        });
    }

    fn locked(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl HeldIdentity ===

impl HeldIdentity {
    fn new(minted: FreshIdentity, now: OffsetDateTime) -> Self {
        let FreshIdentity { given, lifetime } = minted;
        let lifetime = lifetime.min(LONGEST);
        let end = now + lifetime;
        Self { given, since: now, due: end - AHEAD.min(lifetime / 4), end: end - MARGIN.min(lifetime / 10) }
    }
}

// === impl Fetching ===

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut state = self.slot.locked();
        state.fetching = false;
        match self.result.take() {
            Some(Ok(held)) => {
                state.held = Some(held);
                state.failed = None;
            }
            Some(Err(failed)) => state.failed = Some(failed),
            // It did not come to an end: whoever waits tries again.
            None => {}
        }
        drop(state);
        self.slot.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests;
