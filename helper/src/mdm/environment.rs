//! The environment of a Linux user's programs: `environment.d(5)`.

use super::Policy;

/// The file.
pub(crate) fn environment(policy: &Policy) -> String {
    let mut lines = vec!["# Inference of Claude through a gateway of the organisation.\n".to_owned()];
    for setting in policy.settings() {
        lines.push(format!("{}={}\n", variable(setting.key), quoted(&setting.value.text())));
    }
    lines.concat()
}

/// `inferenceGatewayBaseUrl` is `CLAUDE_INFERENCE_GATEWAY_BASE_URL`.
fn variable(key: &str) -> String {
    let mut name = String::from("CLAUDE_");
    for (at, char) in key.chars().enumerate() {
        if at > 0 && char.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(char.to_ascii_uppercase());
    }
    name
}

/// In double quotes, where `\`, `"` and `$` mean something.
fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => {
                text.push('\\');
                text.push(char);
            }
            '$' => text.push_str("$$"),
            '\n' | '\r' => text.push(' '),
            char => text.push(char),
        }
    }
    text.push('"');
    text
}
