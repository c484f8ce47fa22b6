//! The images that a Dockerfile names, and what it writes into a folder that is not its own.
//!
//! Source: Dockerfile reference, sections "FROM", "COPY --from", "RUN --mount", "Understand how ARG and FROM interact",
//! "Parser directives" and "Line continuation". Only what decides which images are pulled is read; everything else is the
//! builder's. What may be read in two ways is told as a doubt, so that a list of allowed images cannot be got around by
//! writing a line that the one reader sees and the other does not.

mod expansion;
mod lines;
mod words;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use self::expansion::{default_value, expand, expand_known};
use self::lines::{Instruction, instructions, instructions_in};
use self::words::{Flag, Words};
use self::writes::{File, To, Write, writes};
use crate::bounded;
use crate::failure::{Failure, Kind, Result};

/// Larger than any Dockerfile, in bytes.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// A Dockerfile, as far as images go.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    text: String,
    escape: char,
    stages: Vec<Stage>,
    images: Vec<Image>,
    doubts: Vec<usize>,
    writes: Vec<Write>,
}

/// One `FROM` line and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line it begins on, counted from 1.
    pub line: usize,
    /// The name behind `AS`.
    pub name: Option<String>,
    /// The earlier stage it stands on, by its place.
    base: Option<usize>,
    /// Whether it stands on nothing: `FROM scratch`.
    is_empty: bool,
    /// The earlier stages it takes something from, by their place.
    needs: BTreeSet<usize>,
}

/// An image of a registry that a line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The line, counted from 1.
    pub line: usize,
    /// The image as written, with arguments filled in.
    pub name: String,
    /// The value of `--platform`, where it is known.
    pub platform: Option<String>,
    /// The stage it belongs to, by its place.
    stage: usize,
    instruction: Instruction,
    written: Written,
}

/// How a line names an image.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    /// `FROM image`, at this place in the instruction's text.
    From(Range<usize>),
    /// `--from=image`, or `--mount=...,from=image,...`.
    Flag(Flag),
}

/// An instruction that writes into a folder, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intrusion {
    /// The line, counted from 1.
    pub line: usize,
    /// `COPY`, `ADD`, `WORKDIR` or `RUN`.
    pub instruction: String,
    /// Where it writes; of `RUN` the folder, which it names.
    pub path: String,
    /// Whether files are certainly copied there.
    pub is_copy: bool,
}

/// Reads the Dockerfile at `path`. `build_args` override the defaults of `ARG` lines.
///
/// # Errors
/// Input (exit 3), naming file and line, when there is no `FROM`, one is malformed, or an argument has no value; usage
/// (exit 2) when there is no such file.
pub fn read(path: &Path, build_args: &BTreeMap<String, String>) -> Result<Dockerfile> {
    let shown = path.display().to_string();
    let text = bounded::read_text(path, SIZE_LIMIT).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::InvalidData | ErrorKind::FileTooLarge => Kind::Input,
            _ => Kind::Usage,
        };
        Failure::new(kind, format!("cannot read the Dockerfile {shown}"))
            .because(error)
            .hint("pass its path as --dockerfile (TOWPATH_DOCKERFILE)")
    })?;
    Dockerfile::parse(&text, &shown, build_args)
}

impl Dockerfile {
    /// Reads a Dockerfile's text. `shown` names it in messages.
    ///
    /// # Errors
    /// As [`read`].
    pub fn parse(text: &str, shown: &str, build_args: &BTreeMap<String, String>) -> Result<Self> {
        let read = instructions(text);
        let mut reader = Reader {
            shown,
            build_args,
            values: BTreeMap::new(),
            stages: Vec::new(),
            images: Vec::new(),
        };
        let mut doubts = Vec::new();
        for instruction in read.all.iter().cloned() {
            if instruction.is_doubtful {
                doubts.push(instruction.line());
            }
            let hidden = instructions_in(text, instruction.body.clone(), read.escape);
            doubts.extend(
                hidden
                    .iter()
                    .filter(|line| may_name_image(line, read.escape))
                    .map(Instruction::line),
            );
            reader.take(instruction, read.escape)?;
        }
        if reader.stages.is_empty() {
            return Err(Failure::input(format!("{shown} has no FROM line")));
        }
        let writes = writes(&File {
            text,
            read: &read,
            stages: &reader.stages,
            global: &reader.values,
            build_args,
        });
        Ok(Dockerfile {
            text: text.to_owned(),
            escape: read.escape,
            stages: reader.stages,
            images: reader.images,
            doubts,
            writes,
        })
    }

    /// The text as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every image that is named, whether the build needs it or not, in the order of the lines.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The lines, counted from 1, that one builder may take for an instruction with an image and another not.
    #[must_use]
    pub fn doubts(&self) -> &[usize] {
        &self.doubts
    }

    /// The place of a stage that is built: by its name or number, or the last one.
    ///
    /// # Errors
    /// Usage (exit 2) when there is none of that name.
    pub fn target(&self, name: Option<&str>) -> Result<usize> {
        let Some(name) = name else {
            return Ok(self.stages.len() - 1);
        };
        find(&self.stages, name).ok_or_else(|| {
            let names: Vec<&str> = self
                .stages
                .iter()
                .filter_map(|stage| stage.name.as_deref())
                .collect();
            let known = match names.as_slice() {
                [] => "none has a name".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            Failure::usage(format!("the Dockerfile has no stage {name:?}")).hint(format!(
                "name a stage as --target (TOWPATH_TARGET_STAGE): {known}"
            ))
        })
    }

    /// The images that a build of this stage pulls, by their place in [`Dockerfile::images`].
    #[must_use]
    pub fn needed(&self, target: usize) -> Vec<usize> {
        let stages = self.needed_stages(target);
        let needed = |image: &Image| stages.contains(&image.stage);
        (0..self.images.len())
            .filter(|place| needed(&self.images[*place]))
            .collect()
    }

    /// What a build of this stage writes into a folder, named by its absolute path without a slash at the end, in the order
    /// of the lines.
    ///
    /// Links are not followed, and what only the base image knows is not known here: its variables, and its working folder.
    /// A `COPY` of a folder into one above is not looked into.
    #[must_use]
    pub fn intrusions(&self, target: usize, folder: &str) -> Vec<Intrusion> {
        let stages = self.needed_stages(target);
        let into = |write: &Write| {
            let (instruction, path, is_copy) = match &write.to {
                To::Copied(instruction, path) => (instruction.as_str(), path.as_str(), true),
                To::Folder(path) => ("WORKDIR", path.as_str(), false),
                To::Step(text) if writes::names(text, folder) => ("RUN", folder, false),
                To::Step(_) => return None,
            };
            writes::is_in(path, folder).then(|| Intrusion {
                line: write.line,
                instruction: instruction.to_owned(),
                path: path.to_owned(),
                is_copy,
            })
        };
        self.writes
            .iter()
            .filter(|write| stages.contains(&write.stage))
            .filter_map(into)
            .collect()
    }

    /// The stages that a build of this one goes through, by their places.
    fn needed_stages(&self, target: usize) -> BTreeSet<usize> {
        let mut stages = BTreeSet::from([target]);
        // A stage needs earlier ones alone.
        for place in (0..=target).rev() {
            if stages.contains(&place) {
                stages.extend(self.stages[place].needs.iter().copied());
            }
        }
        stages
    }

    /// The image that a stage stands on in the end, by its place in [`Dockerfile::images`]; none for `scratch`.
    #[must_use]
    pub fn base_of(&self, stage: usize) -> Option<usize> {
        match self.stages.get(stage)?.base {
            Some(earlier) => self.base_of(earlier),
            None => {
                let is_base =
                    |image: &Image| image.stage == stage && matches!(image.written, Written::From(_));
                self.images.iter().position(is_base)
            }
        }
    }

    /// The text with other names for some of the images, by their place in [`Dockerfile::images`]. Every line keeps its
    /// number, so that what the builder says of a line is true of the original.
    #[must_use]
    pub fn with_images(&self, names: &BTreeMap<usize, String>) -> String {
        let mut lines: Vec<String> = self.text.lines().map(str::to_owned).collect();
        for image in self.images.iter().rev() {
            // Several flags of one instruction may name images.
            lines[image.instruction.lines.clone()].fill(String::new());
        }
        let mut texts: BTreeMap<usize, (Range<usize>, String)> = BTreeMap::new();
        for (place, image) in self.images.iter().enumerate().rev() {
            let own = &image.instruction;
            let (_, text) = texts
                .entry(own.lines.start)
                .or_insert_with(|| (own.lines.clone(), own.text.clone()));
            if let Some(name) = names.get(&place) {
                // The last one first, so that the places of those before it stay true.
                let (word, new) = match &image.written {
                    Written::From(word) => (word, name.clone()),
                    Written::Flag(flag) => (&flag.place, flag_with(flag, name, self.escape)),
                };
                text.replace_range(word.clone(), &new);
            }
        }
        for (own, text) in texts.into_values() {
            lines[own.end - 1] = text;
        }
        let mut text = lines.join("\n");
        text.push('\n');
        text
    }
}

/// What is known so far of a file that is being read.
struct Reader<'a> {
    shown: &'a str,
    build_args: &'a BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    stages: Vec<Stage>,
    images: Vec<Image>,
}

impl Reader<'_> {
    fn take(&mut self, instruction: Instruction, escape: char) -> Result<()> {
        let words = words::split(&instruction.text, escape);
        match words.keyword.as_str() {
            // Only the arguments before the first FROM are visible to FROM lines.
            "ARG" if self.stages.is_empty() => {
                self.take_arguments(&instruction.text[words.arguments..]);
                Ok(())
            }
            "FROM" => self.take_stage(instruction, &words),
            "COPY" | "ADD" | "RUN" => self.take_flags(&instruction, words),
            _ => Ok(()),
        }
    }

    fn take_arguments(&mut self, text: &str) {
        for word in text.split_whitespace() {
            let (name, default) = word.split_once('=').unwrap_or((word, ""));
            let value = match self.build_args.get(name) {
                Some(value) => Some(value.clone()),
                None => default_value(default, &self.values),
            };
            self.values.insert(name.to_owned(), value.unwrap_or_default());
        }
    }

    fn take_stage(&mut self, instruction: Instruction, words: &Words) -> Result<()> {
        let line = instruction.line();
        let arguments = &instruction.text[words.arguments..];
        let rest: Vec<&str> = arguments.split_whitespace().collect();
        let (image, name) = match rest[..] {
            [image] => (image, None),
            [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(name.to_owned())),
            _ => return Err(self.at(line, "FROM takes an image and perhaps AS and a name")),
        };
        let word = words.arguments..words.arguments + image.len();
        let quoted = |quote| image.strip_prefix(quote)?.strip_suffix(quote);
        let image = quoted('"').or_else(|| quoted('\'')).unwrap_or(image);
        let image = expand(image, &self.values).map_err(|name| {
            self.at(line, &format!("the argument {name} has no value"))
                .hint(format!("pass --build-arg {name}=VALUE"))
        })?;
        if image.is_empty() {
            return Err(self.at(line, "FROM names no image"));
        }
        let base = find_named(&self.stages, &image);
        let is_empty = base.is_none() && image == "scratch";
        if base.is_none() && !is_empty {
            let platform = words.flags.iter().find_map(|flag| flag.value("platform"));
            self.images.push(Image {
                line,
                name: image,
                platform: platform.map(|platform| expand_known(platform, &self.values)),
                stage: self.stages.len(),
                instruction,
                written: Written::From(word),
            });
        }
        self.stages.push(Stage {
            line,
            name,
            base,
            is_empty,
            needs: base.into_iter().collect(),
        });
        Ok(())
    }

    fn take_flags(&mut self, instruction: &Instruction, words: Words) -> Result<()> {
        for flag in words.flags {
            let Some(source) = source_of(&words.keyword, &flag) else {
                continue;
            };
            let line = instruction.line();
            let Some(stage) = self.stages.len().checked_sub(1) else {
                return Err(self.at(line, "an instruction stands before the first FROM"));
            };
            if flag.is_open {
                return Err(self.at(line, "a quote in a flag that names an image is not closed"));
            }
            if source.is_empty() {
                return Err(self.at(line, "from names neither a stage nor an image"));
            }
            if source.contains('$') {
                return Err(self
                    .at(line, "an argument stands where a stage or an image is copied from")
                    .hint("builders do not fill it in there: write a FROM line with it, and copy from that stage"));
            }
            match find(&self.stages[..stage], source) {
                Some(earlier) => {
                    self.stages[stage].needs.insert(earlier);
                }
                None => self.images.push(Image {
                    line,
                    name: source.to_owned(),
                    platform: None,
                    stage,
                    instruction: instruction.clone(),
                    written: Written::Flag(flag),
                }),
            }
        }
        Ok(())
    }

    fn at(&self, line: usize, what: &str) -> Failure {
        Failure::input(format!("{}, line {line}: {what}", self.shown))
    }
}

/// A stage by its name, in whatever case, or by its number.
fn find(stages: &[Stage], name: &str) -> Option<usize> {
    let number = || name.parse().ok().filter(|place: &usize| *place < stages.len());
    find_named(stages, name).or_else(number)
}

fn find_named(stages: &[Stage], name: &str) -> Option<usize> {
    let is_it = |stage: &Stage| {
        stage
            .name
            .as_deref()
            .is_some_and(|own| own.eq_ignore_ascii_case(name))
    };
    // The last one of a name counts.
    stages.iter().rposition(is_it)
}

/// What a flag takes files from.
fn source_of<'f>(keyword: &str, flag: &'f Flag) -> Option<&'f str> {
    match keyword {
        "COPY" | "ADD" => flag.value("from"),
        "RUN" => flag.value("mount")?.split(',').find_map(from_field),
        _ => None,
    }
}

/// The value of a mount's field `from`, whose name is read in any case.
fn from_field(field: &str) -> Option<&str> {
    // The fields are read as CSV, where quotes may stand around each.
    let (name, value) = field.trim().trim_matches('"').split_once('=')?;
    name.trim().eq_ignore_ascii_case("from").then(|| value.trim())
}

/// The flag with another image in the same place.
fn flag_with(flag: &Flag, name: &str, escape: char) -> String {
    let text = match flag.value("mount") {
        Some(mount) => {
            let fields = mount.split(',').map(|field| match from_field(field) {
                Some(_) => format!("from={name}"),
                None => field.to_owned(),
            });
            format!("--mount={}", fields.collect::<Vec<_>>().join(","))
        }
        None => format!("--from={name}"),
    };
    // Blanks and quotes that the flag had inside of quotes need them again.
    let mut quoted = String::new();
    for letter in text.chars() {
        if letter.is_whitespace() || letter == escape || matches!(letter, '"' | '\'') {
            quoted.push(escape);
        }
        quoted.push(letter);
    }
    quoted
}

/// Whether a line in a here-document would name an image, or a stage, if it were an instruction.
fn may_name_image(instruction: &Instruction, escape: char) -> bool {
    let words = words::split(&instruction.text, escape);
    words.keyword == "FROM"
        || words
            .flags
            .iter()
            .any(|flag| source_of(&words.keyword, flag).is_some())
}

#[cfg(test)]
mod tests;
