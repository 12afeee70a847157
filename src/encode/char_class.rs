//! Which kind of character one is: script, or what else it may be.

/// The class of a character; the numbers are rows of a trained table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CharClass {
    /// None of the others: emoji, private use, what Unicode does not know.
    Other = 0,
    Kanji = 1,
    Hiragana = 2,
    /// With the prolonged sound mark.
    Katakana = 3,
    LatinLower = 4,
    LatinUpper = 5,
    Digit = 6,
    /// 一 to 九, 〇, 十, 百, 千, 万, 億, 兆.
    KanjiNumber = 7,
    Space = 8,
    /// Commas, stops, middle dots and the like.
    Punctuation = 9,
    Opening = 10,
    Closing = 11,
    /// Signs of mathematics, money, arrows, …
    Symbol = 12,
    Hangul = 13,
    /// Letters of other scripts.
    Letter = 14,
    /// Combining marks, joiners and what else changes the character before it.
    Mark = 15,
    Control = 16,
}

impl CharClass {
    pub const COUNT: usize = 17;

    pub fn of(c: char) -> CharClass {
        match c {
            'a'..='z' => CharClass::LatinLower,
            'A'..='Z' => CharClass::LatinUpper,
            '0'..='9' => CharClass::Digit,
            '〇' | '一' | '二' | '三' | '四' | '五' | '六' | '七' | '八' | '九' | '十' | '百' | '千' | '万' | '億'
            | '兆' => CharClass::KanjiNumber,
            '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}' | '\u{1b001}'..='\u{1b11f}' => CharClass::Hiragana,
            '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}' => {
                CharClass::Katakana
            }
            '々'
            | '〆'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{323af}' => CharClass::Kanji,
            '(' | '[' | '{' | '「' | '『' | '【' | '〈' | '《' | '〔' | '〖' | '“' | '‘' | '（' | '［' | '｛' | '｢' => {
                CharClass::Opening
            }
            ')' | ']' | '}' | '」' | '』' | '】' | '〉' | '》' | '〕' | '〗' | '”' | '’' | '）' | '］' | '｝' | '｣' => {
                CharClass::Closing
            }
            '!'
            | '"'
            | '#'
            | '%'
            | '&'
            | '\''
            | '*'
            | ','
            | '-'
            | '.'
            | '/'
            | ':'
            | ';'
            | '?'
            | '@'
            | '\\'
            | '_'
            | '、'
            | '。'
            | '・'
            | '〜'
            | '…'
            | '‥'
            | '！'
            | '？'
            | '，'
            | '．'
            | '：'
            | '；'
            | '･'
            | '｡'
            | '､'
            | '\u{2010}'..='\u{2015}' => CharClass::Punctuation,
            '\u{300}'..='\u{36f}'
            | '\u{3099}'..='\u{309c}'
            | '\u{ff9e}'
            | '\u{ff9f}'
            | '\u{200c}'
            | '\u{200d}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{e0100}'..='\u{e01ef}' => CharClass::Mark,
            '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => CharClass::Hangul,
            '$'
            | '+'
            | '<'
            | '='
            | '>'
            | '^'
            | '`'
            | '|'
            | '~'
            | '\u{a1}'..='\u{a9}'
            | '\u{ab}'..='\u{b4}'
            | '\u{b6}'..='\u{b9}'
            | '\u{bb}'..='\u{bf}'
            | '×'
            | '÷'
            | '\u{2016}'..='\u{2bff}'
            | '\u{3003}'
            | '\u{3004}'
            | '\u{3012}'..='\u{303f}'
            | '\u{3200}'..='\u{33ff}' => CharClass::Symbol,
            c if c.is_whitespace() => CharClass::Space,
            c if c.is_control() => CharClass::Control,
            c if c.is_uppercase() => CharClass::LatinUpper,
            c if c.is_lowercase() => CharClass::LatinLower,
            c if c.is_alphabetic() => CharClass::Letter,
            c if c.is_numeric() => CharClass::Digit,
            _ => CharClass::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_a_character() {
        let expected = [
            (CharClass::Kanji, "東々﨑𠮷㐂"),
            (CharClass::Hiragana, "あんゝ"),
            (CharClass::Katakana, "アーヴｶㇰ"),
            (CharClass::LatinLower, "zéж"),
            (CharClass::LatinUpper, "AÉЖ"),
            (CharClass::Digit, "07٣"),
            (CharClass::KanjiNumber, "一〇万"),
            (CharClass::Space, " \n\u{3000}"),
            (CharClass::Punctuation, "、。・…—"),
            (CharClass::Opening, "「（"),
            (CharClass::Closing, "」)"),
            (CharClass::Symbol, "€→㈱〒+"),
            (CharClass::Hangul, "한"),
            (CharClass::Letter, "אع"),
            (CharClass::Mark, "\u{3099}\u{200d}\u{fe0f}ﾞ"),
            (CharClass::Control, "\0\u{7f}"),
            (CharClass::Other, "👩\u{e000}"),
        ];
        for (class, chars) in expected {
            for c in chars.chars() {
                assert_eq!(CharClass::of(c), class, "{c:?}");
            }
        }
        assert!((0..=0x10ffff).filter_map(char::from_u32).all(|c| (CharClass::of(c) as usize) < CharClass::COUNT));
    }
}
