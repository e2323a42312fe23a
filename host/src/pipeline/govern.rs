//! Policies and scanners: asked before anything goes upstream, about exactly the bytes that will go. A component that does not
//! answer denies.

use std::sync::Arc;

use sallyport_protocol::messages::index::{Origin, Text};
use serde_json::{Value, json};

use super::memo::{Key, TextHash};
use super::row::notes_of;
use super::{Call, Pipeline, Refusal};
use crate::component::contract::policy::Verdict;
use crate::component::contract::scanner::{Action, Finding, TextKind};
use crate::component::contract::{BodyView, Refusal as Denial, RefusalKind};
use crate::component::{Entry, Fault, Mode, Ran};

/// What one scanner came to.
#[derive(Default)]
struct Scan {
    micros: u32,
    asked: u32,
    remembered: u32,
    /// Rules that matched, in order, once each.
    rules: Vec<String>,
    /// The rule of the first finding that refuses the call.
    refused: Option<String>,
    fault: Option<Fault>,
}

impl Pipeline {
    /// Asks everybody who may say no.
    pub(super) async fn govern(&self, call: &mut Call) -> Result<(), Refusal> {
        let bundle = Arc::clone(&call.bundle);
        for entry in bundle.policies.iter().filter(|entry| entry.mode != Mode::Off) {
            self.ask(entry, call).await?;
        }
        let scanners: Vec<_> = bundle.scanners.iter().filter(|entry| entry.mode != Mode::Off).collect();
        if scanners.is_empty() {
            return Ok(());
        }
        let body = Arc::clone(&call.request.body);
        let texts: Vec<(Text, TextHash)> =
            body.index.texts.iter().map(|text| (*text, TextHash::of(text.span.of(&body.bytes)))).collect();
        for entry in scanners {
            self.scan(entry, call, &texts).await?;
        }
        Ok(())
    }

    async fn ask(&self, entry: &Entry, call: &mut Call) -> Result<(), Refusal> {
        let body: Arc<dyn BodyView> = Arc::clone(&call.request.body) as _;
        let Ran { result, micros, notes, log, .. } =
            self.components.check(&entry.component, &call.request.facts, &body).await;
        let component = &entry.component;
        let mut more: Vec<(&'static str, Value)> = Vec::new();
        if !notes.is_empty() {
            more.push(("notes", notes_of(&notes)));
        }
        if let Some(log) = log {
            more.push(("log", log.into()));
        }
        let (verdict, refusal) = match result {
            Ok(Verdict::Allow) => ("allow", None),
            Ok(Verdict::Deny(refusal)) => ("deny", Some(denied(component.name(), refusal, false))),
            Ok(Verdict::Ask(refusal)) => ("ask", Some(denied(component.name(), refusal, true))),
            Ok(Verdict::Other(attribute)) => {
                let refusal = Denial {
                    code: "verdict_unknown".to_owned(),
                    reason: format!("{} gave a verdict that this gateway does not know", component.name()),
                    retry_after_ms: None,
                    kind: RefusalKind::Denied,
                };
                more.push(("said", attribute.name.into()));
                ("other", Some(denied(component.name(), refusal, false)))
            }
            Err(fault) => {
                more.push(("fault", fault.code().into()));
                ("fault", Some(undecided(component.name(), fault)))
            }
        };
        if let Some(Refusal::Component { refusal, .. }) = &refusal {
            more.push(("code", refusal.code.clone().into()));
        }
        call.record.component(component, entry.mode, verdict, micros, more);
        match refusal {
            Some(refusal) if entry.mode == Mode::Enforce => Err(refusal),
            _ => Ok(()),
        }
    }

    async fn scan(&self, entry: &Entry, call: &mut Call, texts: &[(Text, TextHash)]) -> Result<(), Refusal> {
        let mut scan = Scan { fault: entry.component.barred().cloned(), ..Scan::default() };
        let texts = if scan.fault.is_none() { texts } else { &[] };
        for (text, hash) in texts {
            self.scan_text(entry, call, *text, *hash, &mut scan).await;
            if scan.fault.is_some() || scan.refused.is_some() {
                break;
            }
        }
        let Scan { micros, asked, remembered, rules, refused, fault } = scan;
        let verdict = match (&fault, &refused) {
            (Some(_), _) => "fault",
            (None, Some(_)) => "deny",
            (None, None) if rules.is_empty() => "allow",
            (None, None) => "flag",
        };
        let mut more = vec![("texts", json!({ "scanned": asked, "remembered": remembered }))];
        if !rules.is_empty() {
            more.push(("rules", rules.into()));
        }
        if let Some(fault) = &fault {
            more.push(("fault", fault.code().into()));
        }
        call.record.component(&entry.component, entry.mode, verdict, micros, more);
        if entry.mode != Mode::Enforce {
            return Ok(());
        }
        let name = entry.component.name();
        match (fault, refused) {
            (Some(fault), _) => Err(undecided(name, fault)),
            (None, Some(rule)) => {
                let refusal = Denial {
                    reason: format!("the request holds what the rule {rule} does not let through"),
                    code: rule,
                    retry_after_ms: None,
                    kind: RefusalKind::Denied,
                };
                Err(denied(name, refusal, false))
            }
            (None, None) => Ok(()),
        }
    }

    async fn scan_text(&self, entry: &Entry, call: &Call, text: Text, hash: TextHash, scan: &mut Scan) {
        let kind = text_kind(text.origin);
        let key = Key::of(&call.request.facts.principal.tenant, &entry.component, kind, hash);
        let findings = if let Some(findings) = self.memo.get(key) {
            scan.remembered += 1;
            findings
        } else {
            let read = text.read(&call.request.body.bytes);
            let ran = self.components.scan(&entry.component, kind, &read).await;
            scan.asked += 1;
            scan.micros = scan.micros.saturating_add(ran.micros);
            match ran.result {
                Ok(findings) => {
                    let findings: Arc<[Finding]> = findings.into();
                    self.memo.keep(key, Arc::clone(&findings));
                    findings
                }
                Err(fault) => {
                    scan.fault = Some(fault);
                    return;
                }
            }
        };
        for finding in findings.iter() {
            if !scan.rules.contains(&finding.rule) {
                scan.rules.push(finding.rule.clone());
            }
            // A scanner may not change a byte: what it would redact is refused.
            if matches!(finding.action, Action::Deny | Action::Redact) {
                scan.refused.get_or_insert_with(|| finding.rule.clone());
            }
        }
    }
}

// === private helpers ===

fn denied(component: &str, refusal: Denial, ask: bool) -> Refusal {
    Refusal::Component { component: component.to_owned(), refusal, ask }
}

fn undecided(component: &str, fault: Fault) -> Refusal {
    match fault {
        Fault::Exhausted => Refusal::Overloaded,
        fault => Refusal::Undecided { component: component.to_owned(), fault },
    }
}

fn text_kind(origin: Origin) -> TextKind {
    match origin {
        Origin::System => TextKind::System,
        Origin::User => TextKind::User,
        Origin::Assistant => TextKind::Assistant,
        Origin::ToolInput => TextKind::ToolInput,
        Origin::ToolOutput => TextKind::ToolOutput,
        Origin::Document => TextKind::Document,
    }
}
