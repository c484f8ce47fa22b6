//! One image changed in kustomizations of every style: which bytes move, and what is refused.

use towpath::failure::Kind;
use towpath::kustomize::{ImageSpec, Kustomization, Pin};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// `A` and `B` in the texts stand for two digests.
fn filled(text: &str) -> String {
    text.replace("{A}", A).replace("{B}", B)
}

fn set(before: &str, image: &str, pin: Pin, add: bool) -> towpath::failure::Result<String> {
    let spec: ImageSpec = filled(image).parse()?;
    let edit = Kustomization::parse("kustomization.yaml", filled(before).as_bytes())?.set(&spec, pin, add)?;
    Ok(edit.text)
}

fn check(before: &str, image: &str, after: &str) {
    check_pinned(before, image, Pin::Digest, after);
}

fn check_pinned(before: &str, image: &str, pin: Pin, after: &str) {
    match set(before, image, pin, false) {
        Ok(text) => assert_eq!(text, filled(after), "after setting {image}"),
        Err(failure) => panic!("{failure:?}\nin {before}"),
    }
    let again = set(after, image, pin, false).expect("the edited file can be edited");
    assert_eq!(again, filled(after), "a second run changes nothing");
}

fn check_added(before: &str, image: &str, after: &str) {
    match set(before, image, Pin::Digest, true) {
        Ok(text) => assert_eq!(text, filled(after), "after adding {image}"),
        Err(failure) => panic!("{failure:?}\nin {before}"),
    }
}

fn refuses(before: &str, image: &str, message: &str) {
    let failure = set(before, image, Pin::Digest, false).expect_err(before);
    assert_eq!(failure.kind(), Kind::Input, "{failure:?}");
    assert!(
        failure.message().contains(message),
        "{failure:?} does not say {message:?}"
    );
}

#[test]
fn only_the_bytes_of_the_values_move() {
    check(
        "# top\nimages:   # which\n- name: app # x\n  newTag: \"1\"  # y\n\n  # lead\n  digest: {A} # d\n# after\nz: 1",
        "app:2@{B}",
        "# top\nimages:   # which\n- name: app # x\n  newTag: \"2\"  # y\n\n  # lead\n  digest: {B} # d\n# after\nz: 1",
    );
    check(
        "images:\r\n  - digest: '{A}'\r\n    name: app\r\n    newName: reg:5000/app\r\n",
        "app@{B}",
        "images:\r\n  - digest: '{B}'\r\n    name: app\r\n    newName: reg:5000/app\r\n",
    );
    check(
        "{\"images\":[{\"name\":\"app\",\"digest\":\"{A}\"},{\"name\":\"b\"}]}\n",
        "app@{B}",
        "{\"images\":[{\"name\":\"app\",\"digest\":\"{B}\"},{\"name\":\"b\"}]}\n",
    );
    check(
        "images: [{name: app, newTag: v1, digest: {A}}, {name: b}]\n",
        "app:v2@{B}",
        "images: [{name: app, newTag: v2, digest: {B}}, {name: b}]\n",
    );
    check(
        "---\nimages:\n-   name: other\n    digest: {A}\n-   name: app\n    digest: >-\n      {A}\n\nz: 1\n...\n",
        "app@{B}",
        "---\nimages:\n-   name: other\n    digest: {A}\n-   name: app\n    digest: >-\n      {B}\n\nz: 1\n...\n",
    );
    check(
        "images:\n- name: app\n  newTag:\n  digest:   # none yet\n",
        "app@{B}",
        "images:\n- name: app\n  newTag:\n  digest: {B}   # none yet\n",
    );
    check(
        "\u{feff}images:\n- name: äpp # ünïcode\n  digest: {A}\n",
        "äpp@{B}",
        "\u{feff}images:\n- name: äpp # ünïcode\n  digest: {B}\n",
    );
}

#[test]
fn the_entry_is_also_found_by_its_new_name() {
    check(
        "images:\n- name: app\n  newName: reg.example.com/app\n  digest: {A}\n",
        "reg.example.com/app@{B}",
        "images:\n- name: app\n  newName: reg.example.com/app\n  digest: {B}\n",
    );
    check(
        "images:\n- name: app\n  digest: {A}\n",
        "app=reg.example.com/app@{B}",
        "images:\n- name: app\n  newName: reg.example.com/app\n  digest: {B}\n",
    );
    check(
        "images:\n- name: app\n  digest: {A}\n",
        "app=app@{B}",
        "images:\n- name: app\n  digest: {B}\n",
    );
}

#[test]
fn a_missing_field_is_added_in_the_style_of_the_entry() {
    check_pinned(
        "images:\n  - name: app\n    newTag: v1 # now\n\n  # next\n  - name: b\n",
        "app:v2@{B}",
        Pin::Both,
        "images:\n  - name: app\n    newTag: v2 # now\n    digest: {B}\n\n  # next\n  - name: b\n",
    );
    check_pinned(
        "images:\n- name: app",
        "app:v2@{B}",
        Pin::Both,
        "images:\n- name: app\n  newTag: v2\n  digest: {B}",
    );
    check_pinned(
        "images:\r\n- name: app",
        "app:v2",
        Pin::Tag,
        "images:\r\n- name: app\r\n  newTag: v2",
    );
    check(
        "{\"images\":[{\"name\":\"app\",\"newName\":\"reg/app\"}]}",
        "app@{B}",
        "{\"images\":[{\"name\":\"app\",\"newName\":\"reg/app\",\"digest\":\"{B}\"}]}",
    );
    check(
        "images: [\n  {\n    name: app,\n    newName: reg/app,\n  },\n]\n",
        "app@{B}",
        "images: [\n  {\n    name: app,\n    newName: reg/app,\n    digest: \"{B}\",\n  },\n]\n",
    );
    check(
        "images:\n- name: 'app'\n  newName: 'reg/app'\n",
        "app@{B}",
        "images:\n- name: 'app'\n  newName: 'reg/app'\n  digest: '{B}'\n",
    );
}

#[test]
fn switching_the_pin_leaves_nothing_behind() {
    let both = "images:\n- name: app\n  newTag: v1 # tag\n  digest: {A}\n- name: b\n";
    check(
        both,
        "app@{B}",
        "images:\n- name: app\n  digest: {B}\n- name: b\n",
    );
    check_pinned(
        both,
        "app:v2",
        Pin::Tag,
        "images:\n- name: app\n  newTag: v2 # tag\n- name: b\n",
    );
    check(
        "images:\n- newTag: v1\n  name: app",
        "app@{B}",
        "images:\n- name: app\n  digest: {B}",
    );
    check(
        "images:\n- name: app\n  newTag: v1",
        "app@{B}",
        "images:\n- name: app\n  digest: {B}",
    );
    check(
        "images:\n- newTag: v1\n  # why\n  name: app\n",
        "app@{B}",
        "images:\n- # why\n  name: app\n  digest: {B}\n",
    );
    check(
        "images: [{newTag: v1, name: app}, {name: b}]\n",
        "app@{B}",
        "images: [{name: app, digest: \"{B}\"}, {name: b}]\n",
    );
    // A field without a value says nothing, and stays.
    for empty in ["digest: \"\"", "digest: ~", "newName: ''"] {
        check_pinned(
            &format!("images:\n- name: app\n  newTag: v1\n  {empty}\n"),
            "app:v2",
            Pin::Tag,
            &format!("images:\n- name: app\n  newTag: v2\n  {empty}\n"),
        );
    }
    check_pinned(
        "images: [{name: app, digest: {A}, newTag: v1,}]\n",
        "app:v2",
        Pin::Tag,
        "images: [{name: app, newTag: v2,}]\n",
    );
}

#[test]
fn comments_on_other_fields_of_a_flow_mapping_stay() {
    let last = "images:\n- {\n    name: app, # n\n    newTag: v1, # t\n    digest: {A} # d\n  }\n";
    check_pinned(
        last,
        "app:v2",
        Pin::Tag,
        "images:\n- {\n    name: app, # n\n    newTag: v2, # t\n  }\n",
    );
    check_pinned(
        &last.replace(" # d\n  }", "}"),
        "app:v2",
        Pin::Tag,
        "images:\n- {\n    name: app, # n\n    newTag: v2, # t\n    }\n",
    );
    let leading = "images:\n- { name: app # n\n  , newTag: v1 # t\n  , digest: {A} # d\n  }\n";
    check_pinned(
        leading,
        "app:v2",
        Pin::Tag,
        "images:\n- { name: app # n\n  , newTag: v2 # t\n  }\n",
    );
    check(
        leading,
        "app@{B}",
        "images:\n- { name: app # n\n  , digest: {B} # d\n  }\n",
    );
    check(
        &leading.replace(" # n", ""),
        "app@{B}",
        "images:\n- { name: app\n  , digest: {B} # d\n  }\n",
    );
}

#[test]
fn values_that_yaml_1_1_mistakes_are_quoted() {
    for (tag, written) in [
        ("1.10", "\"1.10\""),
        ("20240131", "\"20240131\""),
        ("1_000", "\"1_000\""),
        ("on", "\"on\""),
        ("y", "\"y\""),
        ("12e4567", "\"12e4567\""),
        ("2024-01-31", "\"2024-01-31\""),
        ("v1.10", "v1.10"),
    ] {
        let before = "images:\n- name: app\n  newTag: v1\n";
        let after = format!("images:\n- name: app\n  newTag: {written}\n");
        check_pinned(before, &format!("app:{tag}"), Pin::Tag, &after);
    }
    check_pinned(
        "images:\n- name: 'app'\n  newTag: 1.9\n",
        "app:1.10",
        Pin::Tag,
        "images:\n- name: 'app'\n  newTag: '1.10'\n",
    );
}

#[test]
fn an_entry_is_added_in_the_style_of_the_file() {
    check_added("", "app@{B}", "images:\n- name: app\n  digest: {B}\n");
    check_added(
        "# only this\n",
        "app@{B}",
        "# only this\nimages:\n- name: app\n  digest: {B}\n",
    );
    check_added(
        "resources:\r\n  - a.yaml",
        "app=reg.example.com/app@{B}",
        "resources:\r\n  - a.yaml\r\nimages:\r\n  - name: app\r\n    newName: reg.example.com/app\r\n    digest: {B}",
    );
    check_added(
        "images:\n-   name: b\n    newTag: v1 # b\n# end\nz: 1\n",
        "app@{B}",
        "images:\n-   name: b\n    newTag: v1 # b\n-   name: app\n    digest: {B}\n# end\nz: 1\n",
    );
    check_added(
        "images:\n  # none\nz: 1\n",
        "app@{B}",
        "images:\n- name: app\n  digest: {B}\n  # none\nz: 1\n",
    );
    check_added(
        "images: []\n",
        "app@{B}",
        "images: [{name: app, digest: \"{B}\"}]\n",
    );
    check_added(
        "images:\n- {name: b}\nz: 1\n",
        "app@{B}",
        "images:\n- {name: b}\n- {name: app, digest: \"{B}\"}\nz: 1\n",
    );
    check_added(
        "{\n  \"images\": [\n    {\"name\": \"b\"}\n  ]\n}\n",
        "app@{B}",
        "{\n  \"images\": [\n    {\"name\": \"b\"},\n    {\"name\": \"app\", \"digest\": \"{B}\"}\n  ]\n}\n",
    );
    check_added(
        "{\"resources\": []}",
        "app@{B}",
        "{\"resources\": [], \"images\": [{\"name\": \"app\", \"digest\": \"{B}\"}]}",
    );
    check_added(
        "z: 1\n...\n",
        "app@{B}",
        "z: 1\nimages:\n- name: app\n  digest: {B}\n...\n",
    );
}

#[test]
fn an_unknown_image_is_not_found_without_add() {
    let failure = set("images:\n- name: b\n", "app@{B}", Pin::Digest, false).expect_err("unknown");
    assert_eq!(failure.kind(), Kind::NotFound);
    assert!(failure.next_action().unwrap().contains("images here: b"));
    let failure = set("images:\n- name: b\n", "app:v1", Pin::Digest, false).expect_err("no digest");
    assert_eq!(failure.kind(), Kind::Usage);
}

#[test]
fn what_cannot_be_edited_safely_is_refused_with_its_line() {
    let image = "app@{B}";
    refuses(
        "images:\n- name: app\n- name: app\n",
        image,
        "kustomization.yaml:3: image app is meant",
    );
    refuses(
        "images:\n- name: app\n- name: b\n  newName: app\n",
        image,
        "kustomization.yaml:3: image app is meant",
    );
    refuses(
        "images:\n- name: app\n---\nimages: []\n",
        image,
        "kustomization.yaml:3: a second document",
    );
    refuses(
        "images:\n- name: app\n\tdigest: x\n",
        image,
        "kustomization.yaml:3: indented with a tab",
    );
    refuses(
        "images:\n- name: app\n  newTag: a\n  newTag: b\n",
        image,
        "kustomization.yaml:4: the key newTag",
    );
    refuses(
        "images: []\nresources: []\nimages: []\n",
        image,
        "kustomization.yaml:3: the key images",
    );
    refuses(
        "images:\n- name: app\n  digest: {a: b}\n",
        image,
        "kustomization.yaml:2: digest of an image is not text",
    );
    refuses(
        "images:\n- app\n",
        image,
        "kustomization.yaml:2: an entry of images is not a mapping",
    );
    refuses(
        "images:\n  app: x\n",
        image,
        "kustomization.yaml:2: images is not a list",
    );
    refuses("- name: app\n", image, "kustomization.yaml:1: not a mapping");
    refuses("images: [\n", image, "kustomization.yaml:");
    refuses(
        "images:\n- name: app\n  digest: |\n    x\n    y\n",
        image,
        "kustomization.yaml:3: digest has a value",
    );
    refuses(
        "images:\n- name: app\n  digest: !!str x\n",
        image,
        "kustomization.yaml:3: digest is a value with a tag",
    );
}

#[test]
fn anchors_that_carry_a_change_elsewhere_are_refused() {
    let image = "app@{B}";
    refuses(
        "images:\n- name: app\n  digest: &d {A}\n- name: b\n  digest: *d\n",
        image,
        "kustomization.yaml:3: the anchor d is used on line 5",
    );
    refuses(
        "x: &d {A}\nimages:\n- name: app\n  digest: *d\n",
        image,
        "kustomization.yaml:4: the entry uses the alias d",
    );
    refuses(
        "images:\n- &base\n  name: app\n  digest: {A}\n- <<: *base\n  name: b\n",
        image,
        "kustomization.yaml:2: the anchor base is used on line 5",
    );
    refuses(
        "images:\n- &base\n  name: b\n  digest: {A}\n- <<: *base\n  name: app\n",
        image,
        "kustomization.yaml:5: the entry uses",
    );
    refuses(
        "images: &all\n- name: app\nother: *all\n",
        image,
        "kustomization.yaml:1: the anchor all is used on line 3",
    );
    // An anchor on another entry, or one that nobody uses, is nobody's trouble.
    check(
        "images:\n- &b\n  name: b\n- *b\n- &app\n  name: app\n  digest: {A}\n",
        image,
        "images:\n- &b\n  name: b\n- *b\n- &app\n  name: app\n  digest: {B}\n",
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_with_their_line() {
    let failure =
        Kustomization::parse("kustomization.yaml", b"images:\n- name: \xff\n").expect_err("not UTF-8");
    assert_eq!(failure.message(), "kustomization.yaml:2: not UTF-8");
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    let text = format!("images: []\n#{}\n", "x".repeat(1024 * 1024));
    let failure = Kustomization::parse("kustomization.yaml", text.as_bytes()).expect_err("too long");
    assert!(failure.message().contains("1048576 at most"), "{failure}");
}
