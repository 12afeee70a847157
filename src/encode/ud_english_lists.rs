//! The words of English that [`super::ud_english`] must know.

/// The longest entry of any list here, in bytes: longer words are in none.
const LONGEST: usize = 16;

/// Whether `word` in lower case is one of `list`.
fn is_in(word: &str, list: &[&str]) -> bool {
    let mut lower = [0; LONGEST];
    match lower.get_mut(..word.len()) {
        Some(lower) => {
            lower.copy_from_slice(word.as_bytes());
            lower.make_ascii_lowercase();
            list.iter().any(|entry| entry.as_bytes() == lower)
        }
        None => false,
    }
}

/// Where two words that are written as one meet.
pub(super) fn joined(word: &str) -> Option<usize> {
    let at = match word.len() {
        6 if is_in(word, &["cannot"]) => 3,
        5 if is_in(word, &["gonna", "gotta", "wanna", "gimme", "lemme"]) => 3,
        5 if is_in(word, &["thats", "whats"]) => 4,
        2 if word == "im" || word == "Im" => 1,
        4 if is_in(word, &["dont", "cant", "isnt", "wont"]) => 2,
        5 if is_in(word, &["didnt", "wasnt", "arent", "hasnt", "hadnt"]) => 3,
        6 if is_in(word, &["doesnt", "havent", "werent"]) => 4,
        7 if is_in(word, &["couldnt", "wouldnt"]) => 5,
        8 if is_in(word, &["shouldnt"]) => 6,
        _ => return None,
    };
    Some(at)
}

/// What may follow the apostrophe of a clitic.
pub(super) fn is_clitic_tail(tail: &str) -> bool {
    is_in(tail, &["s", "m", "d", "re", "ve", "ll"])
}

/// Where the clitic at the end of a word starts: `n't`, `'s`, `'ll`.
pub(super) fn clitic(word: &str) -> Option<usize> {
    let at = word.rfind(['\'', '’', '`'])?;
    let (before, tail) = (&word[..at], word[at..].trim_start_matches(['\'', '’', '`']));
    if is_in(tail, &["t"]) && before.ends_with(['n', 'N']) && before.len() > 1 {
        return Some(at - 1);
    }
    (is_clitic_tail(tail) && at > 0).then_some(at)
}

/// Words that begin with an apostrophe, without it.
pub(super) fn is_elided(rest: &str) -> bool {
    is_in(rest, &["em", "n", "til", "till", "cause", "tis", "twas", "bout", "cuz", "cos", "round"])
}

/// Words with a full stop.
pub(super) fn is_abbreviation(word: &str) -> bool {
    let Some(stem) = word.strip_suffix('.') else { return is_in(word, &["ph.d", "e.g", "i.e"]) };
    const EITHER_CASE: &[&str] = &[
        "mr", "mrs", "ms", "dr", "drs", "prof", "rev", "gen", "col", "capt", "lt", "sgt", "maj", "sen", "rep", "reps",
        "gov", "pres", "hon", "jr", "sr", "st", "sts", "ave", "blvd", "rd", "mt", "ft", "inc", "corp", "ltd", "llc",
        "bros", "vs", "etc", "ect", "esp", "approx", "ext", "attn", "tel", "fig", "vol", "ph.d", "dept", "assoc",
        "univ", "jan", "feb", "apr", "aug", "sept", "oct", "nov", "dec", "tues", "thur", "thurs", "e.g", "i.e", "cf",
        "al", "arrv", "lv", "ps", "eg", "ie",
    ];
    // Other words in another case.
    const AS_WRITTEN: &[&str] = &[
        "Co", "No", "Nos", "Mon", "Tue", "Wed", "Fri", "Sat", "Sun", "Mar", "La", "Va", "Pa", "Sec", "Sc", "Para", "v",
        "Calif", "Conn", "Fla", "Ariz", "Ont", "Que", "Wash",
    ];
    is_in(stem, EITHER_CASE) || AS_WRITTEN.contains(&stem)
}

/// Short names of months.
pub(super) fn is_month(part: &str) -> bool {
    is_in(part, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
}

/// Words with an apostrophe, a slash or a stop that stay whole.
pub(super) fn is_kept(word: &str) -> bool {
    const KEPT: &[&str] = &[
        "y'all",
        "ya'll",
        "o'clock",
        "ma'am",
        "c'mon",
        "w/",
        "w/o",
        "w/out",
        "b/c",
        "b/t",
        "l/c",
        "i/c",
        "i/s",
        "a/c",
        "n/a",
        "c/o",
        "yahoo!",
        "ass't.",
        "c'est",
        "jeopardy!",
    ];
    is_in(word, KEPT) || (word.len() > 4 && word.strip_suffix(['\'', '’']).is_some_and(|word| is_in_ing(word)))
}

/// `lovin'`
fn is_in_ing(word: &str) -> bool {
    word.ends_with("in") && is_in(word, &["lovin", "cookin", "nothin", "somethin", "goin", "doin", "gettin", "talkin"])
}

/// Prefixes that keep their hyphen: the list of the ETTB 2.0 guidelines and a few more that the treebank treats alike.
pub(super) fn is_prefix(part: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "a", "ante", "anti", "arch", "be", "bi", "bio", "co", "counter", "cross", "cyber", "de", "e", "eco", "ex",
        "extra", "inter", "intra", "macro", "mega", "micro", "mid", "mini", "mis", "multi", "neo", "non", "o", "over",
        "pan", "para", "peri", "post", "pre", "pro", "pseudo", "psycho", "quasi", "re", "semi", "socio", "sub",
        "super", "tri", "u", "uh", "ultra", "un", "uni", "vice",
    ];
    is_in(part, PREFIXES)
}

/// Suffixes that keep their hyphen.
pub(super) fn is_suffix(part: &str) -> bool {
    is_in(part, &["esque", "ette", "fest", "fold", "gate", "itis", "less", "most", "rama", "wise", "huh", "oh", "hm"])
}

/// Units that are words even without a space before them.
pub(super) fn is_unit(part: &str) -> bool {
    const UNITS: &[&str] = &[
        "am", "pm", "a.m", "p.m", "a.m.", "p.m.", "k", "ft", "mg", "kg", "lb", "lbs", "oz", "km", "cm", "mm", "mph",
        "hr", "hrs", "min", "mins", "yr", "yrs", "gb", "mb", "mw", "hz", "ghz", "usd",
    ];
    // Ten MM are ten million.
    part != "MM" && is_in(part, UNITS)
}

/// `http://`, `www.` and their like.
pub(super) fn has_scheme(word: &str) -> bool {
    ["http://", "https://", "ftp://", "mailto:", "ymsgr:", "www."].iter().any(|scheme| {
        word.len() > scheme.len() && word.as_bytes()[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
    })
}

/// Last parts of the names of sites.
pub(super) fn is_site_ending(part: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "io", "tv", "uk", "de", "fr", "ca", "au", "jp",
        "ru", "nl", "eu", "ch", "nz", "ly", "gl",
    ];
    is_in(part, ENDINGS)
}

/// Last parts of the names of files.
pub(super) fn is_file_ending(part: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "doc", "docx", "xls", "xlsx", "ppt", "pdf", "txt", "htm", "html", "url", "jpg", "jpeg", "png", "gif", "zip",
        "exe", "csv", "xml", "py", "rs", "js", "mp3", "mp4", "tsv",
    ];
    is_in(part, ENDINGS)
}

const EMOTICONS: &[&str] = &[
    ":)", ":-)", ":(", ":-(", ";)", ";-)", ":D", ":-D", ":P", ":-P", ":p", ":-p", ":O", ":o", ":/", ":-/", ":|", ":]",
    ":[", ":')", ":'(", ":*", "=)", "=(", "=D", "=P", "=]", ";P", ";D", ":?", "(:", "(;", "8)", "xD", "XD", "<3",
    "</3", "^_^", "^^", "-_-", "o_O", "O_o", ":))", ":)))", ":((", ">:(", ">:)", "D:", "T_T", "*_*", "\\o/",
];

pub(super) fn is_emoticon(word: &str) -> bool {
    word.len() <= 4 && EMOTICONS.contains(&word)
}

/// The length of the emoticon at the start of a word that goes on with something other than a letter.
pub(super) fn leading_emoticon(word: &str) -> Option<usize> {
    if !word.starts_with([':', ';', '=', '>', '<', '^', '-', '*', '\\']) {
        return None;
    }
    let found =
        EMOTICONS.iter().filter(|emoticon| word.starts_with(**emoticon) && emoticon.len() > 2).map(|e| e.len()).max();
    found.filter(|&length| !word[length..].starts_with(char::is_alphanumeric))
}

/// Where the emoticon at the end of a word starts.
pub(super) fn trailing_emoticon(word: &str) -> Option<usize> {
    if !word.ends_with([')', '(', ']', '[', '/', '|', '*', '?', ':', ';', '^', '_']) {
        return None;
    }
    let found = EMOTICONS.iter().filter(|emoticon| word.ends_with(**emoticon)).map(|e| word.len() - e.len()).min()?;
    let face = &word[found..];
    (!face.starts_with(char::is_alphanumeric)).then_some(found)
}
