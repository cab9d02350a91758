//! Fenced code blocks of a Markdown page.

/// One block: what stands behind the fence, its text, and the line that it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) info: String,
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// All blocks of `page`, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(Block { info: info.to_owned(), text: String::new(), line: number }),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a block is not closed");
    found
}

#[test]
fn a_page_is_taken_apart_into_its_blocks() {
    let found = blocks("text\n```sh test\na\nb\n```\nmore\n```\nc\n```\n");
    let [first, second] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.info.as_str(), first.text.as_str(), first.line), ("sh test", "a\nb\n", 2));
    assert_eq!((second.info.as_str(), second.text.as_str(), second.line), ("", "c\n", 7));
}
