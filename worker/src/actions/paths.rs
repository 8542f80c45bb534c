//! Which parameters of the built-in types are paths, so that whoever submits a task knows whether it matters where
//! relative ones start.
//!
//! Deliberately absent: what they start at, which is the submitter's and the context's to know, and any look at files.

use serde_json::Value;

use crate::task::{Action, ActionType};

/// The paths in the parameters of a built-in type that are not absolute. One that begins with a placeholder of an array is
/// among them: it may become either.
pub fn relative_paths(action: &Action) -> impl Iterator<Item = &str> {
    let keys: &[&str] = match action.kind {
        ActionType::DataProcessing | ActionType::Analysis => &["input", "inputs", "output"],
        ActionType::ImageManipulation | ActionType::Compression => &["input", "output"],
        ActionType::Encryption => &["input", "output", "passphraseFile", "identityFile"],
        ActionType::FileIo => &["input", "output", "list", "root"],
        ActionType::Computation | ActionType::Custom => &[],
    };
    let of_keys = keys.iter().filter_map(|key| action.params.get(*key));
    let steps = action.params.get("steps").filter(|_| action.kind == ActionType::DataProcessing);
    let joined = steps.and_then(Value::as_array).into_iter().flatten().filter_map(|step| step.get("with"));
    let texts = of_keys.chain(joined).flat_map(|value| match value {
        Value::Array(items) => items.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(value)
        }
    });
    texts.filter_map(Value::as_str).filter(|path| !path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_path_of_every_type_is_looked_at() {
        let relative = |kind, params| {
            let action = Action { kind, params, ..Action::default() };
            relative_paths(&action).next().map(str::to_owned)
        };
        let found = |kind, params| assert_eq!(relative(kind, params).as_deref(), Some("r"));
        found(ActionType::DataProcessing, json!({"input": "/a", "output": "r"}));
        found(ActionType::DataProcessing, json!({"inputs": ["/a", "r"]}));
        let join =
            json!({"input": "/a", "steps": [{"operation": "head", "rows": 1}, {"operation": "join", "with": "r"}]});
        found(ActionType::DataProcessing, join);
        found(ActionType::Analysis, json!({"input": "r"}));
        found(ActionType::ImageManipulation, json!({"input": "/a", "output": "r"}));
        found(ActionType::Compression, json!({"input": "r"}));
        found(ActionType::Encryption, json!({"input": "/a", "passphraseFile": "r"}));
        found(ActionType::Encryption, json!({"input": "/a", "identityFile": "r"}));
        found(ActionType::FileIo, json!({"list": "/a", "root": "r"}));
        assert_eq!(relative(ActionType::Compression, json!({"input": "{item}"})).as_deref(), Some("{item}"));
        let columns = json!({"input": "/a", "steps": [{"operation": "select", "columns": {"input": "x"}}]});
        assert_eq!(relative(ActionType::DataProcessing, columns), None);
        assert_eq!(relative(ActionType::Computation, json!({"input": "r"})), None);
        assert_eq!(relative(ActionType::Custom, json!({"input": "r"})), None);
    }
}
