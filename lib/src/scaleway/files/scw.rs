//! Profiles in a `config.yaml` of Scaleway's tools that others write to as well.
//!
//! A profile is put in as whole lines, and nothing else is touched. That it was so is proven: read strictly, the file
//! before and after must differ in the profiles alone. For each change all of ours are taken out and those that stay are
//! put in again, so that what is left without them is what was there, whatever the order in which they came and go.
//!
//! Source: Scaleway's Go SDK, `scw/config.go`: an `active_profile` that is not there is an error for whoever reads the file.

use serde_norway::{Mapping, Value};

use super::entry::{Entry, Laid, Stripped};
use super::receipt::{Added, Piece, locate, without};
use super::{MARK, changed, rewritten};
use crate::failure::{Failure, Result};
use crate::scaleway::config::{DEFAULT, Profile};

pub(super) const PROFILES: &str = "profiles";
pub(super) const ACTIVE: &str = "active_profile";

/// A file with profiles in it, and the one of ours that is the active one where we say which.
pub(super) fn lay(base: &str, entries: &[Entry], chooses: bool, shown: &str) -> Result<Laid> {
    let profiles: Vec<&Profile> = entries.iter().filter_map(Entry::as_profile).collect();
    let mut wanted = mapping(base, shown)?;
    let mut text = base.to_owned();
    let mut pieces = Vec::new();
    // What is added ends in a line break, and begins with one where the last line has none.
    let mut add = |text: &mut String, at: usize, entry: Option<&Profile>, lines: &str| {
        let gap = if at == 0 || text[..at].ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let piece = format!("{gap}{lines}");
        let added = match entry {
            Some(profile) => Added::text(&piece, profile.access_key()).saying(profile.fields()),
            None => Added::text(&piece, ""),
        };
        pieces.push(Piece::of(entry.map(Profile::name), added));
        text.insert_str(at, &piece);
        at + piece.len()
    };
    let default = profiles.iter().find(|profile| profile.is_default());
    let named: Vec<_> = profiles.iter().filter(|profile| !profile.is_default()).collect();
    // In a file of our own a profile with a name is the active one, since nobody could choose another.
    let active = match (default, named.first()) {
        (None, Some(first)) if chooses && !wanted.contains_key(ACTIVE) => {
            wanted.insert(ACTIVE.into(), first.name().into());
            Some(choice(first.name()))
        }
        _ => None,
    };
    if !named.is_empty() {
        let all = profiles_of(&mut wanted, shown)?;
        for profile in &named {
            if all.keys().any(|key| spelled(key) == profile.name()) {
                return Err(taken(shown, &format!("a profile {}", profile.name())));
            }
            let fields = profile.fields().map(|(name, value)| (name.into(), value.into()));
            all.insert(profile.name().into(), Value::Mapping(fields.collect()));
        }
    }
    // What goes into the middle is first, so that it cannot come between what is added at the end.
    let place = profiles_line(base);
    if let (None, Some(active)) = (&place, &active) {
        let end = text.len();
        add(&mut text, end, None, active);
    }
    if !named.is_empty() {
        let (mut at, indent) = match &place {
            Some((at, indent)) => (*at, indent.as_str()),
            None => {
                let end = text.len();
                (add(&mut text, end, None, &format!("{PROFILES}:\n")), "  ")
            }
        };
        for profile in &named {
            let lines = format!(
                "{indent}{MARK}\n{indent}\"{}\":\n{}",
                profile.name(),
                profile.indented(&format!("{indent}  "))
            );
            at = add(&mut text, at, Some(profile), &lines);
        }
    }
    if let Some(profile) = default {
        for (name, value) in profile.fields() {
            if wanted.contains_key(name) {
                return Err(taken(shown, "a default profile"));
            }
            wanted.insert(name.into(), value.into());
        }
        let end = text.len();
        add(
            &mut text,
            end,
            Some(profile),
            &format!("{MARK}\n{}", profile.indented("")),
        );
    }
    if let (Some(_), Some(active)) = (&place, &active) {
        let end = text.len();
        add(&mut text, end, None, active);
    }
    // The order of keys means nothing in YAML, so it is not compared.
    if mapping(&text, shown).ok().as_ref() != Some(&wanted) {
        return Err(Failure::input(format!(
            "{shown} is written so that a profile cannot be added without touching more"
        ))
        .hint(
            "it was left as it is: write it in block style (`scw config set` does), or choose another file",
        ));
    }
    Ok(Laid::of(text, pieces))
}

/// The lines that make a profile the active one.
pub(super) fn choice(name: &str) -> String {
    format!("{MARK}\n{ACTIVE}: \"{name}\"\n")
}

/// Takes the profiles out again that were written, and what held them together if nobody needs it now. Those whose lines
/// are not the ones that were written go by what they say.
///
/// # Errors
/// Conflict (exit 6) when one has been changed since so that its lines cannot be told.
pub(super) fn take_out(text: &str, pieces: &[Piece], shown: &str) -> Result<Stripped> {
    let there = mapping(text, shown).ok();
    take_out_lines(text, there.clone(), pieces, shown).or_else(|failure| {
        there
            .and_then(|there| rewritten::take_out(text, &there, pieces, shown))
            .ok_or(failure)
    })
}

/// Takes out lines that are still as they were written. In a file that is malformed by now nothing can be proven, and they go
/// all the same: there is a key in them.
fn take_out_lines(
    text: &str,
    mut wanted: Option<Mapping>,
    pieces: &[Piece],
    shown: &str,
) -> Result<Stripped> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut parts = Vec::new();
    let mut frame = Vec::new();
    let has = |entries: &[Entry], name: &str| entries.iter().any(|entry| entry.name == name);
    for piece in pieces {
        let Added::Text {
            bytes,
            sha256,
            access_key,
            ..
        } = &piece.added
        else {
            continue;
        };
        let Some(part) = locate(text, *bytes, sha256) else {
            continue;
        };
        match &piece.entry {
            None => frame.push(part),
            Some(name) if has(&entries, name) => {}
            Some(name) => {
                let profile = Profile::read(name, access_key, &text[part.clone()]);
                if let Some(wanted) = &mut wanted {
                    leave_out(wanted, &profile);
                }
                entries.push(Entry::profile(profile));
                parts.push(part);
            }
        }
    }
    let rest = without(text, &parts);
    let differs = pieces.iter().any(|piece| match (&piece.entry, &piece.added) {
        (Some(name), Added::Text { access_key, .. }) => {
            !has(&entries, name) && rest.contains(access_key.as_str())
        }
        _ => false,
    });
    if differs {
        return Err(changed(shown));
    }
    // What holds profiles together goes as far as nobody else needs it.
    let (first, second) = (frame.first(), frame.get(1));
    for frame in [vec![first, second], vec![first], vec![second], vec![]] {
        let frame: Vec<_> = frame.into_iter().flatten().cloned().collect();
        let mut wanted = wanted.clone();
        if let Some(wanted) = &mut wanted {
            for part in &frame {
                leave_out_frame(wanted, &text[part.clone()]);
            }
        }
        let rest = without(text, &[parts.clone(), frame].concat());
        if is(&rest, wanted.as_ref(), shown) {
            return Ok(Stripped::of(rest, entries));
        }
    }
    Err(changed(shown))
}

fn leave_out_frame(wanted: &mut Mapping, frame: &str) {
    if frame.contains(ACTIVE) {
        wanted.shift_remove(ACTIVE);
    } else if wanted.get(PROFILES).is_some_and(is_empty) {
        wanted.shift_remove(PROFILES);
    }
}

/// What the profiles are called that are in a file.
pub(super) fn names(text: &str, shown: &str) -> Result<Vec<String>> {
    let there = mapping(text, shown)?;
    let named = there.get(PROFILES).and_then(Value::as_mapping);
    let mut names: Vec<String> = named.iter().flat_map(|all| all.keys()).map(spelled).collect();
    if there.contains_key("access_key") || there.contains_key("secret_key") {
        names.push(DEFAULT.to_owned());
    }
    Ok(names)
}

fn leave_out(wanted: &mut Mapping, profile: &Profile) {
    if profile.is_default() {
        for (name, _) in profile.fields() {
            wanted.shift_remove(name);
        }
    } else if let Some(all) = wanted.get_mut(PROFILES).and_then(Value::as_mapping_mut) {
        all.shift_remove(profile.name());
    }
}

/// Whether a text says what is wanted. Nothing is wanted of one that was malformed before.
pub(super) fn is(text: &str, wanted: Option<&Mapping>, shown: &str) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    // Without its last profile, the list of them is nothing instead of empty.
    let plain = |mapping: &Mapping| {
        let mut mapping = mapping.clone();
        if mapping.get(PROFILES).is_some_and(is_empty) {
            mapping.insert(PROFILES.into(), Value::Null);
        }
        mapping
    };
    mapping(text, shown).is_ok_and(|there| plain(&there) == plain(wanted))
}

pub(super) fn is_empty(all: &Value) -> bool {
    all.is_null() || all.as_mapping().is_some_and(Mapping::is_empty)
}

fn taken(shown: &str, what: &str) -> Failure {
    Failure::conflict(format!("{shown} has {what} already"))
        .hint("choose another name with --scw-profile (TOWPATH_SCW_PROFILE), or another file")
}

fn profiles_of<'a>(wanted: &'a mut Mapping, shown: &str) -> Result<&'a mut Mapping> {
    let all = wanted
        .entry(PROFILES.into())
        .or_insert_with(|| Value::Mapping(Mapping::new()));
    if all.is_null() {
        *all = Value::Mapping(Mapping::new());
    }
    all.as_mapping_mut()
        .ok_or_else(|| malformed(shown, "`profiles` is not a mapping"))
}

/// A key as Scaleway's tools take it, which read every key as text.
pub(super) fn spelled(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => "null".to_owned(),
        _ => String::new(),
    }
}

/// Where the first profile stands, and how far it is indented.
fn profiles_line(text: &str) -> Option<(usize, String)> {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n');
    for line in lines.by_ref() {
        at += line.len();
        let rest = ["profiles:", "\"profiles\":", "'profiles':"]
            .iter()
            .find_map(|key| line.strip_prefix(key));
        if rest.is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#')) {
            let first = lines.find(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with('#')
            });
            let indent: String = first
                .unwrap_or_default()
                .chars()
                .take_while(|c| *c == ' ')
                .collect();
            return Some((
                at,
                if indent.is_empty() {
                    "  ".to_owned()
                } else {
                    indent
                },
            ));
        }
    }
    None
}

fn mapping(text: &str, shown: &str) -> Result<Mapping> {
    // What the parser says may quote the file, so only the place is told.
    let value: Value = serde_norway::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |place| {
            format!(" at line {}, column {}", place.line(), place.column())
        });
        malformed(shown, &format!("no YAML{place}"))
    })?;
    match value {
        Value::Mapping(mapping) => Ok(mapping),
        Value::Null => Ok(Mapping::new()),
        _ => Err(malformed(shown, "not a mapping")),
    }
}

fn malformed(shown: &str, why: &str) -> Failure {
    Failure::input(format!("{shown} is no configuration of scw: {why}"))
        .hint("it was left as it is: repair it, or choose another file")
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret as _, SecretString};

    use super::*;
    use crate::failure::Kind;
    use crate::scaleway::{Credentials, Field};

    fn credentials() -> Credentials {
        Credentials::gather("a test", |field| match field {
            Field::AccessKey => Some("SCW1234567890ABCDEFG"),
            Field::SecretKey => Some("11111111-2222-4333-8444-caaaaaaaaa02"),
            Field::Zone => Some("fr-par-2"),
            _ => None,
        })
        .expect("credentials")
    }

    fn profile(name: Option<&str>) -> Profile {
        Profile::of(&credentials(), name)
    }

    fn entries(names: &[Option<&str>]) -> Vec<Entry> {
        names.iter().map(|name| Entry::profile(profile(*name))).collect()
    }

    fn put(text: &str, names: &[Option<&str>]) -> Result<Laid> {
        lay(text, &entries(names), text.is_empty(), "f")
    }

    fn read(text: &SecretString) -> serde_json::Value {
        serde_norway::from_str(text.expose_secret()).expect("YAML")
    }

    #[test]
    fn the_default_profile_stands_at_the_top() {
        assert_eq!(
            read(&put("", &[None]).expect("a file").text),
            serde_json::json!({
                "access_key": "SCW1234567890ABCDEFG",
                "secret_key": "11111111-2222-4333-8444-caaaaaaaaa02",
                "default_zone": "fr-par-2",
            })
        );
    }

    #[test]
    fn a_named_profile_is_the_active_one() {
        let document = read(&put("", &[Some("ci")]).expect("a file").text);
        assert_eq!(document["active_profile"], "ci");
        assert_eq!(document["profiles"]["ci"]["default_zone"], "fr-par-2");
        assert!(document.get("secret_key").is_none());
    }

    #[test]
    fn a_profile_goes_between_the_lines_of_others() {
        let files = [
            "access_key: SCWX # mine\nfuture:\n- a\nprofiles: # all\n    # the first\n    prod:\n        access_key: SCWY\n# the end\n",
            "# nothing but words\n",
            "active_profile: prod\nprofiles:\n  prod: {access_key: SCWY}",
            "send_telemetry: true",
            "profiles:\n",
            "profiles:",
            "text: |\n  profiles:\n    no: 1\n",
            "a: 1\r\nprofiles:\r\n  prod:\r\n    access_key: SCWY\r\n",
        ];
        for before in files {
            let all = [None, Some("ci"), Some("z")];
            let names = if before.contains("SCWX") {
                &all[1..]
            } else {
                &all[..]
            };
            for names in [&names[..1], &names[names.len() - 2..], names] {
                let laid = put(before, names).expect(before);
                let text = laid.text.expose_secret();
                if names.contains(&Some("ci")) {
                    assert_eq!(
                        read(&laid.text)["profiles"]["ci"]["default_zone"],
                        "fr-par-2",
                        "{text}"
                    );
                }
                let stripped = take_out(text, &laid.pieces, "f").expect(text);
                assert_eq!(stripped.base.expose_secret(), before, "{text}");
                assert_eq!(stripped.entries.len(), names.len());
            }
        }
        let laid = put(files[2], &[None]).expect("no default");
        assert_eq!(read(&laid.text)["access_key"], "SCW1234567890ABCDEFG");
        assert_eq!(read(&laid.text)["active_profile"], "prod");
    }

    #[test]
    fn what_is_there_or_cannot_be_added_to_is_refused() {
        for (text, kind) in [
            ("profiles:\n  ci:\n    access_key: SCWY\n", Kind::Conflict),
            ("profiles: {prod: {access_key: SCWY}}\n", Kind::Input),
            ("{a: 1}\n", Kind::Input),
            ("- a\n", Kind::Input),
            ("a: [\n", Kind::Input),
            ("a: 1\n...\n", Kind::Input),
            ("a: 1\n---\nb: 2\n", Kind::Input),
            ("profiles: 3\n", Kind::Input),
            ("a: 1\na: 2\n", Kind::Input),
        ] {
            let failure = put(text, &[Some("ci")]).expect_err(text);
            assert_eq!(failure.kind(), kind, "{text}");
        }
        let failure = put("default_zone: fr-par-1\n", &[None]).expect_err("it has one");
        assert_eq!(failure.kind(), Kind::Conflict);
        // Scaleway's tools take a number for a name as well.
        let failure = put("profiles:\n  12:\n    access_key: SCWY\n", &[Some("12")]);
        assert_eq!(failure.expect_err("it is there").kind(), Kind::Conflict);
    }

    #[test]
    fn what_holds_profiles_together_stays_while_somebody_needs_it() {
        let laid = put("", &[Some("ci"), Some("z")]).expect("a file");
        let text = laid.text.expose_secret();
        // A person adds a profile below ours, and lines at the end.
        let theirs = format!("{text}  mine:\n    access_key: SCWY\nsend_telemetry: true\n");
        let stripped = take_out(&theirs, &laid.pieces, "f").expect(&theirs);
        assert_eq!(
            stripped.base.expose_secret(),
            "profiles:\n  mine:\n    access_key: SCWY\nsend_telemetry: true\n"
        );
        // What they broke does not keep the keys in the file.
        let broken = format!("{text}a: [\n");
        let stripped = take_out(&broken, &laid.pieces, "f").expect(&broken);
        assert_eq!(stripped.base.expose_secret(), "a: [\n");
        // A line of ours that they changed stays, and the key goes; what cannot be told from other lines is a conflict.
        let changed = text.replace("fr-par-2", "fr-par-1");
        let stripped = take_out(&changed, &laid.pieces, "f").expect("changed");
        assert_eq!(
            read(&stripped.base),
            serde_json::json!({
                "active_profile": "ci",
                "profiles": {"ci": {"default_zone": "fr-par-1"}, "z": {"default_zone": "fr-par-1"}},
            })
        );
        for broken in [
            text.replace("11111111-2222", "31111111-2222"),
            changed.replace("secret_key: ", "secret_key: >-\n      "),
            format!("{changed}a: [\n"),
        ] {
            let failure = take_out(&broken, &laid.pieces, "f").expect_err(&broken);
            assert_eq!(failure.kind(), Kind::Conflict);
        }
    }

    /// The configuration that a text is, as Scaleway's SDK writes it anew: its comments, its order, its indentation.
    fn anew(text: &str, telemetry: &str) -> String {
        let config: serde_json::Value = serde_norway::from_str(text).expect("YAML");
        let line = |of: &serde_json::Value, key: &str| match of[key].as_str() {
            Some(value) => format!("{key}: {value}\n"),
            None => format!("# {key}: SCW11111111111111111\n"),
        };
        let profile = |of: &serde_json::Value, indent: &str| -> String {
            ["access_key", "secret_key", "default_zone"]
                .iter()
                .map(|key| format!("{indent}{}", line(of, key)))
                .collect()
        };
        let mut anew = format!("# Scaleway configuration file\n\n{}\n", profile(&config, ""));
        anew.push_str(&format!(
            "# A named set.\n{}\nsend_telemetry: {telemetry}\n\n",
            line(&config, "active_profile")
        ));
        match config["profiles"].as_object() {
            Some(profiles) => {
                anew.push_str("profiles:\n");
                for (name, of) in profiles {
                    anew.push_str(&format!("  {name}:\n{}\n", profile(of, "    ")));
                }
            }
            None => anew.push_str("# profiles:\n#   myProfile:\n#     access_key: SCW11111111111111111\n"),
        }
        anew
    }

    #[test]
    fn profiles_go_from_a_file_that_scw_wrote_anew() {
        const OTHERS: &str = "access_key: SCWX\nprofiles:\n  prod:\n    access_key: SCWY\n";
        for (before, names) in [
            ("", &[None][..]),
            ("", &[Some("ci")]),
            ("", &[Some("ci"), Some("z")]),
            ("", &[None, Some("ci")]),
            (OTHERS, &[Some("ci")]),
            (OTHERS, &[Some("a"), Some("z")]),
            ("send_telemetry: true", &[None, Some("ci")]),
        ] {
            let laid = put(before, names).expect(before);
            let rewritten = anew(laid.text.expose_secret(), "false");
            let stripped = take_out(&rewritten, &laid.pieces, "f").expect(&rewritten);
            let base = stripped.base.expose_secret();
            assert_eq!(stripped.entries.len(), names.len());
            assert!(!base.contains("11111111-2222-4333"), "{base}");
            let config = |text: &str| -> serde_json::Value {
                let config: Option<serde_json::Value> = serde_norway::from_str(text).expect("YAML");
                let mut config = config.unwrap_or_else(|| serde_json::json!({}));
                config["send_telemetry"] = false.into();
                config
            };
            assert_eq!(config(base), config(before), "{rewritten}{base}");
            // Written once more, each is found where it is now.
            let again = lay(base, &stripped.entries, before.is_empty(), "f").expect(base);
            let stripped = take_out(again.text.expose_secret(), &again.pieces, "f").expect("it was laid");
            assert_eq!(stripped.base.expose_secret(), base);
            assert_eq!(stripped.entries.len(), names.len());
        }
    }
}
