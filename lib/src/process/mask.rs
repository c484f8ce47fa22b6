//! Taking secrets out of what a command prints, while it prints.
//!
//! A secret is looked for in every form of [`crate::secret::visible_forms`], wherever the chunks that the bytes come in begin
//! and end. What cannot be the beginning of a secret goes out at once; what can be waits. A wait of a few bytes, which
//! are most likely the end of a prompt, is cut short by [`Masker::relent`]. Every other byte stays as it is.

use std::sync::Arc;

use crate::secret::{Form, MASK, visible_forms};

/// This many bytes of a secret are nothing that ordinary output ends with.
const TELLING: usize = 4;
/// A beginning of a secret of this many bytes is masked when nothing follows it any more.
const PARTIAL: usize = 8;
/// Lines of base64 and the like are indented by this many blanks at most.
const INDENT: usize = 64;

/// What is looked for. Cloning shares it.
#[derive(Clone)]
pub struct Mask(Arc<Forms>);

struct Forms {
    /// Longest first, so that a secret that contains another is masked whole.
    forms: Vec<Form>,
    /// Which of them begin with a byte.
    by_first: [Vec<usize>; 256],
}

/// What the forms say about a place in the output.
struct Seen {
    /// How long the longest form is that is there in full.
    whole: Option<usize>,
    /// Whether a longer one may still come to be there.
    maybe: bool,
}

/// One stream's masking. Feed it with [`Masker::push`], and end it with [`Masker::finish`].
pub(super) struct Masker {
    mask: Mask,
    held: Vec<u8>,
    /// How many bytes of `held` went out already.
    shown: usize,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

impl Mask {
    /// Masks every secret that this process knows by now.
    #[must_use]
    pub fn of_known_secrets() -> Self {
        Self::of(visible_forms())
    }

    fn of(mut forms: Vec<Form>) -> Self {
        forms.retain(|form| !form.bytes.is_empty());
        forms.sort_by(|one, other| {
            let longest_first = other.bytes.len().cmp(&one.bytes.len());
            longest_first.then_with(|| (&*one.bytes, one.may_break).cmp(&(&*other.bytes, other.may_break)))
        });
        forms.dedup();
        let mut by_first = std::array::from_fn(|_| Vec::new());
        for (index, form) in forms.iter().enumerate() {
            by_first[usize::from(form.bytes[0])].push(index);
        }
        Mask(Arc::new(Forms { forms, by_first }))
    }

    pub(super) fn masker(&self) -> Masker {
        Masker {
            mask: self.clone(),
            held: Vec::new(),
            shown: 0,
        }
    }

    fn look(&self, bytes: &[u8]) -> Seen {
        let mut seen = Seen {
            whole: None,
            maybe: false,
        };
        for &index in &self.0.by_first[usize::from(bytes[0])] {
            match fit(&self.0.forms[index], bytes) {
                Fit::No => {}
                Fit::Begins => seen.maybe = true,
                Fit::Is(length) => {
                    seen.whole = Some(length);
                    break;
                }
            }
        }
        seen
    }
}

/// Whether a form is where `bytes` begin.
enum Fit {
    No,
    /// So far; the bytes end before the form does.
    Begins,
    /// It takes up so many bytes.
    Is(usize),
}

fn fit(form: &Form, bytes: &[u8]) -> Fit {
    let mut at = 0;
    for (index, letter) in form.bytes.iter().enumerate() {
        if form.may_break && index > 0 {
            at += line_break(&bytes[at..]);
        }
        match bytes.get(at) {
            None => return Fit::Begins,
            Some(byte) if byte == letter => at += 1,
            Some(_) => return Fit::No,
        }
    }
    Fit::Is(at)
}

/// How long the end of a line is that `bytes` begin with, as it is or as in JSON, with the indent of the next one. One of
/// which the second half is still to come counts as well.
fn line_break(bytes: &[u8]) -> usize {
    let ends: [&[u8]; 4] = [b"\r\n", b"\n", b"\\r\\n", b"\\n"];
    if let Some(end) = ends.iter().find(|end| bytes.starts_with(end)) {
        let indent = bytes[end.len()..].iter().take(INDENT);
        return end.len() + indent.take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    }
    if ends.iter().any(|end| end.starts_with(bytes)) {
        return bytes.len();
    }
    0
}

impl Masker {
    /// Takes what the command printed, and adds to `out` what may go on.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(chunk);
        self.advance(false, out);
    }

    /// Adds what is left to `out`, now that nothing follows.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.advance(true, out);
    }

    /// Whether a few bytes wait that should not wait for long.
    pub(super) fn is_prompt(&self) -> bool {
        self.held.len() > self.shown && self.held.trim_ascii_end().len() < TELLING
    }

    /// Lets the few bytes of [`Masker::is_prompt`] go. Should they be the beginning of a secret after all, only they
    /// were seen: what follows is masked.
    pub(super) fn relent(&mut self, out: &mut Vec<u8>) {
        if self.is_prompt() {
            out.extend_from_slice(&self.held[self.shown..]);
            self.shown = self.held.len();
        }
    }

    fn advance(&mut self, last: bool, out: &mut Vec<u8>) {
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let plain = rest
                .iter()
                .position(|&byte| !self.mask.0.by_first[usize::from(byte)].is_empty())
                .unwrap_or(rest.len());
            if plain > 0 {
                self.show(at, at + plain, out);
                at += plain;
                continue;
            }
            let seen = self.mask.look(rest);
            if seen.maybe && !last {
                break;
            }
            let length = match seen.whole {
                Some(length) => length,
                None if seen.maybe && rest.len() >= PARTIAL => rest.len(),
                None => {
                    self.show(at, at + 1, out);
                    at += 1;
                    continue;
                }
            };
            out.extend_from_slice(MASK.as_bytes());
            at += length;
        }
        self.held.drain(..at);
        self.shown = self.shown.saturating_sub(at);
    }

    fn show(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.held[from.max(self.shown.min(to))..to]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(forms: &[&str]) -> Mask {
        Mask::of(
            forms
                .iter()
                .map(|form| Form {
                    bytes: form.as_bytes().to_vec().into(),
                    may_break: false,
                })
                .collect(),
        )
    }

    fn masked(mask: &Mask, chunks: &[&[u8]]) -> Vec<u8> {
        let mut masker = mask.masker();
        let mut out = Vec::new();
        for chunk in chunks {
            masker.push(chunk, &mut out);
        }
        masker.finish(&mut out);
        out
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_secret_is_masked_across_chunks_and_beside_another() {
        let mask = mask(&["canary-one", "canary-one-and-more"]);
        let chunks: [&[u8]; 4] = [b"a can", b"ary-one-and-m", b"orecanary-on", b"e b"];
        assert_eq!(text(&masked(&mask, &chunks)), "a ******** b");
        assert_eq!(text(&masked(&mask, &[b"canary-one-and-les"])), "****-and-les");
        assert_eq!(text(&masked(&mask, &[b"canary-onions"])), "canary-onions");
    }

    #[test]
    fn what_cannot_be_a_secret_goes_out_at_once() {
        let mut masker = mask(&["canary-one"]).masker();
        let mut out = Vec::new();
        masker.push(b"\xff\x00 half a line, c", &mut out);
        assert_eq!(out, b"\xff\x00 half a line, ");
        assert!(masker.is_prompt());
        masker.relent(&mut out);
        assert!(out.ends_with(b", c"));
        masker.push(b"anary-one!", &mut out);
        assert!(out.ends_with(b", c****!"), "{}", String::from_utf8_lossy(&out));
        out.clear();
        masker.push(b"canary", &mut out);
        assert!(!masker.is_prompt(), "so much of a secret is no prompt");
    }

    #[test]
    fn a_form_that_may_break_is_masked_wherever_it_does() {
        let form = |may_break| {
            Mask::of(vec![Form {
                bytes: b"canary-one".to_vec().into(),
                may_break,
            }])
        };
        for text in [
            "a canary\n-one b",
            "a canary-on\r\n    e b",
            "a c\na\nn\na\nr\ny\n-\no\nn\ne b",
            r"a canary\n-o\r\nne b",
        ] {
            for cut in 0..text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(
                    self::text(&masked(&form(true), &[one, other])),
                    "a **** b",
                    "{text:?}"
                );
            }
            let kept = masked(&form(false), &[text.as_bytes()]);
            assert_eq!(self::text(&kept), text);
        }
        for text in [
            "canary\n\n-one",
            "canary -one",
            "\ncanary",
            "canary-on\r",
            r"canary\",
        ] {
            let kept = masked(&form(true), &[text.as_bytes()]);
            let cut = text.strip_prefix("canary-on").map_or(text, |_| MASK);
            assert_eq!(self::text(&kept), cut, "{text:?}");
        }
    }

    #[test]
    fn most_of_a_secret_is_masked_at_the_end() {
        let mask = mask(&["canary-one"]);
        assert_eq!(text(&masked(&mask, &[b"x canary-on"])), "x ****");
        assert_eq!(text(&masked(&mask, &[b"x canar"])), "x canar");
    }

    /// Two letters make overlaps, prefixes and repetitions likely.
    fn word(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof![Just('a'), Just('b')], length)
            .prop_map(|letters| letters.into_iter().collect())
    }

    fn split(text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut rest = text;
        for cut in cuts {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk.to_vec());
            rest = after;
        }
        chunks.push(rest.to_vec());
        chunks
    }

    proptest! {
        #[test]
        fn chunks_never_change_the_result(
            forms in proptest::collection::vec(word(2..12), 1..5),
            text in word(0..80),
            cuts in proptest::collection::vec(0_usize..9, 0..30),
        ) {
            let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
            let mask = mask(&forms);
            let chunks = split(text.as_bytes(), &cuts);
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let whole = masked(&mask, &[text.as_bytes()]);
            prop_assert_eq!(masked(&mask, &chunks), whole.clone());
            let shown = String::from_utf8(whole).expect("text");
            for form in forms {
                prop_assert!(!shown.contains(form), "{} in {}", form, shown);
            }
        }

        #[test]
        fn no_secret_leaves_when_it_is_let_go_early(
            forms in proptest::collection::vec(word(TELLING..12), 1..5),
            text in word(0..80),
            cuts in proptest::collection::vec(0_usize..9, 0..30),
        ) {
            let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
            let mut masker = mask(&forms).masker();
            let mut out = Vec::new();
            for chunk in split(text.as_bytes(), &cuts) {
                masker.push(&chunk, &mut out);
                masker.relent(&mut out);
            }
            masker.finish(&mut out);
            let shown = String::from_utf8(out).expect("text");
            for form in forms {
                prop_assert!(!shown.contains(form), "{} in {}", form, shown);
            }
        }

        #[test]
        fn bytes_without_a_secret_stay_as_they_are(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0_usize..40, 0..10),
        ) {
            let mask = mask(&["canary-of-the-mask-test"]);
            let chunks = split(&bytes, &cuts);
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(masked(&mask, &chunks), bytes);
        }
    }
}
