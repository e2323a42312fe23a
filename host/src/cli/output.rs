//! What commands print for people: tables, lists of names and values. Texts come from clients, tools and other gateways, so
//! control characters are shown instead of printed: a terminal must not obey them.

use std::io::Write;

use serde_json::Value;

use crate::clip;

/// Prints a table: columns as wide as what stands in them.
pub(super) fn table<R: AsRef<[String]>>(
    head: &[&str],
    rows: &[R],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let shown = rows.iter().map(|row| row.as_ref().iter().map(|cell| clean(cell)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(shown).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Prints one thing: a line for each of its values, behind its name.
pub(super) fn pairs(pairs: &[(String, String)], out: &mut dyn Write) -> anyhow::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs {
        writeln!(out, "{name:<width$}  {}", clean(value))?;
    }
    Ok(())
}

/// A JSON value in a table: a list with commas, and a dash where there is nothing.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => dash(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// What stands where there is no value.
pub(super) fn dash() -> String {
    "-".to_owned()
}

/// A text with control characters made visible.
pub(super) fn clean(text: &str) -> String {
    clip::visible(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_shows_control_characters() {
        let rows = [["a".to_owned(), "\u{1b}[31mred".to_owned()], ["longer".to_owned(), String::new()]];
        let mut out = Vec::new();
        table(&["ONE", "TWO"], &rows, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "ONE     TWO\na       \u{fffd}[31mred\nlonger\n");
    }

    #[test]
    fn a_value_of_json_is_shown_without_its_quotes() {
        let value = serde_json::json!({ "list": ["a", "b"], "none": null, "number": 3 });
        let shown = |name: &str| cell(value.get(name));
        assert_eq!([shown("list"), shown("none"), shown("absent"), shown("number")], ["a,b", "-", "-", "3"]);
    }
}
