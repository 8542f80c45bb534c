//! Tests of the parser of requests: what is understood, what is refused and how, and that garbage does no harm.

use acode_worker::task::TaskSpec;
use proptest::prelude::*;

use super::*;
use crate::wire::DESCRIPTION;

fn parse(text: &str) -> Result<Call, BadCall> {
    Request::parse(text.as_bytes())
}

fn error_of(text: &str) -> CallError {
    parse(text).unwrap_err().error
}

#[test]
fn a_call_is_taken_apart() {
    let call = parse(r#"{"method":"io.acode.Show","parameters":{"id":"42"},"more":true}"#).unwrap();
    assert_eq!(call, Call { request: Show { id: TaskRef::Number(42) }.into(), more: true, oneway: false });
    for text in [
        r#"{"method":"io.acode.Ping"}"#,
        r#"{"method":"io.acode.Ping","parameters":null}"#,
        r#" {"parameters":{}, "method":"io.acode.Ping", "more":null, "unknown":[1]} "#,
        r#"{"method":"io.\u0061code.Ping"}"#,
    ] {
        assert_eq!(parse(text).unwrap().request, Ping {}.into(), "{text}");
    }
}

#[test]
fn what_is_unknown_is_named() {
    let method = "io.acode.Fly".to_owned();
    assert_eq!(error_of(r#"{"method":"io.acode.Fly"}"#), CallError::MethodNotFound { method });
    let interface = "com.example".to_owned();
    assert_eq!(error_of(r#"{"method":"com.example.Fly"}"#), CallError::InterfaceNotFound { interface });
    let method = "io.acode.Ping".to_owned();
    assert_eq!(error_of(r#"{"method":"io.acode.Ping","upgrade":true}"#), CallError::MethodNotImplemented { method });
}

#[test]
fn wrong_parameters_are_refused_with_their_names() {
    for (text, name) in [
        (r#"{"method":"io.acode.Scale","parameters":{"count":-1}}"#, "-1"),
        (r#"{"method":"io.acode.Scale","parameters":{}}"#, "count"),
        (r#"{"method":"io.acode.Scale","parameters":{"count":1,"cuont":2}}"#, "cuont"),
        (r#"{"method":"io.acode.Show","parameters":{"id":"name:"}}"#, "name:"),
        (r#"{"method":"io.acode.Wait","parameters":{}}"#, "ids"),
        (r#"{"method":"io.acode.Wait","parameters":{"ids":["1"],"all":true}}"#, "ids"),
    ] {
        let bad = parse(text).unwrap_err();
        assert!(matches!(&bad.error, CallError::InvalidParameter { parameter } if parameter.contains(name)), "{bad:?}");
        assert!(!bad.hang_up);
    }
    for text in [
        r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"comand":["ls"]}}]}}"#,
        r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["ls"],"isolation":"vm"}}]}}"#,
        r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["ls"],"docker":{"imgae":"x"}}}]}}"#,
        r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["ls"],"docker":{"mounts":["/a"]}}}]}}"#,
        r#"{"method":"io.acode.Submit","parameters":{"tasks":[]}}"#,
    ] {
        assert!(matches!(error_of(text), CallError::InvalidSubmission { .. }), "{text}");
    }
}

#[test]
fn more_than_the_bound_is_refused() {
    let tasks = vec![r#"{"spec":{"command":["a"]}}"#; MAX_ENTRIES + 1].join(",");
    let text = format!(r#"{{"method":"io.acode.Submit","parameters":{{"tasks":[{tasks}]}}}}"#);
    assert!(matches!(error_of(&text), CallError::InvalidSubmission { .. }));
    let ids = vec![r#""1""#; MAX_IDS + 1].join(",");
    let text = format!(r#"{{"method":"io.acode.Cancel","parameters":{{"ids":[{ids}]}}}}"#);
    assert!(matches!(error_of(&text), CallError::InvalidParameter { .. }));
}

#[test]
fn the_interface_file_has_every_method_and_every_error() {
    for name in Request::NAMES.iter().filter_map(|name| name.strip_prefix("io.acode.")) {
        assert!(DESCRIPTION.contains(&format!("\nmethod {name}(")), "method {name}");
    }
    let methods = Request::NAMES.iter().filter(|name| name.starts_with("io.acode.")).count();
    assert_eq!(DESCRIPTION.matches("\nmethod ").count(), methods);
    for error in CallError::samples() {
        if let Some(name) = error.name().strip_prefix("io.acode.") {
            assert!(DESCRIPTION.contains(&format!("\nerror {name} (")), "error {name}");
        }
    }
}

#[test]
fn a_submission_survives_the_wire() {
    let spec = TaskSpec { command: vec!["a\"b".into(), "\u{1}ü".into()], ..TaskSpec::default() };
    let submit = Submit::new(vec![Submission { spec, delay_ms: Some(5), ..Submission::default() }]);
    let text = serde_json::json!({ "method": Submit::NAME, "parameters": submit }).to_string();
    assert_eq!(parse(&text).unwrap().request, submit.into());
}

proptest! {
    #[test]
    fn garbage_is_answered_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Request::parse(&bytes).is_err_and(|bad| bad.hang_up));
    }

    #[test]
    fn mangled_calls_never_panic(
        at in 0_usize..120, with in any::<u8>(), cut in 0_usize..120, name in 0..Request::NAMES.len(),
    ) {
        let parameters = r#"{"tasks":[{"spec":{"command":["a"]}}],"ids":["01K"],"id":"3","count":4,"all":true}"#;
        let mut bytes = format!(r#"{{"method":"{}","parameters":{parameters}}}"#, Request::NAMES[name]).into_bytes();
        let _ = Request::parse(&bytes);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        let _ = Request::parse(&bytes);
        bytes.truncate(cut);
        prop_assert!(Request::parse(&bytes).is_err());
    }

    #[test]
    fn deep_nesting_is_refused(depth in 1_000_usize..20_000) {
        let text = format!(r#"{{"method":"io.acode.Ping","parameters":{}}}"#, "[".repeat(depth));
        prop_assert!(Request::parse(text.as_bytes()).is_err());
    }
}
