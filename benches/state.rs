//! A stream's state to bytes and back, as a commit and a stream that was away need it: `cargo bench --bench state`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, layers, random_model, words_spec};
use strand::model::{Model, Output, Session, StatePrecision, Stepper};
use strand::rnn::Cell;

fn state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state of 2 LSTM");
    for hidden in [64, 256, 1024] {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &words_spec("state", layers(&[Cell::Lstm; 2], hidden)), TEXT, 1).unwrap();
        let model = Arc::new(Model::load(dir.path()).unwrap());
        for (name, precision) in [("f32", StatePrecision::F32), ("bf16", StatePrecision::Bf16)] {
            let mut session = Session::kept(&model, precision);
            session.push(&model, InputFormat::Text, TEXT.as_bytes()).unwrap();
            Stepper::new(model.clone()).step(&mut [&mut session], &mut [Output::default()]);
            let mut bytes = Vec::new();
            session.encode(&model, &mut bytes);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(BenchmarkId::new(format!("encode {name}"), hidden), |b| {
                let mut into = Vec::new();
                b.iter(|| {
                    into.clear();
                    session.encode(&model, &mut into);
                    black_box(into.len())
                });
            });
            group.bench_function(BenchmarkId::new(format!("decode {name}"), hidden), |b| {
                b.iter(|| Session::decode(&model, black_box(&bytes)).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
