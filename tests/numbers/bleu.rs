//! BLEU against sacrebleu: golden values made by `tests/reference/sacrebleu_golden.py`.

use serde_json::Value;
use strand::score::bleu;

#[test]
fn bleu_is_sacrebleus() {
    let file: Value = serde_json::from_str(&std::fs::read_to_string("tests/golden/bleu.json").unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let texts =
            |key: &str| -> Vec<&str> { case[key].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect() };
        let (translations, references) = (texts("translations"), texts("references"));
        let found = bleu(translations.into_iter().zip(references));
        let wanted = case["bleu"].as_f64().unwrap();
        assert!((found.score - wanted).abs() < 1e-6, "{}, sacrebleu's {wanted}", found.score);
        assert!((found.brevity_penalty - case["brevity_penalty"].as_f64().unwrap()).abs() < 1e-9);
        for (own, wanted) in found.lengths.iter().zip(case["lengths"].as_array().unwrap()) {
            assert_eq!(*own, wanted.as_u64().unwrap());
        }
    }
}
