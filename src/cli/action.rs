//! What an action looks like as text. Pure.

use std::fmt::Write;

use acode_worker::task::Action;

/// The most lines of parameters that are shown to people; JSON has all of them.
const LINES_MAX: usize = 60;
/// The most characters of one of them.
const LINE_MAX: usize = 200;

/// The lines of an action in `acode task show`: names and values, which may have several lines themselves.
pub fn fields(action: &Action) -> Vec<(&'static str, String)> {
    let name = action.name.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
    let reused = if action.reuse { ", in a process that is used again" } else { "" };
    let mut fields = vec![("Action", format!("{}{name}{reused}", action.kind))];
    if let Some(library) = &action.library {
        let search = match library.search_path.as_slice() {
            [] => String::new(),
            folders => format!(", needs looked for in {}", folders.join(":")),
        };
        fields.push(("Library", format!("{}{search}", library.path)));
    }
    if !action.program.is_empty() {
        fields.push(("Program", action.program.join(" ")));
    }
    if !action.params.is_null() {
        fields.push(("Params", params(action)));
    }
    fields
}

/// Its parameters, one to a line, as far as people want to see them.
fn params(action: &Action) -> String {
    // What was read as JSON can be written as such.
    let pretty = serde_json::to_string_pretty(&action.params).unwrap_or_default();
    let mut text = String::new();
    for (number, line) in pretty.lines().take(LINES_MAX).enumerate() {
        // Writing to a String cannot fail.
        let _ = match line.char_indices().nth(LINE_MAX) {
            None => write!(text, "{}{line}", if number > 0 { "\n" } else { "" }),
            Some((end, _)) => write!(text, "{}{}…", if number > 0 { "\n" } else { "" }, &line[..end]),
        };
    }
    match pretty.lines().count().saturating_sub(LINES_MAX) {
        0 => text,
        more => format!("{text}\n… {more} more lines, which --json shows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_told_in_lines_and_long_params_are_cut() {
        let action: Action = serde_json::from_str(r#"{"type":"custom","name":"x","params":{"a":[1]}}"#).unwrap();
        let expected = [("Action", "custom 'x'".to_owned()), ("Params", "{\n  \"a\": [\n    1\n  ]\n}".to_owned())];
        assert_eq!(fields(&action), expected);
        let long = Action { params: vec![1; 1_000].into(), ..Action::default() };
        let shown = params(&long);
        assert_eq!(shown.lines().count(), LINES_MAX + 1);
        assert!(shown.ends_with("942 more lines, which --json shows"), "{shown}");
        let wide = Action { params: "ü".repeat(1_000).into(), ..Action::default() };
        assert_eq!(params(&wide).chars().count(), LINE_MAX + 1);
    }
}
