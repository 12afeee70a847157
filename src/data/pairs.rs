//! Pairs of sentences: two text files with as many lines, or one file of `source<TAB>target` lines or of JSON lines
//! `{"source": "…", "target": "…"}`; plain or gzip.

use super::{DataError, Lines, Source};
use serde::Deserialize;
use std::path::Path;

/// A sentence and its translation, without white space at their ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SentencePair {
    pub source: String,
    pub target: String,
}

/// Reads two files whose lines belong together.
///
/// # Errors
/// When one cannot be read, or has more lines than the other.
pub fn read_parallel(source: &Path, target: &Path) -> Result<Vec<SentencePair>, DataError> {
    let (mut sources, mut targets) = (Lines::new(Source::open(source)?), Lines::new(Source::open(target)?));
    let (mut one, mut other, mut all) = (String::new(), String::new(), Vec::new());
    loop {
        match (sources.next_into(&mut one)?, targets.next_into(&mut other)?) {
            (true, true) => all.push(pair(&one, &other)),
            (false, false) => return Ok(all),
            (more, _) => {
                let (long, short) = if more { (&sources, target) } else { (&targets, source) };
                return Err(long.error(format!("{} has no line for this one", short.display())));
            }
        }
    }
}

/// Reads one file of pairs: JSON lines by its name (`.jsonl`, `.jsonl.gz`), else lines with a tab.
///
/// # Errors
/// When it cannot be read, or a line is no pair.
pub fn read_pairs(path: &Path) -> Result<Vec<SentencePair>, DataError> {
    let name = path.to_string_lossy();
    let json = name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
    let (mut lines, mut line, mut all) = (Lines::new(Source::open(path)?), String::new(), Vec::new());
    while lines.next_into(&mut line)? {
        if line.trim().is_empty() {
            continue;
        }
        if json {
            let found: SentencePair = serde_json::from_str(&line)
                .map_err(|e| lines.error(format!("expected {{\"source\": \"…\", \"target\": \"…\"}}: {e}")))?;
            all.push(pair(&found.source, &found.target));
        } else {
            let Some((source, target)) = line.split_once('\t') else {
                return Err(lines.error("expected source<TAB>target"));
            };
            all.push(pair(source, target));
        }
    }
    Ok(all)
}

fn pair(source: &str, target: &str) -> SentencePair {
    SentencePair { source: source.trim().to_string(), target: target.trim().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_from_two_files_or_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (en, de) = (file("a.en", "one\ntwo \n"), file("a.de", "eins\nzwei\n"));
        let both = read_parallel(&en, &de).unwrap();
        assert_eq!((both.len(), both[1].source.as_str(), both[1].target.as_str()), (2, "two", "zwei"));
        assert_eq!(read_pairs(&file("a.tsv", "one\teins\n\ntwo\tzwei\n")).unwrap(), both);
        let json = "{\"source\":\"one\",\"target\":\"eins\"}\n{\"source\":\"two\",\"target\":\"zwei\",\"id\":2}\n";
        assert_eq!(read_pairs(&file("a.jsonl", json)).unwrap(), both);
        let error = read_parallel(&en, &file("b.de", "eins\n")).unwrap_err().to_string();
        assert!(error.contains("a.en, line 2") && error.contains("b.de has no line"), "{error}");
        let error = read_pairs(&file("b.tsv", "one\teins\ntwo zwei\n")).unwrap_err().to_string();
        assert!(error.contains("b.tsv, line 2: expected source<TAB>target"), "{error}");
    }
}
