//! From bytes to features, without the network: `cargo bench --bench encoder`. Bytes a second of records of some hundred
//! bytes, as a stream's reader takes them one after the other.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use strand::encode::{
    CharSpec, DnaSpec, Encoder, EncoderSpec, EventSpec, Features, InputFormat, ReaderState, Tokenizer, WordSpec,
};
use strand::model::testing::TEXT;

fn encode(criterion: &mut Criterion) {
    let words = |tokenizer| {
        let spec = WordSpec { tokenizer, min_count: 1, ..WordSpec::default() };
        (EncoderSpec::Words(spec), InputFormat::Text, TEXT.as_bytes().to_vec())
    };
    let japanese = "東京タワーに行く。夏目漱石は松山で英語を教えた。".repeat(8).into_bytes();
    let chars = CharSpec { min_count: 1, nfkc: true, class_dim: 4, bigram_dim: 8, ..CharSpec::default() };
    let events: Vec<String> = (0..40).map(|k| format!("\"service-{}.start\"", k % 7)).collect();
    let cases = [
        ("words, split at white space", words(Tokenizer::Whitespace)),
        ("words, UAX 29", words(Tokenizer::Uax29)),
        ("words, UD English", words(Tokenizer::UdEnglish)),
        ("characters, with classes and bigrams", (EncoderSpec::Chars(chars), InputFormat::Text, japanese)),
        ("bases, with 3-mers", {
            let spec = DnaSpec { kmers: vec![3], kmer_dims: vec![8] };
            (EncoderSpec::Dna(spec), InputFormat::Dna, b"ACGTTGCANNACGTAGGCTA".repeat(25))
        }),
        ("events", {
            let spec = EncoderSpec::Events(EventSpec::default());
            (spec, InputFormat::Tokens, format!("[{}]", events.join(",")).into_bytes())
        }),
    ];
    let mut group = criterion.benchmark_group("encode");
    for (name, (spec, format, record)) in cases {
        let text = String::from_utf8_lossy(&record).replace(['"', '[', ']', ','], " ");
        let encoder = Encoder::learn(&spec, &mut text.split_whitespace(), Path::new(".")).unwrap();
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (ReaderState::default(), Vec::new(), Features::default()),
                |(state, units, features)| encoder.push(state, format, &record, units, features).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
