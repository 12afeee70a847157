//! The search against all alignments; what is published, and when.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn unit(at: u64) -> Unit {
    Unit { start: at, end: at + 1, text: String::new() }
}

/// Rows of probabilities out of whole numbers.
fn rows(weights: &[Vec<u8>]) -> Vec<Vec<f32>> {
    let row = |weights: &Vec<u8>| {
        let all: f32 = weights.iter().map(|&w| f32::from(w) + 0.01).sum();
        weights.iter().map(|&w| (f32::from(w) + 0.01) / all).collect()
    };
    weights.iter().map(row).collect()
}

/// What a path reads as.
fn read(path: &[usize]) -> Vec<u16> {
    let mut symbols = Vec::new();
    for (k, &class) in path.iter().enumerate() {
        if class != BLANK && (k == 0 || path[k - 1] != class) {
            symbols.push(class as u16);
        }
    }
    symbols
}

/// The probability of every transcript, by going through all paths.
fn by_all_paths(rows: &[Vec<f32>]) -> BTreeMap<Vec<u16>, f64> {
    let classes = rows[0].len();
    let mut all = BTreeMap::new();
    for mut number in 0..classes.pow(rows.len() as u32) {
        let (mut path, mut p) = (Vec::new(), 1.0);
        for row in rows {
            path.push(number % classes);
            p *= f64::from(row[number % classes]);
            number /= classes;
        }
        *all.entry(read(&path)).or_insert(0.0) += p;
    }
    all
}

/// Symbols in the order in which they became final, with how many steps there were then.
fn run(search: &Search, rows: &[Vec<f32>]) -> (Vec<(Found, usize)>, Option<u16>, Vec<Hypothesis>) {
    let (mut last, mut hypotheses, mut done, mut all) = (None, Vec::new(), Vec::new(), Vec::new());
    for (k, p) in rows.iter().enumerate() {
        search.push(&mut last, &mut hypotheses, k as u64, p, &unit(k as u64), &mut done);
        all.extend(done.drain(..).map(|found| (found, k + 1)));
    }
    (all, last, hypotheses)
}

fn transcript(search: &Search, rows: &[Vec<f32>]) -> Vec<u16> {
    let (found, mut last, mut hypotheses) = run(search, rows);
    let mut done = Vec::new();
    search.settle(&mut last, &mut hypotheses, &mut done);
    found.into_iter().map(|(found, _)| found).chain(done).map(|found| found.class).collect()
}

fn weights(classes: usize, steps: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(0u8..20, classes), steps)
}

proptest! {
    #[test]
    fn a_wide_beam_finds_the_likeliest_transcript_of_all(weights in weights(3, 1..8)) {
        let rows = rows(&weights);
        let exact = Search { least_share: 0.0, ..Search::of(10_000) };
        let (found, _, hypotheses) = run(&exact, &rows);
        let all = by_all_paths(&rows);
        let published: Vec<u16> = found.iter().map(|(found, _)| found.class).collect();
        // Nothing can be published before all agree, which with every transcript in the beam they do not.
        prop_assert!(published.is_empty());
        for h in &hypotheses {
            let symbols: Vec<u16> = h.symbols.iter().map(|found| found.class).collect();
            let p = h.in_blank + h.in_symbol;
            prop_assert!((p - all[&symbols]).abs() < 1e-6, "{symbols:?}: {p}, by all paths {}", all[&symbols]);
        }
        prop_assert!((all.len() as i64 - hypotheses.len() as i64) <= 0);
        let best = all.values().fold(0.0f64, |best, p| best.max(*p));
        let found = all[&transcript(&exact, &rows)];
        prop_assert!((found - best).abs() < 1e-6, "{found} was found, {best} is there");
    }

    #[test]
    fn publishing_early_changes_nothing_of_what_is_found(weights in weights(4, 1..40), beam in 1usize..12) {
        // The same search that keeps everything to the end.
        let rows = rows(&weights);
        let online = Search::of(beam);
        let (found, mut last, mut hypotheses) = run(&online, &rows);
        let mut done = Vec::new();
        online.settle(&mut last, &mut hypotheses, &mut done);
        let symbols: Vec<u16> = found.iter().map(|(f, _)| f.class).chain(done.iter().map(|f| f.class)).collect();
        prop_assert_eq!(symbols, kept_to_the_end(&online, &rows));
    }

    #[test]
    fn no_symbol_waits_longer_than_the_lag(weights in weights(4, 1..60), beam in 1usize..12, lag in 1u64..9) {
        let rows = rows(&weights);
        let search = Search { lag, ..Search::of(beam) };
        let (mut last, mut hypotheses, mut done) = (None, Vec::new(), Vec::new());
        for (k, p) in rows.iter().enumerate() {
            search.push(&mut last, &mut hypotheses, k as u64, p, &unit(k as u64), &mut done);
            for found in hypotheses.iter().flat_map(|h| &h.symbols) {
                prop_assert!(k as u64 + 1 - found.frame <= lag);
                prop_assert!(found.start < found.end && found.end <= k as u64 + 1);
            }
            prop_assert!(!hypotheses.is_empty() && hypotheses.len() <= beam);
            let all: f64 = hypotheses.iter().map(|h| h.in_blank + h.in_symbol).sum();
            prop_assert!((all - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn greedily_a_stream_reads_as_its_likeliest_classes(weights in weights(4, 1..40)) {
        let rows = rows(&weights);
        let greedy = Transcriber { classes: 4, search: None, has_words: false };
        let best = |row: &Vec<f32>| (0..4).fold(0, |best, k| if row[k] > row[best] { k } else { best });
        let path: Vec<usize> = rows.iter().map(best).collect();
        let wanted: Vec<u32> = read(&path).into_iter().map(u32::from).collect();
        prop_assert_eq!(greedy.transcribe(&rows.concat()), wanted);
    }
}

/// A beam search that publishes nothing, over whole transcripts; written once more, with a map.
fn kept_to_the_end(search: &Search, rows: &[Vec<f32>]) -> Vec<u16> {
    let mut beam: Vec<(Vec<u16>, f64, f64)> = vec![(Vec::new(), 1.0, 0.0)];
    for row in rows {
        let y = |class: u16| f64::from(row[usize::from(class)]);
        let mut next: Vec<(Vec<u16>, f64, f64)> = Vec::new();
        for (symbols, blank, symbol) in &beam {
            let same = symbols.last().map_or(0.0, |&class| symbol * y(class));
            next.push((symbols.clone(), (blank + symbol) * y(0), same));
        }
        let mut new = Vec::new();
        for (symbols, blank, symbol) in &beam {
            for class in 1..row.len() as u16 {
                let before = if symbols.last() == Some(&class) { *blank } else { blank + symbol };
                let longer: Vec<u16> = symbols.iter().copied().chain([class]).collect();
                match next.iter_mut().find(|(symbols, ..)| *symbols == longer) {
                    Some((_, _, symbol)) => *symbol += before * y(class),
                    None if before * y(class) > 0.0 => new.push((longer, 0.0, before * y(class))),
                    None => {}
                }
            }
        }
        next.extend(new);
        next.sort_by(|a, b| (b.1 + b.2).total_cmp(&(a.1 + a.2)));
        let least = search.least_share * (next[0].1 + next[0].2);
        next.truncate(search.beam);
        next.retain(|(_, blank, symbol)| blank + symbol > 0.0 && blank + symbol >= least);
        let all: f64 = next.iter().map(|(_, blank, symbol)| blank + symbol).sum();
        next.iter_mut().for_each(|(_, blank, symbol)| (*blank, *symbol) = (*blank / all, *symbol / all));
        beam = next;
    }
    beam.swap_remove(0).0
}

#[test]
fn a_symbol_is_final_when_nothing_disputes_it() {
    let sure = |class: usize| (0..4).map(|k| if k == class { 0.997 } else { 0.001 }).collect::<Vec<f32>>();
    let torn = vec![0.01, 0.485, 0.485, 0.02];
    let search = Search { lag: 20, ..Search::of(16) };
    let rows: Vec<Vec<f32>> = [1, 1, 0, 0, 0, 3, 0, 0, 0].map(sure).to_vec();
    let (found, ..) = run(&search, &rows);
    let told: Vec<_> = found.iter().map(|(f, steps)| (f.class, f.start, f.end, *steps)).collect();
    assert_eq!(told[0].0, 1);
    assert!(told[0].1 == 0 && told[0].2 == 2 && told[0].3 <= 6, "{told:?}");
    assert!(found[0].0.score > 0.99);
    // Two symbols that are equally likely are disputed until the lag is over; then the first of them wins.
    let mut rows = vec![sure(0), torn];
    rows.extend((0..40).map(|_| sure(0)));
    let (found, ..) = run(&search, &rows);
    assert_eq!((found.len(), found[0].0.class, found[0].1), (1, 1, 22));
}

#[test]
fn what_follows_a_flush_goes_on_from_what_was_settled() {
    let sure = |class: usize| (0..3).map(|k| if k == class { 0.98 } else { 0.01 }).collect::<Vec<f32>>();
    for search in [None, Some(Search { lag: 20, ..Search::of(8) })] {
        let transcriber = Transcriber { classes: 3, search, has_words: false };
        let (mut state, mut done) = (Transcript::default(), Vec::new());
        for (k, class) in [1, 1, 0, 1].into_iter().enumerate() {
            transcriber.push(&mut state, &sure(class), &unit(k as u64), &mut done);
        }
        transcriber.settle(&mut state, &mut done);
        let classes: Vec<u16> = done.drain(..).map(|found| found.class).collect();
        assert_eq!(classes, [1, 1]);
        // The symbol lasts: it is no new one.
        for (k, class) in [1, 1, 2].into_iter().enumerate() {
            transcriber.push(&mut state, &sure(class), &unit(4 + k as u64), &mut done);
        }
        transcriber.settle(&mut state, &mut done);
        assert_eq!(done.iter().map(|found| (found.class, found.start)).collect::<Vec<_>>(), [(2, 6)]);
    }
}

#[test]
fn a_step_that_leaves_nothing_possible_says_nothing() {
    let search = Search { lag: 5, ..Search::of(4) };
    let rows = vec![vec![0.1, 0.9], vec![0.0, 0.0], vec![f32::NAN, f32::NAN], vec![1.0, 0.0], vec![1.0, 0.0]];
    assert_eq!(transcript(&search, &rows), [1]);
}
