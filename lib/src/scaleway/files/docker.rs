//! Logins in a `config.json` of docker that others write to as well.
//!
//! A login goes in and out as one member of `auths`, and no other byte changes: numbers keep their form, repeated keys
//! stay repeated. That it was so is proven by looking at the text again.
//!
//! Source: docker's documentation, "docker login", sections "Credential stores" and "Credential helpers": a helper for a
//! registry, or else a store for all, comes before what is in the file. Its reader matches names whatever their case.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::entry::{Entry, Laid, Stripped};
use super::json::{self, Member};
use super::receipt::{Added, Piece, fingerprint};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// How a new one looks.
const SKELETON: &str = "{\n\t\"auths\": {}\n}";

/// Adds logins to a configuration.
///
/// # Errors
/// Input (exit 3) when it is no configuration; conflict (exit 6) when it has another login there, or asks somebody else.
pub(super) fn lay(base: &str, entries: &[Entry], shown: &str) -> Result<Laid> {
    let mut text = base.to_owned();
    let mut pieces = Vec::new();
    if base.trim().is_empty() && !entries.is_empty() {
        text.insert_str(0, SKELETON);
        pieces.push(Piece::of(None, Added::Object));
        pieces.push(Piece::of(None, Added::Auths));
    }
    for entry in entries {
        let (host, auth) = (&entry.name, entry.secret());
        let (open, root) = root(&text, shown)?;
        refuse_helpers(&text, &root, host, shown)?;
        let auths = match auths(&text, &root, shown)? {
            Some(auths) => auths,
            None => {
                text = json::put_first(&text, open, "auths", "{}");
                pieces.push(Piece::of(None, Added::Auths));
                // It is the first one now.
                json::members(&text, open)
                    .and_then(|root| root.first().map(|auths| auths.value.start))
                    .unwrap_or(open)
            }
        };
        let logins = json::members(&text, auths).unwrap_or_default();
        let mut there = logins.iter().filter(|login| login.name == *host).peekable();
        if there.peek().is_some() {
            if there.all(|login| auth_of(&text, login).as_deref() == Some(auth.expose())) {
                continue;
            }
            return Err(
                Failure::conflict(format!("{shown} holds another login to {host}"))
                    .hint(format!("choose another folder, or `docker logout {host}` first")),
            );
        }
        let login = format!("{{\"auth\": {}}}", Value::from(auth.expose()));
        text = json::put_first(&text, auths, host, &login);
        let sha256 = fingerprint(auth.expose());
        pieces.push(Piece::of(Some(host), Added::Login { sha256 }));
    }
    prove(base, &text, &pieces, shown)?;
    Ok(Laid::of(text, pieces))
}

/// Takes logins out again that are still as they were added. Docker may have written the file anew meanwhile.
///
/// # Errors
/// Input (exit 3) when it is no configuration.
pub(super) fn take_out(text: &str, pieces: &[Piece], shown: &str) -> Result<Stripped> {
    let mut text = text.to_owned();
    let mut entries: Vec<Entry> = Vec::new();
    if text.trim().is_empty() {
        return Ok(Stripped::of(text, entries));
    }
    let (open, _) = root(&text, shown)?;
    for piece in pieces {
        let (Some(host), Added::Login { sha256 }) = (&piece.entry, &piece.added) else {
            continue;
        };
        let Some(auths) = auths(&text, &root(&text, shown)?.1, shown)? else {
            continue;
        };
        let logins = json::members(&text, auths).unwrap_or_default();
        let ours = logins.iter().enumerate().find_map(|(index, login)| {
            let auth = auth_of(&text, login).filter(|auth| fingerprint(auth) == *sha256)?;
            (login.name == *host).then_some((index, auth))
        });
        if let Some((index, auth)) = ours {
            text = json::take_out(&text, auths, index);
            entries.push(Entry::login(host, Secret::new(auth)));
        }
    }
    let is_ours = |added: Added| pieces.iter().any(|piece| piece.added == added);
    let members = root(&text, shown)?.1;
    let empty = members.iter().position(|member| {
        member.name == "auths"
            && json::members(&text, member.value.start).is_some_and(|logins| logins.is_empty())
    });
    if let Some(index) = empty.filter(|_| is_ours(Added::Auths)) {
        text = json::take_out(&text, open, index);
    }
    if is_ours(Added::Object) && root(&text, shown)?.1.is_empty() {
        let end = json::end(&text, open);
        text.replace_range(open..end, "");
    }
    Ok(Stripped::of(text, entries))
}

/// What registries there are logins to.
pub(super) fn names(text: &str, shown: &str) -> Result<Vec<String>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (_, root) = root(text, shown)?;
    let logins = auths(text, &root, shown)?.and_then(|auths| json::members(text, auths));
    Ok(logins
        .unwrap_or_default()
        .into_iter()
        .map(|login| login.name)
        .collect())
}

/// Where the configuration begins, and what is in it.
fn root(text: &str, shown: &str) -> Result<(usize, Vec<Member>)> {
    // serde's own words may repeat a value of the file, so only the place is told.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        malformed(
            shown,
            &format!("no JSON at line {}, column {}", error.line(), error.column()),
        )
    })?;
    let open = json::start(text);
    let members = json::members(text, open).ok_or_else(|| malformed(shown, "not an object"))?;
    Ok((open, members))
}

/// Where the object of logins begins, if there is one.
fn auths(text: &str, root: &[Member], shown: &str) -> Result<Option<usize>> {
    let mut found = root.iter().filter(|member| member.name == "auths");
    let Some(auths) = found.next() else {
        return Ok(None);
    };
    if let Some(second) = found.next() {
        let (line, column) = place(text, second.at);
        return Err(malformed(
            shown,
            &format!("`auths` for the second time at line {line}, column {column}"),
        ));
    }
    let open = auths.value.start;
    if json::members(text, open).is_none() {
        let (line, column) = place(text, open);
        return Err(malformed(
            shown,
            &format!("`auths` is not an object at line {line}, column {column}"),
        ));
    }
    Ok(Some(open))
}

/// Line and column, as people count them.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

fn auth_of(text: &str, login: &Member) -> Option<String> {
    let login: Value = serde_json::from_str(&text[login.value.clone()]).ok()?;
    login.get("auth")?.as_str().map(str::to_owned)
}

fn malformed(shown: &str, why: &str) -> Failure {
    Failure::input(format!("{shown} is no configuration of docker: {why}"))
        .hint("it was left as it is: repair it, or choose another folder")
}

fn refuse_helpers(text: &str, root: &[Member], host: &str, shown: &str) -> Result<()> {
    let named = |value: &str| {
        let name: String = serde_json::from_str(value).ok()?;
        (!name.is_empty()).then_some(name)
    };
    let of = |name: &'static str| {
        root.iter()
            .filter(move |member| member.name.eq_ignore_ascii_case(name))
    };
    let helper = of("credHelpers")
        .flat_map(|helpers| json::members(text, helpers.value.start).unwrap_or_default())
        .filter(|helper| helper.name == host)
        .find_map(|helper| named(&text[helper.value]));
    let store = || of("credsStore").find_map(|store| named(&text[store.value.clone()]));
    match helper.or_else(store) {
        None => Ok(()),
        Some(helper) => Err(Failure::conflict(format!(
            "{shown} lets docker ask the helper {helper} for {host}, so a login in the file is not looked at"
        ))
        .hint("choose another folder, and point DOCKER_CONFIG to it")),
    }
}

/// Sees that the two texts differ in our logins alone.
fn prove(before: &str, after: &str, pieces: &[Piece], shown: &str) -> Result<()> {
    if before.trim().is_empty() || pieces.is_empty() {
        return Ok(());
    }
    let is_ours = |name: &str| pieces.iter().any(|piece| piece.entry.as_deref() == Some(name));
    let outline = |text: &str, all: bool| -> Result<Vec<String>> {
        let (_, root) = root(text, shown)?;
        let mut outline = Vec::new();
        for member in &root {
            match json::members(text, member.value.start).filter(|_| member.name == "auths") {
                Some(logins) => outline.extend(
                    logins
                        .iter()
                        .filter(|login| all || !is_ours(&login.name))
                        .map(|login| text[login.at..login.value.end].to_owned()),
                ),
                None => outline.push(text[member.at..member.value.end].to_owned()),
            }
        }
        Ok(outline)
    };
    if outline(before, true)? == outline(after, false)? {
        return Ok(());
    }
    Err(Failure::internal(format!(
        "a login cannot be added to {shown} without changing more"
    ))
    .hint("it was left as it is: choose another folder, and report this"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::failure::Kind;

    const BEFORE: &str = "{\n    \"credHelpers\": {\n        \"ecr.example\": \"ecr-login\"\n    },\n    \"auths\": {\n        \"z.example\": {\n            \"auth\": \"eDp5\"\n        },\n        \"a.example\": {\n            \"auth\": \"eDp5\",\n            \"email\": \"me\"\n        }\n    },\n    \"psFormat\": \"x\",\n    \"future\": [\n        1.5,\n        null\n    ]\n}";

    fn logins() -> Vec<Entry> {
        vec![Entry::login(
            "rg.fr-par.scw.cloud",
            Secret::new("canary-of-the-docker-merge"),
        )]
    }

    fn add(text: &str) -> Result<(String, Vec<Piece>)> {
        let laid = lay(text, &logins(), "f")?;
        Ok((laid.text.expose_secret().to_owned(), laid.pieces))
    }

    fn rest(text: &str, pieces: &[Piece]) -> String {
        let stripped = take_out(text, pieces, "f").expect("a configuration");
        stripped.base.expose_secret().to_owned()
    }

    #[test]
    fn a_login_comes_and_goes_and_the_rest_stays_as_it_is() {
        let odd = "{\"n\":[1.10,1e5,123456789012345678901234567890,1e999],\"n\":2,\r\n  \"auths\" : { } ,\"z\":{\"b\":1,\"b\":1}}";
        let crlf = BEFORE.replace('\n', "\r\n");
        for before in [
            BEFORE,
            &format!("{BEFORE}\n"),
            &crlf,
            odd,
            "{}\n",
            "{\n}",
            "",
            " \n\n",
        ] {
            let (merged, pieces) = add(before).unwrap();
            let document: Value = serde_json::from_str(&merged.replace("1e999", "1e9")).expect("JSON");
            assert_eq!(
                document["auths"]["rg.fr-par.scw.cloud"]["auth"], "canary-of-the-docker-merge",
                "{merged}"
            );
            assert_eq!(rest(&merged, &pieces), before);
        }
    }

    #[test]
    fn a_login_that_somebody_changed_stays() {
        let (merged, pieces) = add(BEFORE).unwrap();
        let changed = merged.replace("canary-of-the-docker-merge", "somebody");
        assert_eq!(rest(&changed, &pieces), changed);
    }

    #[test]
    fn what_docker_would_not_look_at_or_is_somebody_elses_is_refused() {
        for (text, kind) in [
            ("{", Kind::Input),
            ("[]", Kind::Input),
            (r#"{"auths":[]}"#, Kind::Input),
            (r#"{"auths":null}"#, Kind::Input),
            (r#"{"auths":{},"\u0061uths":{}}"#, Kind::Input),
            ("{} {}", Kind::Input),
            ("\u{feff}{}", Kind::Input),
            (
                r#"{"auths":{"rg.fr-par.scw.cloud":{"auth":"eDp5"}}}"#,
                Kind::Conflict,
            ),
            (r#"{"auths":{"rg.fr-par.scw.cloud":{}}}"#, Kind::Conflict),
            (r#"{"credsStore":"desktop"}"#, Kind::Conflict),
            (r#"{"CREDSSTORE":"desktop"}"#, Kind::Conflict),
            (r#"{"credHelpers":{"rg.fr-par.scw.cloud":"x"}}"#, Kind::Conflict),
        ] {
            let failure = add(text).expect_err(text);
            assert_eq!(failure.kind(), kind, "{text}");
            assert!(!format!("{failure:?}").contains("eDp5"), "{failure:?}");
        }
        assert!(add(r#"{"credsStore":""}"#).is_ok());
        let twice = add("{\n \"auths\": {},\n \"auths\": {}}").expect_err("twice");
        assert!(twice.message().ends_with("at line 3, column 2"), "{twice}");
    }
}
