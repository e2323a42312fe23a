//! The reference page of the configuration: Markdown, printed from the descriptions of the keys.

use super::credential::ENTRY;
use super::file::FILE;
use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::secrets;

/// Every block with its keys, as `docs/reference/configuration.md` has them.
pub(super) fn markdown() -> String {
    let mut out = String::new();
    for key in FILE.keys {
        section(&mut out, 2, key.name, key);
        if key.name == secrets::KEY.name {
            section(&mut out, 3, ENTRY.name, &ENTRY);
        }
    }
    // The file ends with its last line.
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn section(out: &mut String, level: usize, path: &str, key: &ConfigKey) {
    let heading = format!("{} `{path}`", "#".repeat(level));
    let Some((block, inside)) = below(path, key.form) else {
        let default = match usual(key.absent) {
            usual if usual.is_empty() => String::new(),
            usual => format!("\n\nDefault: {usual}."),
        };
        paragraphs(out, &[&heading, &format!("{}.{default}", key.about)]);
        return;
    };
    let rows: String = block.keys.iter().map(|key| row(&inside, key)).collect();
    let table = format!("| key | value | default | |\n|---|---|---|---|\n{rows}");
    paragraphs(out, &[&heading, block.about, table.trim_end(), block.notes]);
    for key in block.keys.iter().filter(|key| block_in(key.form).is_some()) {
        section(out, level + 1, &format!("{inside}.{}", key.name), key);
    }
}

fn paragraphs(out: &mut String, paragraphs: &[&str]) {
    for paragraph in paragraphs.iter().filter(|paragraph| !paragraph.is_empty()) {
        out.push_str(paragraph);
        out.push_str("\n\n");
    }
}

fn row(path: &str, key: &ConfigKey) -> String {
    let mut value = form(key.form);
    if block_in(key.form).is_some() {
        value = format!("{value}, [below](#{})", anchor(&format!("{path}.{}", key.name)));
    }
    let cells = [format!("`{}`", key.name), value, usual(key.absent), key.about.to_owned()];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// The mapping that a value is or holds.
fn block_in(form: Form) -> Option<&'static ConfigBlock> {
    match form {
        Form::Mapping(block) => Some(block),
        Form::List(item) => block_in(*item),
        Form::Either(forms) => forms.iter().find_map(|form| block_in(*form)),
        _ => None,
    }
}

/// The same with its path: an item of a list has brackets.
fn below(path: &str, form: Form) -> Option<(&'static ConfigBlock, String)> {
    let brackets = if matches!(form, Form::List(_)) { "[]" } else { "" };
    block_in(form).map(|block| (block, format!("{path}{brackets}")))
}

/// As GitHub makes one of a heading.
fn anchor(path: &str) -> String {
    path.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// What a value looks like, for people.
fn form(form: Form) -> String {
    match form {
        Form::Text => "text".to_owned(),
        Form::Secret => "secret".to_owned(),
        Form::Flag => "`true` or `false`".to_owned(),
        Form::Number(_, u64::MAX) => "number".to_owned(),
        Form::Number(least, most) => format!("{least} to {most}"),
        Form::Choice(words) => words().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Form::List(item) => format!("list of: {}", self::form(*item)),
        Form::Mapping(_) | Form::Free => "mapping".to_owned(),
        Form::Either(forms) => forms.iter().map(|form| self::form(*form)).collect::<Vec<_>>().join(" or "),
    }
}

fn usual(absent: Absent) -> String {
    match absent {
        Absent::Required => "needed".to_owned(),
        Absent::Nothing => String::new(),
        Absent::Flag(flag) => flag.to_string(),
        Absent::Number(number) => number.to_string(),
        Absent::Word(word) => format!("`{}`", word()),
        Absent::Text(text) => format!("`{text}`"),
        Absent::Derived(from) => from.to_owned(),
    }
}
