//! From the text of a YAML or JSON document to the tree.
//!
//! YAML gives every place. JSON, which is read where speed counts, gives none: a caller who finds a fault reads the
//! same text again as YAML to learn where it is. Deliberately absent: files, and the size of a document, which the
//! callers bound before they come here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, NonFiniteFloatPolicy, Spanned};

use super::{At, Entry, Fault, FaultKind, Node, Scalar, ScalarKind, Value};

/// The most nodes of one document, aliases counted as often as they are used. Bounds what a small file can unfold to.
pub const NODES_MAX: usize = 2_000_000;

/// How the fault of a duplicate key begins on its way through the JSON parser, which carries nothing but words.
const TWICE: &str = "duplicate key '";

/// Reads a YAML document. An empty one is a single empty value.
///
/// # Errors
/// It is not YAML, has a key twice, holds more than one document, or unfolds beyond [`NODES_MAX`].
pub fn from_yaml(text: &str) -> Result<Node<'_>, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * NODES_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
        },
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let located: Located<'_> = serde_saphyr::from_str_with_options(text, options).map_err(|e| yaml_fault(&e))?;
    let mut node = Node::from(located);
    spell(&mut node, text);
    Ok(node)
}

/// Reads a JSON value, without places.
///
/// # Errors
/// It is not JSON. The fault's place is the parser's.
pub fn from_json(text: &str) -> Result<Node<'_>, Fault> {
    let bare: Unlocated<'_> = serde_json::from_str(text).map_err(|error| {
        let at = At { line: error.line() as u64, column: error.column() as u64 };
        let whole = error.to_string();
        // The parser repeats the place in its words; it stands in front of them already.
        let words = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(words, _)| words);
        match words.strip_prefix(TWICE).and_then(|key| key.strip_suffix('\'')) {
            Some(key) => Fault::new(at, FaultKind::DuplicateKey { key: key.to_owned() }),
            None => Fault::new(at, FaultKind::Syntax(format!("not JSON: {words}"))),
        }
    })?;
    Ok(bare.into())
}

fn yaml_fault(error: &serde_saphyr::Error) -> Fault {
    let error = error.without_snippet();
    let at = error.location().map_or(At::NOWHERE, at);
    let kind = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => FaultKind::DuplicateKey { key: key.clone() },
        serde_saphyr::Error::ExternalMessage { msg, .. } => FaultKind::Syntax(format!("not YAML: {msg}")),
        serde_saphyr::Error::MultipleDocuments { .. } => {
            FaultKind::Syntax("a second document begins here: one is expected".to_owned())
        }
        other => {
            let whole = other.to_string();
            let words = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(words, _)| words);
            FaultKind::Syntax(format!("not YAML: {words}"))
        }
    };
    Fault::new(at, kind)
}

fn at(location: Location) -> At {
    At { line: location.line(), column: location.column() }
}

/// A node of a YAML document, with its place.
struct Located<'de>(Spanned<Bare<'de, LocatedKey<'de>, Located<'de>>>);

/// A key of a YAML document, with its place.
struct LocatedKey<'de>(Spanned<Name<'de>>);

/// A node of a JSON document.
struct Unlocated<'de>(Bare<'de, Name<'de>, Unlocated<'de>>);

/// A key, borrowed from the document where it can be.
struct Name<'de>(Cow<'de, str>);

/// What a node holds, made of keys `K` and children `C` that may or may not know their places.
struct Bare<'de, K, C>(Value<'de>, PhantomData<(K, C)>);

impl<'de> Deserialize<'de> for Located<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Spanned::deserialize(d).map(Self)
    }
}

impl<'de> Deserialize<'de> for LocatedKey<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Spanned::deserialize(d).map(Self)
    }
}

impl<'de> Deserialize<'de> for Unlocated<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Bare::deserialize(d).map(Self)
    }
}

impl<'de> From<Located<'de>> for Node<'de> {
    fn from(located: Located<'de>) -> Self {
        let Spanned { value, defined, .. } = located.0;
        let span = defined.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        let range = bytes.and_then(|(start, len)| Some((usize::try_from(start).ok()?, usize::try_from(len).ok()?)));
        Self { at: at(defined), value: value.0, range }
    }
}

impl<'de> From<Unlocated<'de>> for Node<'de> {
    fn from(unlocated: Unlocated<'de>) -> Self {
        Self { at: At::NOWHERE, value: unlocated.0.0, range: None }
    }
}

impl<'de> From<LocatedKey<'de>> for (At, Cow<'de, str>) {
    fn from(key: LocatedKey<'de>) -> Self {
        (at(key.0.defined), key.0.value.0)
    }
}

impl<'de> From<Name<'de>> for (At, Cow<'de, str>) {
    fn from(key: Name<'de>) -> Self {
        (At::NOWHERE, key.0)
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        d.deserialize_str(NameVisitor)
    }
}

impl<'de, K, C> Deserialize<'de> for Bare<'de, K, C>
where
    K: Deserialize<'de> + Into<(At, Cow<'de, str>)>,
    C: Deserialize<'de> + Into<Node<'de>>,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor::<K, C>(PhantomData)).map(|value| Self(value, PhantomData))
    }
}

struct ValueVisitor<K, C>(PhantomData<(K, C)>);

/// A scalar of which the parser told only what it takes it for.
fn spelled_somehow<'a, E>(kind: ScalarKind) -> Result<Value<'a>, E> {
    Ok(Value::Scalar(Scalar { text: None, kind }))
}

impl<'de, K, C> Visitor<'de> for ValueVisitor<K, C>
where
    K: Deserialize<'de> + Into<(At, Cow<'de, str>)>,
    C: Deserialize<'de> + Into<Node<'de>>,
{
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        spelled_somehow(ScalarKind::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        spelled_somehow(ScalarKind::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        let text = Some(Cow::Borrowed(if truth { "true" } else { "false" }));
        Ok(Value::Scalar(Scalar { text, kind: ScalarKind::Bool(truth) }))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        spelled_somehow(ScalarKind::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        // There is one way to spell it, and a real number alone does not have all of its digits.
        let negative = || Scalar { text: Some(Cow::Owned(number.to_string())), kind: ScalarKind::Real(number as f64) };
        u64::try_from(number)
            .map_or_else(|_| Ok(Value::Scalar(negative())), |whole| spelled_somehow(ScalarKind::Whole(whole)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        spelled_somehow(ScalarKind::Real(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Scalar(Scalar { text: Some(Cow::Borrowed(text)), kind: ScalarKind::Text }))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Scalar(Scalar { text: Some(Cow::Owned(text.to_owned())), kind: ScalarKind::Text }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<C>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<Entry<'de>> = Vec::new();
        while let Some((key, node)) = pairs.next_entry::<K, C>()? {
            let (at, key) = key.into();
            entries.push(Entry { at, key, node: node.into() });
        }
        if let Some(key) = twice(&entries) {
            return Err(serde::de::Error::custom(format_args!("{TWICE}{key}'")));
        }
        Ok(Value::Map(entries))
    }
}

/// The first key that stands twice. The YAML parser finds it before; the JSON parser does not look.
fn twice<'e>(entries: &'e [Entry<'_>]) -> Option<&'e str> {
    /// Up to here comparing all with all is quicker than hashing.
    const FEW: usize = 16;
    if entries.len() <= FEW {
        let seen = |at: usize| entries[..at].iter().any(|earlier| earlier.key == entries[at].key);
        return (1..entries.len()).find(|at| seen(*at)).map(|at| entries[at].key.as_ref());
    }
    let mut seen = HashSet::with_capacity(entries.len());
    entries.iter().map(|entry| entry.key.as_ref()).find(|key| !seen.insert(*key))
}

/// Gives every scalar that was read as a number, a truth value or nothing the spelling that it has in the document.
fn spell<'a>(node: &mut Node<'a>, document: &'a str) {
    match &mut node.value {
        Value::Scalar(scalar) => {
            if scalar.kind != ScalarKind::Text
                && let Some((start, length)) = node.range
                && let Some(text) = document.get(start..start.saturating_add(length))
            {
                scalar.text = Some(Cow::Borrowed(text.trim()));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| spell(item, document)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| spell(&mut entry.node, document)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(node: &Node<'_>) -> String {
        node.as_text("x").unwrap_or("?").to_owned()
    }

    #[test]
    fn scalars_keep_their_spelling_and_every_node_its_place() {
        let text = "# é\na: &one 1.50\nb: [077, yes, 0x10, \"4\", -3, 1e3, .nan]\nc: *one\nd: {e: true}\n";
        let node = from_yaml(text).unwrap();
        let entries = node.entries("x").unwrap();
        assert_eq!(text_of(&entries[0].node), "1.50");
        let items = entries[1].node.items("x").unwrap();
        let texts: Vec<_> = items.iter().map(text_of).collect();
        assert_eq!(texts, ["077", "yes", "0x10", "4", "-3", "1e3", ".nan"]);
        assert_eq!(items[3].as_whole("b").unwrap_err().to_string(), "b is the text '4': a whole number is expected");
        assert_eq!(items[1].at, At { line: 3, column: 10 });
        assert_eq!(entries[1].at, At { line: 3, column: 1 });
        assert_eq!(text_of(&entries[2].node), "1.50");
        assert_eq!(entries[3].node.entries("d").unwrap()[0].node.as_bool("x"), Ok(true));
    }

    #[test]
    fn duplicate_keys_broken_text_and_second_documents_are_placed() {
        let fault = |text| from_yaml(text).map(|_| ()).map_err(|f| format!("{}{f}", f.place("f"))).unwrap_err();
        insta::assert_snapshot!(fault("a: 1\nb: 2\na: 3\n"), @"f:3:1: duplicate key 'a'");
        insta::assert_snapshot!(fault("a: [1, 2\nb: 3\n"), @"f:2:2: not YAML: illegal placement of ':' indicator");
        insta::assert_snapshot!(fault("a: 1\n---\nb: 2\n"), @"f:3:1: a second document begins here: one is expected");
        insta::assert_snapshot!(fault("a: *nowhere\n"), @"f:1:4: not YAML: alias references unknown anchor");
        insta::assert_snapshot!(fault("a: 'x\n"), @"f:2:1: not YAML: invalid indentation in multiline quoted scalar");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let p = n - 1;
            text.push_str(&format!(
                "a{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n"
            ));
        }
        assert!(from_yaml(&text).is_err());
        assert!(from_yaml(&"[".repeat(100_000)).is_err());
        assert!(from_json(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn json_gives_the_same_values() {
        let node = from_json(r#"{"a": "x\n", "b": [1, 1.5, null, true]}"#).unwrap();
        let entries = node.entries("x").unwrap();
        assert_eq!(text_of(&entries[0].node), "x\n");
        assert_eq!(entries[1].node.items("b").unwrap()[0].as_whole("b"), Ok(1));
        assert_eq!(from_json(r#"{"a": 1, "a": 2}"#).unwrap_err().to_string(), "duplicate key 'a'");
    }
}
