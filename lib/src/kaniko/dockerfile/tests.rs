//! What is read of Dockerfiles, written in ways that are meant and in ways that are meant to deceive.

use super::*;

fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn parsed(text: &str) -> Dockerfile {
    Dockerfile::parse(text, "Dockerfile", &BTreeMap::new()).unwrap()
}

fn images_with(text: &str, build_args: &[(&str, &str)]) -> Vec<String> {
    let dockerfile = Dockerfile::parse(text, "Dockerfile", &arguments(build_args)).unwrap();
    dockerfile
        .images()
        .iter()
        .map(|image| image.name.clone())
        .collect()
}

fn images(text: &str) -> Vec<String> {
    images_with(text, &[])
}

#[test]
fn stages_scratch_and_platforms_are_told_apart() {
    let text = "# syntax=docker/dockerfile:1\n\
        FROM --platform=$BUILDPLATFORM rust:1.95 AS Build\nRUN make\n\
        FROM build as test\nfrom scratch\nCOPY --from=build /a /a\nCOPY --from=0 /b /b\n";
    assert_eq!(images(text), ["rust:1.95"]);
    assert_eq!(
        parsed(text).images()[0].platform.as_deref(),
        Some("$BUILDPLATFORM")
    );
    assert_eq!(
        images("FROM --platform=linux/arm64 \"debian:12\"\n"),
        ["debian:12"]
    );
}

#[test]
fn arguments_have_defaults_and_can_be_overridden() {
    let text = "ARG BASE=debian\nARG TAG=\"12\"\nFROM ${BASE}:${TAG:-11}\nARG TAG=9\nFROM alpine:$TAG\n";
    assert_eq!(images(text), ["debian:12", "alpine:12"]);
    assert_eq!(images_with(text, &[("TAG", "13")]), ["debian:13", "alpine:13"]);
}

#[test]
fn whatever_is_copied_or_mounted_from_counts_too() {
    let text = "FROM a.example.com/base:1 AS base\n\
        COPY --chown=1:1 --from=b.example.com/tool:2 /x /x\n\
        RUN --mount=type=cache,target=/c --mount=type=bind,from=c.example.com/data,target=/d make\n\
        RUN --mount='type=bind,\"From=d.example.com/e\",target=/d' make\n\
        ONBUILD COPY --from=e.example.com/late /x /x\n\
        COPY --fr\"om\"=f.example.com/quoted /x /x\n\
        COPY --from=later /x /x\n\
        COPY --from=base /x /x\n\
        COPY -- --from=nothing /x\n\
        FROM base AS later\n";
    let expected = [
        "a.example.com/base:1",
        "b.example.com/tool:2",
        "c.example.com/data",
        "d.example.com/e",
        "e.example.com/late",
        "f.example.com/quoted",
        "later",
        "base",
    ];
    assert_eq!(
        images(text),
        expected,
        "a stage is one only to what stands behind it"
    );
}

#[test]
fn continuations_comments_and_here_documents_do_not_confuse() {
    let text = "FROM \\\n  # a comment in between\n\n  debian:12\nRUN <<EOF\nRUN true\nEOF\n\
        COPY <<-'A' <<B /x/\nx\n\tA\ny\nB\nFROM alpine\n";
    assert_eq!(images(text), ["debian:12", "alpine"]);
    assert_eq!(parsed(text).doubts(), [] as [usize; 0]);
}

#[test]
fn nothing_hides_behind_the_ways_of_writing_a_line() {
    for (text, expected) in [
        // Lines are joined without a blank between them.
        ("FR\\\nOM evil\nFROM debian\n", &["evil", "debian"][..]),
        ("FROM debian\\\n:12\n", &["debian:12"]),
        // An escaped escape does not continue a line.
        ("FROM a\nRUN x \\\\\nFROM evil\n", &["a", "evil"]),
        ("\u{feff}FROM evil\nFROM debian\n", &["evil", "debian"]),
        // A directive behind another comment is none.
        (
            "# hello\n# escape=`\nFROM a\nRUN x `\nFROM evil\n",
            &["a", "evil"],
        ),
        ("\n# escape=`\nFROM a\nRUN x `\nFROM evil\n", &["a", "evil"]),
        ("# escape=`\nFROM a\nRUN x `\nFROM not\n", &["a"]),
        ("# syntax=x\n# Escape = `\nFROM a\nRUN x `\nFROM not\n", &["a"]),
        // Words in quotes open no here-document.
        (
            "FROM a\nRUN echo \" <<EOF \"\nFROM evil\nRUN x\nEOF\n",
            &["a", "evil"],
        ),
        ("FROM a\nRUN echo 1<<2 <<<word\nFROM evil\n", &["a", "evil"]),
        ("FROM a\nLABEL x=<<EOF\nFROM evil\nEOF\n", &["a", "evil"]),
    ] {
        assert_eq!(images(text), expected, "{text:?}");
    }
}

#[test]
fn what_builders_may_read_differently_is_told() {
    for (text, line) in [
        ("FROM a\nRUN <<EOF\nFROM evil\nEOF\n", 3),
        ("FROM a\nRUN <<EOF\nfr\\\nom evil\nEOF\n", 3),
        ("FROM a\nRUN <<EOF\nCOPY --from=evil / /\nEOF\n", 3),
        ("FROM a\nCOPY <<\"A B\" /x\nA\nA B\n", 2),
        ("FROM a\nRUN cat<<EOF\ntrue\n", 2),
        ("FROM a\nRUN it's <<EOF\nfrom x\n", 2),
    ] {
        assert_eq!(parsed(text).doubts(), [line], "{text:?}");
    }
}

#[test]
fn what_cannot_be_known_is_refused_with_its_line() {
    for (text, expected) in [
        ("RUN true\n", "no FROM"),
        ("", "no FROM"),
        ("\nFROM $NOWHERE\n", "line 2"),
        ("FROM a b\n", "line 1"),
        ("FROM\n", "line 1"),
        ("FROM a\nCOPY --from=$X /a /a\n", "line 2"),
        ("FROM a\nCOPY --from= /a /a\n", "line 2"),
        ("COPY --from=a /a /a\nFROM a\n", "line 1"),
        ("ARG X=a\\b\nFROM $X\n", "line 2"),
        // With another name and the blank escaped, the line would be continued by the next one.
        ("FROM a\nRUN --mount=from=y,t'=/y \nRUN true\n", "line 2"),
    ] {
        let failure = Dockerfile::parse(text, "Dockerfile", &BTreeMap::new()).expect_err(text);
        assert!(failure.message().contains(expected), "{text:?}: {failure}");
        assert_eq!(failure.kind(), Kind::Input);
    }
}

#[test]
fn a_target_needs_the_images_of_its_stages_alone() {
    let text = "FROM a AS a\nFROM b AS b\nFROM c AS C\nCOPY --from=a / /\nFROM c AS d\nCOPY --from=e / /\n";
    let dockerfile = parsed(text);
    let needed = |target: Option<&str>| {
        let target = dockerfile.target(target).unwrap();
        let names = dockerfile.needed(target).into_iter();
        names
            .map(|place| dockerfile.images()[place].name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(needed(Some("B")), ["b"]);
    assert_eq!(needed(Some("c")), ["a", "c"]);
    assert_eq!(needed(Some("1")), ["b"]);
    assert_eq!(needed(None), ["a", "c", "e"]);
    for wrong in ["x", "4", "a,b", ""] {
        let failure = dockerfile.target(Some(wrong)).expect_err(wrong);
        assert_eq!(failure.kind(), Kind::Usage);
    }
}

#[test]
fn other_names_take_their_places_and_lines_keep_their_numbers() {
    let text = "# escape=`\nARG B=x\nFROM scratch AS zero\nFROM `\n  # why\n --platform=linux/amd64 ${B}:1 AS one\nRUN <<EOF\nhello\nEOF\n\
        RUN --mount=from=y,target=/y --mount=type=bind,target=\"/a b\",from=z `\n  make `\n  all\nCOPY --from=zero / /\nCOPY --from=w a `\n b\n";
    let dockerfile = parsed(text);
    let names = (0..4)
        .map(|place| (place, format!("r.example.com/{place}@sha256:0")))
        .collect();
    let pinned = dockerfile.with_images(&names);
    let expected = "# escape=`\nARG B=x\nFROM scratch AS zero\n\n\nFROM  --platform=linux/amd64 r.example.com/0@sha256:0 AS one\nRUN <<EOF\nhello\nEOF\n\n\n\
        RUN --mount=from=r.example.com/1@sha256:0,target=/y --mount=type=bind,target=/a` b,from=r.example.com/2@sha256:0   make   all\n\
        COPY --from=zero / /\n\nCOPY --from=r.example.com/3@sha256:0 a  b\n";
    assert_eq!(pinned, expected);
    let again = parsed(&pinned);
    let found: Vec<_> = again.images().iter().map(|image| image.name.clone()).collect();
    assert_eq!(found, names.into_values().collect::<Vec<_>>());
    assert_eq!(parsed(&pinned).images().len(), 4);
}

fn intrusions(text: &str) -> Vec<String> {
    let dockerfile = Dockerfile::parse(text, "Dockerfile", &arguments(&[("GIVEN", "/kaniko")])).unwrap();
    let target = dockerfile.target(None).unwrap();
    let told = |one: Intrusion| format!("{} {} {} {}", one.line, one.instruction, one.path, one.is_copy);
    dockerfile
        .intrusions(target, "/kaniko")
        .into_iter()
        .map(told)
        .collect()
}

#[test]
fn what_is_written_into_a_folder_is_told_with_its_line() {
    for (line, expected) in [
        ("COPY a /kaniko/a", "COPY /kaniko/a true"),
        ("COPY --chmod=0755 a b /kaniko/", "COPY /kaniko true"),
        ("copy a /x/../kaniko//a", "COPY /kaniko/a true"),
        (
            "ADD https://example.com/a \"/kaniko/with blank\"",
            "ADD /kaniko/with blank true",
        ),
        ("COPY [\"a\", \"/kaniko/a\"]", "COPY /kaniko/a true"),
        ("COPY <<EOF /kaniko/a\nhello\nEOF", "COPY /kaniko/a true"),
        (
            "COPY a \\\n  /kaniko/$NOBODY_KNOWS",
            "COPY /kaniko/$NOBODY_KNOWS true",
        ),
        ("WORKDIR /kaniko/work", "WORKDIR /kaniko/work false"),
        ("RUN echo a >/kaniko/a", "RUN /kaniko false"),
        ("RUN <<EOF\necho a >/kaniko/a\nEOF", "RUN /kaniko false"),
    ] {
        assert_eq!(
            intrusions(&format!("FROM a\n{line}\n")),
            [format!("2 {expected}")],
            "{line}"
        );
    }
    for (text, expected) in [
        (
            "ARG GIVEN\nFROM a\nARG GIVEN\nCOPY a $GIVEN/a",
            "4 COPY /kaniko/a true",
        ),
        (
            "ARG UP=/kaniko\nFROM a\nARG UP\nCOPY a ${UP}/a",
            "4 COPY /kaniko/a true",
        ),
        (
            "FROM a\nENV TO=/kaniko OTHER=x\nCOPY a $TO/a",
            "3 COPY /kaniko/a true",
        ),
        ("FROM a\nENV TO /kaniko\nCOPY a $TO/a", "3 COPY /kaniko/a true"),
        ("FROM scratch\nCOPY a kaniko/a", "2 COPY /kaniko/a true"),
        // What a stage stands on goes along, and what it takes files from is built, too.
        (
            "FROM a AS b\nENV TO=/kaniko\nFROM b\nCOPY a $TO/a",
            "4 COPY /kaniko/a true",
        ),
        (
            "FROM a AS b\nCOPY a /kaniko/a\nFROM c\nCOPY --from=b /x /x",
            "2 COPY /kaniko/a true",
        ),
    ] {
        assert_eq!(intrusions(text), [expected], "{text}");
    }
    assert_eq!(
        intrusions(
            "FROM a AS b\nWORKDIR /kaniko\nFROM b\nCOPY a here\nWORKDIR sub\nWORKDIR ..\nWORKDIR ..\nCOPY a b"
        ),
        [
            "2 WORKDIR /kaniko false",
            "4 COPY /kaniko/here true",
            "5 WORKDIR /kaniko/sub false",
            "6 WORKDIR /kaniko false"
        ]
    );
}

#[test]
fn what_is_written_elsewhere_or_cannot_be_known_is_no_intrusion() {
    for text in [
        "FROM a\nCOPY a /kaniko2/a",
        "FROM a\nCOPY /kaniko/a /b",
        "FROM a\nCOPY --from=a /kaniko/executor /bin/",
        "FROM a\nCOPY a /kaniko/../b",
        "FROM a\nCOPY a /opt/kaniko/a",
        "FROM a\nCOPY a kaniko/a",
        "FROM a\nCOPY a $NOBODY_KNOWS/kaniko",
        "FROM a\nWORKDIR $NOBODY_KNOWS\nCOPY a kaniko",
        "FROM a\nCOPY a",
        "FROM a\nENV TO=/kaniko\nFROM b\nCOPY a $TO/a",
        "FROM a\nONBUILD COPY a /kaniko/a",
        "FROM a\nRUN echo x >/opt/kaniko/x; echo /kaniko-like",
        "FROM a AS left-out\nCOPY a /kaniko/a\nFROM b",
    ] {
        assert_eq!(intrusions(text), [] as [String; 0], "{text}");
    }
}

mod properties {
    use crate::kaniko::properties::dockerfile;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_keeps_the_promises(text in "(FROM|ARG|RUN|COPY|--from=|--mount=|<<|[${}:\\-+\\\\<`#\"' \n]|[a-zé]){0,60}") {
            dockerfile(&text);
        }

        #[test]
        fn so_does_what_looks_like_a_file(text in "FROM a( AS x)?\n(FROM [a-z]{1,3}\n|(WORKDIR|ENV [ab]|COPY b) /?[ab.$/]{0,6}\n|RUN [a-z\"'<E\\\\]{0,6}\n|COPY (--from=[a-z]{1,3} )?a (\\\\\n)?b\n){0,8}") {
            dockerfile(&text);
        }
    }
}
