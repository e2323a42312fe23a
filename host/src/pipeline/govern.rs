//! Policies and scanners: asked before anything goes upstream, about exactly the bytes that will go. A component that does not
//! answer denies. Scanners that may change the request are asked first, so that everybody else sees what they left.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::messages::index::{Index, Unit};
use sallyport_protocol::messages::splice::Splices;
use sallyport_protocol::verdict::Verdict;
use serde_json::{Value, json};

use super::facts::ClientBody;
use super::memo::{Memo, MemoKey, TextHash, Whose};
use super::place::place_of;
use super::refuse::{Denial, WAYS_OUT};
use super::row::notes_of;
use super::verdicts::{VerdictKey, VerdictMemory};
use super::{Call, Refusal};
use crate::component::contract::BodyView;
use crate::component::contract::policy;
use crate::component::contract::scanner::{Action, Finding, TextKind};
use crate::component::request::text_kind;
use crate::component::{Components, Entry, Fault, Mode, Ran};
use crate::evidence::{Asked, RecordedAnswer, RecordedStep, Texts};

/// Asks policies and scanners, and remembers what those said whose answers follow from what they were shown.
pub(super) struct Policies {
    components: Arc<Components>,
    memo: Memo,
    verdicts: VerdictMemory,
}

/// What one scanner came to.
#[derive(Default)]
struct Scan {
    whose: Whose,
    micros: u32,
    asked: u32,
    remembered: u32,
    /// Rules that matched, in order, once each.
    rules: Vec<String>,
    /// How often each rule changes the request.
    redacted: BTreeMap<String, u32>,
    splices: Splices,
    /// The rule of the first finding that refuses the call, and where its text begins in the body.
    refused: Option<(String, usize)>,
    fault: Option<Fault>,
    /// What it said about each text, where it is recorded.
    texts: Option<Texts>,
}

/// What a scanner is asked about at once.
enum Piece {
    /// Texts of the body.
    Unit(Unit),
    /// What travels beside the body. Nobody changes it.
    Head,
}

// === impl Piece ===

impl Piece {
    fn kind(&self) -> TextKind {
        match self {
            Self::Unit(unit) => text_kind(unit.origin()),
            Self::Head => TextKind::Head,
        }
    }

    /// Where in the body the text begins in which a byte of it stands.
    fn at(&self, body: &[u8], byte: usize) -> usize {
        match self {
            Self::Unit(unit) => unit.at(body, byte),
            Self::Head => body.len(),
        }
    }

    fn read<'b>(&self, body: &'b ClientBody) -> Cow<'b, str> {
        match self {
            Self::Unit(unit) => unit.read(&body.bytes),
            Self::Head => Cow::Borrowed(&body.head),
        }
    }
}

// === impl Policies ===

impl Policies {
    /// Policies and scanners that nobody has asked anything yet.
    pub(super) fn new(components: Arc<Components>) -> Self {
        Self { components, memo: Memo::new(), verdicts: VerdictMemory::new() }
    }

    /// Forgets the verdicts of policies: others may be in force from now on.
    pub(super) fn forget(&self) {
        self.verdicts.clear();
    }

    /// Asks everybody who may say no.
    pub(super) async fn check(&self, call: &mut Call) -> Result<(), Refusal> {
        let bundle = Arc::clone(&call.bundle);
        let scanners = bundle.scanners.iter().filter(|entry| entry.mode != Mode::Off);
        let (rewriting, looking): (Vec<_>, Vec<_>) = scanners.partition(|entry| entry.rewrites());
        self.scan_all(&rewriting, call).await?;
        for entry in bundle.policies.iter().filter(|entry| entry.mode != Mode::Off) {
            self.ask(entry, call).await?;
        }
        self.scan_all(&looking, call).await
    }

    /// Asks the policies that only look about what has changed since they were asked: where the call goes. Texts are the same.
    pub(super) async fn look(&self, call: &mut Call) -> Result<(), Refusal> {
        let bundle = Arc::clone(&call.bundle);
        let looks = |entry: &&Entry| entry.mode == Mode::Enforce && !entry.component.counts();
        for entry in bundle.policies.iter().filter(looks) {
            self.ask(entry, call).await?;
        }
        Ok(())
    }

    /// Each scanner in turn, each on what those before it left.
    async fn scan_all(&self, scanners: &[&Entry], call: &mut Call) -> Result<(), Refusal> {
        let mut texts = Vec::new();
        for (number, entry) in scanners.iter().enumerate() {
            if number == 0 {
                texts = hashed(&call.request.body);
            }
            let splices = self.scan(entry, call, &texts).await?;
            if !splices.is_empty() {
                call.rewrite(&splices, entry.component.name())?;
                texts = hashed(&call.request.body);
            }
        }
        Ok(())
    }

    /// What a policy says, and whether it had said it before of the same facts.
    async fn verdict(&self, entry: &Entry, call: &Call) -> (Ran<policy::Verdict>, bool) {
        let facts = &call.request.facts;
        let key = VerdictKey::of(&entry.component, facts);
        if let Some(remembered) = key.and_then(|key| self.verdicts.get(key)) {
            return (remembered.again(), true);
        }
        let body: Arc<dyn BodyView> = Arc::clone(&call.request.body) as _;
        let ran = self.components.check(&entry.component, facts, &body).await;
        if let Some(key) = key {
            self.verdicts.keep(key, &ran);
        }
        (ran, false)
    }

    async fn ask(&self, entry: &Entry, call: &mut Call) -> Result<(), Refusal> {
        let (ran, remembered) = self.verdict(entry, call).await;
        let heard = call.record.gathers().then(|| RecordedAnswer::of(&ran));
        let Ran { result, micros, notes, log, .. } = ran;
        let component = &entry.component;
        let mut more: Vec<(&'static str, Value)> = Vec::new();
        if !notes.is_empty() {
            more.push(("notes", notes_of(&notes)));
        }
        if let Some(log) = log {
            more.push(("log", log.into()));
        }
        let (verdict, refusal) = match result {
            Ok(policy::Verdict::Allow) => (Verdict::Allow, None),
            Ok(policy::Verdict::Deny(refusal)) => {
                (Verdict::Deny, Some(denied(component.name(), refusal.into(), false)))
            }
            Ok(policy::Verdict::Ask(refusal)) => {
                (Verdict::Ask, Some(denied(component.name(), refusal.into(), true)))
            }
            Ok(policy::Verdict::Other(attribute)) => {
                let reason = format!("{} gave a verdict that this gateway does not know", component.name());
                let refusal = Denial::own(ErrorCode::VerdictUnknown, reason);
                more.push(("said", attribute.name.into()));
                (Verdict::Other, Some(denied(component.name(), refusal, false)))
            }
            Err(fault) => {
                more.push(("fault", fault.code().as_str().into()));
                (Verdict::Fault, Some(undecided(component.name(), fault)))
            }
        };
        if let Some(Refusal::Component { refusal, .. }) = &refusal {
            more.push(("code", refusal.code.as_str().into()));
        }
        if remembered {
            call.record.remembered(component, entry.mode, verdict, more);
        } else {
            call.record.component(component, entry.mode, verdict, micros, more);
        }
        let refusal = refusal.filter(|_| entry.mode == Mode::Enforce);
        if let Some(heard) = heard {
            let step = RecordedStep::new(component, entry.mode, Asked::Call(heard), refusal.is_some());
            call.record.record_step(step, Some(&call.request.body.bytes));
        }
        refusal.map_or(Ok(()), Err)
    }

    /// What `entry` wants changed, if it lets the call pass.
    async fn scan(
        &self,
        entry: &Entry,
        call: &mut Call,
        texts: &[(Piece, TextHash)],
    ) -> Result<Splices, Refusal> {
        let recorded = call.record.gathers().then(Texts::default);
        let fault = entry.component.barred().cloned();
        let whose = Whose::of(&call.request.facts.principal.tenant, &entry.component);
        let mut scan = Scan { whose, fault, texts: recorded, ..Scan::default() };
        let texts = if scan.fault.is_none() { texts } else { &[] };
        for (text, hash) in texts {
            self.scan_text(entry, call, text, *hash, &mut scan).await;
            if scan.fault.is_some() || scan.refused.is_some() {
                break;
            }
        }
        let Scan { micros, asked, remembered, rules, redacted, splices, refused, fault, texts, .. } = scan;
        let verdict = match (&fault, &refused) {
            (Some(_), _) => Verdict::Fault,
            (None, Some(_)) => Verdict::Deny,
            (None, None) if !redacted.is_empty() => Verdict::Redact,
            (None, None) if rules.is_empty() => Verdict::Allow,
            (None, None) => Verdict::Flag,
        };
        let mut more = vec![("texts", json!({ "scanned": asked, "remembered": remembered }))];
        if !rules.is_empty() {
            more.push(("rules", rules.into()));
        }
        if verdict == Verdict::Redact {
            more.push(("redacted", json!(redacted)));
        }
        if let Some(fault) = &fault {
            more.push(("fault", fault.code().as_str().into()));
        }
        call.record.component(&entry.component, entry.mode, verdict, micros, more);
        if let Some(texts) = texts {
            let stopped = entry.mode == Mode::Enforce && (fault.is_some() || refused.is_some());
            let step = RecordedStep::new(&entry.component, entry.mode, Asked::Texts(texts), stopped);
            call.record.record_step(step, Some(&call.request.body.bytes));
        }
        if entry.mode != Mode::Enforce {
            return Ok(Splices::new());
        }
        let name = entry.component.name();
        match (fault, refused) {
            (Some(fault), _) => Err(undecided(name, fault)),
            (None, Some((rule, at))) => {
                let place = place_of(&call.request.body.bytes, at);
                let refusal = Denial::of_rule(&rule, found_in(&rule, &place, entry));
                Err(denied(name, refusal, false))
            }
            (None, None) => Ok(splices),
        }
    }

    async fn scan_text(&self, entry: &Entry, call: &Call, text: &Piece, hash: TextHash, scan: &mut Scan) {
        let kind = text.kind();
        let key = MemoKey::of(scan.whose, kind, hash);
        let findings = if let Some(findings) = self.memo.get(key) {
            scan.remembered += 1;
            if let Some(texts) = &mut scan.texts {
                texts.heard(RecordedAnswer::remembered(&findings));
            }
            findings
        } else {
            let read = text.read(&call.request.body);
            let ran = self.components.scan(&entry.component, kind, &read).await;
            scan.asked += 1;
            scan.micros = scan.micros.saturating_add(ran.micros);
            if let Some(texts) = &mut scan.texts {
                texts.heard(RecordedAnswer::of(&ran));
            }
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
        let mut ranges = Vec::new();
        for finding in findings.iter() {
            if !scan.rules.contains(&finding.rule) {
                scan.rules.push(finding.rule.clone());
            }
            match &finding.action {
                Action::Flag => {}
                Action::Redact if entry.may_rewrite => ranges.push(finding),
                // Who may not change a byte refuses what it would redact.
                Action::Deny | Action::Redact | Action::Other(_) => {
                    let at = text.at(&call.request.body.bytes, finding.start as usize);
                    scan.refused.get_or_insert_with(|| (finding.rule.clone(), at));
                }
            }
        }
        scan.redact(&call.request.body.bytes, text, ranges);
    }
}

// === impl Scan ===

impl Scan {
    /// Notes what is to be replaced in a text. What cannot be cut out of its string is refused.
    fn redact(&mut self, body: &[u8], text: &Piece, mut findings: Vec<&Finding>) {
        let Some(first) = findings.first().map(|finding| finding.rule.clone()) else { return };
        findings.sort_by_key(|finding| (finding.start, finding.end));
        let mut merged: Vec<(Range<usize>, &str)> = Vec::new();
        for finding in &findings {
            *self.redacted.entry(finding.rule.clone()).or_default() += 1;
            let range = finding.start as usize..finding.end as usize;
            match merged.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => merged.push((range, &finding.replacement)),
            }
        }
        let replaced = match text {
            Piece::Unit(unit) => unit.replace(&mut self.splices, body, merged).is_ok(),
            Piece::Head => false,
        };
        if !replaced {
            self.refused.get_or_insert_with(|| (first, text.at(body, 0)));
        }
    }
}

// === impl Call ===

impl Call {
    /// Replaces pieces of the request. Everybody from here on, the provider included, sees what is left.
    fn rewrite(&mut self, splices: &Splices, component: &str) -> Result<(), Refusal> {
        let before = &self.request.body;
        let bytes = splices.apply(&before.bytes).ok();
        let rewritten = bytes.and_then(|bytes| Some((Index::parse(&bytes).ok()?, bytes)));
        let Some((index, bytes)) = rewritten.filter(|(index, _)| index.is_like(&before.index)) else {
            let refusal =
                Denial::own(ErrorCode::RewriteFailed, "the request could not be changed without harm");
            return Err(denied(component, refusal, false));
        };
        self.record.forwards(&bytes);
        self.request = Arc::new(self.request.with_body(bytes.into(), index));
        Ok(())
    }
}

// === private helpers ===

fn hashed(body: &ClientBody) -> Vec<(Piece, TextHash)> {
    let head = (Piece::Head, TextHash::of(body.head.as_bytes()));
    if let Some(units) = &body.units {
        let known = units.iter().map(|(unit, hash)| (Piece::Unit(unit.clone()), *hash));
        return known.chain([head]).collect();
    }
    let units = body.index.units().into_iter().map(|unit| {
        let hash = TextHash::of_unit(&unit, &body.bytes);
        (Piece::Unit(unit), hash)
    });
    units.chain([head]).collect()
}

/// What a user is told of a finding: what, where, and how to go on. The text is part of the conversation, so that every later turn
/// would be refused as well.
fn found_in(rule: &str, place: &str, entry: &Entry) -> String {
    let cut = if entry.component.asks_to_rewrite() && !entry.may_rewrite {
        " An administrator can have it cut out instead (rewrite: true)."
    } else {
        ""
    };
    format!("{place} holds what the rule {rule} does not let through. {WAYS_OUT}{cut}")
}

fn denied(component: &str, refusal: Denial, ask: bool) -> Refusal {
    Refusal::Component { component: component.to_owned(), refusal, ask }
}

fn undecided(component: &str, fault: Fault) -> Refusal {
    match fault {
        Fault::Exhausted => Refusal::Overloaded,
        fault => Refusal::Undecided { component: component.to_owned(), fault },
    }
}
