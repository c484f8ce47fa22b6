//! What must hold of an edit whatever file and whatever wish it is given, for property tests and for fuzzing.

use serde_norway::Value;

use super::document::{Edit, Images, Kustomization};
use super::entry::{DIGEST, NEW_NAME, NEW_TAG};
use super::image::{ImageSpec, Pin};
use crate::failure::Kind;

const FILE: &str = "kustomization.yaml";

/// An edit is refused by name, or changes what was asked for and nothing else: neither to a reader of YAML, nor to one
/// that compares bytes. The first line is the wish: `d`, `t` or `b` for what is pinned, in uppercase where an entry may
/// be added, and the image. The rest is the file.
///
/// # Panics
/// When that does not hold.
pub fn kustomize_edit(input: &str) {
    let (head, text) = input.split_once('\n').unwrap_or((input, ""));
    let mut letters = head.chars();
    let Some(letter) = letters.next() else { return };
    let pin = match letter.to_ascii_lowercase() {
        't' => Pin::Tag,
        'b' => Pin::Both,
        _ => Pin::Digest,
    };
    let Ok(spec) = letters.as_str().parse::<ImageSpec>() else {
        return;
    };
    edited(text, &spec, pin, letter.is_ascii_uppercase());
}

/// The edit, if it is not refused.
fn edited(text: &str, spec: &ImageSpec, pin: Pin, add: bool) -> Option<Edit> {
    let before = match Kustomization::parse(FILE, text.as_bytes()) {
        Ok(before) => before,
        Err(failure) => {
            assert_eq!(failure.kind(), Kind::Input, "{failure:?}");
            assert!(failure.message().contains(FILE), "{failure:?}");
            return None;
        }
    };
    let edit = match before.set(spec, pin, add) {
        Ok(edit) => edit,
        Err(failure) => {
            let expected = matches!(failure.kind(), Kind::Input | Kind::Usage | Kind::NotFound);
            assert!(expected, "{failure:?}");
            assert!(
                failure.kind() == Kind::Usage || failure.message().contains(FILE),
                "{failure:?}"
            );
            return None;
        }
    };
    let after = Kustomization::parse(FILE, edit.text.as_bytes())
        .unwrap_or_else(|failure| panic!("{failure:?}: {:?}", edit.text));
    let index = match before
        .images()
        .iter()
        .position(|entry| Some(&entry.state) == edit.old.as_ref())
    {
        Some(index) => index,
        None => {
            assert!(add && edit.old.is_none(), "{edit:?}");
            before.images().len()
        }
    };
    assert_eq!(
        after.images().get(index).map(|entry| &entry.state),
        Some(&edit.new)
    );
    assert_eq!(
        edit.new.digest,
        if pin == Pin::Tag {
            None
        } else {
            spec.digest.clone()
        }
    );
    assert_eq!(
        without_wish(&before.value, index, edit.old.is_none()),
        without_wish(&after.value, index, edit.old.is_none()),
        "more than the entry changed"
    );
    check_bytes(&before, &edit, index);
    let again = after
        .set(spec, pin, add)
        .unwrap_or_else(|failure| panic!("{failure:?}: {:?}", edit.text));
    assert!(
        !again.changed() && again.text == edit.text,
        "a second time changes more"
    );
    if let Some(old) = &edit.old
        && let Ok(restored) = after.restore(old)
    {
        assert_eq!(&restored.new, old);
    }
    Some(edit)
}

/// The document without what a wish may change: the fields of an entry, or the whole entry that was added.
fn without_wish(value: &Value, index: usize, added: bool) -> Value {
    let mut value = match value {
        Value::Null => Value::Mapping(serde_norway::Mapping::new()),
        other => other.clone(),
    };
    let mut empty = true;
    if let Some(Value::Sequence(images)) = value.get_mut("images") {
        if added {
            images.truncate(index);
        } else if let Some(Value::Mapping(entry)) = images.get_mut(index) {
            for key in [NEW_NAME, NEW_TAG, DIGEST] {
                entry.remove(key);
            }
        }
        empty = images.is_empty();
    }
    if let (true, Value::Mapping(root)) = (empty, &mut value) {
        root.remove("images");
    }
    value
}

/// Every byte that changed is in the entry, or was put in where nothing was.
fn check_bytes(before: &Kustomization, edit: &Edit, index: usize) {
    let (old, new) = (before.text.as_bytes(), edit.text.as_bytes());
    if !edit.changed() {
        assert_eq!(old, new);
        return;
    }
    match (&before.images, &edit.old) {
        (Images::Sequence { items, .. }, Some(_)) => {
            let item = &items[index];
            let first = before.line_start(item.start);
            let last = before.line_end(item.start + before.text[item.clone()].trim_end().len());
            assert!(
                new.starts_with(&old[..first]) && new.ends_with(&old[last..]),
                "the entry is {first}..{last}: {:?} became {:?}",
                before.text,
                edit.text
            );
        }
        _ => {
            let head = old
                .iter()
                .zip(new)
                .take_while(|(one, other)| one == other)
                .count();
            assert!(
                new[head..].ends_with(&old[head..]),
                "an added entry takes something away"
            );
        }
    }
    let bare = |text: &[u8]| {
        text.iter()
            .enumerate()
            .filter(|(at, byte)| **byte == b'\n' && (*at == 0 || text[at - 1] != b'\r'))
            .count()
    };
    if bare(old) == 0 && old.contains(&b'\n') {
        assert_eq!(bare(new), 0, "a line ends otherwise than the file's");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// How a value is written.
    fn scalar() -> impl Strategy<Value = fn(&str) -> String> {
        let plain: fn(&str) -> String = str::to_owned;
        let single: fn(&str) -> String = |value| format!("'{value}'");
        let double: fn(&str) -> String = |value| format!("\"{value}\"");
        prop_oneof![3 => Just(plain), 1 => Just(single), 1 => Just(double)]
    }

    /// The fields of an entry after its name: key and value.
    fn fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let tag = "v[0-9]{1,2}\\.[0-9]|[a-z]{3,8}-[0-9]{1,3}";
        (
            proptest::option::of("registry\\.example\\.com/[a-z]{2,6}/[a-z]{2,6}"),
            proptest::option::of(tag),
            proptest::option::of("[0-9a-f]{64}"),
            proptest::option::weighted(0.1, "-[a-z]{2}"),
            any::<bool>(),
        )
            .prop_map(|(new_name, tag, digest, suffix, swapped)| {
                let mut fields: Vec<(&'static str, String)> = [
                    new_name.map(|value| ("newName", value)),
                    tag.map(|value| ("newTag", value)),
                    digest.map(|value| ("digest", format!("sha256:{value}"))),
                    suffix.map(|value| ("tagSuffix", value)),
                ]
                .into_iter()
                .flatten()
                .collect();
                if swapped {
                    fields.reverse();
                }
                fields
            })
    }

    /// One entry as somebody writes it: block or flow, with comments and blank lines.
    fn entry(name: &'static str) -> impl Strategy<Value = String> {
        let comment =
            || prop_oneof![4 => Just(""), 1 => Just(" # why"), 1 => Just("   # {\"$marker\": \"a:b\"}")];
        let block = (
            fields(),
            scalar(),
            proptest::collection::vec((scalar(), comment(), any::<bool>()), 5),
            prop_oneof![Just("- "), Just("-   ")],
            any::<bool>(),
        )
            .prop_map(move |(fields, quoted, styles, dash, name_last)| {
                let mut lines: Vec<(String, String)> = vec![("name".into(), quoted(name))];
                for ((key, value), (quoted, _, _)) in fields.iter().zip(&styles) {
                    lines.push(((*key).into(), quoted(value)));
                }
                if name_last {
                    lines.rotate_left(1);
                }
                let below = " ".repeat(dash.len());
                let mut text = String::new();
                for (number, ((key, value), (_, comment, above))) in lines.iter().zip(&styles).enumerate() {
                    let lead = if number == 0 { dash } else { &below };
                    if number > 0 && *above {
                        text.push_str(&format!("{below}# about {key}\n"));
                    }
                    text.push_str(&format!("{lead}{key}: {value}{comment}\n"));
                }
                text
            });
        let flow = (fields(), any::<bool>(), comment()).prop_map(move |(fields, many_lines, comment)| {
            let mut parts = vec![format!("name: {name}")];
            parts.extend(fields.iter().map(|(key, value)| format!("{key}: \"{value}\"")));
            if many_lines {
                format!(
                    "- {{\n    {},{comment}\n  }}\n",
                    parts.join(&format!(",{comment}\n    "))
                )
            } else {
                format!("- {{{}}}{comment}\n", parts.join(", "))
            }
        });
        prop_oneof![3 => block, 1 => flow]
    }

    /// A file with three images, the second of which is `app`.
    fn file() -> impl Strategy<Value = String> {
        (
            prop_oneof![Just(""), Just("---\n"), Just("# ours\n\n"), Just("\u{feff}")],
            prop_oneof![
                Just("resources:\n- ../base\n"),
                Just("resources: [a.yaml, b.yaml]\nnamespace: \"x\"\n")
            ],
            [
                entry("web").boxed(),
                entry("app").boxed(),
                entry("host:5000/team/api").boxed(),
            ],
            prop_oneof![Just(0_usize), Just(2), Just(4)],
            prop_oneof![
                Just(""),
                Just("patches:\n- path: p.yaml\n"),
                Just("# the end\n"),
                Just("\n\n")
            ],
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(start, above, entries, indent, below, windows, cut)| {
                let indented: String = entries
                    .concat()
                    .lines()
                    .map(|line| format!("{}{line}\n", " ".repeat(indent)))
                    .collect();
                let mut text = format!("{start}{above}images:\n{indented}{below}");
                if cut {
                    text.truncate(text.trim_end().len());
                }
                if windows {
                    text = text.replace('\n', "\r\n");
                }
                text
            })
    }

    fn tag() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("1.10".to_owned()),
            Just("on".to_owned()),
            Just("1_000".to_owned()),
            Just("0x10".to_owned()),
            Just("1e3".to_owned()),
            Just("20240131".to_owned()),
            "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,12}"
        ]
    }

    fn pin() -> impl Strategy<Value = Pin> {
        prop_oneof![Just(Pin::Digest), Just(Pin::Tag), Just(Pin::Both)]
    }

    proptest! {
        #[test]
        fn real_looking_files_are_edited(text in file(), tag in tag(), pin in pin(), new_name in any::<bool>()) {
            let name = if new_name { "=other.example.com/app" } else { "" };
            let spec: ImageSpec = format!("app{name}:{tag}@{A}").parse().unwrap();
            let edit = edited(&text, &spec, pin, false);
            prop_assert!(edit.is_some_and(|edit| edit.old.is_some()), "refused: {text:?}");
            let added: ImageSpec = format!("new{name}:{tag}@{A}").parse().unwrap();
            prop_assert!(edited(&text, &added, pin, true).is_some(), "refused to add: {text:?}");
        }

        #[test]
        fn switching_pins_there_and_back_is_no_change(text in file(), tag in "v[0-9]") {
            let spec: ImageSpec = format!("app:{tag}@{A}").parse().unwrap();
            let both = edited(&text, &spec, Pin::Both, false).unwrap();
            let tagged = edited(&both.text, &spec, Pin::Tag, false).unwrap();
            let digested = edited(&both.text, &"app@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb".parse().unwrap(), Pin::Digest, false).unwrap();
            prop_assert!(tagged.new.digest.is_none() && digested.new.tag.is_none());
            let back = edited(&tagged.text, &spec, Pin::Both, false).unwrap();
            prop_assert_eq!(back.new, both.new);
        }

        #[test]
        fn files_with_noise(text in file(), at in 0_usize..400, noise in "[ \t\n\r:,#&*!|>{}\\[\\]\"'a-z\\-?]{1,4}", tag in tag(), pin in pin()) {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let noisy = format!("{}{noise}{}", &text[..at], &text[at..]);
            let spec: ImageSpec = format!("app:{tag}@{A}").parse().unwrap();
            edited(&noisy, &spec, pin, true);
            edited(text.get(..at).unwrap_or_default(), &spec, pin, true);
        }

        #[test]
        fn no_files(head in "[dtbDTB]app(:v1)?", text in "[ -~\n]{0,120}") {
            kustomize_edit(&format!("{head}@{A}\n{text}"));
        }
    }

    /// Found by the fuzz target: to one reader the tag takes in what comes after it.
    #[test]
    fn what_readers_do_not_agree_on_is_refused() {
        kustomize_edit("Tapp:v1\nm: !!!");
        kustomize_edit("Tapp:v1\nm: !!!\nimages:\n- name: app\n");
    }

    #[test]
    fn very_deep_and_very_long_files_are_bounded() {
        let spec: ImageSpec = format!("app@{A}").parse().unwrap();
        for text in [
            "[".repeat(20_000),
            "{a: ".repeat(10_000),
            "- ".repeat(20_000),
            format!("images:\n{}", "- name: x\n".repeat(5_000)),
            format!("x: {}\nimages: []\n", "a ".repeat(50_000)),
            format!("images:\n- name: app\n  newTag: {}\n", "\"\\x41".repeat(100)),
            (0..2000).fold(String::new(), |text, depth| {
                format!("{text}{}a:\n", " ".repeat(depth.min(500)))
            }),
        ] {
            edited(&text, &spec, Pin::Digest, true);
        }
    }
}
