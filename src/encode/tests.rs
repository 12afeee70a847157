//! What holds for every kind of encoder, tried with random input and random cuts.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// The units and features of a stream that arrives in pieces, each piece into a state that was saved and restored.
fn read(encoder: &Encoder, format: InputFormat, pieces: &[&[u8]]) -> (Vec<Unit>, Features, ReaderState) {
    let (mut state, mut units, mut features) = Default::default();
    for piece in pieces {
        let mut saved = Vec::new();
        ReaderState::encode(&state, &mut saved);
        state = ReaderState::decode(&saved).unwrap().0;
        encoder.push(&mut state, format, piece, &mut units, &mut features).unwrap();
    }
    encoder.finish(&mut state, &mut units, &mut features).unwrap();
    check_rows(encoder, &units, &features);
    (units, features, state)
}

/// Every unit has its row, and every index is in its table.
fn check_rows(encoder: &Encoder, units: &[Unit], features: &Features) {
    let layout = encoder.layout();
    assert_eq!(features.steps, units.len());
    assert_eq!(features.ids.len(), units.len() * layout.tables.len());
    assert_eq!(features.dense.len(), units.len() * layout.dense);
    assert_eq!(features.char_ends.len(), if layout.chars.is_some() { units.len() } else { 0 });
    for step in 0..features.steps {
        for (id, table) in features.ids_of(step, layout).iter().zip(&layout.tables) {
            assert!((*id as usize) < table.rows);
        }
        assert!(features.chars_of(step).iter().all(|&id| (id as usize) < layout.chars.unwrap()));
    }
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut start = 0;
    cuts.iter().map(|&cut| &bytes[std::mem::replace(&mut start, cut)..cut]).collect()
}

fn words(tokenizer: Tokenizer) -> Encoder {
    let spec = WordSpec { tokenizer, min_count: 1, ..WordSpec::default() };
    let words = "the cat don't n't do not 's well - known 東京 naïve a a a b b b é é é";
    Encoder::learn(&EncoderSpec::Words(spec), &mut words.split(' '), ".".as_ref()).unwrap()
}

fn all_encoders() -> Vec<Encoder> {
    let learn = |spec: EncoderSpec| Encoder::learn(&spec, &mut "a b c a b ä\n ä\n".split(' '), ".".as_ref()).unwrap();
    vec![
        words(Tokenizer::Uax29),
        words(Tokenizer::UdEnglish),
        words(Tokenizer::Whitespace),
        learn(EncoderSpec::Chars(CharSpec::default())),
        learn(EncoderSpec::Dna(DnaSpec::default())),
        learn(EncoderSpec::Events(EventSpec::default())),
        learn(EncoderSpec::Vector(VectorSpec { width: 2 })),
        learn(EncoderSpec::Chars(all_of_characters())),
    ]
}

/// Everything that may be looked up of a character.
fn all_of_characters() -> CharSpec {
    let (class_dim, bigram_dim, trigram_dim) = (3, 4, 5);
    CharSpec { min_count: 1, nfkc: true, class_dim, bigram_dim, trigram_dim, ngram_min_count: 1, ..CharSpec::default() }
}

/// Text with what tokenizers stumble over.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z]{1,8}",
        2 => "[ \n\t\u{a0}\u{3000}]",
        2 => "[-.,:;!?'\"’“”()\\[\\]/$%#@&*_=+<>|`~…—]{1,3}",
        1 => "[0-9]{1,5}",
        1 => prop_oneof![Just("n't"), Just("’s"), Just("http://a.b/c"), Just("U.S."), Just("cannot"), Just(":-)")]
            .prop_map(String::from),
        1 => "[東京のアー々。、가나äßéσΣ\u{301}\u{200d}👍🇩🇪㊗]{1,3}",
        1 => "[ｶﾊﾞﾟかは\u{3099}\u{309a}Ａ１！㌔𠮷ᄒ\u{1161}\u{e000}]{1,4}",
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn units_do_not_depend_on_how_text_is_cut(text in text(), cuts in vec(any::<usize>(), 0..12)) {
        for encoder in all_encoders().iter().filter(|encoder| encoder.accepts(InputFormat::Text)) {
            let whole = read(encoder, InputFormat::Text, &[text.as_bytes()]);
            prop_assert_eq!(&read(encoder, InputFormat::Text, &pieces(text.as_bytes(), &cuts)), &whole);
            let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&read(encoder, InputFormat::Text, &bytes), &whole);
        }
    }

    #[test]
    fn words_are_the_text_between_their_positions(text in text()) {
        for encoder in &all_encoders()[..4] {
            let (units, _, state) = read(encoder, InputFormat::Text, &[text.as_bytes()]);
            let chars: Vec<_> = text.chars().collect();
            let mut end = 0;
            for unit in units {
                let between: String = chars[end as usize..unit.start as usize].iter().collect();
                prop_assert!(between.trim().is_empty(), "{:?} was skipped", between);
                let covered: String = chars[unit.start as usize..unit.end as usize].iter().collect();
                prop_assert_eq!(&covered, &unit.text);
                prop_assert!(unit.start < unit.end);
                end = unit.end;
            }
            let after: String = chars[end as usize..].iter().collect();
            prop_assert!(after.trim().is_empty(), "{:?} was skipped", after);
            prop_assert_eq!(state, ReaderState { position: chars.len() as u64, ..ReaderState::default() });
        }
    }

    #[test]
    fn long_chunks_are_cut_the_same_however_they_arrive(
        chunk in "[a-z東,\u{1f600}'-]{250,800}", cuts in vec(any::<usize>(), 0..8),
    ) {
        for encoder in &all_encoders()[..3] {
            let whole = read(encoder, InputFormat::Text, &[chunk.as_bytes()]);
            prop_assert_eq!(&read(encoder, InputFormat::Text, &pieces(chunk.as_bytes(), &cuts)), &whole);
            prop_assert!(whole.0.iter().all(|unit| unit.text.chars().count() <= 256));
        }
    }

    #[test]
    fn bases_do_not_depend_on_how_dna_is_cut(text in "[ACGTacgtuUNRYn \n]{0,60}", cuts in vec(any::<usize>(), 0..8)) {
        let encoder = &all_encoders()[4];
        let whole = read(encoder, InputFormat::Dna, &[text.as_bytes()]);
        prop_assert_eq!(read(encoder, InputFormat::Dna, &pieces(text.as_bytes(), &cuts)), whole);
    }

    #[test]
    fn steps_do_not_depend_on_how_arrays_are_cut(tokens in vec("[a-c ä]{1,3}", 0..12), cuts in vec(any::<usize>(), 0..4)) {
        let encoders = all_encoders();
        let json = |tokens: &[String]| serde_json::to_vec(tokens).unwrap();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (tokens.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(tokens.len());
        for encoder in [&encoders[1], &encoders[5]] {
            let whole = json(&tokens);
            let mut start = 0;
            let records: Vec<_> =
                cuts.iter().map(|&cut| json(&tokens[std::mem::replace(&mut start, cut)..cut])).collect();
            let records: Vec<_> = records.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(encoder, InputFormat::Tokens, &records), read(encoder, InputFormat::Tokens, &[&whole]));
        }
    }

    #[test]
    fn an_error_changes_nothing(bytes in vec(any::<u8>(), 0..40), ascii in "[\\[\\]0-9,.\"a-e -]{0,20}", good in text()) {
        for encoder in &all_encoders() {
            for format in [InputFormat::Text, InputFormat::Tokens, InputFormat::Dna, InputFormat::Vector] {
                for bytes in [&bytes[..], ascii.as_bytes(), &[good.as_bytes(), &bytes].concat(), b"[[1,2],[3]]"] {
                    let (mut state, mut units, mut features) = Default::default();
                    let start: &[u8] = match encoder.format() {
                        InputFormat::Text => "ab c d\u{e9}".as_bytes().split_last().unwrap().1,
                        InputFormat::Dna => b"ACGTNACG",
                        InputFormat::Tokens => b"[\"a\"]",
                        InputFormat::Vector => b"[1, 2]",
                    };
                    encoder.push(&mut state, encoder.format(), start, &mut units, &mut features).unwrap();
                    let before = (state.clone(), units.clone(), features.clone());
                    if encoder.push(&mut state, format, bytes, &mut units, &mut features).is_err() {
                        prop_assert_eq!(&(state.clone(), units.clone(), features.clone()), &before);
                    }
                    check_rows(encoder, &units, &features);
                    let _ = encoder.finish(&mut state, &mut units, &mut features);
                    prop_assert!(state.pending.is_empty());
                    check_rows(encoder, &units, &features);
                }
            }
        }
    }

    #[test]
    fn any_decoded_state_can_be_read_on(
        pending in vec(any::<u8>(), 0..600), context in vec(any::<u8>(), 0..9), position in 0..u64::MAX / 2,
    ) {
        for encoder in &all_encoders() {
            let mut state = ReaderState { position, pending: pending.clone(), context: context.clone() };
            let (mut units, mut features) = Default::default();
            let _ = encoder.push(&mut state, encoder.format(), b"ACGTACGT", &mut units, &mut features);
            let _ = encoder.finish(&mut state, &mut units, &mut features);
            encoder.push_tokens(&mut state, &["A", "word"], &mut units, &mut features);
            check_rows(encoder, &units, &features);
        }
    }

    #[test]
    fn given_words_have_the_positions_of_their_text(tokens in vec("[a-zé,.']{1,6}", 0..10), at in any::<usize>()) {
        let encoder = words(Tokenizer::Whitespace);
        let (mut state, mut units, mut features) = Default::default();
        let (first, second) = tokens.split_at(at % (tokens.len() + 1));
        encoder.push_tokens(&mut state, first, &mut units, &mut features);
        encoder.push_tokens(&mut state, second, &mut units, &mut features);
        let text = read(&encoder, InputFormat::Text, &[tokens.join(" ").as_bytes()]);
        prop_assert_eq!((units, features), (text.0, text.1));
    }
}

fn units(encoder: &Encoder, text: &str) -> Vec<(u64, u64, String)> {
    let (units, ..) = read(encoder, InputFormat::Text, &[text.as_bytes()]);
    units.into_iter().map(|unit| (unit.start, unit.end, unit.text)).collect()
}

#[test]
fn japanese_words_do_not_wait_for_white_space() {
    let encoder = words(Tokenizer::Uax29);
    let (mut state, mut units, mut features) = Default::default();
    encoder.push(&mut state, InputFormat::Text, "東京タワーへ行く".as_bytes(), &mut units, &mut features).unwrap();
    let texts: Vec<_> = units.iter().map(|unit| unit.text.as_str()).collect();
    assert_eq!(texts, ["東", "京", "タワー", "へ", "行"]);
}

#[test]
fn positions_count_characters_and_white_space() {
    let found = units(&words(Tokenizer::Whitespace), " naïve\u{3000}東京\r\n👍");
    let expected = [(1, 6, "naïve"), (7, 9, "東京"), (11, 12, "👍")];
    assert_eq!(found, expected.map(|(start, end, text)| (start, end, text.to_string())));
}

#[test]
fn a_character_cut_off_at_the_end_is_dropped_and_the_stream_goes_on() {
    for encoder in [words(Tokenizer::UdEnglish), all_encoders().swap_remove(3)] {
        let (mut state, mut units, mut features) = Default::default();
        encoder.push(&mut state, InputFormat::Text, b"ab\xc3", &mut units, &mut features).unwrap();
        let error = encoder.finish(&mut state, &mut units, &mut features).unwrap_err();
        assert_eq!(error, InputError::InvalidUtf8 { at: 0 });
        assert_eq!(state, ReaderState { position: 2, ..ReaderState::default() });
        encoder.push(&mut state, InputFormat::Text, b"c", &mut units, &mut features).unwrap();
        encoder.finish(&mut state, &mut units, &mut features).unwrap();
        assert_eq!(units.last().unwrap(), &Unit { start: 2, end: 3, text: "c".into() });
    }
}

#[test]
fn a_model_directory_gives_the_encoder_back() {
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("names.tsv"), "Paris\t5\nMay\t2\n").unwrap();
    let spec = WordSpec { lexicon: Some("names.tsv".into()), lexicon_bits: 3, ..WordSpec::default() };
    let learned = Encoder::learn(&EncoderSpec::Words(spec), &mut "a a Paris".split(' '), dir.path()).unwrap();
    let encoders = all_encoders().into_iter().chain([learned]);
    let fingerprint = |encoder: &Encoder| {
        let mut hash = Sha256::new();
        encoder.fingerprint_into(&mut hash);
        hash.finalize()
    };
    let mut fingerprints = Vec::new();
    for encoder in encoders {
        encoder.save(dir.path()).unwrap();
        let loaded = Encoder::load(encoder.spec(), dir.path()).unwrap();
        assert_eq!(loaded.layout(), encoder.layout());
        let (mut state, mut found, mut features) = Default::default();
        let (mut state_b, mut found_b, mut features_b) = Default::default();
        let tokens = ["a", "Paris", "ä", "\n"];
        encoder.push_tokens(&mut state, &tokens, &mut found, &mut features);
        loaded.push_tokens(&mut state_b, &tokens, &mut found_b, &mut features_b);
        assert_eq!((&state, &found, &features), (&state_b, &found_b, &features_b));
        assert_eq!(fingerprint(&loaded), fingerprint(&encoder));
        fingerprints.push(fingerprint(&encoder));
        if encoder.layout().dense == 3 {
            assert_eq!(features.dense_of(1, encoder.layout()), [1.0, 0.0, 1.0]);
        }
    }
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 9);
}

#[test]
fn broken_files_are_refused_with_their_line() {
    let words = |words: &[u8], chars: &[u8], lexicon: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("words.txt"), words).unwrap();
        std::fs::write(dir.path().join("chars.txt"), chars).unwrap();
        std::fs::write(dir.path().join("lexicon.tsv"), lexicon).unwrap();
        let spec = WordSpec { lexicon: Some("x".into()), lexicon_bits: 2, ..WordSpec::default() };
        match Encoder::load(&EncoderSpec::Words(spec), dir.path()) {
            Ok(_) => "fine".to_string(),
            Err(error) => error.to_string().rsplit('/').next().unwrap().to_string(),
        }
    };
    let good: [&[u8]; 3] = [b"<UNK>\nthe\r\na\n", b"<UNK>\na\n\\n\n\xc3\xa4\n", b"Paris\t3\n"];
    assert_eq!(words(good[0], good[1], good[2]), "fine");
    assert_eq!(words(good[0], good[1], b""), "fine");
    assert_eq!(words(b"", good[1], good[2]), "words.txt:1: expected <UNK>, found \"\"");
    assert_eq!(words(b"<UNK>\na\n\nb", good[1], good[2]), "words.txt:3: an empty entry");
    assert_eq!(words(b"<UNK>\na\na", good[1], good[2]), "words.txt:3: \"a\" a second time");
    assert_eq!(words(b"<UNK>\na\nb\xff", good[1], good[2]), "words.txt:3: not valid UTF-8");
    assert_eq!(words(good[0], b"<UNK>\nab\n", good[2]), "chars.txt:2: expected one character, found \"ab\"");
    assert_eq!(words(good[0], b"a\n", good[2]), "chars.txt:1: expected <UNK>, found \"a\"");
    assert_eq!(words(good[0], good[1], b"a\t4"), "lexicon.tsv:1: flags 4 have more bits than lexicon_bits = 2");
    assert_eq!(words(good[0], good[1], b"a 4"), "lexicon.tsv:1: expected word<TAB>flags, found \"a 4\"");
    assert_eq!(words(good[0], good[1], b"a\tx\n"), "lexicon.tsv:1: flags \"x\" are no number");
    let missing = Encoder::load(&EncoderSpec::Chars(CharSpec::default()), "nowhere".as_ref()).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read nowhere/chars.txt"), "{missing}");
}

#[test]
fn absurd_specifications_are_refused() {
    let refused = |spec: EncoderSpec| Encoder::load(&spec, "nowhere".as_ref()).unwrap_err().to_string();
    let dna =
        |kmers: &[usize], dims: &[usize]| EncoderSpec::Dna(DnaSpec { kmers: kmers.into(), kmer_dims: dims.into() });
    assert_eq!(refused(dna(&[3], &[])), "[encoder]: 1 kmers, but 0 kmer_dims");
    assert_eq!(refused(dna(&[40], &[8])), "[encoder]: kmers = 40: must be at most 10");
    assert_eq!(refused(dna(&[3, 3], &[8, 8])), "[encoder]: kmers: 3 a second time");
    let vector = EncoderSpec::Vector(VectorSpec { width: 0 });
    assert_eq!(refused(vector), "[encoder]: width = 0: must be at least 1");
    let words = WordSpec { word_dim: usize::MAX, ..WordSpec::default() };
    assert!(refused(EncoderSpec::Words(words)).contains("must be at most 65536"));
}

#[test]
fn frequent_words_have_low_rows() {
    let spec = WordSpec { min_count: 2, max_words: 3, ..WordSpec::default() };
    let tokens = "B b a a a c c C d d The 10 11 12 13";
    let encoder = Encoder::learn(&EncoderSpec::Words(spec), &mut tokens.split(' '), ".".as_ref()).unwrap();
    let (mut state, mut units, mut features) = Default::default();
    encoder.push_tokens(&mut state, &["99", "A", "C", "b", "<UNK>"], &mut units, &mut features);
    let rows: Vec<_> = (0..5).map(|step| features.ids_of(step, encoder.layout())[0]).collect();
    assert_eq!(rows, [1, 2, 3, 0, 0]);
    assert!(encoder.is_unknown(features.ids_of(3, encoder.layout())));
    assert!(!encoder.is_unknown(features.ids_of(0, encoder.layout())));
    // 'a' and '1' were seen often enough, 'C' and '9' were not.
    assert_eq!(features.chars_of(1), [0]);
    assert_eq!(encoder.layout().chars, Some(3));
}

#[test]
fn a_character_is_looked_up_with_those_before_it() {
    let spec = EncoderSpec::Chars(all_of_characters());
    let encoder = Encoder::learn(&spec, &mut "東京 へ ガイド".split(' '), ".".as_ref()).unwrap();
    let names: Vec<_> = encoder.layout().tables.iter().map(|table| table.name).collect();
    assert_eq!(names, ["char", "class", "bigram", "trigram"]);
    let (units, features, state) = read(&encoder, InputFormat::Text, &["京へｶﾞｲﾄ".as_bytes(), "ﾞ".as_bytes()]);
    let whole: String = units.iter().map(|unit| unit.text.as_str()).collect();
    assert_eq!(whole, "京へｶﾞｲﾄﾞ", "units are the text's own characters");
    assert!(units.iter().all(|unit| unit.end == unit.start + 1));
    let known: Vec<[bool; 3]> = (0..units.len())
        .map(|step| {
            let ids = features.ids_of(step, encoder.layout());
            [ids[0] > 0, ids[2] > 0, ids[3] > 0]
        })
        .collect();
    let of = |step: usize| known[step];
    assert_eq!(of(0), [true, false, false]);
    assert_eq!(of(1), [true, true, false]);
    assert_eq!(of(2), [false, false, false], "カ was never seen");
    assert_eq!(of(3), [true, true, true], "ガ was");
    assert_eq!(of(6), [true, true, true], "ド too, although its mark came in another piece");
    assert_eq!(String::from_utf8(state.context).unwrap(), "ガイド");
}

#[test]
fn what_is_looked_up_of_a_character_is_saved_and_refused_where_it_is_damaged() {
    let spec = EncoderSpec::Chars(all_of_characters());
    let encoder = Encoder::learn(&spec, &mut "東京 へ ガイド".split(' '), ".".as_ref()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    encoder.save(dir.path()).unwrap();
    let loaded = Encoder::load(&spec, dir.path()).unwrap();
    let text = ["ガイドは東京へ".as_bytes()];
    assert_eq!(read(&loaded, InputFormat::Text, &text), read(&encoder, InputFormat::Text, &text));
    std::fs::write(dir.path().join("bigrams.txt"), "<UNK>\n東京\n東京\n").unwrap();
    let error = Encoder::load(&spec, dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("bigrams.txt:3: \"東京\" a second time"), "{error}");
}

#[test]
fn a_specification_without_the_new_tables_is_written_as_before() {
    let text = toml::to_string(&EncoderSpec::Chars(CharSpec::default())).unwrap();
    assert_eq!(text, "kind = \"chars\"\ndim = 64\nmin_count = 2\n");
}
