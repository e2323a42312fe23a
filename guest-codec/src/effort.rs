//! Steps of effort: Messages has `low` to `max`, and each vendor a scale of its own beside it.

/// Every step that some upstream knows, from the least.
const STEPS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

/// The step that an upstream which knows some of them takes for the one that is wanted: that, or the nearest below it, or above it. It
/// is `none` only where that is wanted; of an upstream that knows no step at all, `medium`.
pub fn nearest(wanted: &str, knows: impl Fn(&str) -> bool) -> &'static str {
    let place = match wanted {
        "max" => STEPS.len() - 1,
        wanted => STEPS.iter().position(|it| *it == wanted).unwrap_or(STEPS.len() - 1),
    };
    let below =
        STEPS.iter().take(place + 1).rev().find(|it| knows(it) && (**it != "none" || wanted == "none"));
    let above = || STEPS.iter().skip(place).find(|it| knows(it));
    below.or_else(above).copied().unwrap_or("medium")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_step_that_is_not_known_is_the_nearest_one_that_is() {
        let of = |knows: &'static [&str]| move |wanted: &str| nearest(wanted, |it| knows.contains(&it));
        assert_eq!(["none", "low", "medium", "max"].map(of(&["low", "high"])), ["low", "low", "low", "high"]);
        assert_eq!(["none", "minimal"].map(of(&["minimal", "high"])), ["minimal", "minimal"]);
        assert_eq!(nearest("low", |_| false), "medium");
    }
}
