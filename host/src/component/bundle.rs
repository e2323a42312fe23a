//! A bundle: the ordered set of components and configurations in force, and the hash that is its policy version.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_protocol::canonical;
use sallyport_protocol::hooks::{Attachment, OnFault};
use sallyport_protocol::id::{IdError, PolicyVersion};
use sallyport_protocol::package::Kind;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ready::Component;

/// What is done with what a component says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It is asked, and what it says is recorded.
    Shadow,
    /// It is not asked.
    Off,
}

/// A component in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which one.
    pub component: Arc<Component>,
    /// What is done with what it says.
    pub mode: Mode,
    /// Whether it may change the request.
    pub may_rewrite: bool,
    /// What is tried in the same place.
    pub trial: Option<Trial>,
    /// For hooks: what it is told of, and what becomes of an event that it does not answer.
    pub attachment: Attachment,
}

/// A component that is tried before it takes a place.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Which one.
    pub component: Arc<Component>,
    /// How far it is.
    pub stage: Stage,
    /// What is done with what it says where it is in force.
    pub mode: Mode,
}

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is asked after the one in force, and what it says is recorded.
    Shadow,
    /// It is in force, instead of the other one, for so many of a hundred users; a user stays on one side.
    Canary {
        /// 1 to 100.
        percent: u8,
    },
}

/// What is in force for a tenant.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Hash over everything below, in order.
    pub version: PolicyVersion,
    /// Policies, in the order in which they are asked.
    pub policies: Vec<Entry>,
    /// Scanners, in the order in which they are asked.
    pub scanners: Vec<Entry>,
    /// Hooks, in the order in which they are told.
    pub hooks: Vec<Entry>,
    /// Providers, by the tag that routes name.
    pub providers: BTreeMap<String, Arc<Component>>,
    /// Providers that are tried, by the same tags.
    pub provider_trials: BTreeMap<String, Trial>,
    /// Predicates, by the key of what routes name.
    pub predicates: BTreeMap<String, Arc<Component>>,
}

/// Why a bundle has no version, and so does not come into force.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// What was hashed gives no version.
    #[error("the hash of the bundle is no policy version")]
    Version(#[from] IdError),
    /// A hook's timeout cannot be written in whole milliseconds.
    #[error("the timeout of a hook is too long to be part of the policy version")]
    Timeout,
}

// === impl Mode ===

impl Mode {
    /// As it stands in configuration and audit rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

// === impl Bundle ===

impl Bundle {
    /// Nothing in force.
    pub fn empty() -> Self {
        Self {
            version: PolicyVersion::unversioned(),
            policies: Vec::new(),
            scanners: Vec::new(),
            hooks: Vec::new(),
            providers: BTreeMap::new(),
            provider_trials: BTreeMap::new(),
            predicates: BTreeMap::new(),
        }
    }

    /// Sorts `entries` by kind, keeping their order within it, and names the result by its hash. A provider among `entries`
    /// is ignored: providers have tags.
    pub fn assemble(
        entries: &[Entry],
        providers: BTreeMap<String, Arc<Component>>,
        provider_trials: BTreeMap<String, Trial>,
        predicates: BTreeMap<String, Arc<Component>>,
    ) -> Result<Self, BundleError> {
        let of =
            |kind| entries.iter().filter(|entry| entry.component.kind() == kind).cloned().collect::<Vec<_>>();
        let (policies, scanners, hooks) = (of(Kind::Policy), of(Kind::Scanner), of(Kind::Hook));
        let version = version(&[&policies, &scanners, &hooks], &providers, &provider_trials, &predicates)?;
        Ok(Self { version, policies, scanners, hooks, providers, provider_trials, predicates })
    }

    /// The bundle as `user` sees it: with trials in the places where they are in force for this user, and beside those
    /// that they shadow. It keeps its version, which names the trials too.
    #[must_use]
    pub fn seen_by(self: &Arc<Self>, user: &str) -> Arc<Self> {
        if !self.has_trials() {
            return Arc::clone(self);
        }
        let seen = |entries: &[Entry]| entries.iter().flat_map(|entry| entry.seen_by(user)).collect();
        let mut providers = self.providers.clone();
        for (tag, trial) in &self.provider_trials {
            if trial.takes(user) {
                providers.insert(tag.clone(), Arc::clone(&trial.component));
            }
        }
        Arc::new(Self {
            version: self.version.clone(),
            policies: seen(&self.policies),
            scanners: seen(&self.scanners),
            hooks: seen(&self.hooks),
            providers,
            provider_trials: BTreeMap::new(),
            predicates: self.predicates.clone(),
        })
    }

    /// The same with nobody who decides, for what was decided already.
    #[must_use]
    pub fn providers_alone(&self) -> Self {
        Self { policies: Vec::new(), scanners: Vec::new(), hooks: Vec::new(), ..self.clone() }
    }

    fn has_trials(&self) -> bool {
        let tried = |entries: &[Entry]| entries.iter().any(|entry| entry.trial.is_some());
        !self.provider_trials.is_empty()
            || [&self.policies, &self.scanners, &self.hooks].map(|it| tried(it)).contains(&true)
    }
}

// === impl Entry ===

impl Entry {
    /// A component in its place, with nothing tried beside it.
    pub fn new(component: Arc<Component>, mode: Mode) -> Self {
        Self { component, mode, may_rewrite: false, trial: None, attachment: Attachment::default() }
    }

    /// The same, attached to events.
    #[must_use]
    pub fn attached(self, attachment: &Attachment) -> Self {
        Self { attachment: attachment.clone(), ..self }
    }

    /// A component that was granted everything that its package asks for.
    pub fn granted(component: Arc<Component>, mode: Mode) -> Self {
        let may_rewrite = component.asks_to_rewrite();
        Self { may_rewrite, ..Self::new(component, mode) }
    }

    /// Whether what it finds changes the request.
    pub fn rewrites(&self) -> bool {
        self.may_rewrite && self.mode == Mode::Enforce
    }

    fn place(&self) -> String {
        let rewrite = if self.may_rewrite { ":rewrite" } else { "" };
        format!("{}{rewrite}", self.mode.as_str())
    }

    fn seen_by(&self, user: &str) -> Vec<Self> {
        let settled = Self { trial: None, ..self.clone() };
        let attached = |entry: Self| entry.attached(&self.attachment);
        let Some(trial) = &self.trial else { return vec![settled] };
        if trial.stage == Stage::Shadow {
            return vec![settled, attached(Self::new(Arc::clone(&trial.component), Mode::Shadow))];
        }
        let taken =
            trial.takes(user).then(|| attached(Self::granted(Arc::clone(&trial.component), trial.mode)));
        vec![taken.unwrap_or(settled)]
    }
}

// === impl Trial ===

impl Trial {
    /// Whether it is in force for `user`. The same users see every canary of one release, and other ones those of another.
    fn takes(&self, user: &str) -> bool {
        let Stage::Canary { percent } = self.stage else { return false };
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.component.digest().as_bytes());
        hasher.update(user.as_bytes());
        let number = hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        number % 100 < u64::from(percent)
    }

    fn place(&self) -> String {
        match self.stage {
            Stage::Shadow => "trial:shadow".to_owned(),
            Stage::Canary { percent } => format!("trial:canary:{percent}:{}", self.mode.as_str()),
        }
    }
}

// === private helpers ===

fn version(
    entries: &[&Vec<Entry>],
    providers: &BTreeMap<String, Arc<Component>>,
    trials: &BTreeMap<String, Trial>,
    predicates: &BTreeMap<String, Arc<Component>>,
) -> Result<PolicyVersion, BundleError> {
    let component = |component: &Component, place: &str| {
        json!({
            "kind": component.kind().as_str(),
            "name": component.name(),
            "version": component.version().to_string(),
            "digest": component.digest(),
            "config": component.config_digest(),
            "place": place,
        })
    };
    let mut all = Vec::new();
    for entry in entries.iter().flat_map(|entries| entries.iter()) {
        let mut named = component(&entry.component, &entry.place());
        if entry.attachment != Attachment::default()
            && let Some(fields) = named.as_object_mut()
        {
            fields.insert("attachment".to_owned(), attachment(&entry.attachment)?);
        }
        all.push(named);
        all.extend(entry.trial.as_ref().map(|trial| component(&trial.component, &trial.place())));
    }
    all.extend(providers.iter().map(|(tag, provider)| component(provider, tag)));
    all.extend(
        trials.iter().map(|(tag, trial)| component(&trial.component, &format!("{tag}:{}", trial.place()))),
    );
    all.extend(predicates.values().map(|predicate| component(predicate, "predicate")));
    Ok(PolicyVersion::parse(&canonical::digest(&all.into()))?)
}

fn attachment(attachment: &Attachment) -> Result<serde_json::Value, BundleError> {
    let ms = attachment.timeout.map(|limit| u64::try_from(limit.as_millis())).transpose();
    Ok(json!({
        "matcher": attachment.matcher.as_str(),
        "on_fault": attachment.on_fault.map(OnFault::as_str),
        "timeout_ms": ms.map_err(|_| BundleError::Timeout)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(version: &str) -> Arc<Component> {
        Component::stand_in(Kind::Policy, "acme/policy", version)
    }

    fn trial(stage: Stage) -> Trial {
        Trial { component: component("2.0.0"), stage, mode: Mode::Enforce }
    }

    fn bundle(trial: Option<Trial>) -> Arc<Bundle> {
        let entry = Entry { trial, ..Entry::new(component("1.0.0"), Mode::Enforce) };
        Arc::new(Bundle::assemble(&[entry], BTreeMap::new(), BTreeMap::new(), BTreeMap::new()).unwrap())
    }

    fn seen(bundle: &Arc<Bundle>, user: &str) -> Vec<(String, Mode)> {
        let entry = |entry: &Entry| (entry.component.version().to_string(), entry.mode);
        bundle.seen_by(user).policies.iter().map(entry).collect()
    }

    #[test]
    fn a_bundle_without_trials_is_seen_as_it_is() {
        let bundle = bundle(None);
        assert!(Arc::ptr_eq(&bundle, &bundle.seen_by("u_1")));
    }

    #[test]
    fn what_shadows_is_asked_after_what_is_in_force() {
        let bundle = bundle(Some(trial(Stage::Shadow)));
        let both = [("1.0.0".to_owned(), Mode::Enforce), ("2.0.0".to_owned(), Mode::Shadow)];
        assert_eq!(seen(&bundle, "u_1"), both);
    }

    #[test]
    fn a_canary_takes_its_share_of_users_and_each_stays_on_its_side() {
        let bundle = bundle(Some(trial(Stage::Canary { percent: 20 })));
        let side = |user: &str| seen(&bundle, user);
        let taken: Vec<_> = (0..1_000).filter(|user| side(&format!("u_{user}"))[0].0 == "2.0.0").collect();
        assert!((150..250).contains(&taken.len()), "{} of 1,000", taken.len());
        for user in 0..1_000 {
            assert_eq!(side(&format!("u_{user}")), side(&format!("u_{user}")));
            assert_eq!(side(&format!("u_{user}")).len(), 1, "nobody sees both");
        }
    }

    #[test]
    fn a_larger_canary_keeps_the_users_of_a_smaller_one() {
        let small = bundle(Some(trial(Stage::Canary { percent: 5 })));
        let large = bundle(Some(trial(Stage::Canary { percent: 50 })));
        for user in (0..1_000).map(|user| format!("u_{user}")) {
            if seen(&small, &user)[0].0 == "2.0.0" {
                assert_eq!(seen(&large, &user)[0].0, "2.0.0");
            }
        }
    }

    #[test]
    fn what_is_tried_is_attached_like_what_is_in_force() {
        let attachment = Attachment { on_fault: Some(OnFault::Continue), ..Attachment::default() };
        for stage in [Stage::Shadow, Stage::Canary { percent: 100 }] {
            let entry = Entry { trial: Some(trial(stage)), ..Entry::new(component("1.0.0"), Mode::Enforce) };
            let plain = Arc::new(
                Bundle::assemble(
                    std::slice::from_ref(&entry),
                    BTreeMap::new(),
                    BTreeMap::new(),
                    BTreeMap::new(),
                )
                .unwrap(),
            );
            let attached = Arc::new(
                Bundle::assemble(
                    &[entry.attached(&attachment)],
                    BTreeMap::new(),
                    BTreeMap::new(),
                    BTreeMap::new(),
                )
                .unwrap(),
            );
            assert_ne!(plain.version, attached.version);
            let seen = attached.seen_by("u_1");
            assert!(seen.policies.iter().all(|entry| entry.attachment == attachment), "{stage:?}");
        }
    }

    #[test]
    fn a_bundle_whose_version_cannot_say_what_is_in_force_is_none() {
        let attachment = Attachment { timeout: Some(std::time::Duration::MAX), ..Attachment::default() };
        let entry = Entry::new(component("1.0.0"), Mode::Enforce).attached(&attachment);
        let none = BTreeMap::new;
        let refused = Bundle::assemble(&[entry], none(), BTreeMap::new(), none());
        assert!(matches!(refused, Err(BundleError::Timeout)));
    }

    #[test]
    fn every_step_of_a_trial_has_a_version_of_its_own() {
        let stages = [Stage::Shadow, Stage::Canary { percent: 5 }, Stage::Canary { percent: 50 }];
        let mut versions: Vec<_> = stages.map(|stage| bundle(Some(trial(stage))).version.clone()).to_vec();
        versions.push(bundle(None).version.clone());
        versions.dedup();
        assert_eq!(versions.len(), 4);
        let bundle = bundle(Some(trial(Stage::Canary { percent: 50 })));
        assert_eq!(bundle.seen_by("u_1").version, bundle.version);
    }
}
