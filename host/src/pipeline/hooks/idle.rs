//! Sessions that fell silent: their end is told to hooks, since a client that only calls models never says goodbye.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::package::HookEvent;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::{Hooks, Occasion, Setting, listeners};
use crate::component::Bundle;
use crate::component::contract::hook::Event;
use crate::pipeline::lineage::Lineage;
use crate::pipeline::row;
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
            let idle = self.in_force.load().config.hooks.session_idle;
            tokio::select! {
                () = tokio::time::sleep((idle / 4).min(LONGEST_PAUSE)) => {}
                () = shutdown.cancelled() => return,
            }
            self.bodies.sweep(self.clock.monotonic());
            let Some(moment) = self.clock.monotonic().checked_sub(idle) else { continue };
            for session in self.hooks.sessions.expire(moment) {
                let Session { principal, .. } = &session;
                let bundle = self.in_force.load().registry.snapshot(&principal.tenant);
                self.hooks.session_ends(&bundle.seen_by(principal.user.as_str()), &session).await;
            }
        }
    }
}

// === impl Hooks ===

impl Hooks {
    async fn session_ends(&self, bundle: &Bundle, session: &Session) {
        let Session { principal, name, trace, .. } = session;
        if listeners(bundle, HookEvent::SessionEnd).next().is_none() {
            return;
        }
        let setting = Setting {
            trace: trace.as_str().to_owned(),
            principal: facts::principal_facts(principal),
            attributes: Vec::new(),
            recorded: false,
        };
        let what = Event::SessionEnd(IDLE.to_owned());
        let mut occasion = Occasion::new(setting, HookEvent::SessionEnd, Some(IDLE.to_owned()), what);
        occasion.notes.push(("client_session", json!(name)));
        let told = self.dispatch(bundle, occasion).await;
        let lineage = Lineage::of_session(name, principal);
        let who = row::who(principal, &lineage, trace, &bundle.version);
        if let Err(unavailable) = self.write_hooks(&who, told.rows).await {
            tracing::warn!("the end of a session has no row: {unavailable}");
        }
    }
}
