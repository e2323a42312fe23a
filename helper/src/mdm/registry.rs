//! The registry file of Windows: UTF-16, little-endian, as the registry editor itself writes it.

use super::{Policy, Setpoint};

/// Where Claude Desktop reads policies, below either root.
pub(super) const KEY: &str = r"SOFTWARE\Policies\Claude";

/// The file as text.
pub(super) fn registry(policy: &Policy) -> String {
    let root = if policy.hkcu { "HKEY_CURRENT_USER" } else { "HKEY_LOCAL_MACHINE" };
    let mut lines = vec![format!("Windows Registry Editor Version 5.00\r\n\r\n[{root}\\{KEY}]\r\n")];
    for setting in policy.settings() {
        let value = match (&setting.value, policy.seed_types) {
            (Setpoint::Number(number), true) => format!("dword:{number:08x}"),
            (Setpoint::Switch(switch), true) => format!("dword:{:08x}", u32::from(*switch)),
            (value, _) => format!("\"{}\"", value.text().replace('\\', "\\\\").replace('"', "\\\"")),
        };
        lines.push(format!("\"{}\"={value}\r\n", setting.key));
    }
    lines.push("\r\n".to_owned());
    lines.concat()
}

/// With its mark of byte order.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}
