//! The English tokenizer: white-space-free chunks to the words of the Universal Dependencies English treebanks.
//!
//! The conventions are those of the English Web Treebank (Bies et al., LDC2012T13; tokenization as in the ETTB 2.0
//! guidelines, with UD's changes): clitics are words (`do n't`, `dog 's`, `can not`), punctuation is off the word,
//! hyphenated words are split (`well - known`) unless the first part is a prefix or the last a suffix of the
//! guidelines' list, and numbers, dates, addresses, emoticons and abbreviations stay whole.
//!
//! [`words`] peels a chunk: what is whole is a word; else punctuation is taken off the front, then punctuation and
//! clitics off the back, then the first separator inside is cut out. Nothing outside the chunk is looked at, so that
//! `No.` is an abbreviation wherever it stands. The lists are in [`super::ud_english_lists`].

use super::ud_english_lists as lists;

/// Calls `emit` with the words of a chunk, in order; together they are the chunk.
pub(super) fn words(chunk: &str, emit: &mut dyn FnMut(&str)) {
    let brackets = chunk.contains(['(', '[']);
    let mut rest = chunk;
    let mut behind: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        if is_plain(rest) || is_whole(rest) {
            emit(rest);
            break;
        }
        if let Some(end) = leading(rest).filter(|&end| end < rest.len()) {
            emit(&rest[..end]);
            rest = &rest[end..];
        } else if let Some(start) = trailing(rest, brackets).filter(|&start| start > 0) {
            behind.push(&rest[start..]);
            rest = &rest[..start];
        } else if let Some((start, end)) = inside(rest) {
            // There is no separator before the first one: this recursion goes no deeper.
            words(&rest[..start], emit);
            if start < end {
                emit(&rest[start..end]);
            }
            rest = &rest[end..];
        } else {
            emit(rest);
            break;
        }
    }
    behind.iter().rev().for_each(|word| emit(word));
}

/// Letters only, and none of the words that are written as one: what most chunks are.
fn is_plain(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_alphabetic()) && lists::joined(s).is_none()
}

fn first(s: &str) -> char {
    s.chars().next().unwrap_or('\0')
}

fn last(s: &str) -> char {
    s.chars().next_back().unwrap_or('\0')
}

/// The length in bytes of the run of characters at the start for which `of` holds.
fn run(s: &str, of: impl Fn(char) -> bool) -> usize {
    s.find(|c| !of(c)).unwrap_or(s.len())
}

/// Where the run of characters at the end for which `of` holds starts.
fn run_back(s: &str, of: impl Fn(char) -> bool) -> usize {
    s.len() - s.chars().rev().take_while(|&c| of(c)).map(char::len_utf8).sum::<usize>()
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’' | '`')
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…')
}

/// Punctuation that stands alone.
fn is_single(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '"' | '“' | '”' | '„' | '‘' | '«' | '»' | '‹' | '›')
        || matches!(c, ',' | ';' | ':' | '\\' | '^' | '¡' | '¿' | '·' | '•' | '、' | '。')
}

/// Punctuation of which a run of the same character is one word.
fn is_run(c: char) -> bool {
    matches!(c, '-' | '=' | '*' | '_' | '~' | '#' | '+' | '<' | '>' | '|' | '/' | '—' | '–' | '&')
}

/// Pictures and other symbols, with what modifies them; a run of them is one word.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{2030}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}' | '\u{200d}') && !is_single(c)
}

/// What is one word, whatever it holds.
fn is_whole(s: &str) -> bool {
    if s.chars().nth(1).is_none() || lists::is_emoticon(s) {
        return true;
    }
    if !s.contains(char::is_alphanumeric) {
        return is_ornament(s);
    }
    if is_apostrophe(first(s)) {
        return is_elided(s);
    }
    is_address(s)
        || is_number(s)
        || is_acronym(s)
        || lists::is_abbreviation(s)
        || lists::is_kept(s)
        || is_decade(s)
        || is_date(s)
}

/// Runs of stops (`?!`), of one character (`-----`), doubled quotes, and lines drawn with several (`---->`, `*~*~*`).
fn is_ornament(s: &str) -> bool {
    let c = first(s);
    s.chars().all(is_stop)
        || s.chars().all(is_picture)
        || (s.chars().all(|d| d == c) && (is_run(c) || (is_apostrophe(c) && s.chars().count() == 2) || c == '$'))
        || s == "‘’"
        || (is_run(c) && is_run(last(s)) && s.chars().all(|d| is_run(d) || matches!(d, '{' | '}' | '^')))
}

/// A word that begins with an apostrophe: a clitic by itself, `'em`, `'90s`, `'05`.
fn is_elided(s: &str) -> bool {
    let rest = &s[first(s).len_utf8()..];
    let digits = run(rest, |c| c.is_ascii_digit());
    lists::is_clitic_tail(rest) || lists::is_elided(rest) || (digits == 2 && matches!(&rest[2..], "" | "s"))
}

/// `80's`, `1960's`.
fn is_decade(s: &str) -> bool {
    let digits = run(s, |c| c.is_ascii_digit());
    digits >= 2 && s[digits..].strip_prefix(is_apostrophe) == Some("s")
}

/// `01-Feb-02`
fn is_date(s: &str) -> bool {
    let number = |part: &str| part.len() <= 4 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = s.split('-');
    parts.next().is_some_and(number)
        && parts.next().is_some_and(lists::is_month)
        && parts.next().is_some_and(number)
        && parts.next().is_none()
}

/// Addresses of the web and of mail, names of sites and files; `@name`, `#topic`.
fn is_address(s: &str) -> bool {
    let end = last(s);
    if !(end.is_alphanumeric() || matches!(end, '/' | '_' | '-')) {
        return false;
    }
    let start = first(s);
    if matches!(start, '@' | '#') {
        return s[1..].starts_with(char::is_alphabetic) && s[1..].chars().all(|c| c.is_alphanumeric() || c == '_');
    }
    if lists::has_scheme(s) {
        return true;
    }
    if !start.is_alphanumeric() && start != '.' {
        return false;
    }
    if let Some((name, site)) = s.split_once('@') {
        return !name.is_empty() && site.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    }
    let (site, _path) = s.split_once('/').unwrap_or((s, ""));
    let mut parts = site.split('.');
    let ending = parts.next_back().unwrap_or("");
    let named = parts.clone().next().is_some()
        && parts
            .all(|part| part.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '#' | '%' | '!' | '&')));
    named && (lists::is_site_ending(ending) || (site == s && lists::is_file_ending(ending)) || is_group(site))
}

/// A dotted name all in lower case, such as that of a newsgroup.
fn is_group(s: &str) -> bool {
    s.split('.').count() > 2
        && s.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
}

/// Digits with what numbers, dates, times and telephone numbers are written with between them; no ranges.
fn is_number(s: &str) -> bool {
    let digits = s.strip_prefix('+').unwrap_or(s);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | ':' | '/' | '-'))
        && !digits.contains("..")
        && !digits.contains("--")
        && !is_range(digits)
}

/// `2-3`, `1969-1970`, `8:00-5:00`: two numbers, of which neither looks like a part of a telephone number.
fn is_range(s: &str) -> bool {
    let Some((from, to)) = s.split_once('-') else { return false };
    let year = |s: &str| s.len() == 4 && (s.starts_with("19") || s.starts_with("20"));
    !to.contains('-')
        && (from.contains(':') || to.contains(':') || (from.len() <= 2 && to.len() <= 3) || (year(from) && year(to)))
}

/// Single letters with stops between them: `U.S.`, `a.k.a`, `W.`; or the last more than one: `Ph.D.` is in a list.
fn is_acronym(s: &str) -> bool {
    let stopped = s.strip_suffix('.');
    let letters = stopped.unwrap_or(s);
    let mut parts = letters.split('.');
    let single = |part: &str| part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
    parts.by_ref().all(single)
        && (letters.contains('.') || (stopped.is_some() && letters.chars().all(char::is_uppercase) && letters != "I"))
}

/// The end of the punctuation at the front.
fn leading(s: &str) -> Option<usize> {
    let c = first(s);
    let rest = &s[c.len_utf8()..];
    let one = Some(c.len_utf8());
    if c.is_alphanumeric() {
        // `US$5`
        let sign = s.find('$').filter(|&at| at <= 3 && s[..at].bytes().all(|b| b.is_ascii_uppercase()))?;
        return s[sign + 1..].starts_with(|c: char| c.is_ascii_digit()).then_some(sign + 1);
    }
    if let Some(length) = lists::leading_emoticon(s) {
        return Some(length);
    }
    match c {
        '\'' | '’' | '`' if first(rest) == c => Some(2 * c.len_utf8()),
        '\'' | '’' | '`' => {
            (!is_elided(&s[..c.len_utf8() + run(rest, char::is_alphanumeric)])).then_some(c.len_utf8())
        }
        '.' if rest.starts_with(char::is_alphanumeric) => None,
        _ if is_stop(c) => Some(run(s, is_stop)),
        _ if is_single(c) => one,
        '$' | '£' | '€' | '¥' | '¢' => {
            rest.starts_with(|c: char| c.is_ascii_digit() || c == '.').then(|| c.len_utf8())
        }
        '#' if rest.starts_with(char::is_alphabetic) => None,
        '+' if rest.starts_with(|c: char| c.is_ascii_digit()) => None,
        '*' if rest.starts_with(char::is_alphabetic) && !s.ends_with('*') => None,
        '@' => (!rest.starts_with(char::is_alphanumeric)).then_some(1),
        _ if is_run(c) => Some(line(s)),
        _ if is_picture(c) => Some(run(s, is_picture)),
        _ => None,
    }
}

/// The start of the punctuation or the clitic at the back. Where there are `brackets`, `:)` is no emoticon.
fn trailing(s: &str, brackets: bool) -> Option<usize> {
    let c = last(s);
    let start = s.len() - c.len_utf8();
    let before = &s[..start];
    if let Some(at) = lists::trailing_emoticon(s).filter(|_| !brackets) {
        return Some(at);
    }
    if let Some(at) = unit(s) {
        return Some(at);
    }
    if c.is_alphanumeric() {
        return lists::clitic(s);
    }
    match c {
        '\'' | '’' | '`' if last(before) == c => Some(start - c.len_utf8()),
        '\'' | '’' | '`' => Some(start),
        _ if is_stop(c) => Some(stops(s)),
        _ if is_single(c) => Some(start),
        '%' | '$' | '£' | '€' | '¢' => before.ends_with(|c: char| c.is_ascii_digit()).then_some(start),
        '+' | '#' if before.len() < 3 && before.starts_with(|c: char| c.is_ascii_uppercase()) => None,
        '@' => Some(start),
        _ if is_run(c) => Some(run_back(s, |d| d == c)),
        _ if is_picture(c) => Some(run_back(s, is_picture)),
        _ => None,
    }
}

/// Where the stops at the end start, behind the one that belongs to an abbreviation (`Inc.?`).
fn stops(s: &str) -> usize {
    let start = run_back(s, is_stop);
    let after = s[start..].strip_prefix('.').filter(|after| !after.is_empty() && !after.starts_with(".."));
    match after {
        Some(_) if is_acronym(&s[..=start]) || lists::is_abbreviation(&s[..=start]) => start + 1,
        _ => start,
    }
}

/// The length of the run of one character at the start, or of the arrow.
fn line(s: &str) -> usize {
    let arrow = run(s, |c| matches!(c, '-' | '=' | '<' | '>'));
    match s[..arrow].contains(['-', '=']) && s[..arrow].contains(['<', '>']) {
        true => arrow,
        false => run(s, |c| c == first(s)),
    }
}

/// Where the unit behind a number starts: `5pm`, `10k`.
fn unit(s: &str) -> Option<usize> {
    let digits = run(s, |c| c.is_ascii_digit() || matches!(c, '.' | ',' | ':'));
    (s.starts_with(|c: char| c.is_ascii_digit()) && lists::is_unit(&s[digits..])).then_some(digits)
}

/// The first separator inside: its start and end, which are the same where a word ends without one (`can|not`).
fn inside(s: &str) -> Option<(usize, usize)> {
    if let Some(at) = lists::joined(s) {
        return Some((at, at));
    }
    for (at, c) in s.char_indices().skip(1) {
        let (before, after) = (&s[..at], &s[at..]);
        let rest = &after[c.len_utf8()..];
        if c.is_alphanumeric() || rest.is_empty() {
            continue;
        }
        let digits = before.ends_with(|c: char| c.is_ascii_digit()) && rest.starts_with(|c: char| c.is_ascii_digit());
        let length = match c {
            '.' if rest.starts_with(is_stop) => run(after, is_stop),
            '.' if ends_sentence(before, rest) && lists::is_abbreviation(&s[..=at]) => return Some((at + 1, at + 1)),
            '.' if ends_sentence(before, rest) => 1,
            '!' | '?' | '…' => run(after, is_stop),
            ',' | ':' | '/' if digits => 0,
            '-' if rest.starts_with(['-', '>']) => line(after),
            '/' | '<' | '>' | '|' | '~' | '=' => line(after),
            '—' | '–' => c.len_utf8(),
            '-' if !keeps_hyphen(before, rest) => 1,
            '&' if !(is_initials(before) && is_initials(rest)) => 1,
            '‘' => 0,
            _ if is_single(c) => c.len_utf8(),
            _ if is_picture(c) => run(after, is_picture),
            _ => 0,
        };
        if length > 0 {
            return Some((at, at + length));
        }
    }
    None
}

/// A stop without the space behind it: `done.The`.
fn ends_sentence(before: &str, rest: &str) -> bool {
    let word = &before[run_back(before, char::is_alphanumeric)..];
    let next = &rest[..run(rest, char::is_alphabetic)];
    let lower = |s: &str| s.chars().all(char::is_lowercase);
    word.chars().nth(1).is_some()
        && word.chars().next_back().is_some_and(|c| c.is_lowercase() || c.is_ascii_digit())
        && next.starts_with(char::is_uppercase)
        && lower(&next[first(next).len_utf8()..])
}

/// `AT&T`, `P&L`.
fn is_initials(s: &str) -> bool {
    s.len() == 1 || (s.len() <= 3 && s.bytes().all(|b| b.is_ascii_uppercase()))
}

/// Whether the hyphen between `before` and `rest` is part of a word.
fn keeps_hyphen(before: &str, rest: &str) -> bool {
    let left = &before[run_back(before, char::is_alphanumeric)..];
    let right = &rest[..run(rest, char::is_alphanumeric)];
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if number(left) && number(right) {
        let from = run_back(before, |c| c.is_ascii_digit() || matches!(c, '-' | '.' | ':' | ','));
        let to = run(rest, |c| c.is_ascii_digit() || matches!(c, '-' | '.' | ':' | ','));
        return !is_range(&format!("{}-{}", &before[from..], &rest[..to]));
    }
    let letters = |s: &str| s.chars().all(char::is_alphabetic);
    (lists::is_prefix(left) && before.len() == left.len() && right.len() > 1)
        || (letters(left) && right.len() == rest.len() && lists::is_suffix(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line: chunks, and the words they are cut into.
    fn check(lines: &[(&str, &str)]) {
        for (chunks, expected) in lines {
            let mut found = Vec::new();
            chunks.split(' ').for_each(|chunk| words(chunk, &mut |word| found.push(word.to_string())));
            assert_eq!(found.join(" "), *expected);
        }
    }

    #[test]
    fn clitics_are_words() {
        check(&[
            ("I don't DON'T don’t can't he'd've", "I do n't DO N'T do n’t ca n't he 'd 've"),
            ("cannot gonna wanna. Gotta", "can not gon na wan na . Got ta"),
            ("dog's John's, James' it`s I’m", "dog 's John 's , James ' it `s I ’m"),
            ("dont Im IM thats", "do nt I m IM that s"),
            ("O'Neill y'all rock'n'roll 's n't 80's", "O'Neill y'all rock'n'roll 's n't 80's"),
        ]);
    }

    #[test]
    fn hyphenated_words_are_split_but_for_prefixes() {
        check(&[
            (
                "well-known state-of-the-art Al-Qaeda U.S.-based",
                "well - known state - of - the - art Al - Qaeda U.S. - based",
            ),
            ("e-mail anti-war mid-80s Holocaust-esque", "e-mail anti-war mid-80s Holocaust-esque"),
            ("5-10 1969-1970 50-page 8:00-5:00", "5 - 10 1969 - 1970 50 - page 8:00 - 5:00"),
            ("713-853-3989 2003-04-05 01-Feb-02", "713-853-3989 2003-04-05 01-Feb-02"),
            ("foo--bar foo- -foo ----- ->", "foo -- bar foo - - foo ----- ->"),
        ]);
    }

    #[test]
    fn punctuation_is_off_the_word() {
        check(&[
            ("(see: \"Hello,\" ‘so’ [sic]", "( see : \" Hello , \" ‘ so ’ [ sic ]"),
            ("yes/no hello...world what?! ...and done.The", "yes / no hello ... world what ?! ... and done . The"),
            ("word—word ``quoted'' 'hello' *bold*", "word — word `` quoted '' ' hello ' * bold *"),
            ("'em, '67, '90s.", "'em , '67 , '90s ."),
            ("great:) (see:) :-) <3", "great :) ( see : ) :-) <3"),
            ("🎉🎉great🎉 naïve— cafe\u{301}.", "🎉🎉 great 🎉 naïve — cafe\u{301} ."),
        ]);
    }

    #[test]
    fn numbers_addresses_and_abbreviations_stay_whole() {
        check(&[
            ("$5.99/month US$5 £5bn 50%. #1 1,000.", "$ 5.99 / month US$ 5 £ 5bn 50 % . # 1 1,000 ."),
            ("10am 12:30p.m. 10k 10MM 24/7 11/28/2000", "10 am 12:30 p.m. 10 k 10MM 24/7 11/28/2000"),
            ("U.S. e.g., Mr. Mr.Smith Inc.? W. etc... I.", "U.S. e.g. , Mr. Mr. Smith Inc. ? W. etc ... I ."),
            ("https://x.org/a?b=c. (www.foo.org) <a.b@c.de>", "https://x.org/a?b=c . ( www.foo.org ) < a.b@c.de >"),
            (
                "notes.doc, @name: #topic! AT&T Tom&Jerry w/o C++",
                "notes.doc , @name : #topic ! AT&T Tom & Jerry w/o C++",
            ),
        ]);
    }
}
