//! The fenced `sh` blocks of a page.

/// Commands of one block.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// The lines between the fences.
    pub(super) commands: String,
    /// For a block marked `background until=WORD`: it goes on, and is ready when it printed WORD.
    pub(super) until: Option<String>,
}

/// In the order of the page.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut words = info.split(' ');
        if words.next() == Some("sh") {
            let until = words
                .find_map(|word| word.strip_prefix("until="))
                .map(str::to_owned);
            blocks.push(Block {
                commands: body.join("\n"),
                until,
            });
        }
    }
    blocks
}

#[test]
fn only_sh_blocks_are_commands() {
    let page = "a\n```sh\nb\nc\n```\n```\nd\n```\n```sh background until=ready\ne\n```\n";
    let block = |commands: &str, until: Option<&str>| Block {
        commands: commands.to_owned(),
        until: until.map(str::to_owned),
    };
    assert_eq!(
        blocks(page),
        [block("b\nc", None), block("e", Some("ready"))]
    );
}
