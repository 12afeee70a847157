//! BLEU of a whole set (Papineni, Roukos, Ward and Zhu 2002), as sacrebleu computes it by default (Post 2018): the
//! tokens of `mteval-v13a`, case kept, n-grams up to four, exponential smoothing where there are none of an order, one
//! reference a sentence.

use std::collections::HashMap;

const ORDERS: usize = 4;

/// BLEU, 0 to 100, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    pub score: f64,
    /// Precision of n-grams of one to four tokens, 0 to 100.
    pub precisions: [f64; ORDERS],
    pub brevity_penalty: f64,
    /// Tokens of the translations and of the references.
    pub lengths: [u64; 2],
}

/// BLEU of translations with a reference each.
pub fn bleu<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Bleu {
    let (mut right, mut all, mut lengths) = ([0u64; ORDERS], [0u64; ORDERS], [0u64; 2]);
    for (translation, reference) in pairs {
        let (translation, reference) = (tokens(translation), tokens(reference));
        lengths[0] += translation.len() as u64;
        lengths[1] += reference.len() as u64;
        for n in 1..=ORDERS {
            let mut wanted: HashMap<&[String], u64> = HashMap::new();
            reference.windows(n).for_each(|gram| *wanted.entry(gram).or_default() += 1);
            for gram in translation.windows(n) {
                all[n - 1] += 1;
                if let Some(left) = wanted.get_mut(gram).filter(|left| **left > 0) {
                    *left -= 1;
                    right[n - 1] += 1;
                }
            }
        }
    }
    let mut precisions = [0.0; ORDERS];
    let (mut smooth, mut known) = (1.0, true);
    for ((precision, &right), &all) in precisions.iter_mut().zip(&right).zip(&all) {
        if all == 0 {
            // There is no such n-gram at all: the score is 0.
            known = false;
            break;
        }
        *precision = if right == 0 {
            smooth *= 2.0;
            100.0 / (smooth * all as f64)
        } else {
            100.0 * right as f64 / all as f64
        };
    }
    let brevity_penalty = match lengths {
        [0, _] => 0.0,
        [own, reference] if own < reference => (1.0 - reference as f64 / own as f64).exp(),
        _ => 1.0,
    };
    let mean = precisions.iter().map(|p| p.ln()).sum::<f64>() / ORDERS as f64;
    let is_any = known && right[0] > 0;
    let score = if is_any { brevity_penalty * mean.exp() } else { 0.0 };
    Bleu { score, precisions, brevity_penalty, lengths }
}

/// The tokens of `mteval-v13a`: punctuation and symbols apart, but periods, commas and hyphens within numbers as they are.
fn tokens(text: &str) -> Vec<String> {
    let text = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let padded: Vec<char> = format!(" {text} ").chars().collect();
    // ([\{-\~\[-\` -\&\(-\+\:-\@\/])  ->  \1 alone
    let is_symbol = |c: char| matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
    let mut spaced: Vec<char> = Vec::with_capacity(2 * padded.len());
    for c in padded {
        match is_symbol(c) {
            true => spaced.extend([' ', c, ' ']),
            false => spaced.push(c),
        }
    }
    // ([^0-9])([\.,])  ->  \1 \2 alone
    let spaced = apart(&spaced, |a, b| !a.is_ascii_digit() && is_stop(b), |a, b| vec![a, ' ', b, ' ']);
    // ([\.,])([^0-9])  ->  \1 alone, \2
    let spaced = apart(&spaced, |a, b| is_stop(a) && !b.is_ascii_digit(), |a, b| vec![' ', a, ' ', b]);
    // ([0-9])(-)  ->  \1 - alone
    let spaced = apart(&spaced, |a, b| a.is_ascii_digit() && b == '-', |a, b| vec![a, ' ', b, ' ']);
    spaced.into_iter().collect::<String>().split_whitespace().map(str::to_string).collect()
}

fn is_stop(c: char) -> bool {
    c == '.' || c == ','
}

/// Replaces pairs of neighbours, from the left; what was replaced is in no other pair.
fn apart(chars: &[char], is_pair: impl Fn(char, char) -> bool, by: impl Fn(char, char) -> Vec<char>) -> Vec<char> {
    let (mut out, mut at) = (Vec::with_capacity(chars.len() + 16), 0);
    while at < chars.len() {
        match chars.get(at + 1) {
            Some(&next) if is_pair(chars[at], next) => {
                out.extend(by(chars[at], next));
                at += 2;
            }
            _ => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_13a() {
        let cut = |text: &str| tokens(text).join(" ");
        assert_eq!(cut("It's 3.5, or 1,000-2 (e.g. a/b)."), "It's 3.5 , or 1,000 - 2 ( e . g . a / b ) .");
        assert_eq!(cut("a... &quot;b&quot; well-known"), "a . . . \" b \" well-known");
    }

    #[test]
    fn a_perfect_translation_has_100_and_a_short_one_is_punished() {
        let of = |a: &str, b: &str| bleu([(a, b)].into_iter());
        assert!((of("a b c d e", "a b c d e").score - 100.0).abs() < 1e-9);
        let short = of("a b c d", "a b c d e");
        assert!((short.score - 100.0 * (-0.25f64).exp()).abs() < 1e-9 && short.precisions == [100.0; 4]);
        assert_eq!((of("", "a b").score, of("x y z w", "a b c d").score), (0.0, 0.0));
    }
}
