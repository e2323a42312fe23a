//! Sessions that fell silent: their end is told to hooks, since a client that only calls models never says goodbye.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::package::HookEvent;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::{Occasion, listeners};
use crate::component::contract::hook::Event;
use crate::pipeline::{Pipeline, facts};

/// Why such a session ended.
const IDLE: &str = "idle";
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

// === impl Pipeline ===

impl Pipeline {
    /// Ends sessions that fell silent, until shutdown.
    pub async fn keep_sessions(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let idle = self.in_force.load().config.session_idle;
            tokio::select! {
                () = tokio::time::sleep((idle / 4).min(LONGEST_PAUSE)) => {}
                () = shutdown.cancelled() => return,
            }
            let Some(moment) = self.clock.monotonic().checked_sub(idle) else { continue };
            for session in self.sessions.expire(moment) {
                self.session_ends(&session).await;
            }
        }
    }

    async fn session_ends(&self, session: &Session) {
        let Session { principal, name, trace, .. } = session;
        let bundle = self.in_force.load().registry.snapshot(&principal.tenant);
        let bundle = bundle.seen_by(principal.user.as_str());
        if listeners(&bundle, HookEvent::SessionEnd).next().is_none() {
            return;
        }
        let principal_facts = facts::principal_facts(principal);
        let what = Event::SessionEnd(IDLE.to_owned());
        let mut occasion = Occasion::outside(HookEvent::SessionEnd, trace.as_str(), principal_facts, what);
        occasion.subject = Some(IDLE.to_owned());
        occasion.notes.push(("client_session", json!(name)));
        let told = self.tell(&bundle, occasion).await;
        let who = crate::pipeline::row::who(principal, trace, &bundle.version);
        if let Err(unavailable) = self.write_hooks(&who, told.rows).await {
            tracing::warn!("the end of a session has no row: {unavailable}");
        }
    }
}
