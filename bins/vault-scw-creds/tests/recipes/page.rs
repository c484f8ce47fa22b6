//! What the tool's page shows, taken out of it, so that page and test cannot differ.

/// A code block of the page.
#[derive(Debug)]
pub(crate) struct Block {
    /// The heading that it stands below.
    section: String,
    /// The word behind its fence, or nothing.
    language: String,
    text: String,
}

pub(crate) struct Page(Vec<Block>);

impl Page {
    pub(crate) fn read() -> Self {
        let text = include_str!("../../README.md");
        let mut blocks = Vec::new();
        let mut section = "";
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block {
                        section: section.to_owned(),
                        language: language.to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => section = line.strip_prefix("## ").unwrap_or(section),
            }
        }
        assert!(open.is_none(), "a block of the page has no end");
        Page(blocks)
    }

    /// Takes the first block out that is of this language and below this heading.
    pub(crate) fn take(&mut self, section: &str, language: &str) -> String {
        let found = self
            .0
            .iter()
            .position(|block| block.section == section && block.language == language)
            .unwrap_or_else(|| panic!("the page has no {language:?} in {section:?} any more"));
        self.0.remove(found).text
    }

    /// Fails where the page has a recipe left that no test has taken.
    pub(crate) fn assert_has_no_more_recipes(&self) {
        let left: Vec<&Block> = self
            .0
            .iter()
            .filter(|block| matches!(block.language.as_str(), "yaml" | "hcl"))
            .collect();
        assert!(left.is_empty(), "no test runs this: {left:#?}");
    }
}
