//! Running text from tokens, so that what a model makes of raw text can be scored against labelled tokens.
//!
//! The rules, which are those of plain English typing:
//! - Tokens are parted by one space, except:
//! - none before closing punctuation (`.` `,` `;` `:` `!` `?` `)` `]` `}` `%` `…` `”` `''`, also several of them in one
//!   token), nor before a clitic (`'s` `'re` `'ve` `'ll` `'d` `'m` `n't`, a lone `'`; either apostrophe, either case);
//! - none behind opening brackets and quotes (`(` `[` `{` `“` `‘` ` `` `) and behind `$` `£` `€` `¥`;
//! - a straight `"` opens (no space behind it) and closes (no space before it) in turn.

use std::ops::Range;

/// The text of a sentence's tokens, and where in it each token stands, in characters.
///
/// ```
/// let tokens = ["He", "paid", "$", "5", "(", "did", "n't", "he", ")", "."].map(String::from);
/// let (text, places) = strand::data::detokenize(&tokens);
/// assert_eq!(text, "He paid $5 (didn't he).");
/// assert_eq!(places[3], 9..10);
/// ```
pub fn detokenize(tokens: &[String]) -> (String, Vec<Range<u64>>) {
    let (mut text, mut places, mut position) = (String::new(), Vec::with_capacity(tokens.len()), 0);
    let (mut joined, mut in_quotes) = (true, false);
    for token in tokens {
        let is_quote = token == "\"";
        let closes = if is_quote { in_quotes } else { joins_before(token) };
        if !joined && !closes {
            text.push(' ');
            position += 1;
        }
        let end = position + token.chars().count() as u64;
        text.push_str(token);
        places.push(position..end);
        position = end;
        joined = if is_quote { !in_quotes } else { joins_behind(token) };
        in_quotes ^= is_quote;
    }
    (text, places)
}

fn joins_before(token: &str) -> bool {
    const CLITICS: [&str; 8] = ["'s", "'re", "'ve", "'ll", "'d", "'m", "n't", "'"];
    let plain = token.replace('’', "'").to_ascii_lowercase();
    CLITICS.contains(&plain.as_str()) || plain == "''" || token.chars().all(|c| ".,;:!?)]}%…”".contains(c))
}

fn joins_behind(token: &str) -> bool {
    matches!(token, "(" | "[" | "{" | "“" | "‘" | "``" | "`" | "$" | "£" | "€" | "¥")
}

#[cfg(test)]
mod tests {
    use super::detokenize;

    fn text(tokens: &str) -> String {
        let tokens: Vec<String> = tokens.split(' ').map(str::to_string).collect();
        let (text, places) = detokenize(&tokens);
        let characters: Vec<char> = text.chars().collect();
        for (token, place) in tokens.iter().zip(places) {
            let there: String = characters[place.start as usize..place.end as usize].iter().collect();
            assert_eq!(there, *token);
        }
        text
    }

    #[test]
    fn punctuation_and_clitics_join() {
        assert_eq!(text("It 's Ada ’s , is n't it ?!"), "It's Ada’s, isn't it?!");
        assert_eq!(text("the dogs ' bowls ( 3 ) cost £ 5 …"), "the dogs' bowls (3) cost £5…");
    }

    #[test]
    fn quotes_open_and_close_in_turn() {
        assert_eq!(text("\" Yes , \" she said : \" no . \""), "\"Yes,\" she said: \"no.\"");
        assert_eq!(text("“ Yes ” ``no''"), "“Yes” ``no''");
    }

    #[test]
    fn positions_are_in_characters() {
        assert_eq!(text("Zoë ’s café !"), "Zoë’s café!");
    }
}
