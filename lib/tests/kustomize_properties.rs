//! Generated kustomizations in many styles: an edit moves the bytes of the values, and nothing else.

use proptest::prelude::*;
use towpath::kustomize::{ImageSpec, Kustomization, Pin};

/// How one file is written.
#[derive(Clone, Debug)]
struct Style {
    indent: usize,
    gap: usize,
    eol: &'static str,
    final_eol: bool,
    flow: bool,
    comments: bool,
    blank_lines: bool,
    marker: bool,
}

/// One entry: its fields in the order in which they are written, each with its quotes.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
    tag_first: bool,
    quotes: char,
}

fn digest(seed: u8) -> String {
    format!("sha256:{}", format!("{seed:02x}").repeat(32))
}

fn style() -> impl Strategy<Value = Style> {
    let eol = prop_oneof![Just("\n"), Just("\r\n")];
    (0_usize..5, 1_usize..4, eol, any::<[bool; 5]>()).prop_map(|(indent, gap, eol, flags)| Style {
        indent,
        gap,
        eol,
        final_eol: flags[0],
        flow: flags[1],
        comments: flags[2],
        blank_lines: flags[3],
        marker: flags[4],
    })
}

fn tag() -> impl Strategy<Value = String> {
    "v[0-9]{1,2}\\.[0-9]{1,2}(-[a-z]{1,5})?"
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let quotes = prop_oneof![Just(' '), Just('\''), Just('"')];
    let entry = (
        proptest::option::of(tag()),
        proptest::option::of(any::<u8>()),
        any::<bool>(),
        quotes,
    )
        .prop_map(|(tag, seed, tag_first, quotes)| Entry {
            name: String::new(),
            tag,
            digest: seed.map(digest),
            tag_first,
            quotes,
        });
    proptest::collection::vec(entry, 1..6).prop_map(|mut entries| {
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.name = format!("registry.example.com:5000/team/app{index}");
        }
        entries
    })
}

/// Writes the file, and gives the span of each entry.
fn write(style: &Style, entries: &[Entry]) -> (String, Vec<std::ops::Range<usize>>) {
    let eol = style.eol;
    let comment = |text: &str| {
        if style.comments {
            format!("  # {text}: {{[&*")
        } else {
            String::new()
        }
    };
    let mut text = String::new();
    if style.marker {
        text += &format!("---{eol}");
    }
    text += &format!("resources:{}{eol}- base.yaml{eol}", comment("what"));
    if style.blank_lines {
        text += eol;
    }
    text += &format!("images:{}{eol}", comment("which"));
    let mut spans = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let quoted = |value: &str| match entry.quotes {
            ' ' => value.to_owned(),
            quote => format!("{quote}{value}{quote}"),
        };
        let mut fields = vec![format!("name: {}", quoted(&entry.name))];
        if let Some(tag) = &entry.tag {
            let field = format!("newTag: {}", quoted(tag));
            fields.insert(if entry.tag_first { 0 } else { fields.len() }, field);
        }
        fields.extend(
            entry
                .digest
                .as_ref()
                .map(|digest| format!("digest: {}", quoted(digest))),
        );
        let start = text.len();
        let dash = format!("{}-{}", " ".repeat(style.indent), " ".repeat(style.gap));
        if style.flow {
            text += &format!("{dash}{{{}}}{}{eol}", fields.join(", "), comment("one"));
        } else {
            let below = " ".repeat(dash.len());
            for (row, field) in fields.iter().enumerate() {
                text += &format!(
                    "{}{field}{}{eol}",
                    if row == 0 { &dash } else { &below },
                    comment("field")
                );
            }
        }
        spans.push(start..text.len());
        if style.blank_lines && index % 2 == 0 {
            text += &format!("{eol}{}# between{eol}", " ".repeat(style.indent));
        }
    }
    text += &format!("commonLabels: {{a: b}}{}", comment("end"));
    if style.final_eol {
        text += eol;
    }
    (text, spans)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_value_is_the_only_difference(
        style in style(), mut entries in entries(), choice in any::<prop::sample::Index>(), new_tag in tag(), seed in any::<u8>(),
    ) {
        let index = choice.index(entries.len());
        // Both fields are there, so that values change and no field comes or goes.
        entries[index].tag.get_or_insert_with(|| "v0.0".into());
        entries[index].digest.get_or_insert_with(|| digest(0));
        let (before, _) = write(&style, &entries);
        let spec: ImageSpec = format!("{}:{new_tag}@{}", entries[index].name, digest(seed)).parse().unwrap();
        let edit = Kustomization::parse("k", before.as_bytes()).unwrap().set(&spec, Pin::Digest, false).unwrap();
        entries[index].tag = Some(new_tag);
        entries[index].digest = Some(digest(seed));
        let (after, _) = write(&style, &entries);
        prop_assert_eq!(edit.text, after);
    }

    #[test]
    fn no_byte_outside_the_entry_moves(
        style in style(), entries in entries(), choice in any::<prop::sample::Index>(), new_tag in tag(), seed in any::<u8>(),
        pin in prop_oneof![Just(Pin::Digest), Just(Pin::Tag), Just(Pin::Both)],
    ) {
        let index = choice.index(entries.len());
        let (before, spans) = write(&style, &entries);
        let spec: ImageSpec = format!("{}:{new_tag}@{}", entries[index].name, digest(seed)).parse().unwrap();
        let parsed = Kustomization::parse("k", before.as_bytes()).unwrap();
        let edit = parsed.set(&spec, pin, false).unwrap();
        let span = spans[index].clone();
        prop_assert!(edit.text.starts_with(&before[..span.start]));
        prop_assert!(edit.text.ends_with(&before[span.end..]));
        let after = Kustomization::parse("k", edit.text.as_bytes()).unwrap();
        for (position, (old, new)) in parsed.images().iter().zip(after.images()).enumerate() {
            let expected = if position == index { spec.target(Some(&old.state), pin) } else { old.state.clone() };
            prop_assert_eq!(&new.state, &expected);
        }
        // Line ends stay of one kind.
        prop_assert_eq!(style.eol == "\r\n", edit.text.lines().count() > 1 && edit.text.matches('\n').count() == edit.text.matches("\r\n").count());
    }

    #[test]
    fn an_added_entry_leaves_all_that_was_there(style in style(), entries in entries(), seed in any::<u8>()) {
        let (before, spans) = write(&style, &entries);
        let spec: ImageSpec = format!("registry.example.com/new@{}", digest(seed)).parse().unwrap();
        let edit = Kustomization::parse("k", before.as_bytes()).unwrap().set(&spec, Pin::Digest, true).unwrap();
        let end = spans.last().unwrap().end;
        prop_assert!(edit.text.starts_with(&before[..end]));
        prop_assert!(edit.text.ends_with(&before[end..]));
        prop_assert!(edit.old.is_none());
    }

    #[test]
    fn nothing_makes_the_parser_panic(text in "(images|resources|- name|newTag|digest|: |, |\n|  |\t|- |\\[|\\]|\\{|\\}|&a|\\*a|<<|'|\"|#|\\||>|---|\\.\\.\\.|app|\r\n|\u{feff}|ü){0,30}") {
        let spec: ImageSpec = format!("app:v1@{}", digest(1)).parse().unwrap();
        if let Ok(parsed) = Kustomization::parse("k", text.as_bytes()) {
            let _ = parsed.set(&spec, Pin::Both, true);
        }
    }
}
