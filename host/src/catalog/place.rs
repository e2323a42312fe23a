//! A component's place in a bundle: what is in force, what is tried, what was before, and the steps between them. Pure: what
//! may be put there is decided elsewhere.

use std::time::Duration;

use sallyport_protocol::hooks::{Attachment, Matcher, OnFault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::audit::Action;
use crate::component::{Mode, Stage};
use crate::config::LONGEST_TIMEOUT;

/// How many releases are remembered for going back.
const REMEMBERED: usize = 16;
/// Where a component stands among its kind unless told otherwise; lower numbers are asked first.
pub const DEFAULT_ORDER: i32 = 100;

/// A component's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Lower numbers are asked first; of equal ones the name decides.
    pub order: i32,
    /// For hooks: which events they get, and what becomes of an event that they do not answer.
    // `told` is what the first builds stored.
    #[serde(default, alias = "told")]
    pub attachment: HookAttachment,
    /// What is in force.
    pub active: Option<Placement>,
    /// What is tried.
    pub trial: Option<Tried>,
    /// What was in force before, the last one last.
    pub previous: Vec<Placement>,
}

/// How a hook is attached to its events, as it is asked for and stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HookAttachment {
    /// Which events it gets, as in Claude Code: `Edit|Write`, `mcp__github__.*`; nothing: all of them.
    pub matcher: String,
    /// What becomes of an event that it does not answer; absent: what is usual for the event.
    #[schemars(schema_with = "super::view::on_fault")]
    pub on_fault: Option<OnFault>,
    /// Milliseconds that an answer may take, waiting included: 1 to 10,000.
    pub timeout_ms: Option<u64>,
}

/// A release in a place, and how it is configured there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The publisher's version.
    pub version: String,
    /// What `configure` gets.
    pub config: Value,
    /// What is done with what it says.
    pub mode: Mode,
    /// Since when. Whether it might be put there is judged by this time.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The signed record that it was put there again after a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
}

/// A release that is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tried {
    /// Which one.
    pub placement: Placement,
    /// How many of a hundred users it is in force for; absent: it shadows what is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// When it ends by itself.
    pub slo: Slo,
}

/// When a canary ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// Calls before it is judged at all.
    pub min_calls: u64,
    /// Faults in a hundred calls, at most.
    pub max_fault_percent: f64,
    /// How many more of a hundred calls it may refuse than what is in force.
    pub max_refusal_jump_percent: f64,
    /// Microseconds of guest time that 95 of 100 calls have to stay below; none: four times those of what is in force.
    pub max_p95_micros: Option<u64>,
}

/// A step in a component's life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Try a release in the shadow of what is in force.
    Shadow(Placement),
    /// Try a release with a share of users.
    Canary {
        /// Which one.
        placement: Placement,
        /// 1 to 100.
        percent: u8,
        /// When it ends by itself.
        slo: Slo,
    },
    /// Put a release in force; a trial ends.
    Activate(Placement),
    /// Put an earlier release in force again; its record is signed.
    Rollback(Placement),
    /// End the trial.
    Withdraw,
    /// Take the component out of force, and end its trial.
    Retire,
}

/// Why a step cannot be made from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A canary is for 1 to 100 of a hundred users.
    #[error("a canary is for 1 to 100 percent of users")]
    Percent,
    /// The release is in force already, configured like this.
    #[error("that release is in force already, with this configuration")]
    AlreadyActive,
    /// There is no trial.
    #[error("nothing is tried")]
    NoTrial,
    /// Nothing is in force.
    #[error("nothing is in force")]
    NotActive,
    /// That release was never in force, or too long ago.
    #[error("that release was not in force before")]
    NeverActive,
}

// === impl HookAttachment ===

impl HookAttachment {
    /// The same, read; an error says what cannot be.
    pub fn read(&self) -> Result<Attachment, String> {
        let matcher = Matcher::parse(&self.matcher).map_err(|error| format!("matcher: {error}"))?;
        if self.timeout_ms.is_some_and(|ms| !(1..=LONGEST_TIMEOUT).contains(&ms)) {
            return Err(format!("timeout_ms is 1 to {LONGEST_TIMEOUT}"));
        }
        let timeout = self.timeout_ms.map(Duration::from_millis);
        Ok(Attachment { matcher, on_fault: self.on_fault, timeout })
    }
}

// === impl Slo ===

impl Default for Slo {
    fn default() -> Self {
        Self { min_calls: 20, max_fault_percent: 1.0, max_refusal_jump_percent: 10.0, max_p95_micros: None }
    }
}

// === impl Placement ===

impl Placement {
    /// The same release, configured otherwise.
    pub(super) fn configured(&self, config: &Value) -> Self {
        Self { config: config.clone(), ..self.clone() }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.version == other.version && self.config == other.config && self.mode == other.mode
    }
}

// === impl Tried ===

impl Tried {
    /// How far it is.
    pub(super) fn stage(&self) -> Stage {
        self.percent.map_or(Stage::Shadow, |percent| Stage::Canary { percent })
    }
}

// === impl Step ===

impl Step {
    /// What its row is called.
    pub(super) fn action(&self) -> Action {
        match self {
            Self::Shadow(_) => Action::ComponentShadow,
            Self::Canary { .. } => Action::ComponentCanary,
            Self::Activate(_) => Action::ComponentActivate,
            Self::Rollback(_) => Action::ComponentRollback,
            Self::Withdraw => Action::ComponentWithdraw,
            Self::Retire => Action::ComponentRetire,
        }
    }
}

// === impl Place ===

impl Place {
    /// Nothing in force, nothing tried.
    pub(super) fn new(order: i32) -> Self {
        Self { order, attachment: HookAttachment::default(), active: None, trial: None, previous: Vec::new() }
    }

    /// The place after `step`.
    pub(super) fn after(&self, step: &Step) -> Result<Self, StepError> {
        let mut next = self.clone();
        match step {
            Step::Shadow(placement) => {
                let slo = Slo::default();
                next.trial = Some(Tried { placement: placement.clone(), percent: None, slo });
            }
            Step::Canary { placement, percent, slo } => {
                if !(1..=100).contains(percent) {
                    return Err(StepError::Percent);
                }
                next.trial = Some(Tried { placement: placement.clone(), percent: Some(*percent), slo: *slo });
            }
            Step::Activate(placement) => {
                if self.active.as_ref().is_some_and(|active| active.is_same(placement)) {
                    return Err(StepError::AlreadyActive);
                }
                next.trial = None;
                next.replace(placement);
            }
            Step::Rollback(placement) => {
                let active = self.active.as_ref().ok_or(StepError::NotActive)?;
                if active.is_same(placement) {
                    return Err(StepError::AlreadyActive);
                }
                next.previous.retain(|previous| !previous.is_same(placement));
                next.trial = None;
                next.replace(placement);
            }
            Step::Withdraw => {
                next.trial.take().ok_or(StepError::NoTrial)?;
            }
            Step::Retire => {
                if next.active.is_none() && next.trial.is_none() {
                    return Err(StepError::NotActive);
                }
                next.trial = None;
                if let Some(active) = next.active.take() {
                    next.remember(active);
                }
            }
        }
        Ok(next)
    }

    /// What a version is used for here; `None` if nothing needs it. A step back takes something to step back from: once nothing
    /// is in force, what was before needs no keeping.
    pub(super) fn use_of(&self, version: &str) -> Option<&'static str> {
        let is = |placement: &Placement| placement.version == version;
        if self.active.as_ref().is_some_and(is) {
            Some("is in force")
        } else if self.trial.as_ref().is_some_and(|trial| is(&trial.placement)) {
            Some("is tried")
        } else if self.active.is_some() && self.previous.iter().any(is) {
            Some("was in force before, and a rollback may lead to it")
        } else {
            None
        }
    }

    /// What was in force before: the last one, or the last one of a version.
    pub(super) fn before(&self, version: Option<&str>) -> Result<&Placement, StepError> {
        let active = self.active.as_ref().ok_or(StepError::NotActive)?;
        let wanted = |previous: &&Placement| match version {
            Some(version) => previous.version == version,
            None => previous.version != active.version,
        };
        self.previous.iter().rev().find(wanted).ok_or(StepError::NeverActive)
    }

    /// How a release is configured here if nothing else is said: as it is tried, else as what is in force.
    pub(super) fn configured(&self, version: &str) -> Option<&Placement> {
        let tried = self.trial.as_ref().map(|trial| &trial.placement);
        tried.filter(|tried| tried.version == version).or(self.active.as_ref())
    }

    fn replace(&mut self, placement: &Placement) {
        if let Some(active) = self.active.replace(placement.clone()) {
            self.remember(active);
        }
    }

    fn remember(&mut self, placement: Placement) {
        self.previous.push(placement);
        let surplus = self.previous.len().saturating_sub(REMEMBERED);
        self.previous.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(version: &str) -> Placement {
        Placement {
            version: version.to_owned(),
            config: json!({}),
            mode: Mode::Enforce,
            since: OffsetDateTime::UNIX_EPOCH,
            rollback: None,
        }
    }

    fn walk(steps: &[Step]) -> Result<Place, StepError> {
        steps.iter().try_fold(Place::new(DEFAULT_ORDER), |place, step| place.after(step))
    }

    fn active(place: &Place) -> Option<&str> {
        place.active.as_ref().map(|active| active.version.as_str())
    }

    #[test]
    fn a_release_is_tried_and_then_takes_the_place_of_the_one_before() {
        let canary = Step::Canary { placement: release("2"), percent: 10, slo: Slo::default() };
        let place = walk(&[Step::Activate(release("1")), Step::Shadow(release("2")), canary]).unwrap();
        assert_eq!(active(&place), Some("1"));
        assert_eq!(place.trial.as_ref().unwrap().stage(), Stage::Canary { percent: 10 });
        let place = place.after(&Step::Activate(release("2"))).unwrap();
        assert_eq!((active(&place), place.trial.is_some()), (Some("2"), false));
        assert_eq!(place.before(None).unwrap().version, "1");
    }

    #[test]
    fn a_rollback_goes_to_what_was_in_force_before_and_not_in_circles() {
        let place = walk(&["1", "2", "3"].map(|version| Step::Activate(release(version)))).unwrap();
        let back = place.before(None).unwrap().clone();
        let place = place.after(&Step::Rollback(back)).unwrap();
        assert_eq!(active(&place), Some("2"));
        assert_eq!(place.before(Some("1")).unwrap().version, "1");
        assert_eq!(place.before(Some("9")), Err(StepError::NeverActive));
        assert_eq!(walk(&[]).unwrap().before(None), Err(StepError::NotActive));
    }

    #[test]
    fn a_trial_that_is_withdrawn_leaves_what_is_in_force() {
        let place =
            walk(&[Step::Activate(release("1")), Step::Shadow(release("2")), Step::Withdraw]).unwrap();
        assert_eq!((active(&place), &place.trial), (Some("1"), &None));
        assert_eq!(walk(&[Step::Withdraw]), Err(StepError::NoTrial));
    }

    #[test]
    fn what_is_retired_can_come_back() {
        let place = walk(&[Step::Activate(release("1")), Step::Retire]).unwrap();
        assert_eq!(active(&place), None);
        assert_eq!(place.after(&Step::Retire), Err(StepError::NotActive));
        assert_eq!(active(&place.after(&Step::Activate(release("1"))).unwrap()), Some("1"));
    }

    #[test]
    fn the_same_release_with_the_same_configuration_is_no_step() {
        let twice = [Step::Activate(release("1")), Step::Activate(release("1"))];
        assert_eq!(walk(&twice), Err(StepError::AlreadyActive));
        let other = Placement { config: json!({"limit": 1}), ..release("1") };
        assert_eq!(active(&walk(&[Step::Activate(release("1")), Step::Activate(other)]).unwrap()), Some("1"));
    }

    #[test]
    fn a_canary_is_for_somebody_and_not_for_more_than_all() {
        for percent in [0, 101] {
            let canary = Step::Canary { placement: release("1"), percent, slo: Slo::default() };
            assert_eq!(walk(&[canary]), Err(StepError::Percent));
        }
    }

    #[test]
    fn only_so_much_is_remembered() {
        let steps: Vec<_> = (0..40).map(|n| Step::Activate(release(&n.to_string()))).collect();
        let place = walk(&steps).unwrap();
        assert_eq!(place.previous.len(), REMEMBERED);
        assert_eq!(place.before(None).unwrap().version, "38");
    }

    #[test]
    fn what_is_stored_is_read_again_and_strictly() {
        let place = walk(&[Step::Activate(release("1")), Step::Shadow(release("2"))]).unwrap();
        let json = serde_json::to_value(&place).unwrap();
        assert_eq!(serde_json::from_value::<Place>(json.clone()).unwrap(), place);
        let mut old = json.clone();
        let attachment = old.as_object_mut().unwrap().remove("attachment").unwrap();
        old["told"] = attachment;
        assert_eq!(serde_json::from_value::<Place>(old).unwrap(), place, "what an earlier build stored");
        let mut odd = json;
        odd["more"] = json!(1);
        assert!(serde_json::from_value::<Place>(odd).is_err());
    }
}
