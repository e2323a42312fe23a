//! The configuration profile of macOS: <https://support.apple.com/guide/deployment/intro-to-configuration-profiles-depc0aadd3fe>.

use sha2::{Digest as _, Sha256};

use super::{Policy, Setpoint, xml};
use crate::secret::hex;

/// The preference domain of Claude Desktop.
const DOMAIN: &str = "com.anthropic.claudefordesktop";
/// What our payloads are known by. A profile of the same identifier takes the place of the one before.
const OURS: &str = "dev.sallyport.cowork";

/// The profile.
pub(super) fn profile(policy: &Policy) -> String {
    let mut keys = Vec::new();
    for setting in policy.settings() {
        let value = match (&setting.value, policy.seed_types) {
            (Setpoint::Number(number), true) => format!("<integer>{number}</integer>"),
            (Setpoint::Switch(true), true) => "<true/>".to_owned(),
            (Setpoint::Switch(false), true) => "<false/>".to_owned(),
            (value, _) => format!("<string>{}</string>", xml(&value.text())),
        };
        keys.push(format!("      <key>{}</key>\n      {value}\n", setting.key));
    }
    let keys = keys.concat();
    let (outer, inner) = (uuid("profile", &policy.gateway), uuid("content", &policy.gateway));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>PayloadType</key>
  <string>Configuration</string>
  <key>PayloadVersion</key>
  <integer>1</integer>
  <key>PayloadIdentifier</key>
  <string>{OURS}.profile</string>
  <key>PayloadUUID</key>
  <string>{outer}</string>
  <key>PayloadDisplayName</key>
  <string>Claude Cowork gateway policy</string>
  <key>PayloadScope</key>
  <string>System</string>
  <key>PayloadContent</key>
  <array>
    <dict>
      <key>PayloadType</key>
      <string>{DOMAIN}</string>
      <key>PayloadVersion</key>
      <integer>1</integer>
      <key>PayloadIdentifier</key>
      <string>{OURS}.content</string>
      <key>PayloadUUID</key>
      <string>{inner}</string>
      <key>PayloadDisplayName</key>
      <string>Cowork managed preferences</string>
{keys}    </dict>
  </array>
</dict>
</plist>
"#
    )
}

/// A UUID (version 8 of RFC 9562) that follows from what it is for, so that the same profile is made twice.
fn uuid(what: &str, gateway: &str) -> String {
    let mut digest: [u8; 32] = Sha256::digest(format!("{OURS} {what} {gateway}").as_bytes()).into();
    digest[6] = (digest[6] & 0x0f) | 0x80;
    digest[8] = (digest[8] & 0x3f) | 0x80;
    let text = hex(&digest).to_uppercase();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
