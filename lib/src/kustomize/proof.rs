//! The proof after an edit: read by another parser, the file differs as intended and in nothing else.

use serde_norway::{Mapping, Value};

use super::entry::{DIGEST, NAME, NEW_NAME, NEW_TAG};
use super::image::ImageState;

/// Why an edit is not the intended one.
#[derive(Debug, thiserror::Error)]
#[error("the edited file would differ from the intended one")]
pub(super) struct Difference;

/// Entry `index` went from `old` to `new`, and nothing else changed.
pub(super) fn replaced(
    before: &Value,
    after: &Value,
    index: usize,
    old: &ImageState,
    new: &ImageState,
) -> Result<(), Difference> {
    let mut expected = before.clone();
    let entry = expected
        .get_mut("images")
        .and_then(|images| images.get_mut(index))
        .and_then(Value::as_mapping_mut)
        .ok_or(Difference)?;
    for (key, old, new) in [
        (NEW_NAME, &old.new_name, &new.new_name),
        (NEW_TAG, &old.tag, &new.tag),
        (DIGEST, &old.digest, &new.digest),
    ] {
        if old == new {
            continue;
        }
        match new {
            Some(value) => entry.insert(key.into(), value.as_str().into()),
            None => entry.remove(key),
        };
    }
    if expected == *after {
        Ok(())
    } else {
        Err(Difference)
    }
}

/// An entry that says `new` was added at the end of `images`, and nothing else changed.
pub(super) fn appended(before: &Value, after: &Value, new: &ImageState) -> Result<(), Difference> {
    let mut expected = match before {
        Value::Null => Value::Mapping(Mapping::new()),
        other => other.clone(),
    };
    let root = expected.as_mapping_mut().ok_or(Difference)?;
    let mut images = match root.remove("images") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(images)) => images,
        Some(_) => return Err(Difference),
    };
    let mut entry = Mapping::new();
    entry.insert(NAME.into(), new.name.as_str().into());
    for (key, value) in [
        (NEW_NAME, &new.new_name),
        (NEW_TAG, &new.tag),
        (DIGEST, &new.digest),
    ] {
        if let Some(value) = value {
            entry.insert(key.into(), value.as_str().into());
        }
    }
    images.push(entry.into());
    root.insert("images".into(), images.into());
    if expected == *after {
        Ok(())
    } else {
        Err(Difference)
    }
}
